"""rtnetlink(7): interfaces with counters and addresses, neighbours, routes; `ip -s link`, `ip addr`, `ip neigh`, `ip route`."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from apps.kernel.netlink import Netlink, attributes, records

NETLINK_ROUTE = 0
GET_LINK, GET_ADDRESS, GET_ROUTE, GET_NEIGHBOUR = 18, 22, 26, 30
LINK = struct.Struct("=BxHiII")
"""ifinfomsg: family, type, index, flags, change."""
ADDRESS = struct.Struct("=4BI")
"""ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = struct.Struct("=8BI")
"""rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type; flags."""
NEXT_HOP = struct.Struct("=HBBi")
"""rtnexthop: length, flags, weight - 1, interface."""
NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""ndmsg: family, interface, state, flags, type."""
COUNTERS = struct.Struct("=24Q")
"""rtnl_link_stats64."""
LINK_ADDRESS, NAME, MTU, OPERSTATE, STATS64 = 1, 3, 4, 16, 23  # attributes of a link
NEIGHBOUR_ADDRESS, NEIGHBOUR_LINK = 1, 2
PREFIX_ADDRESS, LOCAL_ADDRESS = 1, 2
ROUTE_TO, OUT, GATEWAY, PRIORITY, MULTIPATH, VIA = 1, 4, 5, 6, 9, 18
IS_UP, LOOPBACK, LOWER_UP = 0x1, 0x8, 0x10000
MAIN = 254
"""The table that `ip route` shows; the local one has this machine's own addresses."""
TYPES = {1: "", 2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
OPERSTATES = ("unknown", "not present", "down", "lower layer down", "testing", "dormant", "up")
NEIGHBOUR_STATES = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed", 0x80: "permanent",
}  # fmt: skip
FAMILIES = {socket.AF_INET, socket.AF_INET6}


class Traffic(NamedTuple):
    """Counters of an interface, which only grow."""

    receive_bytes: int
    receive_packets: int
    receive_errs: int
    receive_drop: int
    transmit_bytes: int
    transmit_packets: int
    transmit_errs: int
    transmit_drop: int

    @property
    def errors(self) -> int:
        return self.receive_errs + self.transmit_errs

    @property
    def drops(self) -> int:
        return self.receive_drop + self.transmit_drop


class Interface(NamedTuple):
    """An interface; `state` is "up", or the reason why it carries no traffic."""

    number: int
    name: str
    state: str
    mtu: int
    link_address: str
    traffic: Traffic


class Neighbour(NamedTuple):
    """A host on a link; `state` is that of neighbour unreachability detection (RFC 4861 7.3.2)."""

    address: str
    link_address: str
    interface: str
    state: str


class Route(NamedTuple):
    """A route of the main table; `kind` is "" for a common one, `hops` are its gateways and interfaces."""

    network: str
    kind: str
    hops: str
    metric: int


def interfaces(route: Netlink) -> list[Interface]:
    """All interfaces of this namespace. Raises OSError."""
    return [parse_link(each) for each in route.dump(GET_LINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))]


def parse_link(message: bytes) -> Interface:
    _, _, index, flags, _ = LINK.unpack_from(message)
    more = attributes(message[LINK.size :])
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped, *rest = COUNTERS.unpack(
        more.get(STATS64, b"")[: COUNTERS.size].ljust(COUNTERS.size, b"\0")
    )
    missed = rest[7]  # no room in the device: /proc/net/dev counts these as dropped
    traffic = Traffic(rx_bytes, rx_packets, rx_errors, rx_dropped + missed, tx_bytes, tx_packets, tx_errors, tx_dropped)
    state = OPERSTATES[more[OPERSTATE][0]] if more.get(OPERSTATE, b"\xff")[0] < len(OPERSTATES) else "unknown"
    if not flags & IS_UP:
        state = "administratively down"
    elif not flags & LOWER_UP:
        state = "no carrier"
    elif state == "unknown":  # of a device that does not report it, as the loopback interface
        state = "up"
    name = more[NAME].rstrip(b"\0").decode("utf-8", "backslashreplace")
    return Interface(index, name, state, number_of(more.get(MTU)), more.get(LINK_ADDRESS, b"").hex(":"), traffic)


def addresses(route: Netlink) -> dict[int, list[str]]:
    """From an interface's index to its addresses with their prefix lengths."""
    found: dict[int, list[str]] = {}
    for message in route.dump(GET_ADDRESS, ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, length, _, _, index = ADDRESS.unpack_from(message)
        more = attributes(message[ADDRESS.size :])
        if family in FAMILIES and (value := more.get(LOCAL_ADDRESS, more.get(PREFIX_ADDRESS))):
            found.setdefault(index, []).append(f"{socket.inet_ntop(family, value)}/{length}")
    return found


def speed(name: str) -> int | None:
    """The nominal bits a second of a link, as `ethtool` shows them; None for a device that has none."""
    try:
        megabits = int(Path("/sys/class/net", name, "speed").read_text())
    except (OSError, ValueError):
        return None
    return megabits * 10**6 if megabits > 0 else None


def neighbours(route: Netlink) -> list[Neighbour]:
    """The entries of the ARP and neighbour discovery tables, without those of state noarp. Raises OSError."""
    found = route.dump(GET_NEIGHBOUR, NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return [each for each in map(parse_neighbour, found) if each]


def parse_neighbour(message: bytes) -> Neighbour | None:
    family, index, state, *_ = NEIGHBOUR.unpack_from(message)
    if family not in FAMILIES or state not in NEIGHBOUR_STATES:
        return None
    more = attributes(message[NEIGHBOUR.size :])
    link = more.get(NEIGHBOUR_LINK, b"").hex(":")
    address = socket.inet_ntop(family, more[NEIGHBOUR_ADDRESS])
    return Neighbour(address, link, interface_name(index), NEIGHBOUR_STATES[state])


def routes(route: Netlink) -> list[Route]:
    """The routes of the main table. Raises OSError."""
    return [each for each in map(parse_route, route.dump(GET_ROUTE, ROUTE.pack(*[0] * 9))) if each]


def parse_route(message: bytes) -> Route | None:
    family, length, _, _, number, _, _, kind, _ = ROUTE.unpack_from(message)
    if family not in FAMILIES or number != MAIN:
        return None
    more = attributes(message[ROUTE.size :])
    zero = "0.0.0.0" if family == socket.AF_INET else "::"  # a network
    network = f"{socket.inet_ntop(family, more[ROUTE_TO]) if ROUTE_TO in more else zero}/{length}"
    hops = [
        f"{next_hop(family, attributes(own), index)} weight {weight + 1}"
        for (_, _, weight, index), own in records(more.get(MULTIPATH, b""), NEXT_HOP)
    ] or [next_hop(family, more, number_of(more.get(OUT)))]
    return Route(network, TYPES.get(kind, str(kind)), ", ".join(filter(None, hops)), number_of(more.get(PRIORITY)))


def next_hop(family: int, more: dict[int, bytes], index: int) -> str:
    """`via 10.0.0.1 dev eth0`, as `ip route` has it; the gateway may be of the other family (RFC 8950)."""
    gateway = ""
    if GATEWAY in more:
        gateway = f"via {socket.inet_ntop(family, more[GATEWAY])} "
    elif VIA in more:
        (other,) = struct.unpack_from("=H", more[VIA])
        gateway = f"via {socket.inet_ntop(other, more[VIA][2:])} "
    return f"{gateway}dev {interface_name(index)}" if index else gateway.strip()


def number_of(value: bytes | None) -> int:
    """An attribute of four bytes; 0 if there is none."""
    return int(struct.unpack("=I", value)[0]) if value else 0


def interface_name(index: int) -> str:
    """The name of an interface, while there is one."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
