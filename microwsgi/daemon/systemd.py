"""Notifications to systemd, and the sockets that it passes: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

systemd passes addresses and descriptors in environment variables. These are removed, so that neither the application nor a
program that it starts sends notifications instead of this process.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import MutableMapping

FIRST = 3
"""SD_LISTEN_FDS_START: the descriptor of the first socket that is passed."""
MAX_QUEUED = 16
"""Messages that are queued until systemd reads them; if there are more, the oldest are dropped."""
RETRY = 0.1
"""Seconds between two attempts to send queued messages."""
TEMPORARY = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""Temporary errors: systemd's queue is full, or the system is out of memory at the moment."""
NEVER = float("inf")


class SystemdNotifier:
    """Send notifications to systemd. Does nothing if NOTIFY_SOCKET is unset."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        self.socket: socket.socket | None = None
        self.queue: list[bytes] = []  # messages that systemd has not read yet
        self.retry_at = NEVER
        self.interval = 0.0
        """Seconds between two WATCHDOG=1: half of the watchdog's timeout; 0 if there is no watchdog."""
        if address[:1] not in {"/", "@"}:
            return
        try:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.socket.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError:
            self.close()
            return
        if microseconds.isdigit() and pid == str(os.getpid()):
            self.interval = int(microseconds) / 2e6

    def notify(self, *lines: str) -> None:
        """Send assignments like READY=1. If the socket is full, queue them."""
        if self.socket is not None:
            self.queue = [*self.queue[1 - MAX_QUEUED :], "\n".join(lines).encode()]
            self.write_queued()

    def write_queued(self) -> None:
        """Send queued assignments. A lost READY=1 would make systemd stop a running service."""
        self.retry_at = NEVER
        try:
            while self.queue and self.socket is not None:
                self.socket.send(self.queue[0])
                del self.queue[0]
        except OSError as error:
            if error.errno in TEMPORARY:
                self.retry_at = time.monotonic() + RETRY
            else:
                self.queue.clear()  # systemd no longer listens

    def next_timeout(self) -> float:
        """Return the time when `write_queued` must be called."""
        return self.retry_at

    def reloading(self) -> None:
        """Report that new code is being loaded, until the next READY=1."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def unit_name() -> str:
    """Return the systemd unit of this process, from its control group; "" if there is none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = [line.strip().rpartition("/")[2] for line in file]
    except OSError:
        return ""
    return next((group for group in groups if group.endswith(".service")), "")


def passed_sockets(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Return the sockets that systemd has passed, as (name, descriptor)."""
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
