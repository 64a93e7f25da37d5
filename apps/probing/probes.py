"""The probes: ICMP, TCP, TLS, HTTP and DNS.

A whole probe, with name lookup, every address of the name and every byte of the answer, ends within its timeout. No exception
and no slow peer reaches another probe.

    run             lookup, policy, then one address after the other
    attempt         one address: an exception becomes an Outcome
    MODULES         tcp, tls, http_get, dns_query, ping: each returns what is wrong (OK for nothing) and facts, or raises Failed

A redirect is not followed, and no body is shown. The names are those of blackbox_exporter.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from apps.kernel import links, tcpinfo
from apps.kernel.netlink import Netlink
from apps.probing import icmp
from apps.probing.names import Resolver
from apps.probing.outcome import Failed, Outcome, Reason, reason_of
from apps.probing.policy import Policy, Target, parse

try:
    import dns.asyncquery
    import dns.flags
    import dns.rcode
except ImportError:
    dns = None  # type: ignore[assignment]

TIMEOUT = 2.0
"""Seconds for a whole probe."""
MOST_ADDRESSES = 4
"""Addresses of a name that are tried."""
BODY, HEAD = 1 << 20, 1 << 16
"""Bytes of a response's body, and of its head, that are received."""
INFORMATIONAL = 8
"""Responses with 1xx before the final one (RFC 9110 15.2)."""
SUCCESSFUL = frozenset(range(200, 300))
Facts = dict[str, Any]
Probe = Callable[["Target", "Check", "Timer"], Awaitable[tuple[Reason, Facts]]]


class Check(NamedTuple):
    """A target, and how to probe it."""

    module: str
    target: str
    path: str = "/"
    status: frozenset[int] = SUCCESSFUL
    query: str = "localhost"
    type: str = "A"


class Timer:
    """The seconds of each phase of a probe, by blackbox_exporter's names for them."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.received = False
        """Whether the target has answered."""
        self.lost = 0
        """Packets that had to be sent again until it did."""

    def end(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase], self.last = now - self.last, now


async def run(check: Check, policy: Policy, resolver: Resolver, seconds: float, *, configured: bool = True) -> Outcome:
    """One probe. `configured`: the operator has named the target."""
    timer, deadline = Timer(), asyncio.get_running_loop().time() + seconds
    try:
        async with asyncio.timeout_at(deadline):
            host, port = parse(check.target, MODULES[check.module].port)
            if not configured:
                policy.check_port(port)
            found = await resolver.lookup(host, deadline)
        targets = policy.targets(host, port, found, configured=configured)
        timer.end("resolve")
        outcome = await first_answer(check, targets[:MOST_ADDRESSES], timer, deadline)
        if outcome.passed:  # the next probe of the name begins with this address
            found.sort(key=lambda each: each.address != outcome.address)
    except TimeoutError:
        return Outcome(Reason.NAME_TIMEOUT, phases=timer.seconds)
    except Failed as error:
        return Outcome(error.reason, phases=timer.seconds, facts={"error": str(error)})
    except Exception as error:  # a fault of one probe must not cost another
        return Outcome(Reason.LOCAL, facts={"error": f"{type(error).__name__}: {error}"})
    return outcome


async def first_answer(check: Check, targets: list[Target], timer: Timer, deadline: float) -> Outcome:
    """The outcome of the first address that answers, or of the last one; each has its share of the time."""
    loop, failed = asyncio.get_running_loop(), list[str]()
    for number, target in enumerate(targets):
        timer.last, timer.received = time.perf_counter(), False
        outcome = await attempt(check, target, timer, loop.time() + (deadline - loop.time()) / (len(targets) - number))
        if outcome.passed or (timer.received and outcome.reason is not Reason.REFUSED):
            break
        failed.append(f"{target.address}: {outcome.reason}")
    others = failed if outcome.passed else failed[:-1]
    return outcome._replace(facts=outcome.facts | ({"other addresses": ", ".join(others)} if others else {}))


async def attempt(check: Check, target: Target, timer: Timer, end: float) -> Outcome:
    """A probe of one address, until `end`. Raises no OSError."""
    facts: Facts = {}
    seconds, text, sender = None, "", ""
    try:
        async with asyncio.timeout_at(end):
            reason, facts = await MODULES[check.module].send(target, check, timer)
            seconds = sum(timer.seconds.values()) - timer.seconds.get("resolve", 0.0)
    except Failed as error:
        reason, text, sender = error.reason, str(error), error.sender
        if sender == target.address:  # a rejection is an answer
            timer.received, seconds = True, time.perf_counter() - timer.last
    except (OSError, ssl.CertificateError) as error:
        reason, text = reason_of(error)
        if reason is Reason.NO_ANSWER and timer.received:
            reason, text = Reason.TIMEOUT, f"after {', '.join(timer.seconds)}"
        elif reason is Reason.NO_ANSWER and is_no_neighbour(target):
            reason = Reason.NO_NEIGHBOUR
    if reason in {Reason.NO_ANSWER, Reason.NO_NEIGHBOUR, Reason.NO_ROUTE} and (down := icmp.interface_down(target)):
        reason, sender = Reason.INTERFACE_DOWN, down
    facts |= {"error": text} if text else {}
    return Outcome(reason, seconds, timer.received and not timer.lost, target.address, sender, timer.seconds, facts)


def explain(error: OSError, connection: socket.socket, target: Target) -> Failed:
    """The failure that an error of a connection stands for, by its ICMP message if there is one."""
    icmp_error = icmp.next_error(connection)
    if icmp_error is not None and icmp_error.origin != icmp.LOCAL:
        return icmp_failure(icmp_error, target)
    if error.errno == errno.EHOSTUNREACH:
        # Without an ICMP message: an unreachable route, or no host with this address on the link.
        return Failed(Reason.NO_NEIGHBOUR if is_no_neighbour(target) else Reason.NO_ROUTE)
    reason, text = reason_of(error)
    return Failed(reason, text, target.address if reason is Reason.REFUSED else "")


def icmp_failure(error: icmp.IcmpError, target: Target) -> Failed:
    """The failure that an ICMP message stands for."""
    reason = icmp.reason_of(error, target)
    return Failed(reason, sender="" if reason is Reason.NO_NEIGHBOUR else error.sender)


def is_no_neighbour(target: Target) -> bool:
    """Whether the kernel has asked the link for this address without an answer."""
    with contextlib.closing(Netlink(links.NETLINK_ROUTE)) as route, contextlib.suppress(OSError, ValueError):
        states = {each.address: each.state for each in links.neighbours(route)}
        return states.get(target.address) in {"incomplete", "failed"}
    return False


async def connect(target: Target, timer: Timer) -> socket.socket:
    """A TCP connection. Raises Failed."""
    connection = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(*icmp.RECVERR[target.family], 1)
        try:
            await asyncio.get_running_loop().sock_connect(connection, target.sockaddr)
        except TimeoutError:
            raise
        except OSError as error:
            raise explain(error, connection, target) from None
    except BaseException:
        connection.close()
        raise
    timer.end("connect")
    timer.received = True
    info = tcpinfo.of(connection)
    timer.lost = info.retransmitted if info else 0  # of a new connection: its SYN
    return connection


async def tcp(target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    (await connect(target, timer)).close()
    return Reason.OK, retransmitted(timer)


def retransmitted(timer: Timer) -> Facts:
    return {"retransmitted SYN": timer.lost} if timer.lost else {}


@contextlib.asynccontextmanager
async def stream(
    target: Target, timer: Timer, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with TLS or without, as asyncio's streams."""
    connection = await connect(target, timer)
    name = target.host if context else None
    try:
        reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=name, limit=HEAD)
    except BaseException:
        # It belongs to asyncio's transport, which may still use it after a cancelled handshake. If we closed it, its
        # number could become that of another probe's socket. After a shutdown the transport closes it.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        raise
    try:
        if context:
            timer.end("tls")
        yield reader, writer
    finally:
        writer.transport.abort()  # the peer may never close its side


@functools.lru_cache(maxsize=1)
def authorities(file: str | None, period: float) -> ssl.SSLContext:
    """A context with the authorities that this machine trusts.

    Reading them takes 30 ms of processor time, and delays the answers of all other probes, which would look slow.
    """
    return ssl.create_default_context()


def trusting() -> ssl.SSLContext:
    """A context with the authorities as they were at most ten minutes ago."""
    return authorities(os.environ.get("SSL_CERT_FILE"), time.time() // 600)


async def tls(target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    """A handshake, and the certificate."""
    async with stream(target, timer, trusting()) as (_, writer):
        return Reason.OK, certificate(writer) | retransmitted(timer)


async def read_invalid(send: Probe, target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    """A probe by TLS. If the certificate is invalid, a second handshake without verification reads it."""
    try:
        return await send(target, check, timer)
    except ssl.SSLCertVerificationError as error:
        reason, text = reason_of(error)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with stream(target, timer, context) as (_, writer):
        return reason, {"error": text} | certificate(writer)


def certificate(writer: asyncio.StreamWriter) -> Facts:
    """Facts of a TLS connection, and of the certificate if `cryptography` is there to read it."""
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    facts: Facts = {"protocol": connection.version(), "cipher": (connection.cipher() or ("",))[0]}
    data = connection.getpeercert(binary_form=True)
    try:
        from cryptography import x509  # here: the import takes some 85 ms, and few configurations need it
    except ImportError:
        return facts
    try:
        leaf = x509.load_der_x509_certificate(data or b"")
        left = (leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400
        facts |= {"valid from": leaf.not_valid_before_utc.timestamp()}
        facts |= {"expires": leaf.not_valid_after_utc.timestamp(), "days left": round(left, 1)}
        facts |= {"subject": leaf.subject.rfc4514_string(), "issuer": leaf.issuer.rfc4514_string()}
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        facts["names"] = ", ".join(str(name.value) for name in names)
    except x509.ExtensionNotFound:
        facts["names"] = "none"
    except Exception as error:  # of any kind: the certificate may contain anything
        facts["certificate"] = f"malformed: {error}"
    return facts


async def http_get(target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    """One GET. Raises Failed."""
    secure = check.module == "https"
    async with stream(target, timer, trusting() if secure else None) as (reader, writer):
        facts = certificate(writer) if secure else {}
        host = str(target._replace(port=0 if target.port == MODULES[check.module].port else target.port))
        head = f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: microwsgi-probe\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        try:
            version, status, fields = await response_head(reader)
            timer.end("processing")
            size = await body_size(reader, status, fields)
        except (asyncio.LimitOverrunError, ValueError, http.client.HTTPException) as error:
            raise Failed(Reason.INVALID, str(error) or type(error).__name__) from None
        except asyncio.IncompleteReadError as error:
            raise Failed(Reason.CUT, f"after {len(error.partial)} bytes of what was expected next") from None
        timer.end("transfer")
    facts |= {"status": status, "HTTP version": version, "bytes": size} | retransmitted(timer)
    if location := fields.get("Location"):
        facts["location"] = location[:200]
    return Reason.OK if status in check.status else Reason.STATUS, facts


async def response_head(reader: asyncio.StreamReader) -> tuple[str, int, http.client.HTTPMessage]:
    """Version, status and fields of the final response (RFC 9112 4). Raises ValueError."""
    for _ in range(INFORMATIONAL):
        head = io.BytesIO(await reader.readuntil(b"\r\n\r\n"))
        version, _, rest = head.readline().decode("latin-1").strip().partition(" ")
        code = rest.split(" ")[0]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit() and len(code) == 3):
            raise ValueError("no status line of HTTP/1")
        if int(code) >= 200 or int(code) == 101:
            return version.removeprefix("HTTP/"), int(code), http.client.parse_headers(head)
    raise ValueError(f"{INFORMATIONAL} informational responses, and no final one")


async def body_size(reader: asyncio.StreamReader, status: int, fields: http.client.HTTPMessage) -> int:
    """How many bytes the body has, up to BODY (RFC 9112 6.3). Raises IncompleteReadError, ValueError."""
    if status in {204, 304} or status == 101:
        return 0
    size = 0
    if fields.get("Transfer-Encoding", "").lower().endswith("chunked"):
        while size < BODY and (length := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)):
            size += await skip(reader, min(length, BODY))
            await reader.readexactly(2)
        return size
    if (stated := fields.get("Content-Length")) is not None:
        return await skip(reader, min(int(stated), BODY))
    while size < BODY and (data := await reader.read(HEAD)):
        size += len(data)
    return size


async def skip(reader: asyncio.StreamReader, count: int) -> int:
    left = count
    while left:
        left -= len(await reader.readexactly(min(left, HEAD)))
    return count


async def dns_query(target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    """One query by UDP, and by TCP if the answer does not fit. That a name does not exist is an answer, but does not pass."""
    if dns is None:
        raise Failed(Reason.LOCAL, "dnspython is missing: pip install dnspython")
    # The socket is ours, and connected: so its error queue says why there is no answer.
    with icmp.datagram_socket(target) as connection:
        try:
            query = dns.message.make_query(check.query, check.type)
            connection.send(query.to_wire())
            answer = dns.message.from_wire(await asyncio.get_running_loop().sock_recv(connection, 65535))
            timer.received = True
            if answer.flags & dns.flags.TC:
                answer = await dns.asyncquery.tcp(query, target.address, port=target.port)
        except (dns.exception.DNSException, EOFError, ValueError) as error:
            timer.received = True
            raise Failed(Reason.INVALID, str(error) or type(error).__name__) from None
        except TimeoutError:
            raise
        except OSError as error:
            raise explain(error, connection, target) from None
    if not query.is_response(answer):
        raise Failed(Reason.INVALID, "the answer is to another query")
    timer.end("request")
    code, records = answer.rcode(), [str(record) for each in answer.answer for record in each]
    facts: Facts = {"code": dns.rcode.to_text(code), "records": ", ".join(records[:20]), "answers": len(records)}
    reasons = {dns.rcode.NOERROR: Reason.OK, dns.rcode.NXDOMAIN: Reason.NXDOMAIN}
    return reasons.get(code, Reason.SERVFAIL), facts


async def ping(target: Target, check: Check, timer: Timer) -> tuple[Reason, Facts]:
    """One echo request."""
    payload, reply = os.urandom(icmp.SIZE), None
    with icmp.ping_socket(target) as connection:
        connection.send(icmp.echo_request(target, 1, payload))
        while reply is None or reply[1] != payload:
            await icmp.readable(connection)
            if error := icmp.next_error(connection):
                raise icmp_failure(error, target)
            with contextlib.suppress(BlockingIOError):
                reply = icmp.echo_reply(connection, target)
    timer.received = True
    timer.end("rtt")
    return Reason.OK, {}


class Module(NamedTuple):
    """A kind of probe: the port if the target has none, what sends it, and the keys that a target of it may have."""

    port: int
    send: Probe
    keys: frozenset[str] = frozenset()


WEB = frozenset({"path", "status"})
MODULES = {
    "icmp": Module(0, ping),
    "tcp": Module(80, tcp),
    "tls": Module(443, functools.partial(read_invalid, tls)),
    "http": Module(80, http_get, WEB),
    "https": Module(443, functools.partial(read_invalid, http_get), WEB),
    "dns": Module(53, dns_query, frozenset({"query", "type"})),
}
