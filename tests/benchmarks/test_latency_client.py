"""The load generator: the end of a response, and the measured latency."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from benchmarks import wrk
from benchmarks.clients.exchange import Request, Response
from benchmarks.clients.latency import Load, run
from benchmarks.confidence import percentile
from benchmarks.measuring import Client
from benchmarks.processes import Server, Unavailable
from benchmarks.servers import SERVERS
from tests.background import free_port

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package

WAITING = "benchmarks.subjects.waiting:app"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def waiting_server() -> Iterator[Server]:
    with Server(SERVERS["microwsgi"].command(sys.executable, WAITING, "0", 0, "off")) as server:
        yield server


# --- the end of a response --------------------------------------------------------------------------------------------

CASES = {
    "length": (OK, 200, True),
    "nothing": (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n",
        200,
        True,
    ),
    "chunked, empty": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, True),
    "closing": (b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", 500, False),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, False),
    "old, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 200, True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_response_is_complete_with_its_last_byte(case: str) -> None:
    octets, status, keep_alive = CASES[case]
    response = Response()
    for number in range(len(octets)):
        assert response.feed(octets[number : number + 1]) is (number == len(octets) - 1)
    assert (response.status, response.keep_alive) == (status, keep_alive)
    whole = Response()
    assert whole.feed(octets)


def test_a_response_without_a_length_ends_when_the_server_closes() -> None:
    response = Response()
    assert not response.feed(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert response.feed(b"")
    response.check(Request(expect="hello"))


@pytest.mark.parametrize("octets", [b"", b"HTTP/1.1 20", OK[:-1]])
def test_a_truncated_response_is_an_error(octets: bytes) -> None:
    response = Response()
    if octets:
        assert not response.feed(octets)
    with pytest.raises(ConnectionError, match="before the response was complete"):
        response.feed(b"")


def test_an_unexpected_response_is_an_error() -> None:
    response = Response()
    response.feed(OK)
    response.check(Request(expect="hell"))
    for request in (Request(expect="bye"), Request(status=500)):
        with pytest.raises(ValueError, match="response 200"):
            response.check(request)


def test_a_request_is_sent_with_content_length_or_in_chunks() -> None:
    by_length = Request("/a?b", "POST", (("X", "y"),), "body").encode(close=False)
    assert by_length == b"POST /a?b HTTP/1.1\r\nHost: 127.0.0.1\r\nX: y\r\nContent-Length: 4\r\n\r\nbody"
    chunked = Request(method="POST", body="hello", chunk=3).encode(close=True)
    assert chunked.endswith(b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


# --- known latencies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"keep_alive": False}, {"rate": 15.0}])
def test_a_known_delay_is_measured_within_five_percent(how: dict[str, float]) -> None:
    with waiting_server() as server, Client() as client:
        found = client.run(server, Request("/sleep/50", expect="done"), 2, 1.0, **how)  # type: ignore[arg-type]  # by name
    assert percentile(found.latencies, 0.5) / 1e9 == pytest.approx(0.050, rel=0.05)
    assert min(found.latencies) >= 50_000_000
    assert 0 < found.cpu_us < 20_000


def test_percentiles_agree_with_wrk_within_ten_percent() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    # Other programs may disturb one of the two measurements, but rarely by a tenth of 50 ms, and hardly in each of four tries.
    worst = []
    with waiting_server() as server, Client() as client:
        for _ in range(4):
            theirs = wrk.load(server, "/sleep/50", 8, 1)
            ours = client.run(server, Request("/sleep/50"), 8, 1.0)
            shares = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
            pairs = [(percentile(ours.latencies, share) / 1e9, theirs[name]) for name, share in shares.items()]
            worst.append(max(abs(mine / other - 1) for mine, other in pairs))
            if worst[-1] < 0.10:
                return
    pytest.fail(f"percentiles differed by {', '.join(f'{each:.0%}' for each in worst)}")


class Stalling:
    """A server in a thread that answers at once, except for one request, before which it sleeps."""

    def __init__(self, seconds: float, at: int) -> None:
        self.seconds, self.at = seconds, at
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            served = 0
            while connection.recv(65536):
                served += 1
                if served == self.at:
                    time.sleep(self.seconds)
                connection.sendall(OK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.thread.join(5)


def test_a_stall_is_one_slow_response_in_a_closed_loop_and_many_in_an_open_loop() -> None:
    stall = 0.4
    slow = int(stall / 2 * 1e9)
    with Stalling(stall, 10) as server, Load(server.port, Request(), 1, keep_alive=True) as load:
        closed_loop = load.closed_loop(0.8)
    assert sum(latency > slow for latency in closed_loop) == 1
    with Stalling(stall, 10) as server, Load(server.port, Request(), 1, keep_alive=True) as load:
        fixed = load.open_loop(100, 1.0)
    assert len(fixed) == 100
    # Forty requests are due during the stall; those that are due in its first half wait for more than half of it.
    assert 15 <= sum(latency > slow for latency in fixed) <= 40


def test_the_latency_includes_opening_a_new_connection() -> None:
    with waiting_server() as server, Client() as client:
        persistent = client.run(server, Request("/quick"), 1, 0.3)
        new = client.run(server, Request("/quick"), 1, 0.3, keep_alive=False)
    assert min(new.latencies) > min(
        persistent.latencies
    )  # the shortest ones: the others depend on the load of the machine


def test_the_clients_error_is_the_reason_why_a_subject_is_left_out() -> None:
    with waiting_server() as server, Client() as client:
        with pytest.raises(Unavailable, match="response 200 'done"):
            client.run(server, Request("/quick", expect="something else"), 1, 0.1)
        # The client can still be used.
        assert client.run(server, Request("/quick"), 1, 0.1).latencies


def test_a_refused_connection_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        run({"port": free_port(), "request": {"target": "/"}, "connections": 1, "seconds": 0.1})
