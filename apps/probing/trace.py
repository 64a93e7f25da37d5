"""The way to a host, without privileges: UDP datagrams that die on the way, and what the routers say of it.

A datagram with a time to live of n is dropped by the n-th router, which says so by ICMP. A raw socket would be needed to
receive that, but Linux keeps it for the socket that sent the datagram, in its error queue (IP_RECVERR, ip(7)): who said it,
and why. The same queue has what a router says of a datagram that is too large for the next link: the path's MTU (RFC 1191).
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import NamedTuple

from apps.probing.policy import Target

PORT = 33434
"""The first of the ports that traceroute has always used: nobody listens there."""
HOPS = 30
TRIES = 3
TIMEOUT = 1.0
"""Seconds for each answer."""
SMALLEST = {socket.AF_INET: 576, socket.AF_INET6: 1280}
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""IP's and UDP's."""
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_RECVERR, IP_MTU = 10, 3, 11, 14
IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_MTU = 23, 25, 24
LOCAL, ICMP, ICMP6 = 1, 2, 3
"""Who found an error (linux/errqueue.h): this machine, or somebody by ICMP."""
EXTENDED = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, pad, info, data; the offender's address follows."""
TIME_EXCEEDED = {ICMP: 11, ICMP6: 3}
PORT_UNREACHABLE = {ICMP: (3, 3), ICMP6: (1, 4)}
WORDS = {
    (ICMP, 3, 0): "network unreachable",
    (ICMP, 3, 1): "host unreachable",
    (ICMP, 3, 9): "forbidden",
    (ICMP, 3, 10): "forbidden",
    (ICMP, 3, 13): "forbidden",
    (ICMP6, 1, 0): "no route",
    (ICMP6, 1, 1): "forbidden",
    (ICMP6, 1, 3): "host unreachable",
}


class Error(NamedTuple):
    """What the error queue had of one datagram."""

    number: int
    origin: int
    kind: int
    code: int
    info: int
    offender: str


class Hop(NamedTuple):
    """One probe's answer: who, after how many seconds, whether it is the host itself, and what it had against going on."""

    address: str = ""
    seconds: float | None = None
    arrived: bool = False
    trouble: str = ""


def open_socket(target: Target) -> socket.socket:
    """A UDP socket that is told of errors, and whose datagrams are never cut in pieces."""
    connection = socket.socket(target.family, socket.SOCK_DGRAM)
    try:
        if target.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            connection.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        else:
            connection.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            connection.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def next_error(connection: socket.socket, deadline: float) -> Error | None:
    """What comes next in the error queue; None when nothing does in time. Raises ConnectionRefusedError for an answer."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)  # errors are told of without being asked for
    while (left := deadline - time.perf_counter()) > 0:
        for _, events in poller.poll(left * 1000):
            if events & select.POLLERR:
                try:
                    _, ancillary, _, _ = connection.recvmsg(512, 512, socket.MSG_ERRQUEUE)
                except BlockingIOError:
                    # An error of the socket's own, without an entry in the queue: reading it clears it.
                    connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    continue
                for level, kind, data in ancillary:
                    if (level, kind) in {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}:
                        return parse_error(data)
            if events & select.POLLIN:
                connection.recv(2048)  # somebody listens there, after all, and has answered
                raise ConnectionRefusedError
    return None


def parse_error(data: bytes) -> Error:
    """A struct sock_extended_err and the address of who told it."""
    number, origin, kind, code, _, info, _ = EXTENDED.unpack_from(data)
    offender = ""
    if len(data) >= EXTENDED.size + 8:
        family = struct.unpack_from("=H", data, EXTENDED.size)[0]
        if family == socket.AF_INET:
            offender = socket.inet_ntop(family, data[EXTENDED.size + 4 : EXTENDED.size + 8])
        elif family == socket.AF_INET6:
            offender = socket.inet_ntop(family, data[EXTENDED.size + 8 : EXTENDED.size + 24])
    return Error(number, origin, kind, code, info, offender)


def probe(target: Target, hops: int, number: int = 0, timeout: float = TIMEOUT) -> Hop:
    """One datagram that lives for so many hops. Raises OSError when this machine itself can't send it."""
    with open_socket(target) as connection:
        if target.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        else:
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        connection.connect(target._replace(port=PORT + number % 100).sockaddr)
        start = time.perf_counter()
        connection.send(bytes(32))
        try:
            error = next_error(connection, start + timeout)
        except ConnectionRefusedError:
            return Hop(target.address, time.perf_counter() - start, arrived=True)
        seconds = time.perf_counter() - start
    if error is None:
        return Hop()
    if error.origin == LOCAL:
        return Hop(trouble=f"this machine: {errno.errorcode.get(error.number, error.number)}")
    if error.kind == TIME_EXCEEDED[error.origin]:
        return Hop(error.offender, seconds)
    if (error.kind, error.code) == PORT_UNREACHABLE[error.origin]:
        return Hop(error.offender, seconds, arrived=True)
    return Hop(error.offender, seconds, trouble=WORDS.get((error.origin, error.kind, error.code), "unreachable"))


def path_mtu(target: Target, timeout: float = TIMEOUT) -> int | None:
    """The largest datagram, with its headers, that gets there whole; None if that can't be found out.

    A router that drops what is too large must say what would fit (RFC 1191, RFC 8201), so few tries are enough; one that says
    nothing is a black hole, and shows by the silence.
    """
    ipv4 = target.family == socket.AF_INET
    with open_socket(target) as connection:
        connection.connect(target._replace(port=PORT).sockaddr)
        level, option = (socket.IPPROTO_IP, IP_MTU) if ipv4 else (socket.IPPROTO_IPV6, IPV6_MTU)
        size = connection.getsockopt(level, option)
        for _ in range(10):
            try:
                connection.send(bytes(min(size, 65535) - HEADERS[target.family]))
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                # The link's own limit: the error queue says which.
            try:
                found = next_error(connection, time.perf_counter() + timeout)
            except ConnectionRefusedError:
                return size
            if found is None:
                return None
            if found.number != errno.EMSGSIZE:
                return (
                    size
                    if found.origin != LOCAL and (found.kind, found.code) == PORT_UNREACHABLE[found.origin]
                    else None
                )
            if not SMALLEST[target.family] // 8 <= found.info < size:
                return None
            size = found.info
    return None
