"""The clock: its page, with and without script, and its events."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest

from apps.clock import app
from microwsgi.testing import Client
from tests.apps.browsers import chromium
from tests.running import LIMIT, ROOT, Running

TIME = re.compile(r"[0-2]\d:[0-5]\d:[0-5]\d")


def test_it_fits_on_a_page() -> None:
    assert len((ROOT / "apps" / "clock.py").read_text().splitlines()) <= 60


def test_the_page_has_the_time_without_any_script() -> None:
    page = Client(app).get("/").expect().text
    assert TIME.search(page.partition("<script>")[0])
    assert '<meta http-equiv="refresh"' in page
    assert "{" not in page.partition("<style>")[0]


def test_each_event_has_the_time_and_the_hands(command: Callable[..., Running]) -> None:
    url = command("serve", "apps.clock:app", "--port", "0").url()
    with urlopen(f"{url}/ticks", timeout=LIMIT) as response:  # noqa: S310 - ours
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = (line for line in response if line.startswith(b"data: "))
        first, second = (json.loads(line[6:]) for line in itertools.islice(lines, 2))
    assert list(first) == ["time", "hours", "minutes", "seconds"]
    assert first["time"] != second["time"]
    assert TIME.fullmatch(first["time"])
    seconds = int(first["time"][-2:])
    assert first["seconds"] == seconds * 6
    assert first["minutes"] == int(first["time"][3:5]) * 6 + seconds / 10
    assert first["hours"] == int(first["time"][:2]) * 30 + first["minutes"] / 12


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_a_browser_shows_it_running(command: Callable[..., Running], script: bool) -> None:
    """By its events, and without script by loading itself anew."""
    url = command("serve", "apps.clock:app", "--port", "0").url()
    faults: list[Any] = []
    with chromium() as browser:
        page = browser.new_page(java_script_enabled=script)
        page.on("pageerror", lambda fault: faults.append(fault))  # noqa: PLW0108 - it wants a function of its own
        page.goto(url)
        seen = page.locator("time").inner_text()
        page.locator("time", has_not_text=seen).wait_for(timeout=LIMIT * 1000)
        assert TIME.fullmatch(page.locator("time").inner_text())
    assert faults == []
