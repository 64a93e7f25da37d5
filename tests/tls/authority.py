"""Certificates for tests, and clients that trust them."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microwsgi.options import Options
from microwsgi.tls.front import make_tls
from tests.programs import need_package
from tests.server.exchange import TIME, Running


class Authority:
    """A CA with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        need_package("trustme")
        import trustme

        self.ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def leaf(self, *names: str, name: str = "leaf", days: int = 30) -> str:
        """A file with a certificate for these names, its chain and its key; expired with negative days."""
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        since = until - dt.timedelta(days=60) if days < 0 else None
        made = self.ca.issue_cert(*names, not_after=until, not_before=since)
        path = self.folder / f"{name}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def client(self, certificate: str = "", **settings: object) -> ssl.SSLContext:
        """What a client needs that trusts this CA, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate:
            context.load_cert_chain(certificate)
        for name, value in settings.items():
            setattr(context, name, value)
        return context


class Secure(Running):
    """A server with TLS, for localhost and 127.0.0.1 unless `tls_cert` says otherwise."""

    def __init__(
        self,
        authority: Authority,
        application: Any,
        handler: type | None = None,
        *,
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.authority = authority
        options.setdefault("tls_cert", (authority.leaf("localhost", "127.0.0.1"),))
        super().__init__(application, handler, make_tls(Options(**options)), arguments=arguments, **options)

    @contextlib.contextmanager
    def secure(self, context: ssl.SSLContext | None = None, name: str = "localhost") -> Iterator[ssl.SSLSocket]:
        """A client's connection after the handshake; an end without the closure alert raises SSLEOFError."""
        context = context or self.authority.client()
        with (
            self.connect() as connection,
            context.wrap_socket(connection, server_hostname=name, suppress_ragged_eofs=False) as secure,
        ):
            yield secure


def alert_after(connection: ssl.SSLSocket) -> bytes:
    """All that comes until the closure alert; raises SSLEOFError if none comes."""
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data


def closed_within(connection: socket.socket) -> bool:
    """Whether the server closes this connection, and does not leave it to the limit of the test."""
    connection.settimeout(TIME)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True
