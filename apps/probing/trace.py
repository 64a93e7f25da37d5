"""The route to a host, without privileges: packets whose time to live ends on the way, and the routers' ICMP messages.

A round sends one packet for each hop, all of one flow (the same addresses, protocol and ports, or ICMP identifier and
checksum): a router that balances its load by flow sends them all the same way (Paris traceroute, Augustin et al., IMC 2006).
Another round may use another flow, and then shows another way. The kernel keeps the answers in the error queue of the socket
(icmp.py), with the beginning of the packet that they are about; a number in there tells which hop it was for.

Routers send few ICMP messages: Linux one a second for each destination. So a round sends one packet for each hop, and none
beyond the target.

    trace           a round
    path_mtu        the largest packet that reaches the target whole
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from typing import NamedTuple

from apps.probing import icmp
from apps.probing.outcome import Reason
from apps.probing.policy import Target

PORT = 33434
"""The first of the ports that traceroute has always used: nothing listens there."""
HOPS = 30
TIMEOUT = 1.0
"""Seconds to wait for the answers of a round, and for each answer while the route is unknown."""
PAUSE = 0.02
"""Seconds between two packets of a round."""
SILENT = 5
"""Consecutive hops without an answer after which the search ends."""
SMALLEST = {socket.AF_INET: 68, socket.AF_INET6: 1280}
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""IP's and UDP's."""
TTL = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
"""Levels and numbers of socket options: IP_MTU_DISCOVER and IP_MTU, IPV6_MTU_DISCOVER and IPV6_MTU."""
PMTUDISC_PROBE = 3
METHODS = ("icmp", "udp")


class Reply(NamedTuple):
    """The answer to one packet; `reason` is set if a router refused to forward it."""

    address: str
    seconds: float
    reached: bool
    reason: str


class Flow:
    """The packets of one flow to a target. The socket stays open: with it the ports, or the ICMP identifier, stay the same."""

    def __init__(self, target: Target, method: str, number: int) -> None:
        self.target, self.method, self.number = target, method, number
        self.connection: socket.socket | None = None
        self.identifier = 0
        """The source port or the ICMP identifier, which tells flows apart."""
        self.length = 0
        """Hops to the target; 0 while it is not known."""
        self.round = 0
        self.replies: dict[int, Reply] = {}
        self.sent_at: dict[int, float] = {}
        self.arrived = asyncio.Event()

    def open(self) -> socket.socket:
        """The socket. Raises OSError."""
        if self.connection is None:
            udp = self.target._replace(port=PORT + self.number)
            self.connection = icmp.ping_socket(self.target) if self.method == "icmp" else udp_socket(udp)
            self.identifier = self.connection.getsockname()[1]
        return self.connection

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def send(self, connection: socket.socket, ttl: int) -> None:
        """Raises OSError if this machine itself can't send it."""
        connection.setsockopt(*TTL[self.target.family], ttl)
        # The number and its complement: the checksum is the same for each packet.
        number = self.round % 256 << 8 | ttl
        payload = struct.pack("!HH", number, 0xFFFF - number) + bytes(28)
        if self.method == "icmp":
            payload = icmp.echo_request(self.target, number, struct.pack("!H", 0xFFFF - number) + bytes(30))
        self.sent_at[ttl] = time.perf_counter()
        with contextlib.suppress(ConnectionRefusedError):  # an earlier packet's: it is in the error queue
            connection.send(payload)

    def receive(self, connection: socket.socket) -> None:
        while (error := icmp.next_error(connection)) is not None:
            ttl = self.ttl_of(error.data)
            if error.origin == icmp.LOCAL or ttl not in self.sent_at:
                continue
            reason = icmp.reason_of(error, self.target)
            reached = reason is Reason.PORT_UNREACHABLE and error.sender == self.target.address
            self.add(ttl, error.sender, reached=reached, reason="" if error.is_hop or reached else str(reason))
        with contextlib.suppress(OSError):
            if self.method == "icmp":
                while True:
                    if (reply := icmp.echo_reply(connection, self.target)) is not None:
                        self.add(self.ttl_of_number(reply[0]), self.target.address, reached=True, reason="")
            else:
                connection.recv(2048)  # something listens on that port
                self.add(max(self.sent_at, default=0), self.target.address, reached=True, reason="")
        self.arrived.set()

    @property
    def has_ended(self) -> bool:
        """Whether the target has answered, or a router has reported that it can't be reached."""
        return any(reply.reached or reply.reason for reply in self.replies.values())

    def ttl_of(self, data: bytes) -> int:
        """The hop that an answer is for.

        A router need not quote more than eight bytes, of UDP only its header: then it is the first packet without an answer.
        """
        if self.method == "icmp" and len(data) >= 8:  # the ICMP header
            return self.ttl_of_number(int.from_bytes(data[6:8]))
        if self.method == "udp" and len(data) >= 4:
            number, complement = struct.unpack_from("!HH", data)
            if number + complement == 0xFFFF:  # as `send` has it
                return self.ttl_of_number(number)
        return min(self.sent_at.keys() - self.replies.keys(), default=0)

    def ttl_of_number(self, number: int) -> int:
        """The hop of a packet of this round; 0 for one of another round, whose answer is late."""
        return number & 0xFF if number >> 8 == self.round % 256 else 0

    def add(self, ttl: int, address: str, *, reached: bool, reason: str) -> None:
        if ttl in self.sent_at and ttl not in self.replies:
            self.replies[ttl] = Reply(address, time.perf_counter() - self.sent_at[ttl], reached, reason)


def udp_socket(target: Target) -> socket.socket:
    """A UDP socket whose packets are never fragmented. Raises OSError."""
    connection = icmp.datagram_socket(target)
    connection.setsockopt(*MTU_DISCOVER[target.family], PMTUDISC_PROBE)
    return connection


async def trace(flow: Flow, *, explore: bool) -> list[Reply | None]:
    """One round: the answers for the first hop, the second and so on. Raises OSError.

    `explore`: look beyond the known length also where hops are silent.
    """
    loop, connection = asyncio.get_running_loop(), flow.open()
    flow.receive(connection)  # answers to the last round that were late
    flow.replies, flow.sent_at = {}, {}
    flow.round += 1
    loop.add_reader(connection, flow.receive, connection)
    try:
        for ttl in range(1, flow.length + 1):
            flow.send(connection, ttl)
            await asyncio.sleep(PAUSE)
            if flow.has_ended:
                break
        ttl = len(flow.sent_at)
        await answers(flow, ttl)
        while ttl < HOPS and not flow.has_ended and ttl - max(flow.replies, default=0) < (SILENT if explore else 1):
            ttl += 1
            flow.send(connection, ttl)
            await answers(flow, ttl)
    finally:
        loop.remove_reader(connection)
    reached = [ttl for ttl, reply in flow.replies.items() if reply.reached]
    if reached:
        flow.length = min(reached)
    elif len(flow.replies) > flow.length:
        flow.length = max(flow.replies)
    return [flow.replies.get(ttl) for ttl in range(1, max(flow.length, 1) + 1)]


async def answers(flow: Flow, ttl: int) -> None:
    """Wait until all packets up to this hop are answered, or one by the target, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            while len(flow.replies) < ttl and not flow.has_ended:
                flow.arrived.clear()
                await flow.arrived.wait()


async def path_mtu(target: Target) -> int | None:
    """The size of the largest packet that reaches the target whole; None if that can't be found out.

    A router that drops a packet that is too large says what would fit (RFC 1191, RFC 8201), so few tries are enough. One that
    says nothing is a black hole.
    """
    with udp_socket(target._replace(port=PORT)) as connection:
        size = connection.getsockopt(*MTU[target.family])
        for _ in range(10):
            try:
                connection.send(bytes(min(size, 65535) - HEADERS[target.family]))
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                # The limit of the first link: the error queue says which.
            try:
                async with asyncio.timeout(TIMEOUT):
                    while (found := icmp.next_error(connection)) is None:
                        await icmp.readable(connection)
                        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                            connection.recv(2048)
                            return size  # something listens on that port, and has answered
            except TimeoutError:
                return None
            if icmp.reason_of(found, target) is Reason.PORT_UNREACHABLE:
                return size
            if found.number != errno.EMSGSIZE or not SMALLEST[target.family] <= found.info < size:
                return None
            size = found.info
    return None
