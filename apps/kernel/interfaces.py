"""/proc/net/dev: what each interface has carried since it is there, in numbers that only grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FILE = "/proc/net/dev"


class Traffic(NamedTuple):
    """Counters of an interface."""

    bytes_in: int
    packets_in: int
    errors_in: int
    drops_in: int
    bytes_out: int
    packets_out: int
    errors_out: int
    drops_out: int


def interfaces() -> dict[str, Traffic]:
    """Of all interfaces of this namespace. Raises OSError where there is no /proc."""
    with open(FILE, encoding="ascii", errors="replace") as lines:
        return parse(lines)


def parse(lines: Iterable[str]) -> dict[str, Traffic]:
    """Two lines of names, and then one for each interface: eight numbers of what came in and eight of what went out."""
    found = {}
    for line in list(lines)[2:]:
        name, _, numbers = line.rpartition(":")  # an alias has a colon in its name
        values = [int(number) for number in numbers.split()]
        found[name.strip()] = Traffic(*values[:4], *values[8:12])
    return found
