"""The transport over TLS: errors in OpenSSL's queue of a thread that are those of another connection."""

from __future__ import annotations

import _ssl
import ctypes
from collections.abc import Callable, Iterable
from errno import EPIPE
from pathlib import Path
from typing import Any

import pytest

from tests.server.exchange import parse
from tests.tls.authority import Authority, Secure

ERR_LIB_SYS = 2
SIZE = 3_000_000
UPLOAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % SIZE


def leave_error() -> None:
    """Put a system error into the queue of this thread, as CPython does when a connection of the thread is reset."""
    crypto = ctypes.CDLL(getattr(_ssl, "__file__", None))
    if not hasattr(crypto, "ERR_set_error"):
        pytest.skip("ctypes does not find OpenSSL")
    crypto.ERR_new()
    crypto.ERR_set_error(ERR_LIB_SYS, EPIPE, None)


def download(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Read the body and answer with a large one, each with an error in the queue."""
    leave_error()
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(SIZE)), ("X-Size", str(size))])
    leave_error()
    yield bytes(SIZE)
    leave_error()


def test_an_error_of_another_connection_ends_neither_reading_nor_writing(tmp_path: Path) -> None:
    leave_error()
    with Secure(Authority(tmp_path), download, body_buffer_size=1000) as server, server.secure() as client:
        for _ in range(5):
            client.sendall(UPLOAD)
            client.sendall(bytes(SIZE))
            data = b""
            while len(data) < SIZE or len(data) < data.index(b"\r\n\r\n") + 4 + SIZE:
                piece = client.recv(1 << 16)
                assert piece, f"closed after {len(data)} bytes"
                data += piece
            (response,) = parse(data)
            assert (response.status, response.field("X-Size"), len(response.body)) == (200, str(SIZE), SIZE)
