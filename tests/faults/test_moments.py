"""A child is stopped or killed at each moment of its life, and so is nobody's service."""

from __future__ import annotations

import http.client
import os
import pty
import signal
import socket
import subprocess
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from microwsgi.prefork.life import TABLE, Deadline, State
from tests.background import suspend
from tests.faults.applications import APPLICATION
from tests.faults.running import LIMIT, Server, ask_state, pids, report_all, wait_until
from tests.running import environment, microwsgi

GATED = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/gate":
        open("began", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
AT_IMPORT = """
import os, signal, time
if os.path.exists("fault"):
    os.kill(os.getpid(), signal.{signal})
    time.sleep(0.05)
"""
AT_CHECK = """
import os, signal, threading, time
def wait():
    while not any(thread.name == "microwsgi-check" for thread in threading.enumerate()):
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.{signal})
if os.path.exists("fault"):
    threading.Thread(target=wait, daemon=True).start()
"""
Row = namedtuple("Row", ("mode", "code", "signal", "message", "then"))  # noqa: PYI024 - a row of a table
"""When a new child gets a signal, which one, what is said of it, and what happens afterwards with the cause removed."""
ROWS = {
    "killed while it imports": Row("workers", AT_IMPORT, "SIGKILL", "ended|was killed by SIGKILL", "HUP"),
    "stopped while it imports": Row("workers", AT_IMPORT, "SIGSTOP", "", "HUP"),
    "TERM while it imports": Row("workers", AT_IMPORT, "SIGTERM", "was killed by SIGTERM", "HUP"),
    "killed while it answers its own request": Row("workers", AT_CHECK, "SIGKILL", "was killed by SIGKILL", "wait"),
    "stopped while it answers its own request": Row("workers", AT_CHECK, "SIGSTOP", "does not answer", "wait"),
    "killed while a reloader's child imports": Row("dev", AT_IMPORT, "SIGKILL", "was killed by SIGKILL", "HUP"),
    "stopped while a reloader's child imports": Row("dev", AT_IMPORT, "SIGSTOP", "", "HUP"),
}


def at_a_moment(folder: Path, row: Row) -> str:
    """What goes wrong; "" if the old child serves meanwhile, and new code afterwards."""
    (folder / "main.py").write_text(row.code.format(signal=row.signal) + APPLICATION)
    options = ["--no-reload-error-page"] if row.mode == "dev" else []  # the old code serves until the new one does
    server = Server(folder, row.mode, "--pid-file", "x.pid", "--graceful-timeout", "1", *options)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        before = pids(server)
        (folder / "fault").touch()
        server.send(signal.SIGHUP)
        if row.message and not server.wait_for_output(row.message):
            return f"nothing is said of it:\n{server.output()}"
        answers = [server.get(limit=5) for _ in range(5)]
        killed = (
            server.output().count("was killed by SIGKILL") if row.code is AT_CHECK else 0
        )  # with what they had accepted
        if answers.count(b"ok") < len(answers) - killed:
            return f"meanwhile it answers {answers}:\n{server.output()}"
        (folder / "fault").unlink()
        if row.then == "HUP":
            server.send(signal.SIGHUP)
        if not server.wait_for_output("reloaded; serving main:app"):
            return f"new code is not served:\n{server.output()}"
        if not wait_until(lambda: pids(server) and not {*before} & {*pids(server)}):
            return f"old workers serve:\n{server.output()}"
        return server.stop()
    finally:
        server.end()


def test_a_child_that_is_killed_or_stopped_while_it_imports_does_not_matter(tmp_path: Path) -> None:
    few = {name: ROWS[name] for name in list(ROWS)[:2]}
    report_all(tmp_path, few, lambda folder, _, row: at_a_moment(folder, row))


@pytest.mark.slow
def test_a_child_that_is_killed_or_stopped_at_any_moment_does_not_matter(tmp_path: Path) -> None:
    report_all(tmp_path, ROWS, lambda folder, _, row: at_a_moment(folder, row))


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(GATED)
    return tmp_path


def test_a_parent_is_not_blocked_by_a_child_that_reads_nothing(gated: Path) -> None:
    """Questions by the hundred, which would fill the channel of a stopped worker; then TERM."""
    server = Server(gated, "workers", "--pid-file", "x.pid", "--graceful-timeout", "0.5")
    try:
        assert server.starts(), server.output()
        suspend(pids(server)[0])
        for _ in range(600):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(gated / "x.sock"))
                client.sendall(b"state\n")
        assert ask_state(server)["pid"] == server.pid
        assert server.stop() == ""
        assert "has not ended after 0.5 s of --graceful-timeout, and is killed" in server.output()
    finally:
        server.end()


def test_clients_of_the_control_socket_that_say_nothing_do_not_delay_a_stop(gated: Path) -> None:
    server = Server(gated, "workers", "--pid-file", "x.pid")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        assert server.starts(), server.output()
        for client in clients:
            client.connect(str(gated / "x.sock"))
        assert ask_state(server)["pid"] == server.pid
        begin = time.monotonic()
        assert server.stop() == ""
        assert time.monotonic() - begin < LIMIT / 2
    finally:
        for client in clients:
            client.close()
        server.end()


@pytest.mark.slow
def test_a_retired_child_that_does_not_react_is_reported_and_does_not_hold_up_the_new_code(gated: Path) -> None:
    """What systemd is told follows: see test_service.py."""
    server = Server(gated, "workers", "--pid-file", "x.pid", "--graceful-timeout", "0.5")
    try:
        assert server.starts(), server.output()
        suspend(pids(server)[0])
        server.send(signal.SIGHUP)
        assert server.wait_for_output("with the old code, does not respond")
        assert server.wait_for_output("reloaded; serving main:app")
        assert server.stop() == ""
    finally:
        server.end()


@pytest.mark.slow
def test_saves_with_an_exit_handler_that_hangs_leave_no_processes(tmp_path: Path) -> None:
    code = "import atexit, time\natexit.register(time.sleep, 1e6)\n" + APPLICATION
    (tmp_path / "main.py").write_text(code)
    server = Server(tmp_path, "dev", "--pid-file", "x.pid")
    try:
        assert server.starts(), server.output()
        for number in range(5):
            (tmp_path / "main.py").write_text(f"{code}\nNUMBER = {number}\n")
            assert wait_until(lambda number=number: server.output().count("changed: main.py; serving") > number)  # type: ignore[misc]
        assert wait_until(lambda: len(ask_state(server)["workers"]) == 1), server.output()  # type: ignore[arg-type]
        assert server.output().count("has served its last request and is still running after 3 s") == 5
        assert server.stop() == ""
    finally:
        server.end()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "a parent"])
def test_a_closed_terminal_is_one_event_though_hup_comes_twice(gated: Path, options: tuple[str, ...]) -> None:
    """The kernel and the shell each send HUP: what runs is finished all the same."""
    ours, theirs = pty.openpty()
    command = microwsgi("serve", "main:app", "-p", "0", "--graceful-timeout", "15", *options)
    process = subprocess.Popen(
        command, cwd=gated, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(ours, 4096)
        port = int(said.split(b"http://127.0.0.1:")[1].split(b"/")[0])
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(fetch, port, "/gate")
            assert wait_until((gated / "began").exists)
            os.close(ours)
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.05)  # the shell's does not come at the same moment
            assert process.poll() is None
            (gated / "go").touch()
            assert slow.result(LIMIT) == b"ok"
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fetch(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("options", [(), ("--workers", "1", "--pid-file", "x.pid")], ids=["one process", "a parent"])
def test_a_terminal_that_takes_no_output_does_not_block_what_handles_signals(
    gated: Path, options: tuple[str, ...]
) -> None:
    """A pipe that nobody reads, full: something is said with each HUP, and TERM ends it."""
    reader, writer = os.pipe()
    command = microwsgi("serve", "main:app", "-p", "0", "--access-log", "off", *options)
    process = subprocess.Popen(command, cwd=gated, env=environment(), stdin=subprocess.DEVNULL, stderr=writer)
    try:
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(reader, 4096)
        port = int(said.split(b"http://127.0.0.1:")[1].split(b"/")[0])
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            assert fetch(port, "/") == b"ok"
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: not accepts(port)), "it does not stop before somebody reads"
        assert process.wait(LIMIT) == 0
    finally:
        os.close(writer)
        os.close(reader)
        process.kill()
        process.wait()


def test_each_state_that_is_waited_for_has_a_deadline() -> None:
    free = {State.READY, State.SERVING, State.RETIRING}  # nothing is waited for; an import and a request may take long
    for events in TABLE.values():
        for step in events.values():
            assert step.deadline is not Deadline.NONE or step.state in free, step
    for state in State:
        if state not in {State.STARTING, State.READY, State.SERVING}:
            assert any("deadline" in event.value for event in TABLE[state]), state
