"""Each system call of the parent fails at each place: the workers that there are go on, the log says why, it is tried again."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests.faults.applications import APPLICATION
from tests.faults.running import Server, ask_state, pids, report_all, wait_until
from tests.running import python

Row = namedtuple("Row", ("call", "error", "trigger", "message"))  # noqa: PYI024 - a row of a table
"""A call that fails with an error while something happens, and what the log says."""

NONE = r"No worker could be started: {}\. The next attempt is in 0\.5 s"
ROWS = [
    Row("fork", "EAGAIN", "HUP", NONE.format("Resource temporarily unavailable")),
    Row("fork", "ENOMEM", "HUP", NONE.format("Cannot allocate memory")),
    Row("fork", "EAGAIN", "kill a worker", NONE.format("Resource temporarily unavailable")),
    Row("socketpair", "EMFILE", "HUP", NONE.format("Too many open files")),
    Row("socketpair", "ENFILE", "kill a worker", NONE.format("Too many open files in system")),
    Row("socketpair", "ENOMEM", "TERM to a worker", NONE.format("Cannot allocate memory")),
    Row("block_signals", "EINVAL", "HUP", NONE.format("Invalid argument")),
    Row("wait", "EPERM", "kill a worker", "The parent process continues after PermissionError"),
    Row("kill", "EPERM", "HUP twice", ""),
    Row("poll", "ENOMEM", "HUP", "The parent process continues after OSError: .*Cannot allocate memory"),
    Row("receive", "ENOMEM", "HUP", "The parent process continues after OSError"),
    Row("send", "ENOBUFS", "HUP", ""),
    Row("send", "ENOBUFS 1", "status", ""),
    Row("accept", "EMFILE", "status", ""),
    Row("accept", "ECONNABORTED", "status", ""),
    Row("receive", "ECONNRESET 1", "status", ""),
    Row(
        "open_append",
        "ENOSPC",
        "USR1",
        "can't be reopened: No space left on device. The server continues with the old file",
    ),
    Row("open_append", "EACCES", "USR1", "can't be reopened: Permission denied"),
    Row("duplicate", "EBUSY", "USR1", "can't be reopened: Device or resource busy"),
]
STARTS = [
    Row("socketpair", "EMFILE", "", "the system has no sockets for a parent process: Too many open files"),
    Row("open_append", "EROFS", "", "can't be written: Read-only file system"),
    Row("fork", "EAGAIN 2", "", "The next attempt is in 1 s"),
    Row("open_own", "EROFS", "", r"the pid file \S+ can't be written: Read-only file system"),
    Row("lock", "ENOLCK", "", r"the pid file \S+ can't be written: No locks available"),
    Row("write_at_start", "ENOSPC", "", r"the pid file \S+ can't be written: No space left on device"),
    Row("truncate", "EIO", "", r"the pid file \S+ can't be written: Input/output error"),
]
ENDS = [Row(call, "EIO", "TERM", "") for call in ("remove", "status", "status_of_path", "truncate", "write", "kill")]
"""Calls that fail while the service stops: it ends all the same."""


def begin(folder: Path, *words: str) -> Server:
    (folder / "main.py").write_text(APPLICATION)
    return Server(folder, "workers", command=python("-m", "tests.faults.faulty", *words))


def pull(server: Server, trigger: str, victim: int) -> None:
    """What happens while the call fails."""
    if trigger.startswith("HUP"):
        for _ in range(1 + ("twice" in trigger)):
            server.send(signal.SIGHUP)
    elif trigger == "USR1":
        server.send(signal.SIGUSR1)
    elif trigger == "status":
        ask_state(server, 1.0)
    else:
        os.kill(victim, signal.SIGKILL if trigger == "kill a worker" else signal.SIGTERM)


def goes_on(folder: Path, row: Row) -> str:
    """What goes wrong; "" if the service goes on and then does what was asked of it."""
    server = begin(folder)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        if not wait_until(lambda: len(pids(server)) == 2):  # "serving" is said when the first of them answers
            return f"{pids(server)} are its workers:\n{server.output()}"
        before = pids(server)
        (folder / f"fault-{row.call}").write_text(row.error)
        pull(server, row.trigger, before[0])
        if row.message and not server.wait_for_output(row.message):
            return f"the log does not say why:\n{server.output()}"
        if (answers := [server.get() for _ in range(5)]) != [b"ok"] * 5:
            return f"while the call fails it answers {answers}:\n{server.output()}"
        (folder / f"fault-{row.call}").unlink()
        server.send(signal.SIGHUP)
        if not server.wait_for_output("reloaded; serving main:app"):
            return f"it does not load new code afterwards:\n{server.output()}"
        after = pids(server)
        if len(after) != 2 or {*before} & {*after}:
            return f"{before} became {after}:\n{server.output()}"
        return server.stop()
    finally:
        server.end()


def ends_or_waits(folder: Path, row: Row) -> str:
    """The same where the call fails at the start."""
    (folder / f"fault-{row.call}").write_text(row.error)
    server = begin(folder)
    try:
        if not server.wait_for_output(row.message):
            return f"it does not say why:\n{server.output()}"
        if " " not in row.error:
            return "" if server.process.wait(10) in {1, 2} else f"it ends with code {server.process.returncode}"
        if not server.starts() or server.get() != b"ok":
            return f"it does not serve afterwards:\n{server.output()}"
        return server.stop()
    finally:
        server.end()


def ends(folder: Path, row: Row) -> str:
    """The same where the call fails at the end."""
    server = begin(folder)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        (folder / f"fault-{row.call}").write_text(row.error)
        fault = server.stop() or ("" if "Stopped. " in server.output() else "it does not say that it has stopped")
        return f"{fault}:\n{server.output()}" if fault or "Traceback" in server.output() else ""
    finally:
        server.end()


def check_all(folder: Path, rows: list[Row]) -> None:
    named = {f"{row.call} {row.error} {row.trigger}".strip(): row for row in rows}
    kinds = {"": ends_or_waits, "TERM": ends}
    report_all(folder, named, lambda folder, _, row: kinds.get(row.trigger, goes_on)(folder, row))


def test_a_failed_fork_and_a_failed_socketpair_do_not_end_the_service(tmp_path: Path) -> None:
    check_all(tmp_path, [ROWS[0], ROWS[4]])


@pytest.mark.slow
def test_the_service_goes_on_whichever_call_fails(tmp_path: Path) -> None:
    check_all(tmp_path, ROWS)


@pytest.mark.slow
def test_a_start_without_what_it_needs_ends_with_the_reason_or_is_tried_again(tmp_path: Path) -> None:
    check_all(tmp_path, STARTS)


@pytest.mark.slow
def test_a_service_ends_whichever_call_fails_then(tmp_path: Path) -> None:
    check_all(tmp_path, ENDS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the limits of another process")
@pytest.mark.parametrize("options", [("--workers", "2"), ("--reload",)], ids=["workers", "reload"])
def test_a_parent_without_a_free_descriptor_goes_on(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The real limit, which every call meets at once; what can't be read has not changed."""
    (tmp_path / "main.py").write_text(APPLICATION)
    server = Server(tmp_path, "serve", *options, "--pid-file", "x.pid")
    try:
        assert server.starts(), server.output()
        before = pids(server)
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        opened = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd")) + 1
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (opened, limits[1]))
        server.send(signal.SIGHUP)
        assert server.wait_for_output("No worker could be started: Too many open files"), server.output()
        assert [server.get() for _ in range(5)] == [b"ok"] * 5
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        assert server.wait_for_output("reloaded; serving main:app"), server.output()
        assert not {*before} & {*pids(server)}
        assert server.stop() == ""
    finally:
        server.end()
