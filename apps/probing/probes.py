"""The probes: ICMP, TCP, TLS, HTTP and DNS, each to an address that the policy has judged, and to no other.

A redirect is an answer and is not followed, and nobody sees a body: what is shown is whether, how, and how quickly something
answered. `MODULES` has them by the names that blackbox_exporter gives such things.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apps.probing.icmp import echo
from apps.probing.outcome import ANSWERED, FAULTY, Outcome, failed
from apps.probing.policy import Target

try:
    import dns.exception
    import dns.message
    import dns.query
    import dns.rcode
except ImportError:
    dns = None  # type: ignore[assignment]
try:
    from cryptography import x509
except ImportError:
    x509 = None  # type: ignore[assignment]

TIMEOUT = 2.0
"""Seconds for a whole probe."""
BODY = 1 << 20
"""Bytes of a response's body that are received, and thrown away."""
TCP_INFO_RETRANSMITS = 100
"""Offset of tcpi_total_retrans in Linux's struct tcp_info, an unsigned int."""
DAY = 86400.0


class Phases:
    """The seconds since the phase before."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now

    @property
    def total(self) -> float:
        return self.last - self.start


def connect(target: Target, deadline: float) -> socket.socket:
    """A connection to this address, and nothing looked up. Raises OSError."""
    connection = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(max(deadline - time.perf_counter(), 0.001))
        connection.connect(target.sockaddr)
    except BaseException:
        connection.close()
        raise
    return connection


def retransmitted(connection: socket.socket) -> int:
    """How many segments were sent again, of which a new connection has one, its SYN: a second of waiting is no distance."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_RETRANSMITS + 4)
    count: int = struct.unpack_from("=I", info, TCP_INFO_RETRANSMITS)[0]
    return count


def tcp(target: Target, timeout: float = TIMEOUT) -> Outcome:
    """How long a connection takes."""
    phases = Phases()
    try:
        with connect(target, phases.start + timeout) as connection:
            phases.end("connect")
            return Outcome(ANSWERED, phases.total, phases.seconds, {"retransmitted": retransmitted(connection)})
    except OSError as error:
        return failed(error, target.address)


def handshake(target: Target, phases: Phases, timeout: float, *, verify: bool) -> ssl.SSLSocket:
    """A TLS connection. Raises OSError, of which SSLError is one."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = connect(target, phases.start + timeout)
    try:
        phases.end("connect")
        connection.settimeout(max(phases.start + timeout - time.perf_counter(), 0.001))
        wrapped = context.wrap_socket(connection, server_hostname=target.host)
        phases.end("tls")
    except BaseException:
        connection.close()
        raise
    return wrapped


def tls(target: Target, timeout: float = TIMEOUT) -> Outcome:
    """The handshake, and the certificate: one that can't be verified is an outcome of its own, and shown all the same."""
    phases = Phases()
    try:
        with handshake(target, phases, timeout, verify=True) as connection:
            return Outcome(ANSWERED, phases.total, phases.seconds, certificate(connection))
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
    except OSError as error:
        return failed(error, target.address)
    phases = Phases()
    try:
        with handshake(target, phases, timeout, verify=False) as connection:
            return Outcome(FAULTY, phases.total, phases.seconds, {"reason": reason, **certificate(connection)})
    except OSError as error:
        return failed(error, target.address)


def certificate(connection: ssl.SSLSocket) -> dict[str, object]:
    """What a connection says of itself; the certificate's names and days, if `cryptography` is there to read it."""
    cipher = connection.cipher()
    facts: dict[str, object] = {"protocol": connection.version(), "cipher": cipher[0] if cipher else None}
    data = connection.getpeercert(binary_form=True)
    if x509 is None or data is None:
        return facts
    leaf = x509.load_der_x509_certificate(data)
    facts["subject"], facts["issuer"] = leaf.subject.rfc4514_string(), leaf.issuer.rfc4514_string()
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        facts["names"] = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        facts["names"] = []
    facts["days_left"] = (leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds() / DAY
    facts["expires"] = leaf.not_valid_after_utc.timestamp()
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        chain = [x509.load_der_x509_certificate(each) for each in connection.get_unverified_chain()]
        facts["chain"] = [each.subject.rfc4514_string() for each in chain]
    return facts


def http_get(target: Target, timeout: float = TIMEOUT, *, secure: bool = False, path: str = "/") -> Outcome:
    """The status of one GET, and where its time went. A 5xx is faulty; all other statuses are answers."""
    phases = Phases()
    try:
        if secure:
            connection: socket.socket = handshake(target, phases, timeout, verify=True)
        else:
            connection = connect(target, phases.start + timeout)
            phases.end("connect")
        with connection:
            connection.settimeout(max(phases.start + timeout - time.perf_counter(), 0.001))
            host = str(target._replace(port=0 if target.port in {80, 443} else target.port))
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: microwsgi-probe\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode("ascii"))
            response = http.client.HTTPResponse(connection, method="GET")
            response.begin()
            phases.end("processing")
            size = receive_body(response, phases.start + timeout)
            phases.end("transfer")
    except http.client.HTTPException as error:
        return Outcome(FAULTY, facts={"reason": f"no HTTP came: {type(error).__name__}"})
    except OSError as error:
        return failed(error, target.address)
    facts: dict[str, object] = {"status": response.status, "bytes": size}
    return Outcome(
        ANSWERED if response.status < 500 else FAULTY,  # noqa: PLR2004
        phases.total,
        phases.seconds,
        facts,
    )


def receive_body(response: http.client.HTTPResponse, deadline: float) -> int:
    """How long the body is, as far as it is received. Raises TimeoutError."""
    size = 0
    while size < BODY and (piece := response.read1(65536)):
        size += len(piece)
        if time.perf_counter() > deadline:
            raise TimeoutError
    return size


def dns_query(target: Target, timeout: float = TIMEOUT, *, name: str = "localhost", kind: str = "A") -> Outcome:
    """One query, by UDP; that a name does not exist is an answer, and SERVFAIL and REFUSED are not."""
    if dns is None:
        return Outcome(FAULTY, facts={"reason": "dnspython is missing: pip install dnspython"})
    phases = Phases()
    try:
        query = dns.message.make_query(name, kind)
        answer = dns.query.udp(query, target.address, timeout=timeout, port=target.port or 53)
    except dns.exception.Timeout:
        return failed(TimeoutError(), target.address)
    except dns.exception.DNSException as error:
        return Outcome(FAULTY, facts={"reason": str(error) or type(error).__name__})
    except OSError as error:
        return failed(error, target.address)
    phases.end("query")
    code = dns.rcode.to_text(answer.rcode())
    records = [str(record) for each in answer.answer for record in each]
    good = code in {"NOERROR", "NXDOMAIN"}
    return Outcome(ANSWERED if good else FAULTY, phases.total, phases.seconds, {"code": code, "records": records[:20]})


class Module:
    """A kind of probe, as blackbox_exporter calls it: the port that it asks when the target has none, and what sends it."""

    def __init__(self, name: str, port: int, send: Callable[[Target, float], Outcome], about: str) -> None:
        self.name, self.port, self.send, self.about = name, port, send, about


MODULES = {
    module.name: module
    for module in (
        Module("icmp", 0, echo, "ICMP echo"),
        Module("tcp", 80, tcp, "TCP connect"),
        Module("tls", 443, tls, "TLS handshake and certificate"),
        Module("http", 80, http_get, "HTTP GET"),
        Module("https", 443, lambda target, timeout: http_get(target, timeout, secure=True), "HTTPS GET"),
        Module("dns", 53, dns_query, "DNS query"),
    )
}
