"""/proc/net/snmp, snmp6 and netstat: the counters of RFC 4293, RFC 4022 and RFC 4113, and those that Linux adds: `nstat`."""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from pathlib import Path

FOLDER, IPV6 = "/proc/net", "snmp6"
FILES = ("snmp", "netstat", IPV6)

SHOWN = {
    "Tcp.ActiveOpens": "connections opened",
    "Tcp.PassiveOpens": "connections accepted",
    "Tcp.AttemptFails": "failed connection attempts",
    "Tcp.EstabResets": "connections reset",
    "Tcp.InSegs": "segments received",
    "Tcp.OutSegs": "segments sent",
    "Tcp.RetransSegs": "retransmitted segments",
    "Tcp.OutRsts": "resets sent",
    "TcpExt.ListenOverflows": "listen queue overflows",
    "TcpExt.TCPTimeouts": "retransmission timeouts",
    "Udp.InDatagrams": "datagrams received",
    "Udp.OutDatagrams": "datagrams sent",
    "Udp.NoPorts": "datagrams to a closed port",
    "Udp.RcvbufErrors": "datagrams dropped, receive buffer full",
    "Udp6.InDatagrams": "datagrams received, IPv6",
    "Udp6.OutDatagrams": "datagrams sent, IPv6",
    "Udp6.NoPorts": "datagrams to a closed port, IPv6",
    "Udp6.RcvbufErrors": "datagrams dropped, receive buffer full, IPv6",
    "Icmp.InMsgs": "ICMP messages received",
    "Icmp.OutMsgs": "ICMP messages sent",
    "Icmp.InDestUnreachs": "ICMP destination unreachable received",
    "Icmp.OutDestUnreachs": "ICMP destination unreachable sent",
}
"""The counters that netmon shows, and their names there. TCP's are of both versions of IP."""


class Counters:
    """The files, which stay open, so that a lack of descriptors does no harm."""

    def __init__(self) -> None:
        self.files: list[FileIO] = []

    def close(self) -> None:
        for file in self.files:
            file.close()
        self.files = []

    def read(self) -> dict[str, int]:
        """The counters that are shown, as far as this kernel has them. Raises OSError without /proc/net."""
        if not self.files:
            names = FILES if Path(FOLDER, IPV6).exists() else FILES[:-1]  # a kernel may be without IPv6
            self.files = [FileIO(f"{FOLDER}/{name}") for name in names]
        found: dict[str, int] = {}
        for name, file in zip(FILES, self.files, strict=False):
            file.seek(0)
            lines = file.read().decode("ascii").splitlines()
            found.update(parse_ipv6(lines) if name == IPV6 else parse(lines))
        return {name: found[name] for name in SHOWN if name in found}


def parse(lines: Iterable[str]) -> dict[str, int]:
    """Lines in pairs: `Tcp: InSegs OutSegs`, and then `Tcp: 12 13`."""
    found = {}
    pairs = iter(lines)
    for names, values in zip(pairs, pairs, strict=True):
        group, *keys = names.split()
        for key, value in zip(keys, values.split()[1:], strict=True):
            found[f"{group}{key}".replace(":", ".")] = int(value)
    return found


def parse_ipv6(lines: Iterable[str]) -> dict[str, int]:
    """`Udp6InDatagrams 12`."""
    words = (line.split() for line in lines)
    return {name.replace("6", "6.", 1): int(value) for name, value in words}
