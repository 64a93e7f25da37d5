"""Crowds of clients that wait, trickle and vanish, beside clients that behave: nothing changes for those."""

from __future__ import annotations

import os
import re
import resource
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.clients.exchange import Request
from benchmarks.measuring import Client
from benchmarks.processes import CLIENT_CORES, Process, Server
from tests.programs import absent
from tests.running import Running
from tests.server.exchange import parse
from tests.server.test_handler import leave_nothing_behind

pytestmark = pytest.mark.soak

Figure = Callable[[str, str, str], None]

CROWD = 5000
"""Clients of each kind."""
BESIDE, RATE, SECONDS = 50, 500, 4.0
"""Connections that behave, their requests per second in all, and how long they are measured."""
MEMORY = 6.0
"""KiB of the server for each waiting connection."""


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """`microwsgi serve` with its access log in a file."""
    command = [sys.executable, "-m", "microwsgi", "serve", "benchmarks.subjects.hello:app", "--port", "0"]
    with Server([*command, "--access-log", str(folder / "access.log"), *options]) as server:
        yield server


@contextmanager
def crowd(server: Server, *kinds: str) -> Iterator[None]:
    """Waiting clients of each kind, in processes of their own."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "benchmarks.clients.idle", str(server.port), str(CROWD)]
        for kind in kinds:
            process = stack.enter_context(Process([*command, kind], CLIENT_CORES, piped=True))
            assert process.popen.stdout is not None
            assert process.popen.stdout.readline() == b"open\n", process.error_line()
        yield


def median_latency(client: Client, server: Server) -> float:
    """Milliseconds, from when a request was meant to leave."""
    request = Request("/hello", expect="Hello")
    found = client.run(server, request, BESIDE, SECONDS, rate=RATE, warm_up=0.3)
    return statistics.median(found.latencies) / 1e6


def test_crowds_that_wait_change_nothing_for_the_others(tmp_path: Path, figure: Figure) -> None:
    """Half of them have sent half a head, the others one request. Three rounds, in each alone and beside the crowd."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CROWD + 500:
        absent("descriptors", f"a process may have {hard} descriptors here, which is not enough")
    with serving(tmp_path, "--header-timeout", "600", "--keep-alive-timeout", "600") as server, Client() as client:
        median_latency(client, server)  # its threads are there
        ratios, sizes = [], []
        for _ in range(3):
            alone = median_latency(client, server)
            before, threads, descriptors = server.resident_kib(), server.thread_count(), server.descriptors()
            with crowd(server, "half", "idle"):
                sizes.append((server.resident_kib() - before) / (2 * CROWD))
                beside = median_latency(client, server)
                assert server.descriptors() >= descriptors + 2 * CROWD
                assert server.thread_count() == threads
            ratios.append(beside / alone)
            limit = time.monotonic() + 20
            while server.descriptors() > descriptors:
                assert time.monotonic() < limit, "connections of clients that left are still open"
                os.sched_yield()
        figure(
            f"median latency of {BESIDE} clients beside {2 * CROWD:,} that wait, by alone",
            f"{statistics.median(ratios):.2f}",
            "at most 2",
        )
        # The first round's: later ones find the memory that it has left.
        figure("memory for each that waits", f"{max(sizes):.2f} KiB", f"less than {MEMORY:.0f} KiB")
        figure("threads", f"{threads}, and {threads} beside the crowd", "the same")
        assert statistics.median(ratios) <= 2
        assert max(sizes) < MEMORY


def test_clients_that_vanish_leave_nothing_behind(figure: Figure) -> None:
    start = time.monotonic()
    leave_nothing_behind(10_000)
    seconds = time.monotonic() - start
    figure("clients that vanished, and left nothing", f"10,000 in {seconds:.0f} s", "no thread, descriptor, object")


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 1000
BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
TRICKLE = 1.0
"""Seconds between two octets."""


class Trickler:
    """A client that sends an octet a second, or reads one."""

    def __init__(self, address: tuple[str, int], sent: bytes, rest: bytes) -> None:
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.connect(address)
        self.port = self.connection.getsockname()[1]
        self.connection.sendall(sent)
        self.connection.setblocking(False)
        self.rest = rest
        self.start = time.monotonic()
        self.ended = 0.0
        self.received = b""

    def step(self) -> None:
        """The next octet. A reader is told of the end by an error: what it has received already would last for hours."""
        try:
            piece = b""
            if not self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.connection.send(self.rest[:1])
                self.rest = self.rest[1:]
                piece = self.connection.recv(65536 if self.rest else 1)
            self.received += piece
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.ended = time.monotonic() - self.start
            self.connection.close()


@pytest.mark.parametrize(
    ("kind", "limit", "reason"),
    [("half a head", 10, "header_timeout"), ("half a body", 20, "body_timeout"), ("a reader", 20, "send_timeout")],
)
def test_a_trickle_is_ended_by_a_total_limit(
    kind: str, limit: int, reason: str, command: Callable[..., Running], tmp_path: Path, figure: Figure
) -> None:
    """With the limits that users have: an octet a second is not a sign of life."""
    (tmp_path / "big.py").write_text(
        "def app(environ, start_response):\n"
        "    environ['wsgi.input'].read()\n"
        "    start_response('200 OK', [])\n"
        "    return [bytes(1 << 26)]\n"
    )
    running = command("serve", "big:app", "--port", "0", "--access-log", "access.log", cwd=tmp_path)
    port = int(running.url().rpartition(":")[2])
    sent, rest = {
        "half a head": (b"", HEAD),
        "half a body": (BODY, bytes(1000)),
        "a reader": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    }[kind]
    clients = [Trickler(("127.0.0.1", port), sent, rest) for _ in range(20)]
    end = time.monotonic() + 3 * limit
    with selectors.DefaultSelector() as nothing:
        while waiting := [client for client in clients if not client.ended]:
            assert time.monotonic() < end, f"{len(waiting)} of {kind} still there after {3 * limit} s"
            for client in waiting:
                client.step()
            nothing.select(TRICKLE)
    longest = max(client.ended for client in clients)
    for client in clients:
        assert limit - 1 < client.ended < limit + 5
        if kind != "a reader":
            assert [response.status for response in parse(client.received)] == [408]
    running.stop()
    log = running.output
    for client in clients:
        assert len(re.findall(rf"^127\.0\.0\.1:{client.port} .*{reason}", log, re.MULTILINE)) == 1
    figure(f"{kind}, an octet a second, is ended after", f"{longest:.1f} s", f"{limit} s, and a second's grain")
