"""Children that the application forks are no servers: default signal handlers, and none of the server's descriptors."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.faults.running import LIMIT, MODES, Server, report_all, wait_until

APPLICATION = """
import multiprocessing, os, signal, socket, time
context = multiprocessing.get_context("fork")

def forever():
    while True:
        time.sleep(0.1)

def describe(queue):
    listening = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as copy:
                listening += copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            continue
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)]
    handlers = [getattr(each, "__name__", str(int(each)) if isinstance(each, int) else each) for each in handlers]
    queue.put((handlers, listening, signal.set_wakeup_fd(-1)))

def app(environ, start_response):
    what = environ["PATH_INFO"][1:]
    if what == "terminate":
        process = context.Process(target=forever)
        process.start()
        process.terminate()
        process.join(5)
        body = str(process.exitcode)
    elif what == "daemon":
        process = context.Process(target=forever, daemon=True)
        process.start()
        body = str(process.pid)
    elif what == "pool":
        with context.Pool(2) as pool:
            body = str(pool.map(abs, [-1, -2]))
    elif what == "own":
        before = signal.getsignal(signal.SIGUSR1)
        queue = context.SimpleQueue()
        process = context.Process(target=describe, args=(queue,))
        process.start()
        body = repr(queue.get())
        process.join()
    elif what == "left":
        pid = os.fork()
        if not pid:
            time.sleep(30)
            os._exit(0)
        open("left", "w").write(str(pid))
        body = str(pid)
    else:
        body = "ok"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
"""
EXPECTED = {"/terminate": "-15", "/pool": "[1, 2]", "/own": "(['0', 'default_int_handler', '0', '0'], 0, -1)"}
"""Of TERM, INT, HUP and USR1; how many sockets listen; the descriptor that signals wake."""


def children(folder: Path, mode: str) -> str:
    """What goes wrong; "" if nothing does."""
    (folder / "main.py").write_text(APPLICATION)
    server = Server(folder, mode)
    try:
        if not server.starts():
            return f"it does not serve:\n{server.output()}"
        answers = {path: server.get(path).decode() for path in EXPECTED}
        if answers != EXPECTED:
            return f"children of the application have {answers}"
        daemon, left = int(server.get("/daemon")), int(server.get("/left"))
        if fault := server.stop(signal.SIGINT if mode in {"serve", "dev"} else signal.SIGTERM):
            return f"{fault}, with children:\n{server.output()}"
        if not wait_until(lambda: gone(daemon), LIMIT):
            return "a daemonic child outlives the server"
        if gone(left):
            return "a child that the application has forked has ended, which is the application's to do"
        os.kill(left, signal.SIGKILL)
    finally:
        server.end()
    return ""


def gone(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_children_of_an_application_end_when_they_are_told_and_keep_no_port(tmp_path: Path) -> None:
    report_all(tmp_path, MODES, lambda folder, mode, _: children(folder, mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["serve", "workers"])
def test_a_client_does_not_wait_for_a_child_that_has_its_connection(tmp_path: Path, mode: str) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    server = Server(tmp_path, mode)
    try:
        assert server.starts(), server.output()
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT / 4) as client:
            client.sendall(b"GET /left HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    finally:
        server.end()
