"""struct tcp_info (linux/tcp.h): the kernel's figures of a TCP connection, one's own or, by sock_diag, any."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

STRUCTURE = struct.Struct("=8B24I4Q6I4Q2I2Q")
"""Up to tcpi_bytes_retrans, of Linux 4.19; an older kernel's is shorter, and what is missing is 0."""
MICRO = 1e-6
UNMEASURED = 0xFFFFFFFF
"""tcpi_min_rtt before the first measurement."""


class TCPInfo(NamedTuple):
    """Times in seconds, rates in bytes a second."""

    rtt: float
    """The smoothed round-trip time (RFC 6298); 0 before the first measurement."""
    rttvar: float
    min_rtt: float
    rto: float
    cwnd: int
    """The congestion window, in segments."""
    mss: int
    pmtu: int
    retransmitted: int
    """Segments that were retransmitted, ever."""
    lost: int
    sent: int
    """Bytes that the peer has acknowledged."""
    received: int
    delivery_rate: int


def parse(data: bytes) -> TCPInfo:
    """The structure as getsockopt and sock_diag give it."""
    values = STRUCTURE.unpack(data[: STRUCTURE.size].ljust(STRUCTURE.size, b"\0"))
    ints, longs, later = values[8:32], values[32:36], values[36:42]
    return TCPInfo(
        rtt=ints[15] * MICRO,
        rttvar=ints[16] * MICRO,
        min_rtt=0.0 if later[3] == UNMEASURED else later[3] * MICRO,
        rto=ints[0] * MICRO,
        cwnd=ints[18],
        mss=ints[2],
        pmtu=ints[13],
        retransmitted=ints[23],
        lost=ints[6],
        sent=longs[2],
        received=longs[3],
        delivery_rate=values[42],
    )


def of(connection: socket.socket) -> TCPInfo | None:
    """Of one's own connection; None if it is not TCP, or the system is not Linux."""
    try:
        return parse(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, STRUCTURE.size))
    except (OSError, AttributeError):
        return None
