"""Chunked bodies and sockets with the real packages, whose ways of reading are not ours to choose.

The packages are the dependency group `compat`. A test whose package is missing is skipped; where MICROWSGI_TEST_REQUIRE is
`all` it fails.
"""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.compat import applications
from tests.programs import absent, need
from tests.server.exchange import Running
from tests.tls.authority import Authority, Secure

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TIME = 60
MESSAGE = os.urandom(1 << 16) * 320  # 20 MiB


def package(*names: str) -> None:
    """Skip the test if a package is missing."""
    for name in names:
        if find_spec(name) is None:
            absent(name, f"{name} is not installed")


def pieces(content: bytes) -> Iterator[bytes]:
    """A body without a length: http.client sends it in chunks."""
    for start in range(0, len(content), 50_000):
        yield content[start : start + 50_000]


def send(running: Running, method: str, path: str, content: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*running.address, timeout=TIME)
    connection.request(method, path, pieces(content), headers, encode_chunked=True)
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (applications.django, ["django"]),
        (applications.falcon, ["falcon"]),
        (applications.starlette, ["a2wsgi", "starlette"]),
    ],
)
def test_a_chunked_body_reaches_every_framework(make: Callable[[], Any], names: list[str]) -> None:
    package(*names)
    with Running(make()) as running:
        for content in (b"", b"hello", MESSAGE[:300_000], MESSAGE[:5_000_000]):
            assert send(running, "POST", "/", content) == (200, f"{len(content)} {sha256(content).hexdigest()}")
    assert not running.errors.text.getvalue()


def test_an_event_is_put_in_chunks(tmp_path: Path) -> None:
    package("radicale")
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:tests", "BEGIN:VEVENT", "UID:1", "DTSTAMP:20260101T000000Z"]
    lines += ["DTSTART:20260101T000000Z", "SUMMARY:a", "END:VEVENT", "END:VCALENDAR", ""]
    authorization = {"Authorization": "Basic YTph"}
    with Running(applications.radicale(tmp_path)) as running:
        assert send(running, "MKCALENDAR", "/a/c/", b"", **authorization)[0] == 201
        event = "\r\n".join(lines).encode()
        status, text = send(running, "PUT", "/a/c/1.ics", event, **authorization, **{"Content-Type": "text/calendar"})
        assert (status, text) == (201, text)


def test_git_pushes_what_is_longer_than_its_buffer(tmp_path: Path) -> None:
    """Git sends what exceeds http.postBuffer, 1 MiB, in chunks."""
    git = need("git")
    package("dulwich")

    def run(*words: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            [git, *settings, *words], cwd=work, capture_output=True, text=True, timeout=TIME, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    work = tmp_path / "work"
    work.mkdir()
    with Running(applications.dulwich(tmp_path / "repository")) as running:
        run("init", "-q")
        (work / "big").write_bytes(os.urandom(30_000_000))
        run("add", "big")
        run("commit", "-qm", "big")
        url = f"http://127.0.0.1:{running.address[1]}/repository.git"
        run("push", "-q", url, "HEAD:refs/heads/main")
        assert run("ls-remote", url, "refs/heads/main").split()[0] == run("rev-parse", "HEAD").strip()


@pytest.mark.parametrize("tls", [False, True])
def test_a_websocket_echoes_long_messages(tls: bool, tmp_path: Path) -> None:
    package("flask_sock", "websocket")
    import websocket

    authority = Authority(tmp_path)
    application = applications.flask_sock()
    with Secure(authority, application) if tls else Running(application) as running:
        url = f"{'wss' if tls else 'ws'}://localhost:{running.address[1]}/echo"
        client = websocket.create_connection(url, timeout=TIME, sslopt={"ca_certs": authority.file} if tls else {})
        for size in (0, 1, 125, 126, 65_535, 65_536, len(MESSAGE)):
            client.send_binary(MESSAGE[:size])
            assert client.recv() == MESSAGE[:size], size
        client.close()
        running.wait_for_connections(0)
    assert not running.errors.text.getvalue()


@pytest.mark.parametrize("tls", [False, True])
def test_socket_io_over_a_websocket(tls: bool, tmp_path: Path) -> None:
    package("flask_socketio", "socketio", "websocket")
    import socketio

    authority = Authority(tmp_path)
    application = applications.flask_socketio()
    with Secure(authority, application) if tls else Running(application) as running:
        options = {"websocket_extra_options": {"sslopt": {"ca_certs": authority.file}}} if tls else {}
        client = socketio.Client(**options)
        client.connect(f"{'https' if tls else 'http'}://localhost:{running.address[1]}", transports=["websocket"])
        assert client.call("echo", MESSAGE[:1_000_000], timeout=TIME) == MESSAGE[:1_000_000]
        assert client.call("echo", MESSAGE, timeout=TIME) == MESSAGE
        client.disconnect()
        running.wait_for_connections(0)
    assert not running.errors.text.getvalue()
