"""The same by psutil, where the kernel is not Linux: interfaces and sockets; there are no round-trip times."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import psutil

from apps.kernel.interfaces import Traffic
from apps.kernel.sockets import LISTEN, UNCONNECTED, Socket

NAMES = {psutil.CONN_NONE: UNCONNECTED, psutil.CONN_LISTEN: LISTEN}


def interfaces() -> dict[str, Traffic]:
    """As `apps.kernel.interfaces` has it."""
    return {
        name: Traffic(
            each.bytes_recv, each.packets_recv, each.errin, each.dropin,
            each.bytes_sent, each.packets_sent, each.errout, each.dropout,
        )
        for name, each in psutil.net_io_counters(pernic=True).items()
    }  # fmt: skip


def sockets(protocol: str) -> Iterator[Socket]:
    """As `apps.kernel.sockets` has it. Where a user may see only the own, as on macOS, none but these."""
    found: list[Any]
    try:
        found = list(psutil.net_connections(protocol))
    except psutil.AccessDenied:
        found = list(psutil.Process().net_connections(protocol))
    for each in found:
        zero = "0.0.0.0" if each.family == socket.AF_INET else "::"  # noqa: S104 - shown, not bound
        state = NAMES.get(each.status, each.status.replace("_", " ").lower())
        remote = tuple(each.raddr) or (zero, 0)
        yield Socket(protocol, state, tuple(each.laddr), remote, 0, 0, -1, 0, None)
