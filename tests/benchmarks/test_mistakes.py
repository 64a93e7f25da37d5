"""benchmarks/mistakes.py: docs/mistakes.md shows the actual output of microwsgi."""

from __future__ import annotations

import re

import pytest

from benchmarks.mistakes import MISTAKES, SERVERS, clean, render
from tests.running import ROOT

PAGE = (ROOT / "docs" / "mistakes.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("title", MISTAKES)
def test_the_page_shows_the_current_output(title: str) -> None:
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    ours = section.partition("### microwsgi dev\n\n")[2].partition("\n\n###")[0]
    observation = MISTAKES[title](SERVERS[0])
    assert render(observation._replace(answered="", repaired="")) == ours.partition("\n\nThe browser")[0]
    assert (
        f"After the repair: {observation.repaired}" in ours if observation.repaired else "After the repair" not in ours
    )


def test_the_page_is_complete_and_contains_no_local_paths() -> None:
    for title in MISTAKES:
        section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
        assert re.findall("^### (.*)$", section, re.MULTILINE) == [server.name for server in SERVERS], title
    assert not re.search(r"/(root|tmp|work|home)/", PAGE)


def test_what_differs_between_runs_is_replaced() -> None:
    class Running:
        folder, port = "/tmp/mistakes-x", 40000  # noqa: S108 - written, not made

    rows = {
        'File "/tmp/mistakes-x/hello.py", line 3': 'File "~/project/hello.py", line 3',
        "http://127.0.0.1:40000/": "http://127.0.0.1:8000/",
        'File "/opt/v/lib/python3.11/site-packages/flask/app.py", line 1': 'File ".../flask/app.py", line 1',
        '127.0.0.1:51234 "GET / HTTP/1.1" failed (1f2e3d4c):': '127.0.0.1:50000 "GET / HTTP/1.1" failed (1a2b3c4d):',
        "\x1b[31mError\x1b[0m": "Error",
        "port 40000 is in use; 51234 is free": "port 8000 is in use; 8001 is free",
        "  Try:  microwsgi dev hello:app -p 51234": "  Try:  microwsgi dev hello:app -p 8001",
        '127.0.0.1 - - [28/Nov/2026:12:13:14 +0000] "GET / HTTP/1.1" 200 5': '127.0.0.1 - - [TIME] "GET / HTTP/1.1" 200 5',
    }
    assert clean(Running(), list(rows)) == list(rows.values())  # type: ignore[arg-type]
