"""A server that retires sends its connections to another one, with what was received of them; or they end as they should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from microwsgi.server import handoff as module
from microwsgi.server.handoff import Handoff
from tests.server.exchange import GET, TIME, Environ, Listener, Running, StartResponse, receive, receive_until

Adopted = list[tuple[socket.socket, object, int, bytes]]


class Named:
    """An application that says which server it runs on; /wait waits."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.inside, self.gate = threading.Event(), threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            self.inside.set()
            assert self.gate.wait(TIME)
        start_response("200 OK", [])
        return [b"from the ", self.name]


@contextlib.contextmanager
def generations(**options: Any) -> Iterator[tuple[Running, Running, Named]]:
    """Two servers on one listening socket, the second of which has not begun; and the first one's application."""
    handoff = Handoff.new()
    assert handoff is not None
    listener = Listener()
    duplicate = socket.socket(fileno=socket.dup(listener.fileno()))
    old = Named(b"old")
    first = Running(old, arguments={"sockets": [listener]}, **options)
    second = Running(Named(b"new"), arguments={"sockets": [duplicate]}, **options)
    first.server.handoff = second.server.handoff = handoff
    first.thread.start()
    try:
        yield first, second, old
    finally:
        old.gate.set()
        second.server.shutdown()
        first.server.shutdown()
        for each in (first, second):
            each.thread.join(TIME)
            each.server.server_close()
        handoff.close()


def test_connections_between_requests_go_to_the_successor() -> None:
    closed = threading.Event()
    with generations() as (first, second, old), contextlib.ExitStack() as stack:
        used, fresh, busy = (stack.enter_context(first.connect()) for _ in range(3))
        used.sendall(GET)
        receive_until(used, b"from the old")
        busy.sendall(GET.replace(b"/", b"/wait", 1))
        assert old.inside.wait(TIME)
        first.wait_for_connections(3)
        second.thread.start()
        first.server.retire(closed.set)
        assert closed.wait(TIME)
        for client in (used, fresh):
            client.sendall(GET)
        for client in (used, fresh):
            receive_until(client, b"from the new")
        old.gate.set()
        assert b"Connection: close" in receive(busy), "the request that ran is answered by the old one"
        first.thread.join(TIME)
        assert not first.thread.is_alive(), "it ends when nothing is left"
        with second.connect() as newcomer:
            newcomer.sendall(GET)
            receive_until(newcomer, b"from the new")


def test_a_head_that_was_received_in_part_goes_to_the_successor_with_its_connection() -> None:
    closed = threading.Event()
    with generations() as (first, second, _), first.connect() as half, first.connect() as other:
        half.sendall(GET[:10])
        other.sendall(GET)
        receive_until(other, b"from the old")  # the part before it has been received
        second.thread.start()
        first.server.retire(closed.set)
        assert closed.wait(TIME)
        half.sendall(GET[10:])
        receive_until(half, b"from the new")


def test_without_a_successor_that_takes_them_connections_are_closed() -> None:
    with generations() as (first, second, _), first.connect() as client:
        client.sendall(GET)
        receive_until(client, b"from the old")
        second.server.handoff = None
        second.thread.start()
        first.server.retire()
        first.thread.join(TIME)
        assert not first.thread.is_alive()


@pytest.fixture
def handoff() -> Iterator[Handoff]:
    made = Handoff.new()
    assert made is not None
    yield made
    made.close()


def adopted(handoff: Handoff) -> Adopted:
    found: Adopted = []
    handoff.receive(lambda *what: found.append(what))
    return found


def test_a_longer_head_than_a_message_stays(handoff: Handoff) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert not handoff.send(client.fileno(), 0, b"x" * module.MAX_DATAGRAM)
        assert handoff.send(client.fileno(), 1, b"x" * (module.MAX_DATAGRAM - 1))
        ((connection, address, number, received),) = adopted(handoff)
        connection.close()
        assert (address, number, len(received)) == (listener.getsockname(), 1, module.MAX_DATAGRAM - 1)


def test_who_has_left_meanwhile_is_forgotten(handoff: Handoff) -> None:
    with socket.socket() as never_connected:
        assert handoff.send(never_connected.fileno(), 0, b"")
    assert adopted(handoff) == []


def test_a_successor_that_takes_nothing_keeps_one_waiting_and_no_other(handoff: Handoff) -> None:
    handoff.sender.settimeout(0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        given = 0
        while handoff.send(client.fileno(), 0, b""):
            given += 1
        assert handoff.sender.getblocking() is False
        found = adopted(handoff)
    assert len(found) == given > 1
    for connection, *_ in found:
        connection.close()


def test_where_descriptors_can_not_be_sent_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "send_fds")
    assert Handoff.new() is None
