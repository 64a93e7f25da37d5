"""`microwsgi certs`, as a person runs it, with the programs that have to believe it: Chromium, curl, Python, openssl."""

from __future__ import annotations

import os
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from microwsgi.cli import truststores
from microwsgi.cli.truststores import Anchors, Database, stores
from microwsgi.tls.authority import Authority
from tests.programs import need
from tests.running import Running, environment, microwsgi

LIMIT = 60
"""Seconds for a browser."""
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--dump-dom")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The variables of a person who has nothing yet."""
    return {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}


def certs(home: dict[str, str], *words: str, code: int = 0) -> str:
    """What `microwsgi certs` says."""
    done = subprocess.run(
        microwsgi("certs", *words), env=environment(**home), capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def browse(home: dict[str, str], url: str) -> str:
    """The page that headless Chromium shows: the application's, or its own warning."""
    done = subprocess.run(
        [need("chromium"), *BROWSER, f"--user-data-dir={home['HOME']}/profile", url],
        env=environment(**home), capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_chromium_opens_localhost_without_a_warning_once_the_ca_is_trusted(
    command: Callable[..., Running], home: dict[str, str]
) -> None:
    need("certutil")
    running = command("serve", "apps.echo:app", "--tls", "--bind", "localhost:0", **home)
    url = running.url()
    assert url.startswith("https://localhost:")
    assert "microwsgi certs trust" in running.line("certs trust")
    assert "<title>Echo</title>" not in browse(home, url)
    assert "TLS handshake failed" in running.line("TLS handshake failed: the client does not trust this certificate")
    assert "Chromium" in certs(home, "trust")
    assert "<title>Echo</title>" in browse(home, url)
    assert ": trusted" in certs(home, "show")
    assert "no longer trusted" in certs(home, "untrust")
    assert "<title>Echo</title>" not in browse(home, url)


@pytest.mark.slow
def test_curl_and_python_take_the_ca_and_nothing_else(command: Callable[..., Running], home: dict[str, str]) -> None:
    running = command("serve", "apps.echo:app", "--tls", "--bind", "localhost:0", **home)
    url, ca = running.url(), certs(home, "path").strip()
    curl = [need("curl"), "--silent", "--show-error", url]
    assert (
        "<title>Echo</title>"
        in subprocess.run([*curl, "--cacert", ca], capture_output=True, text=True, check=True).stdout
    )
    assert subprocess.run([*curl, "--capath", "/"], capture_output=True, check=False).returncode == 60
    context = ssl.create_default_context(cafile=ca)
    with urllib.request.urlopen(url, context=context) as response:  # noqa: S310 - our own https
        assert response.status == 200
    assert running.stop() == 0


@pytest.mark.slow
def test_the_same_certificate_is_shown_after_a_restart(command: Callable[..., Running], home: dict[str, str]) -> None:
    seen = []
    for _ in range(2):
        running = command("serve", "apps.echo:app", "--tls", "--port", "0", **home)
        port = int(running.url().rpartition(":")[2])
        seen.append(ssl.get_server_certificate(("127.0.0.1", port)))
        running.stop()
    assert seen[0] == seen[1]
    assert "Renewed" in certs(home, "renew")
    assert "days left" in certs(home)


def test_workers_serve_tls_and_resume_each_others_sessions(
    command: Callable[..., Running], home: dict[str, str]
) -> None:
    running = command("serve", "apps.echo:app", "--tls", "--port", "0", "--workers", "2", **home)
    port, ca = int(running.url().rpartition(":")[2]), certs(home, "path").strip()
    said = subprocess.run(
        [need("openssl"), "s_client", "-tls1_2", "-reconnect", "-connect", f"127.0.0.1:{port}", "-CAfile", ca],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT,
    ).stdout  # fmt: skip
    assert said.count("Reused, TLSv1.2") == 5
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--tls-cert", "nothing.pem"], 1, "--tls-cert nothing.pem can't be read: No such file or directory."),
        (["--tls-key", "key.pem"], 2, "--tls-key needs --tls-cert"),
        (["--tls", "SSLKEYLOGFILE=no/such/folder"], 1, "tls_keylog no/such/folder can't be written"),
    ],
)
def test_what_is_wrong_is_said_before_it_listens(
    command: Callable[..., Running], home: dict[str, str], arguments: list[str], code: int, said: str
) -> None:
    variables = dict(each.split("=") for each in arguments if "=" in each)
    arguments = [each for each in arguments if "=" not in each]
    running = command("serve", "apps.echo:app", "--port", "0", *arguments, **home, **variables)
    assert running.wait() == code
    assert said in running.output
    assert "Traceback" not in running.output


def test_an_encrypted_key_is_not_asked_for_on_a_terminal(
    command: Callable[..., Running], home: dict[str, str], tmp_path: Path
) -> None:
    path = Path(certs(home, "client", "ann@example.com").splitlines()[0])
    locked = tmp_path / "locked.pem"
    subprocess.run(
        [need("openssl"), "pkey", "-in", path, "-aes256", "-passout", "pass:x", "-out", locked],
        check=True,
        timeout=LIMIT,
    )
    running = command("serve", "apps.echo:app", "--tls-cert", str(path), "--tls-key", str(locked), **home)
    assert running.wait() == 1
    assert "is encrypted: add --tls-password-file" in running.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trsut"], "did you mean certs trust?"),
        (["client"], "certs client takes one name"),
        (["path", "x"], "takes no arguments; remove x"),
    ],
)
def test_wrong_words_are_one_sentence(home: dict[str, str], words: list[str], said: str) -> None:
    assert said in certs(home, *words, code=2)


def test_there_is_nothing_before_there_is_something(home: dict[str, str]) -> None:
    assert "no development CA yet" in certs(home, "show")
    assert not os.path.exists(home["XDG_DATA_HOME"])


# --- Stores ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(str(tmp_path / "authority"))
    made.leaf(["localhost"])
    return made


def test_a_database_takes_the_place_of_an_older_ca(tmp_path: Path, authority: Authority) -> None:
    need("certutil")
    store = Database(str(tmp_path / "nssdb"), "Chromium")
    other = Authority(str(tmp_path / "other"))
    other.leaf(["localhost"])
    assert not store.has(authority)
    assert store.add(other) == ""
    assert store.add(authority) == ""
    assert store.has(authority)
    assert store.remove(authority) == ""
    assert store.remove(authority) == ""
    assert not store.has(authority)


def test_without_certutil_it_says_what_to_install(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "libnss3-tools" in Database(str(tmp_path / "nssdb"), "Chromium").add(authority)


def test_the_systems_store_is_a_folder_and_a_program(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "anchors"
    folder.mkdir()
    store = Anchors(str(folder), "microwsgi.crt", ("true",))
    assert not store.has(authority)
    assert store.add(authority) == ""
    assert store.has(authority)
    assert store.remove(authority) == ""
    assert store.remove(authority) == ""
    assert "; as root: sudo cp" in Anchors(str(folder / "no"), "x", ("true",)).add(authority)
    assert Anchors(str(folder), "x", ("false",)).add(authority) == "false failed"
    assert "can't be run" in Anchors(str(folder), "x", (str(folder / "nothing"),)).add(authority)


def test_stores_are_those_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(
        truststores, "ANCHORS", ((str(tmp_path / "no"), "x", ("true",)), (str(tmp_path), "x", ("true",)))
    )
    assert stores() == []
    for folder in (".pki/nssdb", ".mozilla/firefox/abc.default"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cert9.db").write_text("")
    assert [store.name.partition(" ")[0] for store in stores(system=True)] == ["Chromium", "Firefox", "system"]
