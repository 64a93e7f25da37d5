"""What systemd wants to hear of a service, and which sockets it passes: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

All of it comes in variables of the environment, which are taken away: neither the application nor what it starts may answer
in this process's place.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

FIRST = 3
"""SD_LISTEN_FDS_START: the descriptor of the first socket that is passed."""


class Notifier:
    """A way to the service manager; without one, nothing is told to nobody."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        self.socket: socket.socket | None = None
        self.interval = 0.0
        """Seconds between two signs of life: half of what the watchdog waits for; 0 if there is none."""
        if address[:1] not in {"/", "@"}:
            return
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        try:
            self.socket.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError:
            self.close()
            return
        if microseconds.isdigit() and pid == str(os.getpid()):
            self.interval = int(microseconds) / 2e6

    def tell(self, *lines: str) -> None:
        """Send assignments, like READY=1; a manager that does not listen misses them."""
        if self.socket is None:
            return
        try:
            self.socket.send("\n".join(lines).encode())
        except OSError:
            pass

    def reloading(self) -> None:
        """New code is loaded; READY=1 ends that."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Give the socket back."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def passed_sockets(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """The sockets that this process was started with, as (name, descriptor)."""
    pid, number = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not number.isdigit():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    found = []
    for index, descriptor in enumerate(range(FIRST, FIRST + int(number))):
        os.set_inheritable(descriptor, False)
        found.append((names[index] if index < len(names) else "", descriptor))
    return found
