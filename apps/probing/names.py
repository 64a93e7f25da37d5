"""Names to addresses, with a deadline and a reason for each failure: getaddrinfo has neither.

/etc/hosts first, then dnspython, with the name servers and the search list of /etc/resolv.conf.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from pathlib import Path

from apps.probing.outcome import Failed, Reason
from apps.probing.policy import Found

try:
    import dns.asyncresolver
    from dns._asyncio_backend import Backend
except ImportError:
    dns, Backend = None, object  # type: ignore[assignment, misc]

SHORTEST, LONGEST, MOST = 5.0, 60.0, 1000
"""The shortest and the longest time in seconds that an answer is cached, and the number of names in the cache."""
TRIES = 2
"""Queries to each name server: a datagram may be lost."""


class Connected(Backend):
    """Queries by connected sockets: only for these the kernel reports that nothing listens at the name server."""

    def datagram_connection_required(self) -> bool:
        return True


def literal(host: str) -> Found | None:
    """The address that a text is, in any spelling of the system's (127.1, 0x7f000001, fe80::1%eth0); None if it is a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, sockaddr = found[0]
    scope = sockaddr[3] if len(sockaddr) == 4 else 0  # IPv6
    return Found(socket.AddressFamily(family), str(sockaddr[0]).partition("%")[0], int(scope))


class Resolver:
    """Looks names up and remembers the addresses for a while. Used by one event loop."""

    def __init__(self, resolv: str = "/etc/resolv.conf", hosts: str = "/etc/hosts") -> None:
        self.resolv, self.hosts = resolv, hosts
        self.known: OrderedDict[str, tuple[float, list[Found]]] = OrderedDict()

    async def lookup(self, host: str, deadline: float) -> list[Found]:
        """The addresses of a name, IPv6 first. `deadline` is the event loop's time. Raises Failed."""
        if found := literal(host):
            return [found]
        name, now = host.lower().rstrip("."), asyncio.get_running_loop().time()
        if name == "localhost":  # RFC 6761 6.3
            return [Found(socket.AF_INET, "127.0.0.1"), Found(socket.AF_INET6, "::1")]
        if name in self.known and self.known[name][0] > now:
            return self.known[name][1]
        if addresses := self.in_file(name):
            return addresses
        if dns is None:
            raise Failed(Reason.LOCAL, "dnspython is missing: pip install dnspython")
        ttl, addresses = await self.by_dns(host, deadline - now)
        self.known[name] = now + min(max(ttl, SHORTEST), LONGEST), addresses
        while len(self.known) > MOST:
            self.known.popitem(last=False)
        return addresses

    def in_file(self, name: str) -> list[Found]:
        """The addresses in /etc/hosts; none if it can't be read."""
        try:
            text = Path(self.hosts).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = [line.partition("#")[0].lower().split() for line in text.splitlines()]
        return [found for row in rows if name in row[1:] and (found := literal(row[0]))]

    async def by_dns(self, host: str, seconds: float) -> tuple[float, list[Found]]:
        """Time to live and addresses, by the first name server that answers. Raises Failed."""
        try:
            # The file is read for each lookup: it changes with the network.
            resolver = dns.asyncresolver.Resolver(self.resolv)
            resolver.timeout = seconds / (len(resolver.nameservers) * TRIES)
            answers = await resolver.resolve_name(host, lifetime=seconds, search=True, backend=Connected())
        except dns.resolver.NXDOMAIN:
            raise Failed(Reason.NXDOMAIN, host) from None
        except dns.resolver.NoAnswer:
            raise Failed(Reason.NO_ADDRESS, host) from None
        except dns.resolver.NoResolverConfiguration:
            raise Failed(Reason.NO_NAME_SERVER, f"{self.resolv} names no name server") from None
        except dns.exception.Timeout:
            raise Failed(Reason.NAME_TIMEOUT, "no answer") from None
        except dns.resolver.NoNameservers as error:
            refused = all(isinstance(each[3], OSError) for each in error.kwargs["errors"])
            raise Failed(Reason.NO_NAME_SERVER if refused else Reason.SERVFAIL, str(error)) from None
        except dns.exception.DNSException as error:
            raise Failed(Reason.SERVFAIL, str(error)) from None
        found = [Found(socket.AddressFamily(family), address) for address, family in answers.addresses_and_families()]
        return min(answer.rrset.ttl for answer in answers.values() if answer.rrset), found
