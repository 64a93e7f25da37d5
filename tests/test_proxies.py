"""A server of ours behind nginx and HAProxy, each as its own user, over TCP and over a Unix socket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.background import eventually, free_port
from tests.programs import need
from tests.proxies import Proxy, haproxy, nginx, open_folder
from tests.running import LIMIT, Running, microwsgi
from tests.tables import Rows
from tests.wire.cases import Case, cases

APPLICATION = '''
import base64, hashlib, json, threading

go = threading.Event()


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/upload":
        digest, size = hashlib.sha256(), 0
        while data := environ["wsgi.input"].read(65536):
            digest.update(data)
            size += len(data)
        return answer(start_response, [size, digest.hexdigest()])
    if path == "/go":
        go.set()
        return answer(start_response, True)
    if path == "/events":
        go.clear()
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
        return events()
    if path == "/download":
        start_response("200 OK", [("Content-Length", str(50 * 1024 * 1024))])
        return (bytes([number % 251]) * (1024 * 1024) for number in range(50))
    if path == "/socket":
        return echo(environ)
    body = environ["wsgi.input"].read()
    keys = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
    return answer(start_response, [environ.get(key) for key in keys])


def answer(start_response, value):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


def events():
    yield b"data: 1\\n\\n"
    go.wait(10)
    yield b"data: 2\\n\\n"


def echo(environ):
    """A WebSocket (RFC 6455): each short text that comes goes back."""
    key = environ["HTTP_SEC_WEBSOCKET_KEY"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest())
    with environ["microwsgi.socket"] as connection, connection.makefile("rb") as file:
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
            b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n"
        )
        while (head := file.read(2)) and head[0] == 0x81:
            mask, data = file.read(4), file.read(head[1] & 0x7F)
            text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
            connection.sendall(bytes([0x81, len(text)]) + text)
    return []
'''
SITE = """
    map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
    server {
        listen 127.0.0.1:%d;
        server_name _;
        client_max_body_size 0;
        location / {
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host "shop.example";
        }
    }
"""
STREAM = """
stream {
    server {
        listen 127.0.0.1:%d;
        proxy_pass %s;
        proxy_protocol on;
    }
}
"""
CLIENT = "127.0.0.9"
"""The address of clients: the proxies are 127.0.0.1, which is trusted."""
FORWARDED = ("--forwarded-allow-ips", "127.0.0.1,unix")


class Behind(NamedTuple):
    """A proxy, and our server behind it."""

    proxy: Proxy
    server: Running
    log: Path

    def read(self) -> list[str]:
        """The method and target of each request that our server has read and answered with 200."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [f"{line['method']} {line['target']}" for line in lines if line["status"] == 200]


@contextlib.contextmanager
def behind(kind: str, *, unix: bool = False, protocol: str = "", fields: str = "for,proto") -> Iterator[Behind]:
    """A proxy of this kind before a server, over TCP or a Unix socket, with the PROXY protocol if asked for."""
    with open_folder() as folder:
        (folder / "web.py").write_text(APPLICATION)
        port, front = free_port(), free_port()
        group = "www-data" if kind.startswith("nginx") else "haproxy"
        need(kind.partition("-")[0])
        where = (
            ["-b", f"unix:{folder}/web.sock", "--socket-mode", "660", "--socket-group", group]
            if unix
            else ["-p", str(port)]
        )
        options = [*FORWARDED, "--forwarded-fields", fields, *(["--proxy-protocol"] if protocol else [])]
        log = folder / "requests.log"
        more = [
            "--access-log",
            str(log),
            "--log-format",
            "json",
            "--allow-host",
            "shop.example",
            "--chdir",
            str(folder),
        ]
        server = Running(microwsgi("serve", "web:app", "--app-dir", str(folder), *where, *options, *more))
        try:
            server.line("Ctrl-C stops")
            if kind == "nginx":
                upstream = f"unix:{folder}/web.sock" if unix else f"127.0.0.1:{port}"
                running = nginx(folder, front, upstream, SITE % front)
            elif kind == "nginx-stream":
                running = nginx(folder, front, "127.0.0.1:1", "", more=STREAM % (front, f"127.0.0.1:{port}"))
            else:
                running = haproxy(folder, front, f"unix@{folder}/web.sock" if unix else f"127.0.0.1:{port}", protocol)
            with running as proxy:
                yield Behind(proxy, server, log)
        finally:
            server.end()


HANDSHAKE = b"""\
GET /socket HTTP/1.1\r
Host: localhost\r
Connection: Upgrade\r
Upgrade: websocket\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
\r
"""
WAYS = (("nginx", False), ("nginx", True), ("haproxy", False), ("haproxy", True))
IDS = [f"{kind}-{'unix' if unix else 'tcp'}" for kind, unix in WAYS]


def ask(proxy: Proxy, path: str, method: str = "GET", body: Any = None, **fields: str) -> Any:
    """The JSON of a response with status 200."""
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=LIMIT, source_address=(CLIENT, 0))
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, (response.status, text)
        return json.loads(text)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "unix"), WAYS, ids=IDS)
def test_what_a_person_does_works_through_a_proxy(kind: str, unix: bool) -> None:
    with behind(kind, unix=unix) as site, Rows() as rows:
        with rows("address, scheme and host"):
            assert ask(site.proxy, "/") == [
                CLIENT,
                "http",
                "127.0.0.1" if kind == "nginx" else f"127.0.0.1:{site.proxy.port}",
                "",
            ]
        with rows("kept connections upstream"):
            assert [ask(site.proxy, f"/{number}")[0] for number in range(20)] == [CLIENT] * 20
        with rows("a forged address stands to the left of the true one"):
            assert ask(site.proxy, "/", X_Forwarded_For="6.6.6.6")[0] == CLIENT
        with rows("50 MB up, by length and in chunks"):
            data = bytes(range(256)) * 4096 * 50
            digest = [len(data), hashlib.sha256(data).hexdigest()]
            assert ask(site.proxy, "/upload", "POST", data) == digest
            pieces = (data[begin : begin + 1024 * 1024] for begin in range(0, len(data), 1024 * 1024))
            assert ask(site.proxy, "/upload", "POST", pieces) == digest
        with rows("50 MB down"):
            connection = HTTPConnection("127.0.0.1", site.proxy.port, timeout=LIMIT)
            with contextlib.closing(connection):
                connection.request("GET", "/download")
                text = connection.getresponse().read()
            assert (
                hashlib.sha256(text).digest()
                == hashlib.sha256(b"".join(bytes([n % 251]) * 2**20 for n in range(50))).digest()
            )
        with rows("events arrive one by one"):
            connection = HTTPConnection("127.0.0.1", site.proxy.port, timeout=LIMIT)
            with contextlib.closing(connection):
                connection.request("GET", "/events")
                response = connection.getresponse()
                assert response.readline() == b"data: 1\n"  # the second is only sent when this one was seen
                ask(site.proxy, "/go")
                assert response.read().endswith(b"data: 2\n\n")
        with rows("a WebSocket"):
            with (
                socket.create_connection(("127.0.0.1", site.proxy.port), LIMIT) as client,
                client.makefile("rb") as file,
            ):
                client.sendall(HANDSHAKE)
                assert file.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
                fields = b"".join(iter(file.readline, b"\r\n"))
                assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in fields, "RFC 6455 1.3"
                for text in (b"hello", b"x" * 100):
                    client.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
                    assert file.read(2 + len(text)) == bytes([0x81, len(text)]) + text
        assert "Traceback" not in site.server.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_odd_messages_mean_the_same_to_the_proxy_and_to_us(kind: str) -> None:
    """Each wire case on a connection of its own: the requests that we read are those that the proxy has passed on, in order."""
    with behind(kind) as site:
        sent = cases("accepted") + cases("refused")
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(partial(talk, site.proxy.port), sent))) == len(sent)
        assert ask(site.proxy, "/last")
        site.server.stop()
        ours, theirs = (Counter(map(origin, lines)) for lines in (site.read(), site.proxy.forwarded()))
    assert ours.total() > len(sent) / 8
    with Rows() as rows:
        for name, more, less in (("only we read", ours, theirs), ("only the proxy passed on", theirs, ours)):
            for line, count in {"": 0, **(more - less)}.items():
                with rows(name, line[:80]):
                    assert not count


def talk(port: int, case: Case) -> None:
    """Send a case with another request behind it; a message that does not end is given up soon."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as client, contextlib.suppress(OSError):
        client.settimeout(1.0)
        client.sendall(case.data + b"GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while client.recv(65536):
            pass


def origin(line: str) -> str:
    """A method and target in origin form, as far as HAProxy logs them."""
    return re.sub(r"^(\S+) (?:(?i:https?)://[^/?]*)?/?", r"\1 /", line)[:1000]


@pytest.mark.slow
def test_the_host_and_scheme_that_nginx_reports() -> None:
    with behind("nginx", fields="for,proto,host") as site:
        assert ask(site.proxy, "/") == [CLIENT, "http", "shop.example", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "protocol"), [("haproxy", "send-proxy"), ("haproxy", "send-proxy-v2"), ("nginx-stream", "v1")]
)
def test_the_proxy_protocol_of_haproxy_and_nginx(kind: str, protocol: str) -> None:
    with behind(kind, protocol=protocol) as site:
        client = socket.create_connection(("127.0.0.1", site.proxy.port), LIMIT, source_address=(CLIENT, 0))
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := client.recv(65536):
                data += piece
        assert b'["127.0.0.9", "http", "localhost", ""]' in data
        eventually(lambda: '"client": "127.0.0.9"' in site.log.read_text())
