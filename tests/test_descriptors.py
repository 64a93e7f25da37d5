"""The real server, out of descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.background import suspend
from tests.programs import absent
from tests.running import LIMIT, Running

REQUEST, END = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n", b"x"
"""Who is between the two is not closed for others."""
FREE, CLIENTS = 6, 30
WINDOW = 0.6
"""Seconds that are looked at for spinning: longer than it takes the server to try again."""
FULL = "Too many open files"


def served(connections: list[socket.socket], limit: float) -> list[socket.socket]:
    """Those that have a response, as soon as there is one, or after the limit none."""
    return select.select(connections, [], [], limit)[0]


def processor_seconds(pid: int) -> float:
    """As the kernel counts them for all threads: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


@pytest.mark.slow
def test_those_who_are_there_are_served_and_the_others_as_soon_as_there_is_room(
    command: Callable[..., Running], tmp_path: Path
) -> None:
    if not hasattr(resource, "prlimit"):
        absent("prlimit", "no other process's limits can be set here")
    running = command("serve", "apps.echo:app", "--port", "0", "--access-log", str(tmp_path / "access.log"))
    port = int(running.url().rpartition(":")[2])
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT))
            connection.sendall(REQUEST)
            return connection

        first = connect()
        first.sendall(END)
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        first.sendall(REQUEST)
        used = len(os.listdir(f"/proc/{running.pid}/fd"))
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (used + FREE, used + FREE))
        suspend(running.pid)  # so that no client is accepted before its request has arrived: idle ones may be closed
        waiting = [connect() for _ in range(CLIENTS)]
        running.send_signal(signal.SIGCONT)
        running.line(FULL)
        before = processor_seconds(running.pid)
        select.select([], [], [], WINDOW)
        assert processor_seconds(running.pid) - before < WINDOW / 2, "it spins"
        first.sendall(END)
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        for connection in waiting:
            connection.sendall(END)
        end = time.monotonic() + 3 * LIMIT
        while waiting:
            ready = served(waiting, LIMIT)
            assert ready, f"{len(waiting)} were not served"
            assert time.monotonic() < end
            for connection in ready:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
                connection.close()
                waiting.remove(connection)
    assert running.stop() == 0
    assert running.output.count(FULL) == 1
