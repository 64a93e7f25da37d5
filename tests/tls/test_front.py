"""TLS over real sockets: what clients see of it, what they can't do with it, and what it costs those who do nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from microwsgi import WSGIServer
from microwsgi.errors import CertificateError, UsageError
from microwsgi.options import Options
from microwsgi.tls.front import make_tls
from tests.programs import need
from tests.running import environment
from tests.server.exchange import TIME, Log, Running, parse, receive
from tests.server.test_threads import frames
from tests.tls.authority import Authority, Secure, alert_after, closed_within

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def hello(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def echo(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def keys(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    lines = [f"{name}={value!r}" for name, value in environ.items() if re.match("SSL_|HTTPS$|wsgi.url_scheme", name)]
    return ["\n".join(lines).encode()]


def told(connection: ssl.SSLSocket) -> dict[str, str]:
    """What `keys` tells of this connection, which ends with it."""
    connection.sendall(LAST_GET)
    (response,) = parse(alert_after(connection))
    lines = (line.partition("=") for line in response.body.decode().splitlines())
    return {name: eval(value) for name, _, value in lines}  # noqa: S307 - of our own application


def told_hello(server: Running, ca: str) -> str:
    """The serial number of the certificate that `hello` is served with to who trusts this CA."""
    context = ssl.create_default_context(cafile=ca)
    with server.connect() as connection, context.wrap_socket(connection, server_hostname="localhost") as client:
        client.sendall(LAST_GET)
        assert alert_after(client).endswith(b"hello")
        return str((client.getpeercert() or {})["serialNumber"])


def answer(connection: socket.socket) -> bytes:
    """One response of `hello` or of `echo`, with the connection left open."""
    data = b""
    while True:
        data += connection.recv(1 << 16)
        head, end, body = data.partition(b"\r\n\r\n")
        found = re.search(rb"Content-Length: (\d+)", head)
        if end and found and len(body) >= int(found[1]):
            return body[: int(found[1])]


# --- A client that does all right -----------------------------------------------------------------------------------------


def test_a_default_client_is_served_again_and_again(authority: Authority) -> None:
    with Secure(authority, hello) as server, server.secure() as client:
        for _ in range(3):
            client.sendall(GET)
            assert answer(client) == b"hello"


@pytest.mark.parametrize(
    ("version", "offered"), [("TLSv1.2", ssl.TLSVersion.TLSv1_2), ("TLSv1.3", ssl.TLSVersion.TLSv1_3)]
)
def test_the_environ_says_what_the_connection_is(authority: Authority, version: str, offered: ssl.TLSVersion) -> None:
    context = authority.client(minimum_version=offered, maximum_version=offered)
    with Secure(authority, keys) as server, server.secure(context) as client:
        cipher = client.cipher()
        said = told(client)
    assert cipher is not None
    assert said["wsgi.url_scheme"] == "https"
    assert said["HTTPS"] == "on"
    assert (said["SSL_PROTOCOL"], said["SSL_CIPHER"]) == (version, cipher[0])
    assert said["SSL_CIPHER_USEKEYSIZE"] == str(cipher[2])
    assert said["SSL_TLS_SNI"] == "localhost"
    assert said["SSL_CLIENT_VERIFY"] == "NONE"
    assert said["SSL_SERVER_SAN_DNS_0"] == "localhost"
    assert said["SSL_SESSION_RESUMED"] == "Initial"


def test_five_frames_under_tls_too(authority: Authority) -> None:
    seen: list[list[str]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        seen.append(frames())
        return hello(environ, start_response)

    with Running(application) as plain:
        plain.get()
    with Secure(authority, application) as server, server.secure() as client:
        client.sendall(GET)
        answer(client)
    assert seen[0] == seen[1]


def test_alpn_is_http_1_1_or_1_0_and_a_client_without_these_gets_the_alert(authority: Authority) -> None:
    """RFC 7301 3.2. A client that offers nothing does not use ALPN."""
    with Secure(authority, hello) as server:
        for offered in (["h2", "http/1.1"], ["http/1.0", "http/1.1"], ["http/1.0"], []):
            context = authority.client()
            context.set_alpn_protocols(offered)
            with server.secure(context) as client:
                assert client.selected_alpn_protocol() == (
                    "http/1.1" if "http/1.1" in offered else offered[0] if offered else None
                )
                client.sendall(GET)
                assert answer(client) == b"hello"
        context = authority.client()
        context.set_alpn_protocols(["h2", "spdy/1"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"), server.secure(context):
            pass
    assert "RFC 7301 3.2" in server.errors.text.getvalue()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.client(minimum_version=version, maximum_version=version)
    with Secure(authority, keys) as server:
        with server.secure(context) as first:
            assert told(first)["SSL_SESSION_RESUMED"] == "Initial"
            session = first.session
        with (
            server.connect() as connection,
            context.wrap_socket(connection, server_hostname="localhost", session=session) as second,
        ):
            assert second.session_reused
            assert told(second)["SSL_SESSION_RESUMED"] == "Resumed"


def test_a_big_body_comes_back_whole(authority: Authority) -> None:
    body = os.urandom(5_000_000)
    with Secure(authority, echo) as server, server.secure() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert answer(client) == body


def test_a_file_goes_through_tls_and_not_past_it(authority: Authority, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return FileWrapper((tmp_path / "file").open("rb"))

    with Secure(authority, application) as server, server.secure() as client:
        client.sendall(GET)
        assert answer(client) == content


def test_a_file_that_becomes_shorter_is_a_broken_response(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "20000000")])
        return FileWrapper(path.open("rb"))

    with Secure(authority, application) as server, server.secure() as client:
        client.sendall(GET)
        client.recv(1)
        os.truncate(path, 10)
        with contextlib.suppress(OSError):  # a reset, or an end without the alert
            assert len(alert_after(client)) < 20_000_000
        server.errors.wait_for('"GET / HTTP/1.1" 200: ')


def test_pipelined_requests_are_answered_however_records_cut_them(authority: Authority) -> None:
    with Secure(authority, hello) as server:
        for size in (len(GET) * 4, 7, 1):
            with server.secure() as client:
                data = GET * 3 + LAST_GET
                for start in range(0, len(data), size):
                    client.sendall(data[start : start + size])
                assert [response.body for response in parse(alert_after(client))] == [b"hello"] * 4


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("size", [20_000, 100_000])
def test_what_was_decrypted_behind_a_body_is_not_left_lying(authority: Authority, reads: bool, size: int) -> None:
    """Body and next request are in one record: no event comes for what OpenSSL has taken from the socket already."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            environ["wsgi.input"].read(size if reads else 3)
        return hello(environ, start_response)

    with Secure(authority, application) as server, server.secure() as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        client.sendall(head + b"x" * 16)  # so that the application waits in recv_into for exactly the rest
        client.sendall(b"x" * (size - 16) + GET + LAST_GET)
        assert [response.body for response in parse(alert_after(client))] == [b"hello"] * 3


def test_a_body_in_one_record_with_the_next_request(authority: Authority) -> None:
    with Secure(authority, echo) as server, server.secure() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst" + LAST_GET)
        assert [response.body for response in parse(alert_after(client))] == [b"first", b""]


def test_who_sends_its_closure_alert_first_is_still_answered(authority: Authority) -> None:
    context = authority.client()
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname="localhost")
    with Secure(authority, hello) as server, server.connect() as connection:
        step(client.do_handshake, there, back, connection)
        client.write(LAST_GET)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        connection.sendall(there.read())  # request and alert in one packet
        connection.shutdown(socket.SHUT_WR)
        back.write(receive(connection))
        assert b"hello" in client.read(1 << 16)


def test_who_closes_its_side_without_an_alert_is_answered_too(authority: Authority) -> None:
    """As `nc`-like clients do; what they get is whole, with our own alert."""
    content = os.urandom(3_000_000)

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    with Secure(authority, application) as server, server.secure() as client:
        client.sendall(LAST_GET)
        socket.socket.shutdown(client, socket.SHUT_WR)
        (response,) = parse(alert_after(client))
        assert response.body == content


def step(work: Callable[[], object], there: ssl.MemoryBIO, back: ssl.MemoryBIO, connection: socket.socket) -> None:
    """Do something of an SSLObject whose bytes this test carries itself."""
    while True:
        try:
            work()
        except ssl.SSLWantReadError:
            connection.sendall(there.read())
            back.write(connection.recv(1 << 16))
        else:
            connection.sendall(there.read())
            return


def test_a_handler_class_of_http_server_is_served(authority: Authority) -> None:
    class Plain(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    body = b"x" * 300_000
    with Secure(authority, None, Plain) as server, server.secure() as client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert answer(client) == body


def test_a_socket_that_an_application_takes_speaks_tls(authority: Authority) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        taken = environ["werkzeug.socket"]
        taken.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        taken.sendall(taken.recv(100).upper())
        taken.close()
        return []

    with Secure(authority, application) as server, server.secure() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n")
        client.sendall(b"hush")
        assert alert_after(client).endswith(b"\r\n\r\nHUSH")


# --- The end: RFC 9112 9.8 ------------------------------------------------------------------------------------------------


def test_every_orderly_end_has_its_closure_alert(authority: Authority) -> None:
    with Secure(authority, hello, keep_alive_timeout=0.2) as server:
        for sent in (LAST_GET, GET.replace(b"1.1", b"1.0"), GET, b"", b"nonsense\r\n\r\n"):
            with server.secure() as client:
                client.sendall(sent)
                assert alert_after(client) or not sent


def test_a_stop_has_its_closure_alert_too(authority: Authority) -> None:
    with Secure(authority, hello) as server, server.secure() as client:
        client.sendall(GET)
        answer(client)
        stop = threading.Thread(target=server.server.shutdown)
        stop.start()
        assert alert_after(client) == b""
        stop.join(TIME)


def test_a_response_that_ends_by_closing_is_whole_with_the_alert_and_broken_without(authority: Authority) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        if environ["PATH_INFO"] == "/fails":
            raise RuntimeError
        yield b"thing"

    with Secure(authority, application) as server:
        with server.secure() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert alert_after(client).endswith(b"something")
        with server.secure() as client, pytest.raises((ssl.SSLEOFError, ConnectionResetError)):  # noqa: PT012 - it may come early
            client.sendall(b"GET /fails HTTP/1.0\r\n\r\n")
            alert_after(client)


def test_the_alert_waits_until_a_slow_reader_has_room_for_it(authority: Authority) -> None:
    """The end of the response fills what the kernel takes; the alert leaves behind it when the client reads."""
    size = 1 << 20

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [bytes(size)]

    with Secure(authority, application) as server:
        for _ in range(20):
            size += 123_457  # so that it fits exactly, or nearly, now and then
            with (
                server.connect(window=1 << 16) as connection,
                authority.client().wrap_socket(
                    connection, server_hostname="localhost", suppress_ragged_eofs=False
                ) as client,
            ):
                client.sendall(LAST_GET)
                assert client.recv(1)
                assert alert_after(client).endswith(bytes(size))


# --- Clients that do not shake hands --------------------------------------------------------------------------------------


def test_a_thousand_silent_clients_hold_no_thread_and_delay_nobody(authority: Authority) -> None:
    with Secure(authority, hello, tls_handshake_timeout=60.0) as server:
        with server.secure() as client:
            client.sendall(GET)
            answer(client)
        before = threading.active_count()
        silent = [socket.create_connection(server.address, TIME) for _ in range(500)]
        # The others begin, and stop in the middle of a ClientHello.
        hello_record = client_hello(authority)
        begun = [socket.create_connection(server.address, TIME) for _ in range(500)]
        for number, each in enumerate(begun):
            each.sendall(hello_record[: 1 + number % (len(hello_record) - 1)])
        for _ in range(5):
            with server.secure() as client:
                client.sendall(GET)
                assert answer(client) == b"hello"
        assert threading.active_count() <= before
        for each in silent + begun:
            each.close()


def client_hello(authority: Authority) -> bytes:
    """The first flight of a client."""
    there = ssl.MemoryBIO()
    client = authority.client().wrap_bio(ssl.MemoryBIO(), there, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return there.read()


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
def test_who_does_not_go_on_is_closed_after_handshake_time(authority: Authority, start: bytes) -> None:
    with Secure(authority, hello, tls_handshake_timeout=0.2) as server, server.connect() as client:
        client.sendall(start)
        assert closed_within(client)


def test_a_handshake_that_trickles_has_one_limit_for_all_of_it(authority: Authority) -> None:
    with Secure(authority, hello, tls_handshake_timeout=0.3) as server, server.connect() as client:
        client.settimeout(0.01)
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in client_hello(authority) * 100:
                client.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    if not client.recv(1):
                        break
        assert time.monotonic() - begun < TIME


def test_a_handshake_that_stops_in_the_middle_is_told_of(authority: Authority) -> None:
    with Secure(authority, hello, tls_handshake_timeout=0.2) as server, server.connect() as client:
        client.sendall(client_hello(authority))
        assert closed_within(client)
        server.errors.wait_for("TLS handshake failed: it did not finish within 0.2 seconds (tls_handshake_timeout).")


def test_a_trickled_hello_is_served_when_it_is_whole(authority: Authority) -> None:
    with Secure(authority, hello) as server, server.connect() as connection:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = authority.client().wrap_bio(back, there, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        for byte in there.read():
            connection.sendall(bytes([byte]))
        back.write(connection.recv(1 << 16))
        step(client.do_handshake, there, back, connection)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x16\x03\x01\x00\x05hello", "TLS handshake failed"),
        (b"\x16\xff\xff\xff\xff" + b"\xff" * 100, "TLS handshake failed"),
        (b"\x16" * 20_000, "TLS handshake failed"),
        (b"\x80\x2e\x01\x00\x02", "neither TLS nor HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", "neither TLS nor HTTP"),
        pytest.param(b"x" + os.urandom(50) + b"\r\n\r\n", "400", id="random octets"),
    ],
)
def test_garbage_is_one_line_and_no_traceback(authority: Authority, sent: bytes, said: str) -> None:
    with Secure(authority, hello) as server:
        with server.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert closed_within(client)
        text = server.errors.wait_for(said)
        assert "Traceback" not in text
        assert text.count("\n") == 1


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("part", [1, 100, 10_000])
def test_who_leaves_during_the_handshake_leaves_nothing_behind(authority: Authority, part: int, reset: bool) -> None:
    with Secure(authority, hello) as server:
        with server.connect() as client:
            client.sendall(client_hello(authority)[:part])
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_for_connections(0)
        with server.secure() as good:
            good.sendall(GET)
            assert answer(good) == b"hello"
        assert "Traceback" not in server.errors.text.getvalue()


def test_mutated_hellos_leave_no_traceback_and_nothing_behind(authority: Authority) -> None:
    whole = client_hello(authority)
    with Secure(authority, hello) as server:
        for number in range(200):
            data = bytearray(whole)
            data[(number * 7919) % len(data)] ^= 1 << number % 8
            with server.connect() as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                closed_within(client)
        with server.secure() as good:
            good.sendall(GET)
            assert answer(good) == b"hello"
        assert "Traceback" not in server.errors.text.getvalue()


def test_what_is_neither_is_told_of_once_and_no_request(authority: Authority) -> None:
    """SSL 2's hello and an alert, as scanners send them by the hundred."""
    with Secure(authority, hello) as server:
        for sent in [b"\x80\x2e\x01\x00\x02", b"\x15\x03\x01\x00\x02\x02\x28"] * 20:
            with server.connect() as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                assert receive(client) == b""
        assert server.errors.wait_for("neither TLS nor HTTP").count("\n") == 1
        assert not server.server.requests


def test_the_same_complaint_is_not_repeated(authority: Authority) -> None:
    untrusting = ssl.create_default_context()
    with Secure(authority, hello) as server:
        for _ in range(5):
            with server.connect() as connection, pytest.raises(ssl.SSLCertVerificationError):
                untrusting.wrap_socket(connection, server_hostname="localhost")
        text = server.errors.wait_for("microwsgi certs trust")
        assert text.count("TLS handshake failed") == 1


def test_five_hundred_at_once_are_all_served_and_do_not_stop_who_is_there(authority: Authority) -> None:
    with Secure(authority, hello) as server:
        crowd = [socket.create_connection(server.address, TIME) for _ in range(500)]
        record = client_hello(authority)
        with server.secure() as client:
            for each in crowd:
                each.sendall(record)
            for _ in range(20):
                client.sendall(GET)
                assert answer(client) == b"hello"
        for each in crowd:
            each.settimeout(TIME)
            assert each.recv(1) == b"\x16"
            each.close()


def test_a_stop_does_not_wait_for_handshakes(authority: Authority) -> None:
    with (
        Secure(authority, hello, graceful_timeout=TIME * 2) as server,
        server.connect() as silent,
        server.connect() as begun,
    ):
        begun.sendall(b"\x16\x03")
        with server.secure() as client:  # the two others were accepted before
            client.sendall(GET)
            answer(client)
        begun_at = time.monotonic()
        server.server.shutdown()
        assert time.monotonic() - begun_at < TIME
        assert closed_within(silent)


def test_a_server_serves_again_after_its_end(authority: Authority) -> None:
    with Secure(authority, hello) as server:
        with server.secure() as client:
            client.sendall(LAST_GET)
            alert_after(client)
        server.server.shutdown()
        server.thread.join(TIME)
        server.thread = threading.Thread(target=server.server.serve_forever)
        server.thread.start()
        with server.secure() as client:
            client.sendall(LAST_GET)
            assert b"hello" in alert_after(client)


def test_handle_request_serves_one_and_returns(authority: Authority) -> None:
    errors = Log()
    tls = make_tls(Options(), (authority.leaf("localhost"), None))
    server = WSGIServer(("127.0.0.1", 0), application=keys, errors=errors, tls=tls)
    address = "127.0.0.1", int(server.server_port)
    with server:
        for _ in range(2):
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with (
                socket.create_connection(address, TIME) as connection,
                authority.client().wrap_socket(
                    connection, server_hostname="localhost", suppress_ragged_eofs=False
                ) as client,
            ):
                client.sendall(GET)
                (response,) = parse(alert_after(client))
            thread.join(TIME)
            assert not thread.is_alive()
            assert b"wsgi.url_scheme='https'" in response.body
            assert b"SSL_SERVER_SAN_DNS_0='localhost'" in response.body
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with socket.create_connection(address, TIME) as connection:
            connection.sendall(GET)
            assert closed_within(connection)
        thread.join(TIME)
        assert "TLS handshake failed: the client spoke plain HTTP" in errors.wait_for("failed")


# --- One port, both protocols ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "location"),
    [
        ("GET /a?b=c HTTP/1.1", "https://shop.localhost:8443/a?b=c"),
        ("HEAD / HTTP/1.1", "https://shop.localhost:8443/"),
        ("GET //evil.example/ HTTP/1.1", "https://shop.localhost:8443//evil.example/"),
        ("GET http://other.localhost/x HTTP/1.1", "https://other.localhost/x"),
    ],
)
def test_plain_http_is_sent_to_https(authority: Authority, request_line: str, location: str) -> None:
    with Secure(authority, hello) as server:
        (response,) = server.send(
            f"{request_line}\r\nHost: shop.localhost:8443\r\n\r\n".encode(), methods=[request_line.split(maxsplit=1)[0]]
        )
    assert response.status == 307
    assert response.field("Location") == location
    assert response.field("Connection") == "close"
    assert response.field("Strict-Transport-Security") is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_plain_http_that_can_not_be_redirected_is_a_400(authority: Authority, head: bytes) -> None:
    with Secure(authority, hello) as server:
        (response,) = server.send(head)
    assert response.status == 400
    assert response.field("Location") is None


def test_the_explanation_reaches_who_sends_a_large_body_in_the_clear(authority: Authority) -> None:
    with Secure(authority, hello) as server, server.connect() as client:
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
        (response,) = parse(server.talk(client, data))
    assert response.status == 400
    assert b"use https://" in response.body


def test_with_http_too_both_are_served(authority: Authority) -> None:
    with Secure(authority, keys, https_redirect=False) as server:
        assert b"wsgi.url_scheme='http'\n" in server.get().body + b"\n"
        assert b"SSL_" not in server.get().body
        with server.secure() as client:
            assert told(client)["wsgi.url_scheme"] == "https"


def test_tls_on_a_plain_port_is_said_once_for_each_client(authority: Authority) -> None:
    with Running(hello) as server:
        for _ in range(3):
            with server.connect() as client:
                client.sendall(client_hello(authority))
                client.shutdown(socket.SHUT_WR)
                receive(client)
        text = server.errors.wait_for("sent a TLS handshake")
        assert text.count("\n") == 1
        assert "http://" in text
        assert "--tls" in text


# --- Client certificates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("verify", ["required", "optional"])
def test_client_certificates(authority: Authority, tmp_path: Path, verify: str, version: ssl.TLSVersion) -> None:
    foreign = Authority(tmp_path)
    versions = {"minimum_version": version, "maximum_version": version}
    cases = {
        "good": (authority.leaf("ann@example.com", "ann.localhost", name="good"), ""),
        "none": ("", "the client sent no certificate"),
        "foreign": (foreign.leaf("eve@example.com", name="foreign"), "not issued by a CA in --tls-client-ca"),
        "expired": (authority.leaf("old@example.com", name="expired", days=-2), "certificate has expired"),
    }
    for case, (certificate, reason) in cases.items():
        with Secure(authority, keys, tls_client_ca=authority.file, tls_client_cert=verify) as server:
            context = authority.client(certificate, **versions)
            if case == "good" or (case == "none" and verify == "optional"):
                with server.secure(context) as client:
                    said = told(client)
                assert said["SSL_CLIENT_VERIFY"] == ("SUCCESS" if case == "good" else "NONE")
                assert ("SSL_CLIENT_CERT" in said) == (case == "good")
            else:
                # In TLS 1.3 the client is done before the server has seen its certificate, and learns it by an alert
                # on its first read; it must not be lost to a reset.
                with pytest.raises(ssl.SSLError, match="alert"), server.secure(context) as client:  # noqa: PT012
                    client.sendall(GET * 100)
                    client.recv(1)
                server.errors.wait_for(reason)


def test_the_keys_of_a_client_certificate_are_those_of_openssl(authority: Authority) -> None:
    path = authority.leaf("ann@example.com", "ann.localhost", name="ann")
    with (
        Secure(authority, keys, tls_client_ca=authority.file) as server,
        server.secure(authority.client(path)) as client,
    ):
        said = told(client)
    shown = subprocess.run(
        [need("openssl"), "x509", "-noout", "-serial", "-subject", "-issuer", "-dates", "-nameopt", "RFC2253"],
        input=said["SSL_CLIENT_CERT"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = dict(line.split("=", 1) for line in shown.splitlines())
    assert said["SSL_CLIENT_M_SERIAL"].lstrip("0") == lines["serial"].lstrip("0")
    assert said["SSL_CLIENT_S_DN"] == lines["subject"]
    assert said["SSL_CLIENT_I_DN"] == lines["issuer"]
    assert said["SSL_CLIENT_V_END"] == lines["notAfter"]
    assert said["SSL_CLIENT_S_DN_O"].startswith("trustme")
    assert said["SSL_CLIENT_SAN_Email_0"] == "ann@example.com"
    assert said["SSL_CLIENT_SAN_DNS_0"] == "ann.localhost"
    assert 25 <= int(said["SSL_CLIENT_V_REMAIN"]) <= 30


def test_the_chain_of_a_client_certificate_up_to_the_ca(authority: Authority) -> None:
    between = authority.ca.create_child_ca()
    made = between.issue_cert("ann@example.com")
    path = authority.folder / "by-child.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(path))
    context = authority.client(str(path))
    with Secure(authority, keys, tls_client_ca=authority.file) as server:
        with server.secure(context) as client:
            said = told(client)
            session = client.session
        with (
            server.connect() as connection,
            context.wrap_socket(connection, server_hostname="localhost", session=session) as again,
        ):
            resumed = told(again)
    chain = [said[name] for name in sorted(said) if name.startswith("SSL_CLIENT_CERT_CHAIN_")]
    if sys.version_info >= (3, 13):
        assert chain == [between.cert_pem.bytes().decode(), authority.ca.cert_pem.bytes().decode()]
    else:
        assert not chain
    assert resumed["SSL_SESSION_RESUMED"] == "Resumed"
    assert resumed["SSL_CLIENT_CERT"] == said["SSL_CLIENT_CERT"]
    assert not any(name.startswith("SSL_CLIENT_CERT_CHAIN_") for name in resumed)


# --- Certificates: several, renewed, wrong --------------------------------------------------------------------------------


def test_the_server_name_chooses_the_certificate(authority: Authority) -> None:
    pairs = (
        authority.leaf("localhost", name="first"),
        authority.leaf("shop.test", name="second"),
        authority.leaf("*.wild.test", name="third"),
    )
    with Secure(authority, keys, tls_cert=pairs) as server:
        for name in ("localhost", "shop.test", "a.wild.test"):
            with server.secure(name=name) as client:
                shown = ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")
                said = told(client)
            assert said["SSL_TLS_SNI"] == name
            assert said["SSL_SERVER_SAN_DNS_0"] == name.replace("a.wild", "*.wild")
            assert said["SSL_SERVER_CERT"] == shown
        with server.secure(authority.client(check_hostname=False), name="nobody.test") as client:
            assert told(client)["SSL_SERVER_SAN_DNS_0"] == "localhost"


def serial(server: Secure) -> str:
    """Of the certificate that a new client is shown."""
    with server.secure() as client:
        return str((client.getpeercert() or {})["serialNumber"])


def test_a_renewed_certificate_holds_for_new_connections(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "served.pem"
    shutil.copy(authority.leaf("localhost", name="old"), path)
    with Secure(authority, hello, tls_cert=(str(path),)) as server, server.secure() as before:
        old = serial(server)
        path.write_text("broken")
        end = time.monotonic() + TIME
        while "The changed certificate can't be used" not in server.errors.text.getvalue():
            assert serial(server) == old
            assert time.monotonic() < end
            time.sleep(0.05)
        os.replace(authority.leaf("localhost", name="new"), path)
        while serial(server) == old:
            assert time.monotonic() < end
            time.sleep(0.05)
        text = server.errors.wait_for("A new certificate is used")
        assert text.count("The changed certificate can't be used") == 1
        before.sendall(GET)
        assert answer(before) == b"hello"


def test_what_is_wrong_with_files_is_one_sentence(authority: Authority, tmp_path: Path) -> None:
    whole = Path(authority.leaf("localhost", name="whole")).read_text()
    key, certificate = whole[: whole.index("-----BEGIN CERT")], whole[whole.index("-----BEGIN CERT") :]
    other = Path(authority.leaf("localhost", name="other")).read_text()
    files = {
        "cert": certificate,
        "key": key,
        "other": other[: other.index("-----BEGIN CERT")],
        "bad": "nonsense",
        "damaged": "\n".join([key.splitlines()[0], "nonsense", key.splitlines()[-1]]),
        "right": "secret\n",
        "wrong": "guess\n",
        "locked": subprocess.run(
            [need("openssl"), "pkey", "-aes256", "-passout", "pass:secret"],
            input=key,
            capture_output=True,
            text=True,
            check=True,
        ).stdout,
        "expired": Path(authority.leaf("localhost", name="gone", days=-1)).read_text(),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def attempt(cert: str, key: str = "", password: str = "", **more: str) -> str:
        files = {"tls_cert": cert, "tls_key": key, "tls_password_file": password, **more}
        given = Options.from_mapping({name: str(tmp_path / value) for name, value in files.items() if value})
        try:
            make_tls(given)
        except CertificateError as error:
            return str(error).replace(f"{tmp_path}/", "")
        return ""

    assert attempt("cert", "key") == ""
    assert attempt("cert", "locked", "right") == ""
    assert attempt("nothing", "key") == "--tls-cert nothing can't be read: No such file or directory."
    assert attempt("cert", "nothing") == "--tls-key nothing can't be read: No such file or directory."
    assert attempt("cert") == "cert contains no private key: add --tls-key FILE."
    assert attempt("key", "cert") == "key contains a key but no certificate: are --tls-cert and --tls-key swapped?"
    assert attempt("bad", "key").startswith("bad contains no certificate in PEM")
    assert attempt("cert", "bad") == "bad contains no private key in PEM."
    assert attempt("cert", "other") == "other is not the key of cert."
    assert attempt("cert", "damaged").startswith("cert or damaged is damaged")
    assert attempt("cert", "locked") == "locked is encrypted: add --tls-password-file FILE."
    assert attempt("cert", "locked", "wrong") == "the password in wrong does not open locked."
    assert attempt("cert", "locked", "nothing").startswith("--tls-password-file nothing can't be read")
    assert attempt("expired").startswith("expired has expired, on ")
    assert attempt("cert", "key", tls_client_ca="bad") == "--tls-client-ca bad contains no certificate in PEM."
    assert attempt("cert", "key", tls_keylog="no/such").startswith("tls_keylog no/such can't be written")


def test_session_keys_are_written_for_wireshark_into_a_file_of_ones_own(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with Secure(authority, hello, tls_keylog=str(path)) as server:
        with server.secure() as client:
            client.sendall(GET)
            answer(client)
        assert any("WARNING" in note for note in server.server.tls.notes())  # type: ignore[union-attr]
    assert "SERVER_TRAFFIC_SECRET_0" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_context_of_ones_own(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.leaf("localhost"))
    with (
        Running(keys, tls=make_tls(Options(), context)) as server,
        server.connect() as connection,
        authority.client().wrap_socket(connection, server_hostname="localhost") as client,
    ):
        said = told(client)
    assert said["SSL_TLS_SNI"] == "localhost"
    assert "SSL_SERVER_S_DN" not in said


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"tls_cert": ("a.pem",)}, "--tls-cert"),
        ({"tls_key": ("a.pem",)}, "--tls-key"),
        ({"tls_min": "1.3"}, "--tls-min"),
        ({"tls_client_ca": "ca.pem"}, "--tls-client-ca"),
        ({"tls_client_cert": "optional"}, "--tls-client-cert"),
        ({"tls_keylog": "keys"}, "tls_keylog"),
    ],
)
def test_options_do_not_change_a_context_of_ones_own(given: dict[str, object], flag: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(UsageError, match=f"ssl_context and {flag} can't be combined"):
        make_tls(Options.from_mapping(given), context)
    assert make_tls(Options(tls=True, https_redirect=False, tls_handshake_timeout=1), context).context is context


def test_a_pair_of_files_is_given_once(authority: Authority) -> None:
    with pytest.raises(UsageError, match="ssl_context and --tls-cert can't"):
        make_tls(Options(tls_cert=("a.pem",)), (authority.leaf("localhost"), None))
    assert (
        make_tls(Options(tls_min="1.3"), (authority.leaf("localhost"), None)).context.minimum_version.name == "TLSv1_3"
    )


# --- Programs -------------------------------------------------------------------------------------------------------------


def test_curl_follows_from_http_to_https(authority: Authority) -> None:
    with Secure(authority, hello) as server:
        port = server.address[1]
        said = subprocess.run(
            [need("curl"), "--silent", "--show-error", "--location", "--cacert", authority.file, "--ipv4",
             f"http://localhost:{port}/", "--write-out", " %{http_code} %{num_redirects} %{http_version}"],
            capture_output=True, text=True, check=True, timeout=TIME,
        )  # fmt: skip
    assert said.stdout == "hello 200 1 1.1"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"])
def test_openssl_gets_no_version_older_than_1_2(authority: Authority, version: str) -> None:
    with Secure(authority, hello) as server:
        said = s_client(server, version, "-cipher", "ALL:@SECLEVEL=0")
    assert ("Cipher is (NONE)" not in said) == (version in {"-tls1_2", "-tls1_3"})


def test_openssl_can_not_renegotiate(authority: Authority) -> None:
    """With R s_client asks for a new handshake: it is refused, and the connection with it or not; nothing is held up."""
    with Secure(authority, hello) as server:
        said = s_client(server, "-tls1_2", text="R\n")
        assert "no renegotiation" in said
        with server.secure() as client:
            client.sendall(GET)
            assert answer(client) == b"hello"


def test_openssl_gets_http_1_1_by_alpn(authority: Authority) -> None:
    with Secure(authority, hello) as server:
        assert "ALPN protocol: http/1.1" in s_client(server, "-alpn", "h2,http/1.1")
        assert "No ALPN negotiated" in s_client(server, "-alpn", "h2")


def test_openssl_is_shown_the_certificate_of_the_name_it_asks_for(authority: Authority) -> None:
    pairs = authority.leaf("localhost", name="first"), authority.leaf("shop.test", name="second")
    with Secure(authority, hello, tls_cert=pairs) as server:
        for name in ("localhost", "shop.test"):
            said = s_client(server, "-servername", name, "-verify_hostname", name)
            assert f"Verified peername: {name}" in said
            assert "Verify return code: 0 (ok)" in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes_a_session(authority: Authority, tmp_path: Path, version: str) -> None:
    with Secure(authority, hello) as server:
        saved, request = str(tmp_path / "session"), LAST_GET.decode()
        assert "New, TLS" in s_client(server, version, "-ign_eof", "-sess_out", saved, text=request)
        said = s_client(server, version, "-ign_eof", "-sess_in", saved, text=request)
    assert "Reused, TLS" in said
    assert "hello" in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_served_with_a_client_certificate_and_told_by_an_alert_without(
    authority: Authority, version: str
) -> None:
    own = authority.leaf("ann@example.com", name="own")
    with Secure(authority, hello, tls_client_ca=authority.file) as server:
        asked = version, "-ign_eof"
        assert "hello" in s_client(server, *asked, "-cert", own, "-key", own, text=LAST_GET.decode())
        said = s_client(server, *asked, text=LAST_GET.decode())
        assert "hello" not in said
        assert re.search(r"alert (certificate required|handshake failure)", said)


def s_client(server: Secure, *arguments: str, text: str = "") -> str:
    """What openssl s_client says of this server."""
    said = subprocess.run(
        [need("openssl"), "s_client", "-connect", f"127.0.0.1:{server.address[1]}", "-servername", "localhost",
         "-CAfile", server.authority.file, *arguments],
        input=text, capture_output=True, text=True, check=False, timeout=TIME, errors="replace",
    )  # fmt: skip
    return said.stdout + said.stderr


def test_who_serves_plain_http_does_not_load_what_knows_tls() -> None:
    """The ssl module itself comes with http.server, which imports http.client."""
    program = (
        "import sys; from microwsgi.serving.assembly import https; from microwsgi.options import Options; "
        "https(Options()); sys.exit('microwsgi.tls.front' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment()).returncode == 0
