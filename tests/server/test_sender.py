"""microwsgi/server/sender.py: what an application may return, and how it leaves."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from tests.server.exchange import Response, advance, alone, parse, receive
from tests.server.exchange import GET

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def answer(body: Any, *headers: tuple[str, str], method: str = "GET") -> tuple[Response, str]:
    """The response to an application that returns this, and what was logged."""

    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", list(headers))
        return body

    with alone(application) as (handler, client, log):
        client.sendall(f"{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        client.shutdown(1)
        advance(handler)
        (response,) = parse(receive(client), [method])
        return response, log.text.getvalue()


@pytest.mark.parametrize("body", [(), (b"",), (b"one ", b"two")])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_tuple_is_sent_whole_and_with_its_length(body: tuple[bytes, ...], method: str) -> None:
    response, log = answer(body, method=method)
    assert response.body == (b"".join(body) if method == "GET" else b"")
    if method == "GET":
        assert response.field("Content-Length") == str(len(b"".join(body)))
    assert not log


@pytest.mark.parametrize("kind", ["no descriptor", "no such method"])
def test_a_file_wrapper_around_what_is_no_file_is_read(kind: str) -> None:
    class Reader:
        def __init__(self) -> None:
            self.read = io.BytesIO(b"hello").read

    file: Any = io.BytesIO(b"hello") if kind == "no descriptor" else Reader()
    response, log = answer(FileWrapper(file))
    assert (response.body, log) == (b"hello", "")


def test_a_text_file_is_an_error_that_names_the_rule(tmp_path: Path) -> None:
    """The kernel would send its bytes: on another server, which reads it, the application would fail."""
    (tmp_path / "a.txt").write_text("hello")
    with (tmp_path / "a.txt").open(encoding="utf-8") as file:
        response, log = answer(FileWrapper(file))  # type: ignore[arg-type]  # it is refused for that
    assert response.status == 500
    assert "PEP 3333 asks for bytes" in log


def test_of_a_file_head_gets_the_length_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    file = (tmp_path / "a").open("rb")
    response, log = answer(FileWrapper(file), method="HEAD")
    assert (response.field("Content-Length"), response.body, log) == ("5", b"", "")
    assert file.closed


def test_write_waits_for_a_slow_reader_even_when_no_more_threads_may() -> None:
    """There is nothing to come back to: PEP 3333's write returns when the next may be written."""
    chunk = b"x" * 1_000_000

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "2000000")])
        write(chunk)
        assert not handler.unsent
        write(chunk)
        return []

    with alone(application) as (handler, client, log):
        handler.gateway.hold_for_client = lambda: False  # type: ignore[method-assign]
        client.sendall(GET)
        client.shutdown(1)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(receive(client)))
        reader.start()
        advance(handler)
        reader.join()
        assert received[0].endswith(chunk * 2)
        assert not log.text.getvalue()


def test_a_close_that_lacks_an_attribute_is_not_taken_for_an_iterable_without_close() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"hello"])

        def close(self) -> None:
            self.file.close()  # type: ignore[attr-defined]

    response, log = answer(Body())
    assert response.body == b"hello"
    assert "has no attribute 'file'" in log


def test_who_asks_for_it_is_told_where_the_time_went() -> None:
    """As --debug does: a field line more, and nothing else."""

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    with alone(application) as (handler, client, _):
        handler.gateway.timing = lambda request: f"Server-Timing: app;desc={request.command}\r\n"
        client.sendall(GET)
        advance(handler)
        (response,) = parse(client.recv(1000))
        assert response.field("Server-Timing") == "app;desc=GET"
        assert response.body == b"hello"
