"""apps/probing/probes.py: each fault of a peer has its own reason, within the time of the probe, and costs that probe only."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from apps.probing.names import Resolver
from apps.probing.outcome import Outcome, Reason
from apps.probing.policy import Policy
from apps.probing.probes import Check, run
from tests.apps.probing.peers import Behaviour, Peer, drips, name_server, says, silent
from tests.programs import need, need_package
from tests.running import LIMIT
from tests.tables import Rows

need_package("cryptography", "trustme")

import trustme  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import ExtensionOID, NameOID  # noqa: E402

TIMEOUT = 1.0
"""Seconds for a probe that is to end by its timeout."""
HERE = Policy(["127.0.0.0/8", "::1/128"])


def probed(check: Check, resolver: Resolver | None = None, seconds: float = LIMIT) -> Outcome:
    """One probe; it must end in time, with room for a busy machine."""
    began = time.monotonic()
    outcome = asyncio.run(run(check, HERE, resolver or Resolver(), seconds))
    assert time.monotonic() - began < seconds + 5
    return outcome


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
HTTP: list[tuple[str, Behaviour, Reason, dict[str, object]]] = [
    ("a page", says(OK), Reason.OK, {"status": 200, "bytes": 2}),
    (
        "chunked",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        Reason.OK,
        {"bytes": 3},
    ),
    ("until the end", says(b"HTTP/1.0 200 OK\r\n\r\nabcd"), Reason.OK, {"bytes": 4, "HTTP version": "1.0"}),
    ("after a 103", says(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK), Reason.OK, {"status": 200}),
    ("not found", says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Reason.STATUS, {"status": 404}),
    (
        "a redirect",
        says(b"HTTP/1.1 301 M\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"),
        Reason.STATUS,
        {"location": "/a"},
    ),
    ("a failure", says(b"HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n"), Reason.STATUS, {"status": 503}),
    ("a body cut off", says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), Reason.CUT, {}),
    ("a chunk cut off", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi"), Reason.CUT, {}),
    ("a head cut off", says(b"HTTP/1.1 200 OK\r\nContent-"), Reason.CUT, {}),
    ("no HTTP", says(b"SSH-2.0-OpenSSH\r\n\r\n"), Reason.INVALID, {}),
    ("a wrong chunk", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Reason.INVALID, {}),
    ("a head without an end", drips(b"X" * 65536, 0.001), Reason.INVALID, {}),
    ("one byte after the other", drips(b"H", 0.05), Reason.TIMEOUT, {}),
    ("endless 100 Continue, slowly", drips(b"HTTP/1.1 100 Continue\r\n\r\n", 0.2), Reason.TIMEOUT, {}),
    ("endless 100 Continue, quickly", drips(b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), Reason.INVALID, {}),
    ("silence", silent, Reason.TIMEOUT, {}),
]


@pytest.mark.parametrize(("behaviour", "reason", "facts"), [row[1:] for row in HTTP], ids=[row[0] for row in HTTP])
def test_http(behaviour: Behaviour, reason: Reason, facts: dict[str, object]) -> None:
    with Peer(behaviour) as peer:
        outcome = probed(
            Check("http", f"127.0.0.1:{peer.port}"), seconds=TIMEOUT if reason is Reason.TIMEOUT else LIMIT
        )
    assert outcome.reason is reason, outcome
    assert facts.items() <= outcome.facts.items()
    assert outcome.received, "the connection was made: no packet is lost"
    assert (outcome.seconds is not None) == (reason in {Reason.OK, Reason.STATUS})


def test_an_expected_status_passes_whatever_it_is() -> None:
    with Peer(says(b"HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n")) as peer:
        assert probed(Check("http", f"127.0.0.1:{peer.port}", status=frozenset({401}))).passed


def certificate(
    folder: Path, names: list[x509.GeneralName] | bytes, days: int, authority: trustme.CA | None, begin: int = -300
) -> ssl.SSLContext:
    """A server's context with a certificate for these names, or for these bytes as its names, valid between days from now."""
    key, today = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    signer, issuer = key, subject
    if authority:
        pem = authority.private_key_pem.bytes()
        signer = serialization.load_pem_private_key(pem, None)  # type: ignore[assignment]
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today + dt.timedelta(begin)).not_valid_after(today + dt.timedelta(days))
    if isinstance(names, bytes):
        malformed = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names)
        builder = builder.add_extension(malformed, critical=False)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    # Python 3.13 verifies strictly: RFC 5280 4.2.1.1 wants the identifier of the signer's key.
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    made = builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256())
    file = folder / "peer.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


LOCALHOST: list[x509.GeneralName] = [x509.DNSName("localhost")]
OTHER: list[x509.GeneralName] = [x509.DNSName("other.example")]
MALFORMED = bytes.fromhex("30068204fffefdfc")
"""A dNSName that is no ASCII."""
TLS: list[tuple[str, Any, int, bool, Reason, bool]] = [
    ("valid", LOCALHOST, 90, True, Reason.OK, True),
    ("expired", LOCALHOST, -1, True, Reason.TLS_EXPIRED, True),
    ("self-signed", LOCALHOST, 90, False, Reason.TLS_SELF_SIGNED, True),
    ("for another name", OTHER, 90, True, Reason.TLS_NAME, True),
    ("with malformed names", MALFORMED, 90, False, Reason.TLS_SELF_SIGNED, True),
]


@pytest.mark.parametrize(("names", "days", "signed", "reason", "shown"), [r[1:] for r in TLS], ids=[r[0] for r in TLS])
def test_certificates(
    names: Any, days: int, signed: bool, reason: Reason, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = certificate(tmp_path, names, days, authority if signed else None)
    with Peer(silent, context) as peer:
        tls = probed(Check("tls", f"localhost:{peer.port}"))
        https = probed(Check("https", f"localhost:{peer.port}"), seconds=1.5 if reason is Reason.OK else LIMIT)
    assert tls.reason is reason, tls
    assert https.reason is (Reason.TIMEOUT if reason is Reason.OK else reason), https
    assert round(float(str(tls.facts["days left"]))) == days, "shown, valid or not"
    assert ("certificate" in tls.facts) == (names is MALFORMED)


@pytest.mark.parametrize(("begin", "end", "words", "date"), [(-300, -2, "expired", -2), (3, 90, "not valid yet", 3)])
def test_a_certificate_out_of_its_period_is_named_with_its_date(
    begin: int, end: int, words: str, date: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    day = time.strftime("%F", time.localtime(time.time() + date * 86400))
    with Peer(silent, certificate(tmp_path, LOCALHOST, end, authority, begin)) as peer:
        for module in ("tls", "https"):
            found = probed(Check(module, f"localhost:{peer.port}"), seconds=5)
            assert re.fullmatch(rf"certificate {words} \({day} [\d:]{{8}}, CN=peer\)", found.why), found.why
            assert "trustme" in found.facts["issuer"]


def test_a_peer_without_tls() -> None:
    with Peer(says(b"220 mail.example ESMTP\r\n")) as peer:
        assert probed(Check("tls", f"127.0.0.1:{peer.port}")).reason is Reason.TLS
    with Peer(silent) as peer:
        assert probed(Check("tls", f"127.0.0.1:{peer.port}"), seconds=TIMEOUT).reason is Reason.TIMEOUT


def test_a_closed_port_and_a_reset() -> None:
    def reset(connection: socket.socket, ended: object) -> None:
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    refused = probed(Check("tcp", "127.0.0.1:1"))
    assert (refused.reason, refused.received) == (Reason.REFUSED, True), "a refusal is no packet loss"
    assert refused.seconds is not None
    with Peer(reset) as peer:
        assert probed(Check("http", f"127.0.0.1:{peer.port}")).reason is Reason.RESET


def test_no_exception_gets_out() -> None:
    """Whatever a probe stumbles over, others go on."""
    with Peer(says(OK)) as peer:
        outcome = probed(Check("http", f"127.0.0.1:{peer.port}", path="/ü"))
    assert (outcome.reason, outcome.sent) == (Reason.LOCAL, False)
    assert "UnicodeEncodeError" in str(outcome.facts["error"])


def test_a_cancelled_handshake_costs_no_other_probe(tmp_path: Path) -> None:
    """Deadlines end handshakes at all moments: the number of a new socket must never be that of one in use."""

    async def probe(check: Check, seconds: float) -> Outcome:
        return await run(check, HERE, Resolver(), seconds)

    async def many(plain: int, secure: int) -> list[Outcome]:
        found: list[Outcome] = []
        for _ in range(40):
            expired = [probe(Check("tls", f"localhost:{secure}"), 0.2) for _ in range(4)]
            quiet = [probe(Check("tls", f"127.0.0.1:{plain}"), 0.05) for _ in range(4)]
            others = [probe(Check("tcp", f"127.0.0.1:{plain}"), 5.0) for _ in range(4)]
            found += await asyncio.gather(*expired, *quiet, *others)
        await asyncio.sleep(0.5)  # transports close after the last cancelled handshakes
        return found

    with Peer(silent) as plain, Peer(silent, certificate(tmp_path, LOCALHOST, -1, None)) as secure:
        outcomes = asyncio.run(many(plain.port, secure.port))
    assert [each for each in outcomes if each.reason is Reason.LOCAL] == []


def free_address() -> str:
    """An address of loopback for this test alone."""
    return f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


SERVER = free_address()


def resolver(folder: Path, lines: str = f"nameserver {SERVER}\n") -> Resolver:
    (folder / "resolv.conf").write_text(lines)
    (folder / "hosts").write_text("127.0.0.9 in.file in-file # and a comment\n")
    return Resolver(str(folder / "resolv.conf"), str(folder / "hosts"))


ANSWERS: dict[tuple[str, str], list[str] | str | None] = {
    ("good.test", "A"): ["127.0.0.1"], ("good.test", "AAAA"): [],
    ("both.test", "A"): ["127.0.0.1"], ("both.test", "AAAA"): ["2001:db8::1"],
    ("empty.test", "A"): [], ("empty.test", "AAAA"): [],
    ("broken.test", "A"): "SERVFAIL", ("broken.test", "AAAA"): "SERVFAIL",
    ("short.search.test", "A"): ["127.0.0.1"], ("short.search.test", "AAAA"): [],
    ("drop.test", "A"): None, ("drop.test", "AAAA"): None,
    ("many.test", "A"): ["127.0.0.77", "127.0.0.1"], ("many.test", "AAAA"): [],
}  # fmt: skip
NAMES = [
    ("good.test", Reason.OK), ("GOOD.test.", Reason.OK), ("in.file", Reason.OK), ("in-file", Reason.OK), ("short", Reason.OK),
    ("none.test", Reason.NXDOMAIN), ("empty.test", Reason.NO_ADDRESS), ("broken.test", Reason.SERVFAIL),
    ("drop.test", Reason.NAME_TIMEOUT),
]  # fmt: skip


def test_names(tmp_path: Path) -> None:
    """Each failure of a lookup has its own reason, and none is packet loss."""
    with (
        name_server(ANSWERS, SERVER),
        Peer(silent, address="127.0.0.1") as peer,
        Peer(silent, address="127.0.0.9", port=peer.port),
    ):
        names = resolver(tmp_path, f"search search.test\nnameserver {SERVER}\n")
        found = {
            name: probed(Check("tcp", f"{name}:{peer.port}"), names, 2.0 if reason is Reason.NAME_TIMEOUT else LIMIT)
            for name, reason in NAMES
        }
    assert {name: outcome.reason for name, outcome in found.items()} == dict(NAMES)
    assert {outcome.sent for outcome in found.values() if not outcome.passed} == {False}


def test_without_a_name_server(tmp_path: Path) -> None:
    assert probed(Check("tcp", "a.test"), resolver(tmp_path, "")).reason is Reason.NO_NAME_SERVER
    nobody = resolver(tmp_path, "nameserver 127.0.0.77\n")
    assert probed(Check("tcp", "a.test"), nobody).reason is Reason.NO_NAME_SERVER, "nothing listens there"


def test_the_next_address_of_a_name_is_tried(tmp_path: Path) -> None:
    """127.0.0.77 refuses, 127.0.0.1 answers."""
    names = resolver(tmp_path)
    with name_server(ANSWERS, SERVER), Peer(silent) as peer:
        dead = probed(Check("tcp", f"many.test:{peer.port}"), names, 3.0)
        with Peer(silent, address="127.0.0.77", port=peer.port):
            first = probed(Check("tcp", f"many.test:{peer.port}"), resolver(tmp_path), 3.0)
    assert (dead.reason, dead.address) == (Reason.OK, "127.0.0.1")
    assert dead.facts["other addresses"] == "127.0.0.77: connection refused"
    assert first.address == "127.0.0.77"


def test_the_module_dns(tmp_path: Path) -> None:
    rows = [("good.test", Reason.OK), ("none.test", Reason.NXDOMAIN), ("broken.test", Reason.SERVFAIL)]
    with name_server(ANSWERS, SERVER):
        found = [(name, probed(Check("dns", SERVER, query=name)).reason) for name, _ in rows]
        dropped = probed(Check("dns", SERVER, query="drop.test"), seconds=TIMEOUT)
    assert found == rows
    assert (dropped.reason, dropped.received) == (Reason.NO_ANSWER, False)
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as unused:
        unused.bind((SERVER, 0))
        port = unused.getsockname()[1]
    assert probed(Check("dns", f"{SERVER}:{port}")).reason in {Reason.PORT_UNREACHABLE, Reason.REFUSED}


DIG = {
    "good.test": r"status: NOERROR.*ANSWER: 1", "none.test": r"status: NXDOMAIN", "empty.test": r"status: NOERROR.*ANSWER: 0",
    "broken.test": r"status: SERVFAIL", "drop.test": r"timed out",
}  # fmt: skip
"""Output of dig for each name of ANSWERS."""
NO_ANSWERS = {"drop.test": Reason.NO_ANSWER}
"""The module dns asks one server, which is the target: its silence is packet loss."""


@pytest.mark.slow
def test_name_errors_are_those_of_dig(tmp_path: Path) -> None:
    """One name server, asked by dig and by us: the same five outcomes, and the sixth where nothing listens."""
    dig, nobody = need("dig"), "127.0.0.77"
    reasons = dict(NAMES)

    def said(server: str, name: str) -> str:
        command = [dig, "+tries=1", "+timeout=1", "+nosearch", f"@{server}", name, "A"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.replace("\n", " ")

    with name_server(ANSWERS, SERVER), Peer(silent) as peer, Rows() as rows:
        for name, pattern in DIG.items():
            with rows(name):
                assert re.search(pattern, said(SERVER, name))
                ours = probed(Check("tcp", f"{name}:{peer.port}"), resolver(tmp_path), 2.0)
                assert ours.reason is reasons[name]
                asked = probed(Check("dns", SERVER, query=name), seconds=1.0)
                assert asked.reason is (Reason.OK if "NOERROR" in pattern else NO_ANSWERS.get(name, reasons[name]))
        with rows("nothing listens"):
            assert "connection refused" in said(nobody, "a.test")
            ours = probed(Check("tcp", "a.test"), resolver(tmp_path, f"nameserver {nobody}\n"))
            assert ours.reason is Reason.NO_NAME_SERVER
            assert probed(Check("dns", nobody)).reason in {Reason.PORT_UNREACHABLE, Reason.REFUSED}
