"""microwsgi/server/recipient.py: what is received of a body that nobody reads, and when a client is told to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from microwsgi.server.recipient import DRAIN
from tests.server.exchange import advance, alone, receive
from tests.server.exchange import hello


def test_a_client_that_leaves_while_its_unread_body_is_drained_is_closed() -> None:
    with alone(hello) as (handler, client, log):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100)
        advance(handler)
        assert handler.step == "drain"
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.close()
        advance(handler)
        assert handler.closed
        assert not log.text.getvalue(), "it has its response: nothing is worth a line"


def test_unread_chunks_are_drained_up_to_a_limit() -> None:
    """Their number is not known when the response is sent: the limit is found on the way."""
    chunk = b"400\r\n" + bytes(1024) + b"\r\n"
    with alone(hello) as (handler, client, _):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20)
        advance(handler)
        assert handler.step == "drain"
        for _ in range(DRAIN // 1024):
            client.sendall(chunk)
            advance(handler)
        assert handler.step == "linger"
        client.shutdown(1)
        advance(handler)
        assert handler.closed
        assert receive(client).startswith(b"HTTP/1.1 200 ")


def test_a_100_is_not_sent_behind_the_beginning_of_the_response() -> None:
    """RFC 9110 10.1.1: the final status has told the client already."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begin"
        yield environ["wsgi.input"].read()

    with alone(application) as (handler, client, _):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        handler.advance()
        client.sendall(b"hello")
        client.shutdown(1)
        advance(handler)
        answer = receive(client)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"begin\r\n5\r\nhello" in answer
        assert b" 100 " not in answer
