"""Channels between a parent and its children: whole messages, and a parent that never waits for a child to read."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from microwsgi.prefork.channel import MAX_MESSAGE, MAX_QUEUED, Channel, Decoder, WorkerChannel, encode
from microwsgi.process.system import READ, WRITE, System


class Failing(System):
    """A system whose sockets fail with an error."""

    error = 0

    def send(self, connection: socket.socket, data: bytes | bytearray | memoryview) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().send(connection, data)

    def receive(self, connection: socket.socket, size: int) -> bytes:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().receive(connection, size)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, WorkerChannel, Failing]]:
    ours, theirs = socket.socketpair()
    system = Failing()
    parent, child = Channel(ours, system), WorkerChannel(theirs)
    assert not ours.getblocking()  # else a test would hang where it is to fail
    yield parent, child, system
    parent.close()
    child.release()


def test_messages_are_whole_however_their_bytes_come() -> None:
    messages: list[dict[str, object]] = [{"do": "serve"}, {"files": {"x": b"y" * 100}}, {}]
    data = b"".join(map(encode, messages))
    for size in (1, 3, 7, len(data)):
        decoder = Decoder()
        found = [each for begin in range(0, len(data), size) for each in decoder.feed(data[begin : begin + size])]
        assert found == messages, size


@pytest.mark.parametrize("data", [(MAX_MESSAGE + 1).to_bytes(4, "big"), (3).to_bytes(4, "big") + b"no!"])
def test_what_is_no_message_ends_the_channel(ends: tuple[Channel, WorkerChannel, Failing], data: bytes) -> None:
    parent, child, _ = ends
    child.socket.sendall(data)
    assert parent.receive() is None


def test_a_child_that_reads_nothing_is_not_waited_for(ends: tuple[Channel, WorkerChannel, Failing]) -> None:
    parent, child, _ = ends
    sent = 0
    while parent.send(do="report"):
        sent += 1
        assert sent < 100 * MAX_QUEUED
    assert len(parent.queue) <= MAX_QUEUED
    assert parent.interest == READ | WRITE
    received: list[object] = []
    while len(received) < sent:
        received += child.receive()[1] or ()
        parent.write_queued()
    assert received == [{"do": "report"}] * sent
    assert parent.interest == READ


def test_a_message_that_the_system_has_no_memory_for_is_sent_later(
    ends: tuple[Channel, WorkerChannel, Failing],
) -> None:
    parent, child, system = ends
    system.error = errno.ENOBUFS
    assert parent.send(do="stop")
    with pytest.raises(OSError, match="No buffer space"):
        parent.receive()
    system.error = 0
    parent.write_queued()
    assert child.receive() == (False, [{"do": "stop"}])


def test_the_end_of_a_child_is_the_end_of_its_channel(ends: tuple[Channel, WorkerChannel, Failing]) -> None:
    parent, child, system = ends
    assert parent.receive() == []
    assert parent.drained
    child.send(report={"requests": 1})
    child.socket.shutdown(socket.SHUT_RDWR)
    assert parent.receive() == [{"report": {"requests": 1}}]
    assert parent.receive() is None
    system.error = errno.ECONNRESET
    assert parent.receive() is None


def test_a_signal_handler_wakes_the_thread_that_waits(ends: tuple[Channel, WorkerChannel, Failing]) -> None:
    parent, child, _ = ends
    for _ in range(10_000):  # it never blocks
        child.wake()
    assert child.receive() == (True, [])
    parent.send(do="now")
    assert child.receive()[1] in ([], [{"do": "now"}])
