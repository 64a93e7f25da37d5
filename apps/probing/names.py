"""Names to addresses, with a deadline and a reason for each failure: getaddrinfo has neither.

/etc/hosts first, then the name servers and the search list of /etc/resolv.conf, A and AAAA at the same time. dnspython makes
and reads the messages; the socket is ours, and connected: so the kernel reports if nothing listens at a name server.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from apps.probing.icmp import datagram_socket
from apps.probing.outcome import Reason
from apps.probing.policy import Found, Target

try:
    import dns.asyncquery
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rdatatype
except ImportError:
    dns = None  # type: ignore[assignment]

RESOLV, HOSTS = "/etc/resolv.conf", "/etc/hosts"
SHORTEST, LONGEST, MOST = 5.0, 60.0, 1000
"""The shortest and the longest time in seconds that an answer is cached, and the number of names in the cache."""
TRIES = 2
"""Queries to each name server: a datagram may be lost."""
FAMILIES = {"AAAA": socket.AF_INET6, "A": socket.AF_INET}


class LookupFailed(Exception):
    """A name has no address; the text says more than the reason."""

    def __init__(self, reason: Reason, text: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class Record(NamedTuple):
    type: str
    ttl: int
    text: str


class Answer(NamedTuple):
    """A response: its code, and the records of its answer section."""

    code: str
    records: list[Record]


async def ask(connection: socket.socket, name: str, kind: str) -> Answer:
    """One query by UDP, and by TCP if the answer does not fit. Raises OSError; ValueError if the response is invalid."""
    if dns is None:
        raise LookupFailed(Reason.LOCAL, "dnspython is missing: pip install dnspython")
    loop = asyncio.get_running_loop()
    try:
        query = dns.message.make_query(name, kind)
        connection.send(query.to_wire())
        answer = dns.message.from_wire(await loop.sock_recv(connection, 65535))
        if answer.flags & dns.flags.TC:
            address, port = connection.getpeername()[:2]
            answer = await dns.asyncquery.tcp(query, address, port=port)
        if not query.is_response(answer):
            raise ValueError("the answer is to another query")
    except (dns.exception.DNSException, EOFError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    records = [
        Record(dns.rdatatype.to_text(each.rdtype), each.ttl, str(record)) for each in answer.answer for record in each
    ]
    return Answer(dns.rcode.to_text(answer.rcode()), records)


def literal(host: str) -> Found | None:
    """The address that a text is, in any spelling of the system's (127.1, 0x7f000001, fe80::1%eth0); None if it is a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, sockaddr = found[0]
    scope = sockaddr[3] if len(sockaddr) == 4 else 0  # IPv6
    return Found(socket.AddressFamily(family), str(sockaddr[0]).partition("%")[0], int(scope))


def lines(path: str) -> Iterator[list[str]]:
    """The words of each line of a file without its comments; nothing if it can't be read."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        if words := line.partition("#")[0].split():
            yield words


class Resolver:
    """Looks names up and remembers the addresses for a while. Used by one event loop."""

    def __init__(self, resolv: str = RESOLV, hosts: str = HOSTS) -> None:
        self.resolv, self.hosts = resolv, hosts
        self.known: OrderedDict[str, tuple[float, list[Found]]] = OrderedDict()

    async def lookup(self, host: str, deadline: float, *, cached: bool = True) -> list[Found]:
        """The addresses of a name, IPv6 first. `deadline` is the event loop's time. Raises LookupFailed."""
        if found := literal(host):
            return [found]
        name = host.lower().rstrip(".")
        if name == "localhost":  # RFC 6761 6.3
            return [Found(socket.AF_INET, "127.0.0.1"), Found(socket.AF_INET6, "::1")]
        loop = asyncio.get_running_loop()
        if cached and name in self.known and self.known[name][0] > loop.time():
            return self.known[name][1]
        found_in_file = [literal(words[0]) for words in lines(self.hosts) if name in map(str.lower, words[1:])]
        if addresses := [each for each in found_in_file if each]:
            return addresses
        ttl, addresses = await self.by_dns(host, deadline)
        self.known[name] = loop.time() + min(max(ttl, SHORTEST), LONGEST), addresses
        while len(self.known) > MOST:
            self.known.popitem(last=False)
        return addresses

    async def by_dns(self, host: str, deadline: float) -> tuple[float, list[Found]]:
        """Time to live and addresses, by the first name server that answers. Raises LookupFailed."""
        servers, search = self.configuration()
        if not servers:
            raise LookupFailed(Reason.NO_NAME_SERVER, f"{self.resolv} names no name server")
        names = [host] if host.endswith(".") or "." in host else [f"{host}.{domain}" for domain in search] + [host]
        failure = LookupFailed(Reason.NXDOMAIN, host)
        for name in names:
            try:
                return await self.first_answer(name, servers, deadline)
            except LookupFailed as error:
                failure = error
                if error.reason not in {Reason.NXDOMAIN, Reason.NO_ADDRESS}:
                    break
        raise failure

    async def first_answer(self, name: str, servers: list[Found], deadline: float) -> tuple[float, list[Found]]:
        loop, failure = asyncio.get_running_loop(), LookupFailed(Reason.NAME_TIMEOUT, "no answer")
        attempts = servers * TRIES
        for number, server in enumerate(attempts):
            try:
                async with asyncio.timeout((deadline - loop.time()) / (len(attempts) - number)):
                    both = await asyncio.gather(
                        *(self.query(server, name, kind) for kind in FAMILIES), return_exceptions=True
                    )
            except TimeoutError:
                continue
            answers = [each for each in both if isinstance(each, Answer)]
            if not answers:
                failure = failure_of(both[1], server.address)
                continue
            records = [each for answer in answers for each in answer.records if each.type in FAMILIES]
            if records:
                return min(each.ttl for each in records), [Found(FAMILIES[each.type], each.text) for each in records]
            codes = {answer.code for answer in answers}
            if "NXDOMAIN" in codes:
                raise LookupFailed(Reason.NXDOMAIN, name)
            if codes == {"NOERROR"}:
                raise LookupFailed(Reason.NO_ADDRESS, name)
            failure = LookupFailed(Reason.SERVFAIL, f"{', '.join(sorted(codes - {'NOERROR'}))} from {server.address}")
        raise failure

    @staticmethod
    async def query(server: Found, name: str, kind: str) -> Answer:
        with datagram_socket(Target("", 53, *server)) as connection:
            return await ask(connection, name, kind)

    def configuration(self) -> tuple[list[Found], list[str]]:
        """Name servers and search list; read for each lookup, since both change with the network."""
        servers, search = [], []
        for words in lines(self.resolv):
            if words[0] == "nameserver" and len(words) > 1 and (found := literal(words[1])):
                servers.append(found)
            elif words[0] in {"search", "domain"}:
                search = words[1:]
        return servers[:3], search[:6]


def failure_of(error: object, server: str) -> LookupFailed:
    if isinstance(error, LookupFailed):
        return error
    if isinstance(error, OSError):
        return LookupFailed(Reason.NO_NAME_SERVER, f"{server}: {error.strerror or error}")
    return LookupFailed(Reason.SERVFAIL, f"{server}: {error}")
