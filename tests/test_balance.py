"""Connections are balanced over workers, and a worker that is stopped delays no client for long."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from microwsgi.server.balance import MAX_DEFERRALS, Balance
from tests.background import suspend
from tests.running import LIMIT, Running

Command = Callable[..., Running]

APPLICATION = """\
import os

def app(environ, start_response):
    body = b"%d\\n" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
KEPT = 16
STARTS = 12
MOST = 0.65 * KEPT
"""Connections of the busier worker. With one accept for each poll and no balance it had up to all 16."""
PROMPT = 1.0
"""Seconds for a response while a worker is stopped: far more than deferrals take, for a busy machine."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APPLICATION)
    return tmp_path


def connect(address: str, stack: ExitStack) -> socket.socket:
    host, _, port = address.partition(":")
    return stack.enter_context(socket.create_connection((host, int(port)), LIMIT))


def worker_of(connection: socket.socket, field: bytes = b"") -> int:
    """The process that answers on a connection."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n")
    data = b""
    while not data.endswith(b"\n") or data.endswith(b"\r\n"):
        piece = connection.recv(4096)
        assert piece, f"closed after {data!r}"
        data += piece
    return int(data.rpartition(b"\r\n\r\n")[2])


def wait_for_both(address: str) -> set[int]:
    """Hold connections until each of two workers has one; then have the workers close them, so that these count no longer."""
    end = time.monotonic() + LIMIT
    found: set[int] = set()
    with ExitStack() as stack:
        held = []
        while len(found) < 2:
            assert time.monotonic() < end, f"only {found} answers"
            held.append(connect(address, stack))
            found.add(worker_of(held[-1]))
        for each in held:
            worker_of(each, b"Connection: close\r\n")
            assert each.recv(1) == b""
    return found


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", [True, False], ids=["one by one", "at once"])
def test_kept_connections_are_balanced_in_every_start(command: Command, folder: Path, one_by_one: bool) -> None:
    splits = []
    for _ in range(STARTS):
        running = command("serve", "main:app", "-p", "0", "--workers", "2", "--access-log", "off", cwd=folder)
        address = running.url().partition("://")[2]
        wait_for_both(address)
        with ExitStack() as stack:
            if one_by_one:
                counts = Counter(worker_of(connect(address, stack)) for _ in range(KEPT))
            else:
                connections = [connect(address, stack) for _ in range(KEPT)]
                counts = Counter(map(worker_of, connections))
        splits.append(max(counts.values()))
        assert running.stop() == 0
    assert max(splits) <= MOST, splits


@pytest.mark.slow
def test_a_stopped_worker_does_not_delay_clients(command: Command, folder: Path) -> None:
    """The other worker has all connections then, and more than the stopped one; it defers accepting only for a moment."""
    running = command("serve", "main:app", "-p", "0", "--workers", "2", "--access-log", "off", cwd=folder)
    address = running.url().partition("://")[2]
    stopped, other = wait_for_both(address)
    with ExitStack() as stack:
        suspend(stopped)
        try:
            for _ in range(3 * MAX_DEFERRALS):
                began = time.monotonic()
                assert worker_of(connect(address, stack)) == other
                assert time.monotonic() - began < PROMPT
        finally:
            os.kill(stopped, signal.SIGCONT)
        end = time.monotonic() + LIMIT
        while worker_of(connect(address, stack)) != stopped:
            assert time.monotonic() < end, "the worker gets no connections after it was continued"
    assert running.stop() == 0


def table(*counts: int) -> tuple[memoryview, list[Balance]]:
    """A table of workers that have so many connections."""
    made = memoryview(bytearray(8 * (len(counts) + 1))).cast("Q")
    workers = [Balance(made, slot) for slot in range(len(counts))]
    for worker, count in zip(workers, counts, strict=True):
        worker.publish(count)
    return made, workers


def test_a_worker_defers_only_if_another_has_fewer_connections() -> None:
    _, (first, second) = table(1, 0)
    assert not second.deferral(0)
    assert first.deferral(1)
    second.publish(1)
    assert not first.deferral(1)


def test_a_worker_that_left_or_a_place_without_one_does_not_count() -> None:
    _, (first, second) = table(5, 0)
    second.leave()
    assert not first.deferral(5)


def test_with_many_connections_a_small_difference_is_no_reason_to_defer() -> None:
    _, (first, _) = table(112, 100)
    assert not first.deferral(112)
    assert first.deferral(113)


def test_a_worker_that_does_nothing_is_waited_for_before_each_connection_until_it_has_been_in_vain_too_often() -> None:
    _, (first, second) = table(1, 0)
    for _ in range(MAX_DEFERRALS):
        assert first.deferral(1)
        assert not first.deferral(1), "deferred twice for one connection"
    assert not first.deferral(1)
    second.publish(0)
    assert first.deferral(1), "the worker does something again"
