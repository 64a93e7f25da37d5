"""sock_diag(7): every socket of this network namespace with its state, its queues, and what TCP knows of the way; for any user.

What `ss -tin` shows is this.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from apps.kernel.netlink import attributes, dump
from apps.kernel.tcpinfo import TCPInfo, parse

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INET_DIAG_INFO = 2
REQUEST = struct.Struct("=BBBxI48x")
"""inet_diag_req_v2: family, protocol, which attributes, which states; the identity is for a single socket."""
ANSWER = struct.Struct("=4B2s2s16s16s12x5I")
"""inet_diag_msg: family, state, timer, retransmits; both ports, both addresses; expires, queues, user, inode."""
TIME_WAIT = 6
ALIVE = 0xFFFFFFFF & ~(1 << TIME_WAIT)
"""A busy machine has ten thousands of sockets that only wait for time to pass: they are counted, not listed."""
SOCKSTAT = "/proc/net/sockstat"
STATES = {
    1: "established", 2: "syn sent", 3: "syn received", 4: "fin wait 1", 5: "fin wait 2", 6: "time wait", 7: "closed",
    8: "close wait", 9: "last ack", 10: "listen", 11: "closing", 12: "syn received",
}  # fmt: skip
LISTEN, UNCONNECTED = "listen", "closed"
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class Socket(NamedTuple):
    """A socket as the kernel lists it."""

    protocol: str
    state: str
    local: tuple[str, int]
    remote: tuple[str, int]
    receive_queue: int
    send_queue: int
    user: int
    inode: int
    info: TCPInfo | None


def sockets(protocol: str) -> Iterator[Socket]:
    """All of `tcp` or `udp`, IPv4 and IPv6, but for those that wait for time to pass."""
    for family in (socket.AF_INET, socket.AF_INET6):
        question = REQUEST.pack(family, PROTOCOLS[protocol], 1 << (INET_DIAG_INFO - 1), ALIVE)
        for message in dump(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, question):
            yield parse_socket(protocol, message)


def waiting() -> int:
    """How many TCP sockets are in time wait, as the kernel counts them."""
    with open(SOCKSTAT, encoding="ascii") as lines:
        return waiting_of(lines)


def waiting_of(lines: Iterable[str]) -> int:
    """`TCP: inuse 5 orphan 0 tw 18 alloc 6 mem 1`: names and numbers by turns."""
    words = next((line.split() for line in lines if line.startswith("TCP:")), [])
    return int(words[words.index("tw") + 1]) if "tw" in words else 0


def parse_socket(protocol: str, message: bytes) -> Socket:
    """A message of sock_diag."""
    family, state, _, _, port, other, here, there, _, receive, send, user, inode = ANSWER.unpack_from(message)
    info = attributes(message[ANSWER.size :]).get(INET_DIAG_INFO)
    return Socket(
        protocol=protocol,
        state=STATES.get(state, str(state)),
        local=(address(family, here), int.from_bytes(port)),
        remote=(address(family, there), int.from_bytes(other)),
        receive_queue=receive,
        send_queue=send,
        user=user,
        inode=inode,
        info=parse(info) if info else None,
    )


def address(family: int, data: bytes) -> str:
    """An address of either family, in 16 bytes."""
    return socket.inet_ntop(family, data[: 4 if family == socket.AF_INET else 16])
