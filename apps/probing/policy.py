"""Which addresses may be probed.

A page that probes whatever a visitor asks for is a tool for attacks on hosts that only this machine can reach. So the operator
allows targets by name, and networks for visitors, in the configuration file. The address that packets go to is checked, never
the text: `127.1`, `0x7f000001`, `::ffff:127.0.0.1` and a name with such an address are all the same. A name is looked up once;
packets go to the addresses that were checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from apps.probing.outcome import Failed, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,15})?)\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})))(?::([0-9]{1,5}))?"
)
"""A name or an IPv4 address, or an IPv6 address in brackets, perhaps with its link, and a port: no scheme, user or path."""
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
"""For everybody: unspecified, link-local (where clouds answer for a machine's secrets), multicast, reserved, broadcast."""
LOOPBACK = tuple(ipaddress.ip_network(network) for network in ("127.0.0.0/8", "::1/128"))
WELL_KNOWN = frozenset((22, 25, 53, 80, 110, 143, 443, 465, 587, 853, 993, 995, 8000, 8080, 8443))
"""Ports that visitors may ask for, unless the configuration names others."""


class Refused(Failed):
    """The target is invalid or may not be probed; the text gives the reason and nothing that a visitor does not know."""

    def __init__(self, text: str) -> None:
        super().__init__(Reason.NOT_ALLOWED, text)


class Found(NamedTuple):
    """An address as a name server, /etc/hosts, or the literal has it."""

    family: socket.AddressFamily
    address: str
    scope: int = 0


class Target(NamedTuple):
    """An address to probe, and the host that it is of."""

    host: str
    port: int
    family: socket.AddressFamily
    address: str
    scope: int = 0

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """For `connect`: the address, so that nothing is looked up again."""
        if self.family == socket.AF_INET6:
            return self.address, self.port, 0, self.scope
        return self.address, self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


def parse(text: str, default_port: int = 0) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[v6]:port` or `v6`. Raises Refused."""
    if not text.isascii():
        try:
            text = text.encode("idna").decode()
        except UnicodeError:
            raise Refused(f"{text} is not a valid name.") from None
    match = HOST.fullmatch(f"[{text}]" if text.count(":") > 1 and "[" not in text else text)
    if match is None:
        raise Refused("A target is a name or an address, and perhaps a port: host, host:443, [2001:db8::1]:443.")
    if match[1] and not is_address(match[1]):
        raise Refused(f"{match[1]} is not an IPv6 address.")
    port = int(match[3]) if match[3] else default_port
    if port > LAST_PORT:
        raise Refused(f"There is no port {port}.")
    return match[1] or match[2], port


def is_address(text: str) -> bool:
    """Whether this is an IPv6 address, with a link if it is a link-local one only."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text or address.is_link_local


def faces(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses within it to which packets may be forwarded: all must be permitted."""
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
    """The rules of the operator: visitors may probe the networks `allow` and the ports `ports`."""

    def __init__(self, allow: Iterable[str] = (), ports: Iterable[int] = WELL_KNOWN) -> None:
        self.allow = tuple(ipaddress.ip_network(network) for network in allow)
        self.ports = frozenset(ports)

    def permits(self, address: Address, *, configured: bool) -> bool:
        """Whether packets may go there. A configured target may be anywhere but on this machine and in NEVER."""
        for face in faces(address):
            if inside(face, NEVER):
                return False
            if inside(face, self.allow):
                continue
            if not configured or inside(face, LOOPBACK):
                return False
        return True

    def check_port(self, port: int) -> None:
        """Raise Refused if visitors may not ask for this port; 0 is a probe without one."""
        if port and port not in self.ports:
            raise Refused(f"Port {port} may not be probed. The configuration permits others (ports).")

    def targets(self, host: str, port: int, found: Iterable[Found], *, configured: bool = False) -> list[Target]:
        """The addresses of a host as targets; each of them must be permitted. Raises Refused."""
        targets = []
        for family, text, scope in found:
            address = ipaddress.ip_address(text)
            literal = configured and is_literal(host, address)
            if not (literal or self.permits(address, configured=configured)):
                raise Refused(f"{host} is not in a network that the configuration permits (allow).")
            targets.append(Target(host, port, family, text, scope))
        return targets


def is_literal(host: str, address: Address) -> bool:
    """Whether the operator wrote this very address: then it is meant, be it loopback, or link-local with its link."""
    try:
        written = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost" and inside(address, LOOPBACK)
    return written == address and (not inside(address, NEVER) or (address.is_link_local and "%" in host))


MINUTE, AT_ONCE = 60.0, 32


class Budget:
    """Rate limits: the probes of each visitor in a minute, and the probes of all visitors at the same time."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.slots = threading.BoundedSemaphore(AT_ONCE)
        self.minute = 0.0
        self.spent: Counter[str] = Counter()
        self.lock = threading.Lock()  # protects `minute` and `spent`

    def take(self, viewer: str) -> bool:
        """Take a probe from the budget of a visitor. Returns whether there was one left."""
        with self.lock:
            if self.minute != (minute := time.monotonic() // MINUTE):
                self.minute, self.spent = minute, Counter()
            self.spent[viewer] += 1
            return self.spent[viewer] <= self.per_minute
