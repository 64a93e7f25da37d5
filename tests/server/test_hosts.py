"""microwsgi/server/hosts.py: no answer for a name that means this machine only since a moment ago (DNS rebinding)."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from microwsgi.options import Options
from microwsgi.server.hosts import CACHE_SIZE, Hosts
from microwsgi.server.server import WSGIServer
from tests.server.exchange import TIME, Running, hello, parse, receive

OWN_LOCAL = f"{socket.gethostname().partition('.')[0]}.local"
"""How neighbours find this machine (RFC 6762)."""


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "a.localhost", "a.b.localhost:1", "127.0.0.1", "127.0.0.1:8000", "[::1]",
     "[::1]:8000", "192.0.2.7", "[2001:db8::1]:80", socket.gethostname(),
     OWN_LOCAL, "a.zone.test", "extra.example", "Extra.Example:80", "all.test:80", "a.b.all.test"],
)  # fmt: skip
def test_this_machine_addresses_and_what_was_allowed_are_answered(host: str) -> None:
    assert Hosts(["Extra.example", "*.zone.test", ".all.test"]).allows(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", "", "0x7f.1",
     "[v1.a]", "a.extra.example", "zone.test", "a.b.zone.test", "notall.test", "test"],
)  # fmt: skip
def test_any_other_name_is_not(host: str) -> None:
    assert not Hosts(["extra.example", "*.zone.test", ".all.test"]).allows(host)


def test_inventing_names_does_not_fill_the_memory() -> None:
    hosts = Hosts()
    for number in range(2 * CACHE_SIZE):
        assert not hosts.allows(f"{number}.example")
    assert not hosts.allowed
    for number in range(2 * CACHE_SIZE):
        assert hosts.allows(f"{number}.localhost")
    assert len(hosts.allowed) == CACHE_SIZE


def test_hosts_that_a_client_invents_do_not_keep_out_the_others() -> None:
    hosts = Hosts(["example.org"])
    assert all(hosts.allows(f"10.0.{number // 256}.{number % 256}") for number in range(CACHE_SIZE))
    assert hosts.allows("example.org")
    assert "example.org" in hosts.allowed


def test_the_refusal_is_a_421_that_explains_itself() -> None:
    with Running(hello, arguments={"hosts": Hosts()}) as running:
        (response,) = running.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert response.status == 421
        assert b"--allow-host evil.example" in response.body
        (response,) = running.send(b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert response.status == 421
        (response,) = running.send(b"GET / HTTP/1.0\r\n\r\n")
        assert response.status == 200, "who sends no Host is no browser"
        (response,) = running.send(b"GET / HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n")
        assert response.status == 200


def test_without_the_command_line_every_host_is_answered() -> None:
    with Running(hello) as running:
        (response,) = running.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert response.status == 200


def test_on_a_unix_socket_only_an_explicit_list_is_checked(tmp_path: Path) -> None:
    for number, (options, status) in enumerate(((Options(), 200), (Options(allow_host=("localhost",)), 421))):
        path = str(tmp_path / str(number))
        server = WSGIServer(f"unix:{path}", application=hello, options=options, hosts=Hosts(options.allow_host))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(TIME)
                client.connect(path)
                client.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
                assert parse(receive(client))[0].status == status
        finally:
            server.shutdown()
            thread.join(TIME)
            server.server_close()
