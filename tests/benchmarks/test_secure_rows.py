"""The rows over TLS: the certificate, full and resumed handshakes."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks import footprint, secure
from benchmarks.clients import handshakes
from benchmarks.clients.exchange import unverified_context
from benchmarks.processes import Unavailable
from benchmarks.servers import require

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package


def certificate_of(port: int) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        unverified_context().wrap_socket(plain) as connection,
    ):
        return connection.getpeercert(binary_form=True)


@pytest.mark.parametrize("name", ["microwsgi", *secure.PEERS, "granian"])
def test_each_server_uses_the_p_256_certificate_of_the_run(name: str) -> None:
    try:
        require(name, sys.executable)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with secure.serving(name, sys.executable) as server:
        served = certificate_of(server.port)
    made = ssl.PEM_cert_to_DER_cert(Path(secure.certificate()[0]).read_text())
    assert served == made
    assert bytes.fromhex("06082a8648ce3d030107") in made  # the curve's object identifier


def test_handshakes_are_full_or_resumed_as_requested() -> None:
    with secure.serving("microwsgi", sys.executable) as server:
        full = handshakes.run(server.port, 0.2, "full")
        resumed = handshakes.run(server.port, 0.2, "resumed")
    assert full["resumed"] == 0
    assert resumed["resumed"] == len(resumed["latencies"]) - 1  # all but the first
    assert min(full["latencies"]) > 0


def test_a_handshake_costs_more_than_a_plain_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "SECONDS", 0.4)
    measure = secure.handshakes("full")
    ours, plain = (measure(name, sys.executable, "off") for name in ("microwsgi", secure.PLAIN))
    assert ours["cpu_us"] > plain["cpu_us"]
    assert ours["of_core"] == pytest.approx(1e6 / ours["cpu_us"])
    assert ours["resumed_percent"] == plain["resumed_percent"] == 0


def test_requests_over_tls_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "SECONDS", 1)
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    figures = secure.wrk_measurement(2)("microwsgi", sys.executable, "off")
    assert figures["requests"] > 0
    assert figures["errors"] == 0


@contextmanager
def server_of_tls_1_2() -> Iterator[int]:
    """Start a server that accepts one connection and supports TLS 1.2 only; the context is its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*secure.certificate())

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def test_wrk_always_resumes_sessions_so_it_cannot_measure_full_handshakes() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    context, resumed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[bool]()
    context.load_cert_chain(*secure.certificate())

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:  # closed: the end
                return
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                resumed.append(bool(connection.session_reused))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        command = ["wrk", "-t1", "-c1", "-d1s", "--header", "Connection: close", url]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
        listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        thread.join(10)
    assert resumed.count(True) > 10 * resumed.count(False) > 0


def test_another_version_of_tls_is_an_error() -> None:
    with server_of_tls_1_2() as port, pytest.raises(ValueError, match=r"negotiated TLSv1\.2, expected TLSv1\.3"):
        handshakes.run(port, 0.1, "full")


def test_the_ratio_to_the_best_ignores_missing_peers() -> None:
    round_figures = {
        "microwsgi": {"rate": 30.0, "cpu_us": 5.0},
        "cheroot": {"rate": 10.0, "cpu_us": 20.0},
        "werkzeug": {"rate": 1.0},
    }
    assert secure.ratio_to_best("rate", "", 3.0).ratio(round_figures) == 3.0
    round_figures["werkzeug"]["cpu_us"] = 10.0
    assert secure.ratio_to_best("cpu_us", "", None).ratio(round_figures) == 2.0
    assert secure.ratio_to_best("rate", "", 3.0).ratio({"cheroot": {"rate": 1.0}}) is None


def test_idle_connections_over_tls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "BASELINE_CONNECTIONS", 2)
    monkeypatch.setattr(footprint, "IDLE_TLS_CONNECTIONS", 40)
    # With few connections the figure is inexact: some pages of memory may be allocated already. A megabyte each is too much.
    assert 0 <= footprint.measure_idle_tls("microwsgi", sys.executable, "off")["kib_each"] < 1024


def test_the_plain_subject_does_not_use_tls() -> None:
    with secure.serving(secure.PLAIN, sys.executable) as server:
        assert server.scheme == "http"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            certificate_of(server.port)
