"""/proc/net/snmp and /proc/net/netstat: the counters of RFC 1213, RFC 4022 and RFC 4113, and what Linux adds to them."""

from __future__ import annotations

from collections.abc import Iterable

FILES = ("/proc/net/snmp", "/proc/net/netstat")
SHOWN = {
    "Tcp.ActiveOpens": "connections opened",
    "Tcp.PassiveOpens": "connections accepted",
    "Tcp.AttemptFails": "attempts failed",
    "Tcp.EstabResets": "connections reset",
    "Tcp.InSegs": "segments in",
    "Tcp.OutSegs": "segments out",
    "Tcp.RetransSegs": "segments sent again",
    "Tcp.OutRsts": "resets sent",
    "TcpExt.ListenOverflows": "listen queue overflows",
    "TcpExt.TCPTimeouts": "timeouts",
    "Udp.InDatagrams": "datagrams in",
    "Udp.OutDatagrams": "datagrams out",
    "Udp.NoPorts": "datagrams to no port",
    "Udp.RcvbufErrors": "datagrams without room",
}
"""Those that netmon shows, and what it calls them."""


def counters() -> dict[str, int]:
    """Those that are shown, as far as this kernel has them. Raises OSError where there is no /proc."""
    found: dict[str, int] = {}
    for name in FILES:
        with open(name, encoding="ascii") as lines:
            found.update(parse(lines))
    return {name: found[name] for name in SHOWN if name in found}


def parse(lines: Iterable[str]) -> dict[str, int]:
    """Lines in pairs: `Tcp: InSegs OutSegs`, and then `Tcp: 12 13`."""
    found = {}
    pairs = iter(lines)
    for names, values in zip(pairs, pairs, strict=True):
        group, *keys = names.split()
        found.update(
            {f"{group}{key}".replace(":", "."): int(value) for key, value in zip(keys, values.split()[1:], strict=True)}
        )
    return found
