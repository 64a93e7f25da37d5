"""Chromium: 200 MB up and down, revalidation by its cache, an event stream over a reload, 100 at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.compat.client import LIMIT, Site
from tests.compat.products import framework

PACKAGES = ["playwright"]
PROGRAMS = ["chromium"]
PAGE = """<!doctype html><title>page</title><form method=post enctype=multipart/form-data action=/save-form>
<input type=file name=file></form><script src=/counted.js></script><script>
window.got = []; new EventSource("/news").onmessage = event => got.push(event.data);</script>"""


def application(folder: Path) -> Any:
    app = framework.application(folder)
    from microwsgi import Request, Response
    from microwsgi.events import Broadcaster

    news = Broadcaster(history=100, name="news")
    counts = folder / "count"

    @app.get("/page")
    def page(request: Request) -> str:
        return PAGE

    @app.get("/counted.js")
    def counted(request: Request) -> Any:
        with counts.open("a") as file:
            file.write("304\n" if request.headers.get("If-None-Match") == '"a"' else "200\n")
        response = Response(text="window.loaded = 1", content_type="text/javascript", conditional_response=True)
        response.etag = "a"
        response.cache_control = "no-cache"
        return response

    @app.get("/news")
    def listen(request: Request) -> Any:
        return news.listen(request)

    @app.post("/tell")
    def tell(request: Request) -> None:
        news.send(request.body.decode())

    return app


@contextmanager
def browser(site: Site) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        started = play.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = started.new_page(ignore_https_errors=True)
        page.set_default_timeout(LIMIT * 1000)
        page.goto(f"{site.url}/page")
        yield page
        started.close()


def check_upload_and_download(site: Site) -> Any:
    """A fetch with 200 MB from a Blob, and the same file back."""
    script = """async name => {
        const blob = new Blob(Array.from({length: 200}, (_, i) => new Uint8Array(1000000).fill(i)));
        const put = await fetch("/save/" + name, {method: "PUT", body: blob});
        const back = await (await fetch("/static/" + name)).arrayBuffer();
        const view = new Uint8Array(back);
        return [put.status, back.byteLength, view[0], view[150999999], view[199999999]];
    }"""
    with browser(site) as page:
        found = page.evaluate(script, f"c{site.port}.bin")
    (site.folder / "static" / f"c{site.port}.bin").unlink()
    return found


def check_revalidation(site: Site) -> Any:
    (site.folder / "count").write_text("")
    with browser(site) as page:
        page.goto(f"{site.url}/page")
        page.wait_for_function("window.loaded")
    return (site.folder / "count").read_text().split()


def check_event_stream_over_a_reload(site: Site) -> Any:
    found = []
    with browser(site) as page:
        for text in ("one", "two"):
            page.wait_for_function("window.got")
            page.evaluate("""() => new Promise(done => {
                const source = new EventSource("/news"); source.onopen = () => { source.close(); done(); } })""")
            page.evaluate("text => fetch('/tell', {method: 'POST', body: text})", text)
            page.wait_for_function("text => got.includes(text)", arg=text, timeout=15_000)
            found.append(page.evaluate("got.includes('one') || got.includes('two')"))
            page.reload()
    return found


def check_a_hundred_at_once(site: Site) -> Any:
    script = """async () => (await Promise.all(Array.from({length: 100}, async (_, i) =>
        (await (await fetch("/echo/" + i)).json()).name == i))).every(x => x)"""
    with browser(site) as page:
        return page.evaluate(script)
