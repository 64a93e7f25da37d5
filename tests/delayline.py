"""A link with a delay: two TUN devices in two network namespaces; packets from one are written to the other, later.

With a jitter, each packet takes up to so many seconds more, but none overtakes another. As a program:
`python -m tests.delayline NAMESPACE NAMESPACE SECONDS [JITTER]`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MOST = 10_000
"""Packets on the line at once; what comes then is lost, as on any line."""


def tun(namespace: str) -> int:
    """A TUN device called `line` in a namespace."""
    with open(f"/run/netns/{namespace}", "rb") as space:
        if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"line", IFF_TUN | IFF_NO_PI))
    return device


def carry(ends: tuple[int, int], delay: float, jitter: float) -> None:
    """Pass packets on, each after the delay, for ever."""
    luck = random.Random(1)
    on_the_way: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    other = dict((ends, ends[::-1]))
    while True:
        due = min((queue[0][0] for queue in on_the_way.values() if queue), default=None)
        wait = None if due is None else max(due - time.monotonic(), 0)
        for here in select.select(ends, [], [], wait)[0]:  # not poll, which counts in milliseconds
            queue = on_the_way[here]
            try:
                while True:
                    packet = os.read(here, 65536)
                    if len(queue) < MOST:
                        at = time.monotonic() + delay + jitter * luck.random() ** 4
                        queue.append((max(at, queue[-1][0] if queue else at), packet))
            except OSError:
                pass  # nothing more, or the device is down
        now = time.monotonic()
        for here, queue in on_the_way.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(other[here], queue.popleft()[1])
                except OSError:
                    pass  # the other end is down


if __name__ == "__main__":
    devices = tun(sys.argv[1]), tun(sys.argv[2])
    print("ready", flush=True)
    carry(devices, float(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
