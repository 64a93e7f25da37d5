"""What is received of a body that nobody reads, and when a client is told to go on."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

from tests.server.exchange import TIME, Environ, Running, StartResponse, hello, parse, receive, receive_until

DRAINED = 256 * 1024
"""Octets of an unread body that are received for the next request's sake."""


def test_a_client_that_leaves_while_its_unread_body_is_received_is_closed() -> None:
    with Running(hello, body_buffer_size=0) as running:
        with running.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100)
            receive_until(client)
            assert running.connections == 1
        running.wait_for_connections(0)
        assert not running.errors.text.getvalue(), "it has its response: nothing is worth a line"


def test_unread_chunks_are_received_up_to_a_limit() -> None:
    """Their number is not known when the response is sent: the limit is found on the way."""
    chunk = b"400\r\n" + bytes(1024) + b"\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    last = b"0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for count, responses in ((20 + 200, 2), (20 + 2 * DRAINED // 1024, 1)):
        with Running(hello, stream_chunked=True) as running, running.connect() as client:
            client.sendall(head + chunk * 20)
            data = receive_until(client)
            with contextlib.suppress(OSError):
                for _ in range(count - 20):
                    client.sendall(chunk)
                client.sendall(last)
                client.shutdown(socket.SHUT_WR)
            data += receive(client)
            assert [response.status for response in parse(data)] == [200] * responses, count


def test_a_100_is_not_sent_behind_the_beginning_of_the_response() -> None:
    """RFC 9110 10.1.1: the final status has told the client already."""
    begun = threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begin"
        begun.set()
        yield environ["wsgi.input"].read()

    with Running(application) as running, running.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert begun.wait(TIME)
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        data = receive(client)
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"begin\r\n5\r\nhello" in data
    assert b" 100 " not in data


def test_a_body_that_arrives_while_the_response_is_suspended_is_read_whole() -> None:
    """The leader must not receive the body of a suspended response: the application receives it."""
    body = b"".join(b"%04d" % number for number in range(10_000))
    suspended = threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        wake = environ["microwsgi.resume"]
        wake(after=60)
        environ["wake"].append(wake)
        suspended.set()
        yield b""
        yield environ["wsgi.input"].read()

    wakes: list[Callable[..., None]] = []
    with (
        Running(application, body_buffer_size=1024, arguments={"more_environ": {"wake": wakes}}) as running,
        running.connect() as client,
    ):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n" + body[:4])
        assert suspended.wait(TIME)
        client.sendall(body[4:])
        for _ in range(3):  # when another request is answered, events before it have been looked at
            with running.connect() as other:
                other.sendall(b"\r\n\r\n")
                receive(other)
        wakes[0]()
        (response,) = parse(receive(client))
    assert response.body == body


def test_a_view_that_exits_costs_no_thread_and_no_permit() -> None:
    class Exits(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sys.exit("on purpose")

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    with Running(None, Exits, threads=2) as running:
        for _ in range(5):
            running.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        running.wait_for_connections(0)
    assert "SystemExit" in running.errors.text.getvalue()
