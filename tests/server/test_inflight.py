"""microwsgi/server/inflight.py: requests that run, and those that run long. What QUIT prints is in tests/test_signals.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from microwsgi.server.inflight import running, slow_requests
from tests.server.exchange import TIME, Running, receive_until, wait_until

Environ = dict[str, Any]


def test_a_slow_request_is_told_once_with_its_place() -> None:
    gate = threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert gate.wait(TIME)
        start_response("200 OK", [])
        return [b"hello"]

    with Running(application) as server, slow_requests(server.server, 0.05), server.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        said = server.errors.wait_for("Slow: GET /slow, for ")
        assert "in application\n    assert gate.wait(TIME)" in said
        assert "GET /slow, for" in running(server.server)
        for _ in range(20):  # other requests, while it goes on
            assert server.get("/quick").body == b"hello"
        gate.set()
        receive_until(connection)
        assert server.errors.text.getvalue().count("Slow: GET /slow") == 1
        wait_until(lambda: running(server.server) == "0 requests in flight.")


def test_a_stream_that_rests_is_not_slow() -> None:
    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begin"
        environ["microwsgi.resume"](after=60)
        yield b""

    told = threading.Event()
    with Running(application) as server, slow_requests(server.server, 0.02), server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(connection, b"begin\r\n")
        assert not told.wait(0.1)  # five times as long as would be slow
        assert "Slow" not in server.errors.text.getvalue()


def test_without_a_limit_nobody_looks() -> None:
    before = threading.active_count()
    with Running(lambda environ, start_response: []) as server, slow_requests(server.server, 0):
        assert "microwsgi-slow" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() == before
