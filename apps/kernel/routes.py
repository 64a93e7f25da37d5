"""rtnetlink(7): neighbours, which are the hosts on our links, and routes. What `ip neigh` and `ip route` show."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from apps.kernel.netlink import attributes, dump

NETLINK_ROUTE = 0
GET_ROUTE, GET_NEIGHBOUR = 26, 30
ROUTE = struct.Struct("=8BI")
"""rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type; flags."""
NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""ndmsg: family, interface, state, flags, type."""
DESTINATION, LINK_ADDRESS = 1, 2  # attributes of a neighbour
ROUTE_TO, OUT, GATEWAY, PRIORITY = 1, 4, 5, 6  # and of a route
MAIN = 254
"""The table that people write routes to; the local one has our own addresses."""
STATES = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed", 0x80: "permanent",
}  # fmt: skip
FAMILIES = {socket.AF_INET, socket.AF_INET6}


class Neighbour(NamedTuple):
    """A host on a link; `state` says how long ago it was heard of."""

    address: str
    link_address: str
    interface: str
    state: str


class Route(NamedTuple):
    """Where packets to a network leave; `gateway` is "" for one on the link."""

    network: str
    gateway: str
    interface: str
    metric: int


def neighbours() -> list[Neighbour]:
    """All that have been heard of, or looked for; those that need no looking for are left out."""
    found = dump(NETLINK_ROUTE, GET_NEIGHBOUR, NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return [each for each in map(parse_neighbour, found) if each]


def parse_neighbour(message: bytes) -> Neighbour | None:
    """A message of rtnetlink."""
    family, index, state, *_ = NEIGHBOUR.unpack_from(message)
    if family not in FAMILIES or state not in STATES:
        return None
    more = attributes(message[NEIGHBOUR.size :])
    link = more.get(LINK_ADDRESS, b"").hex(":")
    return Neighbour(socket.inet_ntop(family, more[DESTINATION]), link, interface(index), STATES[state])


def routes() -> list[Route]:
    """Those of the main table."""
    return list(main_routes(dump(NETLINK_ROUTE, GET_ROUTE, ROUTE.pack(*[0] * 9))))


def main_routes(found: Iterator[bytes]) -> Iterator[Route]:
    """Messages of rtnetlink, as routes."""
    for message in found:
        family, length, _, _, number, *_ = ROUTE.unpack_from(message)
        if family not in FAMILIES or number != MAIN:
            continue
        more = attributes(message[ROUTE.size :])
        zero = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - a network, not bound
        yield Route(
            f"{socket.inet_ntop(family, more[ROUTE_TO]) if ROUTE_TO in more else zero}/{length}",
            socket.inet_ntop(family, more[GATEWAY]) if GATEWAY in more else "",
            interface(number_of(more.get(OUT))),
            number_of(more.get(PRIORITY)),
        )


def number_of(value: bytes | None) -> int:
    """An attribute of four bytes; 0 if there is none."""
    return int(struct.unpack("=I", value)[0]) if value else 0


def interface(index: int) -> str:
    """Its name, while it is there."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index) if index else ""
