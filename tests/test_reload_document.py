"""docs/reload.md shows what is really said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.running import ROOT, Running

APPLICATION = """\
import helper

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(helper.VALUE).encode()]
"""


def unified(line: str) -> str:
    """Without what differs from run to run."""
    line = re.sub(r"\d+ ms", "N ms", re.sub(r"PID \d+", "PID N", re.sub(r":\d+/", ":8000/", line)))
    return re.sub(r" {2,}\(only", " (only", line)


def test_the_dialogue(command: Callable[..., Running], tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reload.md").read_text()
    shown = re.search(r"```\n\$ microwsgi serve main --reload\n(.*?)```", text, re.DOTALL)
    assert shown
    (tmp_path / "main.py").write_text(APPLICATION)
    helper = tmp_path / "helper.py"
    helper.write_text("VALUE = 1\n")
    running = command("serve", "main", "--reload", "-p", "0", cwd=tmp_path)
    running.line("Ctrl-C stops")
    helper.write_text("VALUE = 2\n")
    running.line("changed")
    helper.write_text("VALUE = = 3\n")
    running.line("Save again to retry")
    helper.write_text("VALUE = 3\n")
    running.line("fixed")
    assert list(map(unified, running.read_lines)) == list(map(unified, shown[1].splitlines()))
