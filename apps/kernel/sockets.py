"""sock_diag(7): every socket of this network namespace with state, queues and TCP's figures, for any user: `ss -tin`."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from typing import NamedTuple

from apps.kernel.netlink import Netlink, attributes
from apps.kernel.tcpinfo import TCPInfo, parse

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INET_DIAG_INFO = 2
REQUEST = struct.Struct("=BBBxI48x")
"""inet_diag_req_v2: family, protocol, attributes, states; the rest names a single socket."""
ANSWER = struct.Struct("=4B2s2s16s16s12x5I")
"""inet_diag_msg: family, state, timer, retransmits; both ports, both addresses; expires, queues, user, inode."""
TIME_WAIT = 6
ALL = 0xFFFFFFFF
STATES = {
    1: "established", 2: "syn sent", 3: "syn received", 4: "fin wait 1", 5: "fin wait 2", 6: "time wait", 7: "closed",
    8: "close wait", 9: "last ack", 10: "listen", 11: "closing", 12: "syn received",
}  # fmt: skip
LISTEN, UNCONNECTED = "listen", "closed"
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
FAMILIES = (socket.AF_INET, socket.AF_INET6)


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


def sockets(diag: Netlink, protocol: str) -> list[Socket]:
    """All sockets of `tcp` or `udp` but those in time wait, of which a busy machine has ten thousands."""
    found = []
    for family in FAMILIES:
        request = REQUEST.pack(family, PROTOCOLS[protocol], 1 << (INET_DIAG_INFO - 1), ALL & ~(1 << TIME_WAIT))
        found += [parse_socket(protocol, message) for message in diag.dump(SOCK_DIAG_BY_FAMILY, request)]
    return found


def states(diag: Netlink) -> Counter[str]:
    """How many TCP sockets are in each state. Only one byte of each message is read."""
    found: Counter[str] = Counter()
    for family in FAMILIES:
        request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, ALL)
        found.update(STATES.get(message[1], str(message[1])) for message in diag.dump(SOCK_DIAG_BY_FAMILY, request))
    return found


def parse_socket(protocol: str, message: bytes) -> Socket:
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
