"""The site: every link on every page leads somewhere, and what is not there has a page of the site's own."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from apps.site import app
from microwsgi.testing import Client
from tests.apps.browsers import chromium
from tests.running import ROOT, Running


class Links(HTMLParser):
    """What a page links to, and shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"href", "src"} and value]


def test_it_fits_on_a_page() -> None:
    assert len((ROOT / "apps" / "site.py").read_text().splitlines()) <= 60


def test_every_link_leads_somewhere() -> None:
    client, seen, waiting = Client(app), set(), ["http://localhost/"]
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        seen.add(url)
        response = client.get(url).expect()
        if response.content_type == "text/html":
            waiting += [urljoin(url, link) for link in Links(response.text).found]
    paths = {url.removeprefix("http://localhost") for url in seen}
    assert paths >= {"/", "/brewing.html", "/style.css", "/leaf.svg", "/notes/", "/notes/2026%20spring.txt"}


def test_what_is_not_there_has_a_page_of_its_own() -> None:
    response = Client(app).get("/none").expect(404, text="There is no such page")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    for link in Links(response.text).found:
        Client(app).get(urljoin("http://localhost/none", link)).expect()
    assert Client(app).head("/none").expect(404).body == b""


@pytest.mark.slow
def test_a_browser_has_all_of_it(command: Callable[..., Running]) -> None:
    url = command("serve", "apps.site:app", "--port", "0").url()
    failed = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
        page.goto(url)
        assert page.evaluate("document.querySelector('nav img').naturalWidth") > 0
        page.click("nav >> text=Brewing")
        assert page.locator("h1").inner_text() == "Brewing"
        page.click("nav >> text=Notes")
        page.click("text=2026 spring.txt")
        assert "Longjing" in page.locator("body").inner_text()
    assert failed == []
