"""Netlink (netlink(7), RFC 3549): requests to the kernel by a socket, and answers of messages with attributes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port."""
ATTRIBUTE = struct.Struct("=HH")
"""Length, type."""
REQUEST, DUMP = 0x001, 0x300
ERROR, DONE = 2, 3
NESTED = 0x8000
SIZE = 1 << 18
"""Bytes for one datagram: the kernel fills up to 32 KiB, and more where there is more room."""


class Netlink:
    """A socket of a netlink protocol, for one thread at a time. If it stays open, a lack of descriptors does no harm."""

    def __init__(self, protocol: int) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.socket.settimeout(2.0)  # the kernel answers within the call, but a security policy may drop the request
        self.socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def dump(self, kind: int, payload: bytes) -> Iterator[bytes]:
        """All objects of a kind, each as the bytes of its message, which must be read to the end. Raises OSError."""
        self.socket.send(HEADER.pack(HEADER.size + len(payload), kind, REQUEST | DUMP, 1, 0) + payload)
        while True:
            for found, body in messages(self.socket.recv(SIZE)):
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
    """The attributes behind the fixed part of a message."""
    found, at = {}, 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if not ATTRIBUTE.size <= length <= len(data) - at:
            raise ValueError(f"a netlink attribute has a length of {length} where {len(data) - at} bytes are left")
        found[kind & ~NESTED] = data[at + ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
    return found
