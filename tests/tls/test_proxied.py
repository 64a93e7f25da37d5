"""The PROXY protocol before TLS: the header comes in the clear, then the handshake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.tables import Rows
from tests.tls.authority import Authority, Secure
from tests.wire.test_proxy_protocol import FOUR, TLV, binary


def peer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the scheme, and the client's address and port."""
    start_response("200 OK", [])
    return [f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}".encode()]


def test_the_header_precedes_the_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    with (
        Secure(authority, peer, proxy_protocol=True, forwarded_allow_ips="127.0.0.1") as server,
        Rows() as rows,
    ):
        context = authority.client()
        for header, slowly in (
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", False),
            (binary(0x21, 0x11, FOUR + TLV), True),
        ):
            with rows(header[:20], slowly), server.connect() as connection:
                for piece in [bytes([byte]) for byte in header] if slowly else [header]:
                    connection.sendall(piece)
                with context.wrap_socket(connection, server_hostname="localhost", suppress_ragged_eofs=False) as secure:
                    for last in (b"\r\n", b"Connection: close\r\n\r\n"):
                        secure.sendall(request + last)
                        data = b""
                        while b"4711" not in data:
                            data += secure.recv(65536)
                        assert data.endswith(b"https 203.0.113.7 4711")


def test_the_handshake_without_the_header_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Secure(authority, peer, proxy_protocol=True, forwarded_allow_ips="127.0.0.1") as server:
        with server.connect() as connection:
            connection.sendall(b"\x16\x03\x01")
            assert b"PROXY protocol" in connection.recv(65536)
        assert "does not begin with a PROXY protocol header" in server.errors.text.getvalue()
