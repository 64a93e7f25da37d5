"""ICMP without privileges: echo requests by ping sockets, and the ICMP errors that concern a socket, from its error queue.

A datagram socket of IPPROTO_ICMP sends echo requests and nothing else; the kernel fills in the identifier and the checksum, and
passes on the replies to this socket only. net.ipv4.ping_group_range says which groups may open one. With IP_RECVERR (ip(7)) the
kernel keeps each ICMP error in the error queue of the socket whose packet caused it: which error, from which router, and the
beginning of that packet. This holds for TCP while it connects, for UDP, and for ping sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from typing import NamedTuple

from apps.kernel import links
from apps.kernel.netlink import Netlink
from apps.probing.outcome import Failed, Reason
from apps.probing.policy import Target

ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
"""Types of request and reply (RFC 792, RFC 4443)."""
SIZE = 56
"""Bytes behind the ICMP header, as ping sends them."""
HINT = 'Try: sysctl -w net.ipv4.ping_group_range="0 2147483647"'
RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""Level and number of the option that has ICMP errors kept in the socket's error queue: IP_RECVERR, IPV6_RECVERR."""
LOCAL, ICMP, ICMP6 = 1, 2, 3
"""Where an error is from (linux/errqueue.h): this machine, or an ICMP message."""
EXTENDED = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, pad, info, data; the sender's address follows."""
TIME_EXCEEDED = {ICMP: 11, ICMP6: 3}
REASONS = {
    **dict.fromkeys([(ICMP, 3, 0), (ICMP, 3, 6), (ICMP6, 1, 0)], Reason.NET_UNREACHABLE),
    **dict.fromkeys([(ICMP, 3, 1), (ICMP, 3, 7), (ICMP6, 1, 3)], Reason.HOST_UNREACHABLE),
    **dict.fromkeys([(ICMP, 3, 3), (ICMP6, 1, 4)], Reason.PORT_UNREACHABLE),
    **dict.fromkeys([(ICMP, 3, 9), (ICMP, 3, 10), (ICMP, 3, 13)], Reason.PROHIBITED),
    **dict.fromkeys([(ICMP6, 1, 1), (ICMP6, 1, 5), (ICMP6, 1, 6)], Reason.PROHIBITED),
}


class IcmpError(NamedTuple):
    """An entry of the error queue; `data` is the beginning of the packet that caused it: its payload, of ICMP its header."""

    number: int
    origin: int
    kind: int
    code: int
    info: int
    sender: str
    data: bytes = b""

    @property
    def is_hop(self) -> bool:
        """Whether the time to live was over at a router."""
        return TIME_EXCEEDED.get(self.origin) == self.kind


def reason_of(error: IcmpError, target: Target) -> Reason:
    """The reason that an ICMP message stands for; one from this machine means that no host on the link has the address."""
    reason = REASONS.get((error.origin, error.kind, error.code), Reason.HOST_UNREACHABLE)
    is_own = reason is Reason.HOST_UNREACHABLE and error.sender == local_address(target)
    return Reason.NO_NEIGHBOUR if is_own else reason


def local_address(target: Target) -> str:
    """The local address on the route to a target; "" without one. No packet is sent."""
    with socket.socket(target.family, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(target._replace(port=target.port or 9).sockaddr)
        except OSError:
            return ""
        return str(connection.getsockname()[0])


def interface_down(target: Target) -> str:
    """The interface on the route to a target and its state, if it carries no packets; "" otherwise.

    It has the local address of the route; an interface that is administratively down has no routes, but may have a prefix.
    """
    local = local_address(target)
    with contextlib.closing(Netlink(links.NETLINK_ROUTE)) as route, contextlib.suppress(OSError, ValueError):
        addresses = links.addresses(route)
        for each in links.interfaces(route):
            for own in map(ipaddress.ip_interface, addresses.get(each.number, ()) if each.state != "up" else ()):
                if str(own.ip) == local or (not local and ipaddress.ip_address(target.address) in own.network):
                    return f"{each.name}, {each.state}"
    return ""


def next_error(connection: socket.socket) -> IcmpError | None:
    try:
        data, ancillary, _, _ = connection.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, extended in ancillary:
        if (level, kind) in RECVERR.values():
            return parse_error(extended, data)
    return None


def parse_error(extended: bytes, data: bytes = b"") -> IcmpError:
    """A struct sock_extended_err and the address behind it."""
    number, origin, kind, code, _, info, _ = EXTENDED.unpack_from(extended)
    sender, at = "", EXTENDED.size
    if len(extended) >= at + 8:
        family = struct.unpack_from("=H", extended, at)[0]
        if family == socket.AF_INET:
            sender = socket.inet_ntop(family, extended[at + 4 : at + 8])
        elif family == socket.AF_INET6:
            sender = socket.inet_ntop(family, extended[at + 8 : at + 24])
    return IcmpError(number, origin, kind, code, info, sender, data)


async def readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def datagram_socket(target: Target, protocol: int = 0) -> socket.socket:
    """A socket for datagrams to and from this address only, which reports ICMP errors. Raises Failed, OSError."""
    try:
        connection = socket.socket(target.family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        raise Failed(Reason.LOCAL, f"This user may not send ICMP. {HINT}") from None
    try:
        connection.setblocking(False)
        connection.setsockopt(*RECVERR[target.family], 1)
        connection.connect(target.sockaddr)
    except BaseException:
        connection.close()
        raise
    return connection


def ping_socket(target: Target) -> socket.socket:
    """A socket for echo requests. Raises Failed, OSError."""
    # No raw sockets, also not for root: each of them receives the ICMP errors of all others to the same address.
    protocol = socket.IPPROTO_ICMP if target.family == socket.AF_INET else socket.IPPROTO_ICMPV6
    return datagram_socket(target._replace(port=0), protocol)


def echo_request(target: Target, sequence: int, payload: bytes) -> bytes:
    """The packet; the kernel fills in the identifier and the checksum."""
    return struct.pack("!BBHHH", ECHO[target.family][0], 0, 0, 0, sequence) + payload


def echo_reply(connection: socket.socket, target: Target) -> tuple[int, bytes] | None:
    """Sequence number and payload of the next reply; None if what came is none. Raises OSError."""
    data = connection.recv(2048)
    if len(data) < 8 or data[0] != ECHO[target.family][1]:  # the header
        return None
    return int.from_bytes(data[6:8]), data[8:]
