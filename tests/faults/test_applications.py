"""Whatever an application does to its process when it is imported, it is served, or refused with a true message."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.faults.applications import NAMED, REFUSED, SERVED, source
from tests.faults.running import MODES, Server, report_all

FEW = ("threads that do not end", "a daemonic process", "handlers that exit", "closed standard descriptors")
"""Those of the default run; `make test-all` runs all."""


def served(folder: Path, mode: str, name: str, code: str) -> str:
    """What goes wrong; "" if nothing does."""
    (folder / "main.py").write_text(source(code))
    server = Server(folder, mode)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.said()}"
        answers = [server.get() for _ in range(3)]
        if answers != [b"ok"] * 3:
            return f"it answers {answers}:\n{server.said()}"
        if trouble := server.stop(signal.SIGINT if mode == "serve" else signal.SIGTERM):
            return f"{trouble}:\n{server.said()}"
        if mode == "serve" and not re.search(NAMED.get(name, ""), server.said()):
            return f"what keeps it is not named:\n{server.said()}"
        if mode == "serve" and "Stopped. 3 requests" not in server.said():
            return f"it does not say that it has stopped:\n{server.said()}"
    finally:
        server.end()
    return ""


def refused(folder: Path, mode: str, code: str, message: str) -> str:
    """The same for one that can't be served."""
    (folder / "main.py").write_text(source(code))
    server = Server(folder, mode)
    try:
        if mode == "dev":
            if not server.says(message):
                return f"it does not say why:\n{server.said()}"
            server.starts()
            if server.get() != b"500":
                return f"it answers {server.get()!r}:\n{server.said()}"
            return server.stop()
        if server.starts() and not server.ended():
            return f"it serves:\n{server.said()}"
        if not server.process.returncode and "Stopped at once" not in server.said():
            return f"it ends with code 0:\n{server.said()}"
        return "" if re.search(message, server.said()) else f"it does not say why:\n{server.said()}"
    finally:
        server.end()


@pytest.mark.parametrize("mode", ["serve", "workers"])
def test_some_hostile_applications_are_served(tmp_path: Path, mode: str) -> None:
    rows = {name: SERVED[name] for name in FEW}
    report_all(tmp_path, rows, lambda folder, name, code: served(folder, mode, name, code))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_hostile_applications_are_served(tmp_path: Path, mode: str) -> None:
    report_all(tmp_path, SERVED, lambda folder, name, code: served(folder, mode, name, code))


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[] if mode == "serve" else pytest.mark.slow) for mode in MODES]
)
def test_what_can_not_be_served_is_refused_with_the_reason(tmp_path: Path, mode: str) -> None:
    report_all(tmp_path, REFUSED, lambda folder, _, row: refused(folder, mode, *row))
