"""The owner of a socket: /proc/PID/fd names sockets by inode. A user sees those of the own processes, root those of all."""

from __future__ import annotations

import os
import re

SOCKET = re.compile(r"socket:\[(\d+)\]")


def owners() -> dict[int, str]:
    """From a socket's inode to `name (pid)`, as far as this user may see."""
    found: dict[int, str] = {}
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for pid in processes:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                name = f"{file.read().strip()} ({pid})"
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if match := SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{descriptor}")):
                    found[int(match[1])] = name
        except OSError:
            continue  # another user's process, or one that has ended
    return found
