"""microwsgi/server/connection.py: what does not fit waits in order, and time limits know the server's clock."""

from __future__ import annotations

import contextlib

import pytest

from microwsgi.errors import Disconnected
from microwsgi.server.connection import READ, WRITE
from tests.server.exchange import advance, alone, parse, receive
from tests.server.exchange import GET, hello


def test_what_a_client_is_too_slow_for_is_kept_and_leaves_in_order() -> None:
    body = bytes(range(256)) * 4096

    def application(environ: object, start_response: object) -> list[bytes]:
        hello(environ, start_response)  # type: ignore[arg-type]
        return [body]

    with alone(application) as (handler, client, _):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        advance(handler)
        assert (handler.step, handler.wants) == ("flush", WRITE)
        client.setblocking(False)
        received = b""
        while not handler.closed:
            with contextlib.suppress(BlockingIOError):
                while piece := client.recv(1 << 16):
                    received += piece
            handler.advance()
        client.setblocking(True)
        (response,) = parse(received + receive(client))
        assert response.body == body


def test_nothing_is_lost_when_the_buffer_is_full_already() -> None:
    with alone(hello) as (handler, client, _):
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += handler.connection.send(bytes(1))
        handler.send(b"hello")
        assert handler.unsent
        while filled:
            filled -= len(client.recv(filled))
        assert handler.send_unsent() == 5
        assert client.recv(100) == b"hello"


def test_what_is_sent_behind_what_waits_waits_too() -> None:
    with alone(hello) as (handler, client, _):
        sent = bytes(1 << 20)
        handler.send(sent)
        handler.send(b"hello")
        client.setblocking(False)
        received = b""
        while handler.unsent is not None:
            handler.send_unsent()
            with contextlib.suppress(BlockingIOError):
                while piece := client.recv(1 << 16):
                    received += piece
        assert received == sent + b"hello"


@pytest.mark.parametrize("step", ["send", "send_unsent", "send_answer"])
def test_a_client_that_has_left_is_no_error_of_the_system(step: str) -> None:
    """What reaches the application, or the log, is Disconnected with its reason, wherever the bytes were to leave."""
    with alone(hello) as (handler, client, log):
        if step == "send_unsent":
            handler.send(bytes(1 << 20))
        client.close()
        if step == "send_answer":
            handler.began, handler.answer = 1.0, b"hello"
            handler.send_answer()
            assert handler.closed
            assert "before it had received the whole response" in log.text.getvalue()
            return
        with pytest.raises(Disconnected):
            handler.send(b"hello") if step == "send" else handler.send_unsent()


def test_a_limit_does_not_run_out_while_the_clock_stands_still() -> None:
    """As it does while a person is at a debugger's prompt: the wait is looked at again, and goes on."""
    with alone(hello) as (handler, client, _):
        looks = iter([0.0] * 5)
        handler.gateway.clock = lambda: next(looks, 1.0)  # type: ignore[method-assign]
        assert not handler.wait_for(READ, 0.001)
        assert next(looks, None) is None
        client.sendall(GET)
        assert handler.wait_for(READ, 2.0)
