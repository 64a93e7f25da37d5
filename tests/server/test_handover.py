"""Connections are given to another process with what was read of them, or they stay whose they are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from microwsgi.server import handover as module
from microwsgi.server.connection import Connection
from microwsgi.server.handover import Handover

Taken = list[tuple[socket.socket, object, int, bytes]]


class Encrypted(socket.socket):
    """As ssl's are: a socket with more than its descriptor."""


@pytest.fixture
def handover() -> Iterator[Handover]:
    made = Handover.new()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's end, and a client's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            yield accepted, client


def handler(connection: socket.socket, received: bytes = b"") -> Connection:
    """What `give` looks at."""
    return SimpleNamespace(connection=connection, received=received)  # type: ignore[return-value]


def taken(handover: Handover) -> Taken:
    found: Taken = []
    handover.take(lambda *what: found.append(what))
    return found


def test_a_connection_goes_with_its_listener_and_what_was_read(
    handover: Handover, pair: tuple[socket.socket, socket.socket]
) -> None:
    accepted, client = pair
    assert handover.give(handler(accepted, b"GET / HT"), 1)
    accepted.close()
    ((connection, address, listener, received),) = taken(handover)
    with connection:
        assert (address, listener, received) == (client.getsockname(), 1, b"GET / HT")
        client.sendall(b"TP/1.1")
        connection.settimeout(5.0)
        assert connection.recv(10) == b"TP/1.1"
    assert client.recv(10) == b"", "nobody else has it open"


def test_what_tls_knows_can_not_be_sent(handover: Handover, pair: tuple[socket.socket, socket.socket]) -> None:
    with Encrypted(fileno=socket.dup(pair[0].fileno())) as encrypted:
        assert not handover.give(handler(encrypted), 0)
    assert taken(handover) == []


def test_a_longer_head_than_a_message_stays(handover: Handover, pair: tuple[socket.socket, socket.socket]) -> None:
    assert not handover.give(handler(pair[0], b"x" * module.LONGEST), 0)
    assert handover.give(handler(pair[0], b"x" * (module.LONGEST - 1)), 0)
    ((connection, _, _, received),) = taken(handover)
    connection.close()
    assert len(received) == module.LONGEST - 1


def test_who_has_left_meanwhile_is_forgotten(handover: Handover) -> None:
    with socket.socket() as never_connected:
        assert handover.give(handler(never_connected), 0)
    assert taken(handover) == []


def test_a_successor_that_takes_nothing_keeps_one_waiting_and_no_other(
    handover: Handover, pair: tuple[socket.socket, socket.socket]
) -> None:
    handover.giving.settimeout(0.05)
    given = 0
    while handover.give(handler(pair[0]), 0):
        given += 1
    assert handover.giving.getblocking() is False
    found = taken(handover)
    assert len(found) == given > 1
    for connection, *_ in found:
        connection.close()


def test_where_descriptors_can_not_be_sent_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "send_fds")
    assert Handover.new() is None
