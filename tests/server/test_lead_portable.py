"""microwsgi/server/lead.py and poller.py where the system has neither epoll nor a thread's resource usage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from microwsgi.server import lead as lead_module
from microwsgi.server import server as server_module
from microwsgi.server.poller import PortablePoller
from tests.server.exchange import TIME, Running
from tests.server.exchange import GET, Environ, hello, receive


@pytest.fixture(autouse=True)
def another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead_module, "RUSAGE_THREAD", None)
    monkeypatch.setattr(server_module, "Poller", PortablePoller)


def test_requests_are_served_and_waiting_ones_side_by_side() -> None:
    barrier = threading.Barrier(8)

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/meet":
            barrier.wait(TIME)
        return hello(environ, start_response)

    with Running(application, threads=8) as running:
        connections = [running.connect() for _ in range(8)]
        clients = [connection.__enter__() for connection in connections]
        try:
            for _ in range(5):
                for client in clients:
                    client.sendall(b"GET /meet HTTP/1.1\r\nHost: a\r\n\r\n")
                for client in clients:
                    receive(client)
                for client in clients:
                    client.sendall(GET)
                    receive(client)
        finally:
            for connection in connections:
                connection.__exit__(None, None, None)


def test_the_stop_and_the_time_limits_work() -> None:
    with Running(hello, head_time=0.05) as running, running.connect() as connection:
        connection.sendall(GET[:-2])
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert not running.thread.is_alive()
