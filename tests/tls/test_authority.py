"""microwsgi/tls/authority.py: a CA of one's own that is made once, and can sign for nothing public; by both signers."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from microwsgi.errors import CertificateError
from microwsgi.options import Options
from microwsgi.tls import authority as module
from microwsgi.tls import signers
from microwsgi.tls.authority import Authority, data_folder, served_names
from microwsgi.tls.contexts import CertificateFiles, LoadedCertificate
from microwsgi.tls.front import make_tls
from microwsgi.tls.signers import CLIENT, SERVER, Cryptography, OpenSSL, Signer
from tests.programs import need, need_package
from tests.running import environment
from tests.server.exchange import TIME, Running
from tests.tls.test_front import hello, told_hello


@pytest.fixture(params=["openssl", "cryptography"])
def signer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Signer:
    if request.param == "cryptography":
        need_package("cryptography")
    made: Signer = OpenSSL(need("openssl")) if request.param == "openssl" else Cryptography()
    monkeypatch.setattr(module, "best_signer", lambda: made)
    return made


def verify(folder: Path, ca: str, leaf: str, *arguments: str) -> str:
    """What openssl verify, at its strictest, says."""
    (folder / "leaf").write_text(leaf)
    done = subprocess.run(
        [need("openssl"), "verify", "-x509_strict", "-CAfile", ca, *arguments, str(folder / "leaf")],
        capture_output=True, text=True, check=False, timeout=TIME,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.usefixtures("signer")
def test_a_leaf_is_valid_for_what_is_served_and_lasts_less_than_browsers_allow(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    pair = authority.leaf(["localhost", "*.localhost", "shop.test", "127.0.0.1", "::1", "192.168.1.7"])
    text = Path(pair.certificate_path).read_text()
    for host in ("localhost", "shop.test"):
        assert ": OK" in verify(
            tmp_path, authority.certificate, text, "-purpose", "sslserver", "-verify_hostname", host
        )
    for address in ("127.0.0.1", "::1", "192.168.1.7"):
        assert ": OK" in verify(tmp_path, authority.certificate, text, "-purpose", "sslserver", "-verify_ip", address)
    assert "OK" not in verify(tmp_path, authority.certificate, text, "-verify_hostname", "example.com").replace(
        ": OK\n", ""
    )
    assert LoadedCertificate(pair, Options()).certificate.days_left <= 90
    shown = subprocess.run(
        [need("openssl"), "x509", "-noout", "-text"], input=text, capture_output=True, text=True, check=True
    ).stdout
    assert "prime256v1" in shown
    assert "TLS Web Server Authentication" in shown
    assert "TLS Web Client" not in shown


@pytest.mark.parametrize(
    "public", ["www.example.com", "8.8.8.8", "localhost.example.com", "2001:db8::1", "notlocalhost"]
)
def test_the_ca_can_not_sign_for_public_names_whoever_has_its_key(tmp_path: Path, signer: Signer, public: str) -> None:
    """The name constraints, proven with openssl; certificates with the name as their subject only are refused as well."""
    authority = Authority(str(tmp_path))
    authority.ensure()
    assert not authority.permits(public)
    certificate, _ = signer.leaf(authority.pem(), [public], SERVER, 30)
    assert "permitted subtree violation" in verify(tmp_path, authority.certificate, certificate)
    both, _ = signer.leaf(authority.pem(), ["localhost", public], SERVER, 30)
    assert "permitted subtree violation" in verify(tmp_path, authority.certificate, both)


@pytest.mark.usefixtures("signer")
def test_a_ca_below_it_can_not_be_made(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    authority.ensure()
    shown = subprocess.run(
        [need("openssl"), "x509", "-noout", "-text", "-in", authority.certificate],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "CA:TRUE, pathlen:0" in shown
    assert "X509v3 Name Constraints: critical" in shown


@pytest.mark.usefixtures("signer")
def test_it_stays_as_it_is_until_it_has_to_change(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    first = Path(authority.leaf(["localhost", "127.0.0.1", "::1"]).certificate_path).read_text()
    ca = Path(authority.certificate).read_text()
    again = Authority(str(tmp_path))
    assert Path(again.leaf(["localhost", "::1"]).certificate_path).read_text() == first
    more = Path(again.leaf(["shop.localhost"]).certificate_path).read_text()
    assert more != first
    # The names of the first run are kept: two projects do not renew it in turn.
    assert Path(again.leaf(["localhost"]).certificate_path).read_text() == more
    assert Path(authority.certificate).read_text() == ca


def test_what_it_may_not_sign_is_left_out_and_told_of(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    authority.leaf(["localhost", "www.example.com", "203.0.113.5"])
    assert authority.left_out == ["www.example.com", "203.0.113.5"]
    assert "www.example.com, 203.0.113.5" in authority.hints()[0]


@pytest.mark.parametrize(("days", "renewed"), [(29, True), (32, False)])
def test_it_is_renewed_before_it_expires(tmp_path: Path, days: int, renewed: bool) -> None:
    authority = Authority(str(tmp_path))
    authority.ensure()
    certificate, key = OpenSSL(need("openssl")).leaf(authority.pem(), ["localhost"], SERVER, days)
    authority.write(authority.leaf_file, key + certificate)
    text = Path(authority.leaf(["localhost"]).certificate_path).read_text()
    assert (text != key + certificate) == renewed


def test_it_is_renewed_while_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    tls = make_tls(Options(tls=True))
    ca = str(tmp_path / "microwsgi" / "ca.pem")
    with Running(hello, tls=tls) as server:
        before = told_hello(server, ca)
        tls.renew.__self__.renew_at = 0.0  # type: ignore[union-attr]  # as when 60 days have gone by
        leaf = tmp_path / "microwsgi" / "localhost.pem"
        Authority().renew_now()
        tls.next_check = 0.0
        assert told_hello(server, ca) != before
        server.errors.wait_for("A new certificate is used")
        assert leaf.exists()


def test_a_damaged_leaf_and_one_of_another_ca_are_replaced(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    for damage in ("", "nonsense"):
        authority.leaf(["localhost"])
        Path(authority.leaf_file).write_text(damage)
        assert LoadedCertificate(authority.leaf(["localhost"]), Options()).certificate.names == ["localhost"]
    os.unlink(authority.key)  # so that another CA is made, of the same name
    text = Path(authority.leaf(["localhost"]).certificate_path).read_text()
    assert ": OK" in verify(tmp_path, authority.certificate, text)


def test_its_files_are_its_owners_alone(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path / "data"))
    authority.leaf(["localhost"])
    authority.client("ann@example.com")
    assert stat.S_IMODE(os.stat(authority.folder).st_mode) == 0o700
    assert {stat.S_IMODE(os.stat(entry).st_mode) for entry in os.scandir(authority.folder)} == {0o600}


def test_several_servers_that_start_at_once_make_one_ca(tmp_path: Path) -> None:
    program = (
        "import sys; from microwsgi.tls.authority import Authority; a = Authority(sys.argv[1]); "
        "a.leaf(['localhost']); sys.stdout.write(open(a.certificate).read())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environment())
        for _ in range(4)
    ]
    assert len({each.communicate(timeout=TIME)[0] for each in running}) == 1


def test_a_client_certificate_is_accepted_by_its_own_ca(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    path = authority.client("ann@example.com")
    text = Path(path).read_text()
    assert ": OK" in verify(
        tmp_path, authority.certificate, text, "-purpose", "sslclient", "-verify_email", "ann@example.com"
    )
    assert ": OK" not in verify(tmp_path, authority.certificate, text, "-purpose", "sslserver")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(path)


def test_where_nothing_can_make_one_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(CertificateError, match=r"pip install 'microwsgi\[tls\]'"):
        Authority(str(tmp_path)).leaf(["localhost"])


def test_without_the_command_the_package_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("cryptography")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(signers.best_signer(), Cryptography)
    assert LoadedCertificate(Authority(str(tmp_path)).leaf(["localhost"]), Options()).certificate.names == ["localhost"]


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 1", "(no message)"), ("echo no >&2; echo such curve >&2; exit 1", "such curve"), (None, "can't be run")],
)
def test_an_openssl_that_fails_is_one_sentence(tmp_path: Path, script: str | None, said: str) -> None:
    path = tmp_path / "openssl"
    path.write_text(f"#!/bin/sh\n{script}\n" if script else "nothing")
    path.chmod(0o755)
    with pytest.raises(CertificateError, match=said):
        OpenSSL(str(path)).authority("a", ["localhost"], [], 1)


def test_a_folder_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match="can't be written: "):
        Authority(str(tmp_path / "file" / "folder")).leaf(["localhost"])


def test_names_are_those_that_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Desk.example.com")
    monkeypatch.setattr(module, "own_addresses", lambda family: ["192.168.1.7"])
    local = ["localhost", "*.localhost", "127.0.0.1", "::1", "desk.example.com", "desk.local"]
    assert served_names(Options()) == [*local, "127.0.0.1"]
    assert served_names(Options(host="::", allow_host="a.test,.b.test,*")) == [
        *local,
        "a.test",
        "b.test",
        "*.b.test",
        "192.168.1.7",
    ]
    assert served_names(Options(bind=["unix:/tmp/x", "[fe80::1%eth0]:80"])) == [*local, "fe80::1"]
    monkeypatch.setattr(
        "socket.gethostname", lambda: "dev"
    )  # .dev is a top-level domain, and the CA must not sign for it
    assert served_names(Options(bind=["fd://3"])) == [*local[:4], "dev.local"]
    monkeypatch.setattr("socket.gethostname", lambda: "odd_name")
    assert served_names(Options(bind=["fd://3"])) == local[:4]


def test_the_folder_is_the_systems_own_place_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_DATA_HOME", "relative is to be ignored")
    assert data_folder() == "/home/ann/.local/share/microwsgi"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_folder() == "/data/microwsgi"


def test_adhoc_is_the_development_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    tls = make_tls(Options(), "adhoc")
    assert isinstance(tls.pairs[0], CertificateFiles)
    assert "localhost" in tls.certificates[0].names
    assert CLIENT not in tls.notes()
