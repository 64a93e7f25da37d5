"""Whom a probe may be sent to. A page that probes for whoever asks is a tool for attacks on what only this machine can reach.

So the operator says who may be probed, in the configuration file: targets by name, and networks for whoever asks for more.
What is judged is the address that a packet would go to, never the text it was asked by: `127.1`, `0x7f000001`, a name that
somebody's DNS server has an answer for, and `::ffff:127.0.0.1` are all one address. It is looked up once, and then pinned.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})))(?::([0-9]{1,5}))?")
"""A name or an IPv4 address, or an IPv6 address in brackets, and a port: no scheme, no user, no path, ASCII only."""
LAST_PORT = 65535
NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""RFC 6052, and RFC 8215's: the last four octets are an IPv4 address."""
COMPATIBLE = ipaddress.IPv6Network("::/96")
ISATAP = (0x00005EFE, 0x02005EFE)
"""RFC 5214: the interface identifier is one of these and an IPv4 address."""
NEVER = tuple(
    ipaddress.ip_network(network)
    for network in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "fe80::/10", "fec0::/10", "ff00::/8")
)
"""Whoever asks: unspecified, link-local (where clouds answer for a machine's secrets), multicast, reserved, broadcast."""
LOOPBACK = tuple(ipaddress.ip_network(network) for network in ("127.0.0.0/8", "::1/128"))
WELL_KNOWN = frozenset((22, 25, 53, 80, 110, 143, 443, 465, 587, 853, 993, 995, 8000, 8080, 8443))
"""Ports that may be asked for, unless the configuration says others."""


class Refused(Exception):
    """The target is none, or nobody may probe it; the text says why, and nothing that the one who asks does not know."""


class Target(NamedTuple):
    """An address to send to, and the name that it was found by."""

    host: str
    port: int
    family: socket.AddressFamily
    address: str
    scope: int = 0

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """For `connect`: the address itself, so that nothing is looked up again."""
        if self.family == socket.AF_INET6:
            return self.address, self.port, 0, self.scope
        return self.address, self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


def parse(text: str, default_port: int = 0) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`. Raises Refused."""
    match = HOST.fullmatch(text)
    if match is None:
        raise Refused("A target is a name or an address, with a port if need be: host, host:443, [2001:db8::1]:443.")
    port = int(match[3]) if match[3] else default_port
    if port > LAST_PORT:
        raise Refused(f"There is no port {port}.")
    return match[1] or match[2], port


def faces(address: Address) -> Iterator[Address]:
    """The address, and those that it may lead to: what is allowed must be allowed by each of its names."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:  # the kernel sends IPv4 packets to these
        yield address.ipv4_mapped
        return
    yield address
    number = int(address)
    if any(address in network for network in NAT64) or (address in COMPATIBLE and number > 1):
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if (number >> 32) & 0xFFFFFFFF in ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)


def inside(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of these networks."""
    return any(address.version == network.version and address in network for network in networks)


class Policy:
    """The operator's word. `allow` are networks that whoever sees the page may probe, `ports` those that they may ask for."""

    def __init__(self, allow: Iterable[str] = (), ports: Iterable[int] = WELL_KNOWN) -> None:
        self.allow = tuple(ipaddress.ip_network(network) for network in allow)
        self.ports = frozenset(ports)

    def permits(self, address: Address, *, configured: bool) -> bool:
        """Whether a packet may go there. What the operator has named may be anywhere but here and where nobody may."""
        for face in faces(address):
            if inside(face, NEVER):
                return False
            if inside(face, self.allow):
                continue
            if not configured or inside(face, LOOPBACK):
                return False
        return True

    def resolve(self, text: str, default_port: int = 0, *, configured: bool = False) -> Target:
        """The target of a text, looked up once; each address that the name has must be permitted. Raises Refused."""
        host, port = parse(text, default_port)
        if not configured and port and port not in self.ports:
            raise Refused(f"Port {port} is none of those that may be probed (ports in the configuration).")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise Refused(f"{host} has no address.") from None
        targets = []
        for family, _, _, _, sockaddr in found:
            address = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
            literal = configured and is_literal(host, address)
            if not (literal or self.permits(address, configured=configured)):
                raise Refused(f"{host} is not in a network that may be probed (allow in the configuration).")
            scope = sockaddr[3] if family == socket.AF_INET6 else 0  # type: ignore[misc]
            targets.append(Target(host, port, socket.AddressFamily(family), str(address), int(scope)))
        return targets[0]


def is_literal(host: str, address: Address) -> bool:
    """Whether the operator wrote this very address: then it is meant, loopback or not."""
    try:
        return ipaddress.ip_address(host) == address and not inside(address, NEVER)
    except ValueError:
        return host == "localhost" and inside(address, LOOPBACK)


class Budget:
    """So many probes a minute for each viewer, and so many at once for all."""

    def __init__(self, each_minute: int = 10, at_once: int = 4, viewers: int = 1000) -> None:
        self.each_minute = each_minute
        self.slots = threading.BoundedSemaphore(at_once)
        self.viewers = viewers
        self.spent: OrderedDict[str, list[float]] = OrderedDict()
        self.guard = threading.Lock()

    def take(self, viewer: str) -> bool:
        """Whether this viewer has a probe left in this minute; takes it."""
        now = time.monotonic()
        with self.guard:
            times = [spent for spent in self.spent.pop(viewer, []) if now - spent < 60]  # noqa: PLR2004 - a minute
            granted = len(times) < self.each_minute
            self.spent[viewer] = [*times, now] if granted else times
            while len(self.spent) > self.viewers:  # the longest silent one is forgotten
                self.spent.popitem(last=False)
        return granted
