"""TLS by the command: files are replaced, HUP is sent, and no request fails; what is told on the terminal."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.background import suspend
from tests.running import LIMIT, Running
from tests.tls.authority import Authority

Command = Callable[..., Running]
USED, REFUSED = "A new certificate is used", "can't be used; the server continues with the old one"
MODES = pytest.mark.parametrize("mode", [(), ("--workers", "2"), ("--reload",)], ids=["single", "workers", "reload"])
SWAPS = 6


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Load(threading.Thread):
    """Requests without end over TLS, each on a connection of its own, beside one connection that stays."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__()
        self.address = "127.0.0.1", port
        self.context = context
        self.serials: list[str] = []
        self.failure = ""
        self.over = threading.Event()
        self.kept = self.connect()

    def connect(self) -> ssl.SSLSocket:
        return self.context.wrap_socket(socket.create_connection(self.address, LIMIT), server_hostname="localhost")

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.kept = self.ask(self.kept)
                with self.connect() as new:
                    self.serials.append(str((new.getpeercert() or {})["serialNumber"]))
                    self.ask(new)
        except (OSError, AssertionError) as error:
            self.failure = repr(error)
        finally:
            self.kept.close()

    def ask(self, client: ssl.SSLSocket) -> ssl.SSLSocket:
        """A request; the connection for the next: another one where a process that retires has closed this one orderly."""
        try:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = client.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:  # closed while idle, before the request: a client asks anew (RFC 9112 9.3.1)
            assert client is self.kept
            client.close()
            return self.ask(self.connect())
        assert data.startswith(b"HTTP/1.1 200 ")
        return client

    def wait_for_another(self, than: set[str]) -> str:
        """The serial number of a certificate that was not seen before."""
        end = time.monotonic() + LIMIT
        while not self.failure:
            for serial in reversed(self.serials[-3:]):
                if serial not in than:
                    return serial
            assert time.monotonic() < end, "no new certificate was seen"
            self.over.wait(0.001)
        raise AssertionError(self.failure)


PID = """
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def test_after_hup_workers_resume_each_others_sessions(command: Command, authority: Authority, tmp_path: Path) -> None:
    """The parent has read the new certificate, and its context is theirs: one could not read the tickets of another."""
    (tmp_path / "pid.py").write_text(PID)
    served = tmp_path / "served.pem"
    shutil.copy(authority.leaf("localhost", name="first"), served)
    running = command("serve", "pid:app", "--port", "0", "--workers", "2", "--tls-cert", str(served), cwd=tmp_path)
    address = "127.0.0.1", int(running.url().rpartition(":")[2])
    context = authority.client()

    def ask(session: ssl.SSLSession | None) -> tuple[int, bool, ssl.SSLSession | None]:
        with (
            socket.create_connection(address, LIMIT) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := client.recv(1 << 16):
                data += piece
            return int(data.rpartition(b"\r\n\r\n")[2]), bool(client.session_reused), client.session

    shown = ssl.get_server_certificate(address)
    os.replace(authority.leaf("localhost", name="second"), served)
    running.send_signal(signal.SIGHUP)
    running.line("reloaded")
    one, reused, session = ask(None)
    assert not reused
    assert ssl.get_server_certificate(address) != shown
    suspend(one)  # so that it is the other's turn
    try:
        other, reused, _ = ask(session)
    finally:
        os.kill(one, signal.SIGCONT)
    assert other != one
    assert reused
    assert running.stop() == 0


def test_sslkeylogfile_is_what_other_programs_take_it_for(
    command: Command, authority: Authority, tmp_path: Path
) -> None:
    shutil.copy(authority.leaf("localhost", name="first"), tmp_path / "served.pem")
    keys = tmp_path / "keys"
    running = command("serve", "apps.echo:app", "--port", "0", "--tls-cert", str(tmp_path / "served.pem"),
                      SSLKEYLOGFILE=str(keys))  # fmt: skip
    port = int(running.url().rpartition(":")[2])
    running.line("WARNING: anybody who can read .*keys can decrypt all connections")
    with socket.create_connection(("127.0.0.1", port), LIMIT) as plain:
        authority.client().wrap_socket(plain, server_hostname="localhost").close()
    assert running.stop() == 0
    assert "SERVER_TRAFFIC_SECRET_0" in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600


HSTS = """
def app(environ, start_response):
    sent = environ["PATH_INFO"] == "/hsts"
    start_response("200 OK", [("Strict-Transport-Security", "max-age=60")] if sent else [])
    return [b"hello"]
"""


def test_who_sends_hsts_under_a_developers_name_is_told_once(
    command: Command, authority: Authority, tmp_path: Path
) -> None:
    """In a process of its own: what an application has sent so far is known of the process."""
    (tmp_path / "hsts.py").write_text(HSTS)
    leaf = authority.leaf("localhost", "127.0.0.1", "shop.example")
    log = str(tmp_path / "log")
    running = command("serve", "hsts:app", "--port", "0", "--access-log", log, "--tls-cert", leaf, cwd=tmp_path)
    address = "127.0.0.1", int(running.url().rpartition(":")[2])

    def ask(name: str, target: str) -> None:
        with (
            socket.create_connection(address, LIMIT) as plain,
            authority.client().wrap_socket(plain, server_hostname=name) as client,
        ):
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

    for name, target in (("localhost", "/"), ("localhost", "/hsts"), ("shop.example", "/"), ("127.0.0.1", "/")):
        ask(name, target)
    running.send_signal(signal.SIGUSR2)
    running.line('"pid"')
    assert "Strict-Transport-Security" not in running.output
    ask("localhost", "/")
    running.line("WARNING: the application sends Strict-Transport-Security")
    ask("localhost", "/")
    assert running.stop() == 0
    assert running.output.count("Strict-Transport-Security") == 1


def start(command: Command, folder: Path, *mode: str) -> Running:
    return command("serve", "apps.echo:app", "--port", "0", "--access-log", str(folder / "access.log"),
                   "--tls-cert", str(folder / "served.pem"), *mode)  # fmt: skip


@MODES
def test_no_request_fails_while_certificates_are_replaced(
    command: Command, authority: Authority, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    served = tmp_path / "served.pem"
    shutil.copy(authority.leaf("localhost", name="first"), served)
    running = start(command, tmp_path, *mode)
    load = Load(int(running.url().rpartition(":")[2]), authority.client())
    load.start()
    try:
        seen = {load.wait_for_another(set())}
        for number in range(SWAPS):
            os.replace(authority.leaf("localhost", name=f"next{number}"), served)
            running.send_signal(signal.SIGHUP)
            seen.add(load.wait_for_another(seen))
    finally:
        load.over.set()
        load.join(LIMIT)
    assert load.failure == ""
    assert len(seen) == SWAPS + 1
    assert running.stop() == 0


@MODES
def test_hup_has_certificates_looked_at_at_once(
    command: Command, authority: Authority, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """And not with the next connection, as without it: there is none here."""
    served = tmp_path / "served.pem"
    shutil.copy(authority.leaf("localhost", name="first"), served)
    running = start(command, tmp_path, *mode)
    running.url()
    os.replace(authority.leaf("localhost", name="second"), served)
    running.send_signal(signal.SIGHUP)
    running.line(USED)
    if mode:
        running.line("reloaded")
    served.write_text("broken")
    running.send_signal(signal.SIGHUP)
    running.line(REFUSED)
    assert running.stop() == 0
