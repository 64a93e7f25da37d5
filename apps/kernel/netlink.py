"""Netlink (netlink(7), RFC 3549): requests to the kernel by a socket, and answers of messages with attributes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

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
    """A socket of a netlink protocol, for one thread at a time. It stays open, so that a lack of descriptors does no harm."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.socket: socket.socket | None = None

    def open(self) -> socket.socket:
        """The socket, a new one if there is none. Raises OSError."""
        if self.socket is None:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.protocol)
            self.socket.settimeout(2.0)  # the kernel answers at once, but a security policy may drop the request
        return self.socket

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def dump(self, kind: int, payload: bytes) -> Iterator[bytes]:
        """All objects of a kind, each as the bytes of its message, which must be read to the end. Raises OSError."""
        connection = self.open()
        connection.send(HEADER.pack(HEADER.size + len(payload), kind, REQUEST | DUMP, 1, 0) + payload)
        while True:
            for (_, found, *_), body in records(connection.recv(SIZE), HEADER):
                if found == DONE:
                    return
                if found == ERROR:
                    (number,) = struct.unpack_from("=i", body)
                    raise OSError(-number, os.strerror(-number))
                yield body


def records(data: bytes, header: struct.Struct) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """The header's fields and the content of each record. The first field is the length; each begins at a multiple of four."""
    at = 0
    while at + header.size <= len(data):
        fields = header.unpack_from(data, at)
        if not header.size <= fields[0] <= len(data) - at:
            raise ValueError(f"a netlink record has a length of {fields[0]} where {len(data) - at} bytes are left")
        yield fields, data[at + header.size : at + fields[0]]
        at += -(-fields[0] // 4) * 4


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes behind the fixed part of a message, by their types."""
    return {kind & ~NESTED: value for (_, kind), value in records(data, ATTRIBUTE)}
