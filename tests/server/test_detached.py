"""Sockets that are given to the application, over TCP and TLS: they block, and what was received before comes first."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.exchange import TIME, Environ, Running, StartResponse, receive_until
from tests.tls.authority import Authority, Secure

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


def into(taken: Any, count: int) -> bytes:
    buffer = bytearray(count)
    received = taken.recv_into(buffer)
    return bytes(buffer[:received])


def from_file(taken: Any, count: int) -> bytes:
    with taken.makefile("rb") as file:
        return bytes(file.read(count))


def peeked(taken: Any, count: int) -> bytes:
    if hasattr(taken, "pending"):  # of TLS: an SSLSocket refuses flags
        return bytes(taken.recv(count))
    data = taken.recv(count, socket.MSG_PEEK)
    assert taken.recv(count) == data
    return bytes(data)


WAYS: dict[str, Callable[[Any, int], bytes]] = {
    "recv": lambda taken, count: taken.recv(count),
    "recv_into": into,
    "recvfrom": lambda taken, count: taken.recvfrom(count)[0],
    "makefile": from_file,
    "peek": peeked,
    "read": lambda taken, count: taken.read(count) if hasattr(taken, "read") else taken.recv(count),
}


@contextlib.contextmanager
def connected(application: Any, tls: bool, folder: Path) -> Iterator[tuple[Running, socket.socket]]:
    with (
        Secure(Authority(folder), application) if tls else Running(application) as running,
        running.secure() if isinstance(running, Secure) else running.connect() as client,
    ):
        yield running, client


@pytest.mark.parametrize("tls", [False, True])
def test_what_was_received_before_comes_first_however_the_application_receives(tls: bool, tmp_path: Path) -> None:
    found: dict[str, list[bytes]] = {}
    for name, way in WAYS.items():

        def application(
            environ: Environ, start_response: StartResponse, name: str = name, way: Any = way
        ) -> list[bytes]:
            with environ["werkzeug.socket"] as taken:
                first = way(taken, 5)
                taken.sendall(SWITCHED)
                found[name] = [first, b"".join(receive_exactly(taken, way))]
            return []

        with connected(application, tls, tmp_path) as (running, client):
            client.sendall(UPGRADE + b"AHEAD")
            receive_until(client, SWITCHED)
            client.sendall(b"LATER")
            assert client.recv(1) == b""
            assert not running.errors.text.getvalue()
    assert found == {name: [b"AHEAD", b"LATER"] for name in WAYS}


def receive_exactly(taken: Any, receive: Callable[[Any, int], bytes]) -> Iterator[bytes]:
    left = 5
    while left:
        piece = receive(taken, left)
        left -= len(piece)
        yield piece


@pytest.mark.parametrize("tls", [False, True])
def test_a_given_socket_blocks_and_sends_whole_messages(tls: bool, tmp_path: Path) -> None:
    """As CPython's: over TLS `send` returns when all is encrypted; a time limit is the application's."""
    sent: list[object] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        taken = environ["gunicorn.socket"]
        sent.append(taken.gettimeout())
        taken.settimeout(0.01)
        try:
            taken.recv(1)
        except TimeoutError:
            sent.append("timeout")
        taken.settimeout(None)
        data = b"x" * 5_000_000
        count = taken.send(data) if tls else len(data)
        sent.append(count)
        if not tls:
            taken.sendall(data)
        taken.close()
        return []

    with connected(application, tls, tmp_path) as (_, client):
        client.sendall(UPGRADE)
        total = 0
        while piece := client.recv(1 << 16):
            total += len(piece)
    assert sent == [None, "timeout", 5_000_000]
    assert total == 5_000_000


def raising(error: type[BaseException]) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


ENDS: dict[str, Callable[[], Any]] = {
    "StopIteration": raising(StopIteration),
    "OSError": raising(OSError),
    "SystemExit": raising(SystemExit),
    "None": lambda: None,
    "a body": lambda: [b"x"],
    "a generator": lambda: (chunk for chunk in [b"x"]),
}


@pytest.mark.parametrize("response", [False, True])
def test_nothing_that_an_application_does_afterwards_is_an_error(response: bool) -> None:
    """The contract of gunicorn is to raise StopIteration, Werkzeug's to return a response: neither is sent or logged."""
    faults = {}
    for name, end in ENDS.items():
        over = threading.Event()

        def application(environ: Environ, start_response: StartResponse, end: Any = end) -> Any:
            taken = environ["werkzeug.socket"]
            taken.sendall(SWITCHED)
            if response:
                start_response("200 OK", [("Content-Length", "100")])(b"never sent")
            taken.close()
            return end()

        records: list[int] = []

        def log(request: Any, _: float, records: list[int] = records, over: threading.Event = over) -> None:
            records.append(request.status)
            over.set()

        with Running(application, arguments={"access_log": log}) as running, running.connect() as client:
            client.sendall(UPGRADE)
            data = receive_until(client, SWITCHED)
            data += client.recv(100)
            assert over.wait(TIME)
        if (data, records, running.errors.text.getvalue(), running.server.failures) != (SWITCHED, [101], "", 0):
            faults[name] = (data, records, running.errors.text.getvalue())
    assert not faults


def test_a_file_of_a_socket_keeps_it_open() -> None:
    """As socket.makefile has it: the connection is closed with the last of them."""
    go = threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        taken = environ["werkzeug.socket"]
        file = taken.makefile("rwb")
        taken.close()
        file.write(SWITCHED)
        file.flush()
        assert go.wait(TIME)
        file.close()
        return []

    with Running(application) as running, running.connect() as client:
        client.sendall(UPGRADE)
        receive_until(client, SWITCHED)
        go.set()
        assert client.recv(1) == b""
    assert not running.errors.text.getvalue()
