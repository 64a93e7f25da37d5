"""Whatever an application does to its process when it is imported, it is served, or refused with a true message."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.applications import APPLICATION, NAMED, REFUSED, SERVED, source
from tests.faults.running import MODES, Server, report_all
from tests.running import python

FEW = ("threads that do not end", "a daemonic process", "handlers that exit", "closed standard descriptors")
"""Those of the default run; `make test-all` runs all."""


def served(folder: Path, mode: str, name: str, code: str) -> str:
    """What goes wrong; "" if nothing does."""
    (folder / "main.py").write_text(source(code))
    server = Server(folder, mode)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        answers = [server.get() for _ in range(3)]
        if answers != [b"ok"] * 3:
            return f"it answers {answers}:\n{server.output()}"
        if fault := server.stop(signal.SIGINT if mode == "serve" else signal.SIGTERM):
            return f"{fault}:\n{server.output()}"
        if mode == "serve" and not re.search(NAMED.get(name, ""), server.output()):
            return f"what keeps it is not named:\n{server.output()}"
        if mode == "serve" and "Stopped. 3 requests" not in server.output():
            return f"it does not say that it has stopped:\n{server.output()}"
    finally:
        server.end()
    return ""


def refused(folder: Path, mode: str, code: str, message: str) -> str:
    """The same for one that can't be served."""
    (folder / "main.py").write_text(source(code))
    server = Server(folder, mode)
    try:
        if mode == "dev":
            if not server.wait_for_output(message):
                return f"it does not say why:\n{server.output()}"
            server.starts()
            if server.get() != b"500":
                return f"it answers {server.get()!r}:\n{server.output()}"
            return server.stop()
        if server.starts() and not server.ended():
            return f"it serves:\n{server.output()}"
        if not server.process.returncode and "Stopped immediately" not in server.output():
            return f"it ends with code 0:\n{server.output()}"
        return "" if re.search(message, server.output()) else f"it does not say why:\n{server.output()}"
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


OWN = """
import os, signal
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda *_: open("called", "w").close())
"""


def own_handler(folder: Path, mode: str) -> str:
    """What goes wrong; "" if the application's handler for TERM is called, and the server stops."""
    (folder / "main.py").write_text(source(OWN))
    server = Server(folder, mode)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        if fault := server.stop():
            return f"{fault}:\n{server.output()}"
        return "" if (folder / "called").exists() else f"the handler is not called:\n{server.output()}"
    finally:
        server.end()


@pytest.mark.slow
def test_a_handler_of_the_application_is_called_and_the_server_stops(tmp_path: Path) -> None:
    report_all(tmp_path, MODES, lambda folder, mode, _: own_handler(folder, mode))


def refused_later(folder: Path, options: tuple[str, ...], code: str, message: str) -> str:
    """What goes wrong; "" if new code is refused with the message, and the old goes on."""
    (folder / "main.py").write_text(APPLICATION)
    server = Server(folder, "serve", *options)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        (folder / "main.py").write_text(source(code))
        if "--workers" in options:
            server.send(signal.SIGHUP)
        if not server.wait_for_output(message) or not server.wait_for_output(
            "The last good version is still being served"
        ):
            return f"it does not say why:\n{server.output()}"
        if (answers := [server.get() for _ in range(3)]) != [b"ok"] * 3:
            return f"it answers {answers}:\n{server.output()}"
        (folder / "main.py").write_text(APPLICATION + "\n")
        if "--workers" in options:
            server.send(signal.SIGHUP)
        if not server.wait_for_output("; serving main:app after"):
            return f"better code is not served:\n{server.output()}"
        return server.stop()
    finally:
        server.end()


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--workers", "2"), ("--reload",)], ids=["HUP", "a save"])
def test_new_code_that_can_not_be_served_is_refused_and_the_old_goes_on(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    report_all(tmp_path, REFUSED, lambda folder, _, row: refused_later(folder, options, *row))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["serve", "dev", "workers"])
def test_an_interpreter_whose_warnings_are_errors_serves_or_says_what_it_can_not_import(
    tmp_path: Path, mode: str
) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    server = Server(tmp_path, mode, command=python("-W", "error", "-m", "microwsgi", *MODES[mode], "-p", "0"))
    try:
        if mode == "dev" and sys.version_info < (3, 13):  # WebOb imports cgi there, which is deprecated
            assert server.wait_for_output(
                "needs WebOb, which can't be imported: DeprecationWarning: 'cgi' is deprecated"
            )
            assert server.starts(), server.output()
            assert server.get() == b"500"
        else:
            assert server.starts(), server.output()
            assert server.get() == b"ok"
        assert server.stop() == ""
    finally:
        server.end()


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--workers", "2"), ("--reload",)], ids=["workers", "reload"])
def test_a_service_whose_folder_is_gone_loads_new_code(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As that of a release that was replaced and removed."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text(APPLICATION)
    (tmp_path / "here").mkdir()
    files = ("--app-dir", str(tmp_path / "code"), "--pid-file", str(tmp_path / "x.pid"), "--access-log", "off")
    server = Server(tmp_path / "here", "serve", *options, *files)
    out = tmp_path / "out"
    (tmp_path / "here" / "out").rename(out)
    server.folder = tmp_path
    try:
        assert server.starts(), server.output()
        (tmp_path / "here" / "access").unlink(missing_ok=True)
        (tmp_path / "here").rmdir()
        for number in (1, 2):
            server.send(signal.SIGHUP)
            assert server.wait_for_output(rf"(?s)(reloaded; serving.*){{{number}}}"), server.output()
        assert server.get() == b"ok"
        assert "Traceback" not in server.output()
        assert server.stop() == ""
    finally:
        server.end()
