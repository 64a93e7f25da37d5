"""New code with TLS: a kept connection can not go to the successor, so it is answered once more, with `Connection: close`."""

from __future__ import annotations

import http.client
import signal
import ssl
from pathlib import Path

import pytest

from tests.faults.applications import APPLICATION
from tests.faults.running import LIMIT, Server
from tests.programs import need

KEPT = 5
"""Connections of each kind that wait between two requests."""


@pytest.mark.parametrize(
    "options", [("--tls",), ("--tls", "--no-https-redirect")], ids=["TLS", "TLS and HTTP on one port"]
)
def test_kept_connections_are_answered_once_more(tmp_path: Path, options: tuple[str, ...]) -> None:
    need("openssl")
    (tmp_path / "main.py").write_text(APPLICATION)
    server = Server(tmp_path, "workers", *options)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    kept: list[http.client.HTTPConnection] = []
    try:
        assert server.starts(), server.output()
        kept = [
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=LIMIT, context=context) for _ in range(KEPT)
        ]
        if "--no-https-redirect" in options:
            kept += [http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT) for _ in range(KEPT)]
        for connection in kept:
            connection.auto_open = 0
            connection.connect()
            assert ask(connection)[0] == b"ok"
        server.send(signal.SIGHUP)
        assert server.wait_for_output("reloaded; serving main:app"), server.output()
        answers = [ask(connection) for connection in kept]
        assert [body for body, _ in answers] == [b"ok"] * len(kept)
        secure = [closes for connection, (_, closes) in zip(kept, answers, strict=True) if is_secure(connection)]
        assert secure == [True] * KEPT
        assert server.stop() == ""
    finally:
        for connection in kept:
            connection.close()
        server.end()


def is_secure(connection: http.client.HTTPConnection) -> bool:
    return isinstance(connection, http.client.HTTPSConnection)


def ask(connection: http.client.HTTPConnection) -> tuple[bytes, bool]:
    """The body, and whether the connection ends after it."""
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.read(), response.will_close
    except (OSError, http.client.HTTPException) as error:
        return repr(error).encode(), True
