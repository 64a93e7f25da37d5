"""Read from /proc which process listens on a port, and which addresses this machine has, without DNS queries.

`microwsgi.server.sockets` uses this for its messages and URLs.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def listening_process(port: int, addresses: list[tuple[int, str]]) -> tuple[int, str] | None:
    """Return the pid and the command line of the process that listens on a port; None if this user may not read them."""
    wanted = {f"socket:[{inode}]" for inode in listening_inodes(port, addresses)}
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit()] if wanted else []
    except OSError:
        return None
    for pid in processes:
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    return int(pid), command_line(pid)
        except OSError:
            continue  # another user's process, or a process that has ended
    return None


def listening_inodes(port: int, addresses: list[tuple[int, str]]) -> Iterator[str]:
    """Yield the inodes of sockets that listen on the port, at one of the addresses or at the wildcard address."""
    ours = {kernel_address(family, host) for family, host in addresses}
    for table in "tcp", "tcp6":
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        for row in rows:
            address, _, number = row[1].partition(":")
            everywhere = not int(address, 16) or any(not int(our, 16) for our in ours)
            if row[3] == LISTENING and int(number, 16) == port and (everywhere or address in ours):
                yield row[9]


def kernel_address(family: int, host: str) -> str:
    """Return an address in the format of /proc/net/tcp: words of four bytes in host byte order."""
    data = socket.inet_pton(family, host.partition("%")[0])
    words = (int.from_bytes(data[start : start + 4], sys.byteorder) for start in range(0, len(data), 4))
    return "".join(f"{word:08X}" for word in words)


def command_line(pid: str) -> str:
    """Return the command line of a process, without control characters."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        text = file.read(200).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text) or "no command line"


def own_addresses(family: int) -> list[str]:
    """Return the addresses of this machine, loopback first, without DNS queries."""
    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        own = fib_addresses() if family == socket.AF_INET else if_inet6_addresses()
    except OSError:
        own = [source_address(family)]
    return [loopback, *sorted({address for address in own if address and not is_loopback(address)})]


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address."""
    return address == "::1" or address.startswith("127.")


def fib_addresses() -> list[str]:
    """Return the local addresses of Linux's routing table, each on the line before its type."""
    with open("/proc/net/fib_trie", encoding="ascii") as file:
        words = file.read().split()
    return [words[i - 1] for i in range(1, len(words)) if words[i : i + 3] == ["/32", "host", "LOCAL"]]


def if_inet6_addresses() -> list[str]:
    """Return Linux's IPv6 addresses that need no zone identifier."""
    with open("/proc/net/if_inet6", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])) for row in rows if row[3] != "20"]


def source_address(family: int) -> str:
    """Return the source address of packets to the internet. Connecting a datagram socket sends no packet."""
    # Reserved for documentation by RFC 5737 and RFC 3849.
    far = "203.0.113.1" if family == socket.AF_INET else "2001:db8::1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])
