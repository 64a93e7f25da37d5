"""microwsgi/server/proxied.py: connections whose first bytes are a PROXY protocol header (--proxy-protocol)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from microwsgi.errors import UsageError
from microwsgi.options import Options
from tests.server.exchange import GET, LAST_GET, Listener, Running, parse, receive_until, wait_until
from tests.tables import Rows
from tests.wire.test_proxy_protocol import FOUR, SIGNATURE, SIX, TLV, VALID, binary

TRUSTING: dict[str, Any] = {"proxy_protocol": True, "forwarded_allow_ips": "127.0.0.1"}
LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8080\r\n"


def peer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the client's address and port."""
    start_response("200 OK", [])
    return [f"{environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}".encode()]


def test_the_client_is_that_of_the_header() -> None:
    with Running(peer, **TRUSTING) as running, Rows() as rows:
        for header, client in VALID:
            with rows(header[:60]), running.connect() as connection:
                own = f"127.0.0.1 {connection.getsockname()[1]}"
                said = own if client is None else " ".join(client)
                responses = parse(running.talk(connection, header + GET + LAST_GET))
                assert [each.body.decode() for each in responses] == [said, said], "for all requests of the connection"


def test_the_bytes_may_arrive_one_by_one_and_the_request_behind_them_in_the_same_packet() -> None:
    with Running(peer, **TRUSTING) as running, Rows() as rows:
        for header in (LINE, binary(0x21, 0x11, FOUR + TLV), binary(0x21, 0x21, SIX)):
            with rows(header[:60]), running.connect() as connection:
                for byte in header[:-1]:
                    connection.sendall(bytes([byte]))
                (response,) = parse(running.talk(connection, header[-1:] + LAST_GET))
                assert response.body in {b"203.0.113.7 4711", b"2001:db8::1 4711"}


def test_a_trusted_proxy_must_send_the_header() -> None:
    with Rows() as rows:
        for data in (
            LAST_GET,
            b"PROXY TCP4 1.2.3.4 x\r\n" + LAST_GET,
            SIGNATURE + b"\x99\x99\x00\x00" + LAST_GET,
            b"\x16\x03\x01",
        ):
            with rows(data[:60]), Running(peer, **TRUSTING) as running:
                (response,) = running.send(data)
                assert (response.status, b"PROXY protocol" in response.body) == (400, True)
                assert "PROXY protocol" in running.errors.text.getvalue()


def test_only_a_trusted_proxy_may_send_the_header() -> None:
    arguments = {"sockets": [Listener(client=("192.0.2.1", 1))]}
    with Running(peer, arguments=arguments, **TRUSTING) as running:
        (response,) = running.send(LINE + LAST_GET)
        assert (response.status, b"--forwarded-allow-ips" in response.body) == (400, True)
        (response,) = running.send(LAST_GET)
        assert (response.status, response.body) == (200, b"192.0.2.1 1"), "another client sends requests as ever"


def test_without_the_option_the_log_names_it() -> None:
    """The response does, too: it is what the operator sees who tries with curl --haproxy-protocol."""
    with Rows() as rows:
        for header in (LINE, binary(0x21, 0x11, FOUR), SIGNATURE + b"\x20\x00\x00\x00"):
            with rows(header[:40]), Running(peer) as running:
                (response,) = running.send(header + LAST_GET)
                assert (response.status, b"--proxy-protocol" in response.body) == (400, True)
                assert "--proxy-protocol" in running.errors.text.getvalue()


def test_the_clients_fields_are_not_believed_but_those_of_a_proxy_behind_the_proxy_are() -> None:
    field = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n"
    with Running(peer, proxy_protocol=True, forwarded_allow_ips="127.0.0.1,10.0.0.0/8") as running:
        (response,) = running.send(LINE + field)
        assert response.body == b"203.0.113.7 4711"
        (response,) = running.send(b"PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n" + field)
        assert response.body == b"198.51.100.9 "


def test_a_header_that_does_not_arrive_is_given_up() -> None:
    with Running(peer, **TRUSTING, header_timeout=0.05) as running, running.connect() as connection:
        connection.sendall(LINE[:10])
        began = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - began >= 0.04
        with running.connect() as other:
            other.close()
        wait_until(lambda: not running.connections)


def test_the_wire_cases_of_a_connection_go_on_behind_the_header() -> None:
    """The connection is an ordinary one afterwards: kept, and idle between two requests."""
    with Running(peer, **TRUSTING) as running, running.connect() as connection:
        connection.sendall(LINE)
        for _ in range(3):
            connection.sendall(GET)
            receive_until(connection, b"203.0.113.7 4711")


def test_the_option_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="--forwarded-allow-ips"):
        Running(peer, proxy_protocol=True)
    assert not Options().proxy_protocol
