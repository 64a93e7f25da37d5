"""Netlink (netlink(7), RFC 3549): questions to the kernel over a socket, and its answers as messages with attributes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port."""
ATTRIBUTE = struct.Struct("=HH")
"""Length, type."""
REQUEST, DUMP = 0x001, 0x300
ERROR, DONE = 2, 3
SIZE = 1 << 18
"""Bytes for one answer: the kernel fills up to 32 KiB, and more where it is given more."""


def dump(protocol: int, kind: int, payload: bytes) -> Iterator[bytes]:
    """All objects of a kind, each as the bytes of its message. Raises OSError for what the kernel refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(2.0)  # the kernel answers within the call; a policy may swallow the question
        channel.bind((0, 0))
        channel.send(HEADER.pack(HEADER.size + len(payload), kind, REQUEST | DUMP, 1, 0) + payload)
        while True:
            for found, body in messages(channel.recv(SIZE)):
                if found == DONE:
                    return
                if found == ERROR:
                    (number,) = struct.unpack_from("=i", body)
                    raise OSError(-number, os.strerror(-number))
                yield body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of a datagram: type and body. Each begins at a multiple of four bytes."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= len(data) - at:
            raise ValueError(f"a netlink message has a length of {length} where {len(data) - at} bytes are left")
        yield kind, data[at + HEADER.size : at + length]
        at += -(-length // 4) * 4


def attributes(data: bytes) -> dict[int, bytes]:
    """What follows the fixed part of a message."""
    found, at = {}, 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if not ATTRIBUTE.size <= length <= len(data) - at:
            raise ValueError(f"a netlink attribute has a length of {length} where {len(data) - at} bytes are left")
        found[kind] = data[at + ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
    return found
