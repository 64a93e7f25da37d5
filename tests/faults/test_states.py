"""A child is killed or stopped in each state of `microwsgi.prefork.life`, or its parent is stopped: the service goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest

from microwsgi.prefork.life import State
from tests.background import states_of_threads, suspend
from tests.faults.running import Server, ask_state, pids, report_all, wait_until

APPLICATION = """
import atexit, os, signal, time

def wait():
    while not os.path.exists("go"):
        time.sleep(0.005)

if os.path.exists("slow-import"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else a child that is dismissed ends at once
    open("importing", "w").close()
    try:
        os.mkdir("first")
    except FileExistsError:
        wait()
if os.path.exists("slow-exit"):
    atexit.register(wait)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/gate":
        open("began", "w").close()
        wait()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
Row = namedtuple("Row", ("files", "steps"))  # noqa: PYI024 - a row of a table
"""What is in the folder beside the application, and what brings a child into the state."""
ROWS = {
    State.STARTING: Row(("slow-import", "first/"), ("HUP",)),
    State.READY: Row(("slow-import",), ("HUP",)),  # it waits for the second worker
    State.SERVING: Row((), ()),
    State.RETIRING: Row((), ("request", "HUP")),
    State.UNRESPONSIVE: Row((), ("stop a worker", "HUP")),
    State.DISMISSED: Row(("slow-import", "first/"), ("HUP", "HUP once it imports")),
    State.STOPPING: Row((), ("request", "TERM")),
    State.EXITING: Row(("slow-exit",), ("HUP",)),
}
"""CHECKING is in test_moments.py, since it takes a moment only; KILLED is the end of all that are stopped here."""


def in_state(server: Server, state: State) -> list[int]:
    """The children that are in a state."""
    workers = ask_state(server).get("workers", ())
    return [int(worker["pid"]) for worker in workers if worker["state"] == state.value]  # type: ignore[attr-defined]


def take(server: Server, step: str) -> None:
    """One step on the way to a state."""
    if step == "request":
        threading.Thread(target=server.get, args=("/gate",), daemon=True).start()
        assert wait_until((server.folder / "began").exists)
    elif step == "stop a worker":
        suspend(pids(server)[0])
    elif step == "TERM":
        server.send(signal.SIGTERM)
    else:
        if "once it imports" in step:
            assert wait_until((server.folder / "importing").exists)
        server.send(signal.SIGHUP)


def survives(folder: Path, state: State, number: int) -> str:
    """What goes wrong when a child in this state gets a signal; "" if nothing does."""
    row = ROWS[state]
    (folder / "main.py").write_text(APPLICATION)
    if "slow-exit" in row.files:
        (folder / "slow-exit").touch()
    server = Server(folder, "workers", "--pid-file", "x.pid", "--graceful-timeout", "3")
    try:
        if not server.starts() or not wait_until(lambda: len(pids(server)) == 2):
            return f"it does not serve:\n{server.output()}"
        before = pids(server)
        for name in row.files:
            (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
        for step in row.steps:
            take(server, step)
        found: list[int] = []
        if not wait_until(lambda: found or found.__iadd__(in_state(server, state))):
            return f"no child is {state.value}:\n{ask_state(server)}\n{server.output()}"
        with suppress(OSError):  # a child that is dismissed ends within a second
            os.kill(found[0], number)
            # Other threads of a stopped child run, and accept connections, until the thread that got the signal has run.
            wait_until(lambda: number != signal.SIGSTOP or states_of_threads(found[0]) <= {"T", "Z"})
        if state is not State.STOPPING:
            if (answers := [server.get(limit=5) for _ in range(5)]) != [b"ok"] * 5:
                return f"it answers {answers}:\n{server.output()}"
            (folder / "slow-import").unlink(missing_ok=True)
            (folder / "go").touch()
            server.send(signal.SIGHUP)
            if not wait_until(lambda: len(new := pids(server)) == 2 and not {*before, found[0]} & {*new}):
                return f"{before} became {pids(server)}:\n{server.output()}"
        (folder / "go").touch()
        # TERM was sent already in this state; another one may arrive when the interpreter has removed its handlers.
        if fault := server.stop(0 if state is State.STOPPING else signal.SIGTERM):
            return f"{fault}:\n{server.output()}"
        if not wait_until(lambda: not server.processes()):
            return f"processes are left: {server.processes()}:\n{server.output()}"
        return server.output() if "Traceback" in server.output() else ""
    finally:
        server.end()


def test_the_states_are_those_of_the_table() -> None:
    assert {*ROWS} == {*State} - {State.CHECKING, State.KILLED}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_is_killed_or_stopped_in_any_state_costs_nobody_the_service(tmp_path: Path, number: int) -> None:
    rows = {state.value: state for state in ROWS}
    report_all(tmp_path, rows, lambda folder, _, state: survives(folder, state, number))


@pytest.mark.slow
def test_workers_serve_while_their_parent_is_stopped_and_it_catches_up(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    server = Server(tmp_path, "workers", "--pid-file", "x.pid")
    try:
        assert server.starts(), server.output()
        assert wait_until(lambda: len(pids(server)) == 2)
        before = pids(server)
        suspend(server.pid)
        server.send(signal.SIGHUP)
        os.kill(before[0], signal.SIGTERM)
        assert [server.get() for _ in range(20)] == [b"ok"] * 20
        server.send(signal.SIGCONT)
        assert wait_until(lambda: len(new := pids(server)) == 2 and not {*before} & {*new}), server.output()
        assert server.stop() == ""
    finally:
        server.end()
