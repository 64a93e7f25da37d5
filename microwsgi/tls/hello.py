"""The ALPN extension of a ClientHello (RFC 8446 4.1.2, RFC 7301 3.1), read before OpenSSL gets the bytes.

If client and server have no protocol in common, Python's ssl lets OpenSSL continue without one; RFC 7301 3.2 requires an alert.
"""

from __future__ import annotations

ALPN_EXTENSION = 16
CLIENT_HELLO = 1
RANDOM_END = 5 + 4 + 2 + 32
"""The position of the session ID: after the headers of record and message, the version and the random."""
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""A record with the fatal alert 120 (RFC 7301 3.2, RFC 8446 6)."""


def offered_protocols(record: bytes) -> list[bytes]:
    """Return the protocols that a client offers; none if there is no such extension, or the record ends before it."""
    try:
        return protocols(record)
    except IndexError:
        return []


def protocols(record: bytes) -> list[bytes]:
    """Return the protocols of a ClientHello. Raises IndexError if it is incomplete."""
    if record[5] != CLIENT_HELLO:
        return []
    position = RANDOM_END + 1 + record[RANDOM_END]  # after the session ID
    position += 2 + int.from_bytes(part(record, position, 2))  # after the cipher suites
    position += 1 + record[position]  # after the compression methods
    end = position + 2 + int.from_bytes(part(record, position, 2))
    position += 2
    while position < end:
        kind, size = int.from_bytes(part(record, position, 2)), int.from_bytes(part(record, position + 2, 2))
        if kind == ALPN_EXTENSION:
            return names(part(record, position + 6, size - 2))
        position += 4 + size
    return []


def part(record: bytes, position: int, size: int) -> bytes:
    """Return `size` bytes. Raises IndexError if there are fewer."""
    found = record[position : position + size]
    if len(found) != size or size < 0:
        raise IndexError(position)
    return found


def names(listed: bytes) -> list[bytes]:
    """Return the names in a list in which each is preceded by its length. Raises IndexError."""
    found = []
    position = 0
    while position < len(listed):
        found.append(part(listed, position + 1, listed[position]))
        position += 1 + listed[position]
    return found


__all__ = ["NO_APPLICATION_PROTOCOL", "offered_protocols"]
