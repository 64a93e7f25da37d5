"""What an application may return, and how it leaves: whole, in order, however slowly the client reads."""

from __future__ import annotations

import io
import random
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from microwsgi.errors import Disconnected
from tests.server.exchange import (
    GET,
    LAST_GET,
    TIME,
    Environ,
    Listener,
    Response,
    Running,
    StartResponse,
    hello,
    parse,
    receive,
    receive_until,
    wait_until,
)
from tests.tls.authority import Authority, Secure


class Stage:
    """An application that returns what it is told to."""

    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", list(self.headers))
        return self.body


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Stage, Running]]:
    stage = Stage()
    with Running(stage) as running:
        yield stage, running


def answer(stage: tuple[Stage, Running], body: Any, *, method: str = "GET") -> tuple[Response, str]:
    """The response to an application that returns this, and what was logged."""
    stage[0].body = body
    before = len(stage[1].errors.text.getvalue())
    response = stage[1].get(method=method)
    stage[1].wait_for_connections(0)
    return response, stage[1].errors.text.getvalue()[before:]


def test_a_tuple_is_sent_whole_and_with_its_length(stage: tuple[Stage, Running]) -> None:
    failed = []
    for body in ((), (b"",), (b"one ", b"two")):
        whole = b"".join(body)
        for method in ("GET", "HEAD"):
            response, log = answer(stage, body, method=method)
            right = response.body == (whole if method == "GET" else b"") and not log
            if not right or (method == "GET" and response.field("Content-Length") != str(len(whole))):
                failed.append((body, method, response, log))
    assert not failed


def test_a_file_wrapper_around_what_is_no_file_is_read(stage: tuple[Stage, Running]) -> None:
    class Reader:
        def __init__(self) -> None:
            self.read = io.BytesIO(b"hello").read

    for file in (io.BytesIO(b"hello"), Reader()):
        response, log = answer(stage, FileWrapper(file))  # type: ignore[arg-type]  # one that can only be read
        assert (response.body, log) == (b"hello", "")


def test_a_text_file_is_an_error_that_names_the_rule(stage: tuple[Stage, Running], tmp_path: Path) -> None:
    """The kernel would send its bytes: on another server, which reads it, the application would fail."""
    (tmp_path / "a.txt").write_text("hello")
    with (tmp_path / "a.txt").open(encoding="utf-8") as file:
        response, log = answer(stage, FileWrapper(file))  # type: ignore[arg-type]  # it is refused for that
    assert response.status == 500
    assert "PEP 3333 requires bytes" in log


def test_of_a_file_head_gets_the_length_alone(stage: tuple[Stage, Running], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    file = (tmp_path / "a").open("rb")
    response, log = answer(stage, FileWrapper(file), method="HEAD")
    assert (response.field("Content-Length"), response.body, log) == ("5", b"", "")
    wait_until(lambda: file.closed)


def test_a_close_that_lacks_an_attribute_is_not_taken_for_an_iterable_without_close(
    stage: tuple[Stage, Running],
) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"hello"])

        def close(self) -> None:
            self.file.close()  # type: ignore[attr-defined]

    response, log = answer(stage, Body())
    assert response.body == b"hello"
    assert "has no attribute 'file'" in log


def test_write_waits_for_a_slow_reader_even_when_no_more_threads_may() -> None:
    """There is nothing to come back to: PEP 3333's write returns when the next may be written."""
    chunk = b"x" * 4_000_000
    written: list[int] = []
    inside, gate = threading.Semaphore(0), threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", str(2 * len(chunk)))])
        inside.release()
        assert gate.wait(TIME)
        for _ in range(2):
            write(chunk)
            written.append(len(chunk))
        return []

    # Half of four threads may wait for slow readers; these are three, and one more is served.
    with Running(application, threads=4) as running:
        clients = [running.connect(window=1 << 16) for _ in range(3)]
        sockets = [client.__enter__() for client in clients]
        for each in sockets:
            each.sendall(LAST_GET)
        for _ in sockets:
            assert inside.acquire(timeout=TIME)
        gate.set()
        for each in sockets:
            assert each.recv(1, socket.MSG_PEEK)
        assert len(written) < 6, "nobody has read, and the kernel does not keep all of it"
        for each in sockets:
            (response,) = parse(receive(each))
            assert response.body == chunk * 2
        for client in clients:
            client.__exit__(None, None, None)
        assert not running.errors.text.getvalue()


def test_who_asks_for_it_is_told_where_the_time_went() -> None:
    """As --debug does: a field line more, and nothing else."""
    arguments = {"timing": lambda request: "Server-Timing: app;dur=1\r\n"}
    with Running(hello, arguments=arguments) as running:
        response = running.get()
    assert response.field("Server-Timing") == "app;dur=1"
    assert response.body == b"hello"


@pytest.mark.slow
def test_what_a_client_is_too_slow_for_leaves_in_order(tmp_path: Path) -> None:
    """A list, chunks, writes and a file, and the response behind them; over TLS, too."""
    part = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(part * 6)

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/":
            return hello(environ, start_response)
        write = start_response("200 OK", [("Content-Length", str(6 * len(part)))])
        if path == "/write":
            for _ in range(6):
                write(part)
            return []
        if path == "/file":
            file: Iterable[bytes] = environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))
            return file
        return [part] * 6 if path == "/list" else iter([part] * 6)

    failed = []
    with Running(application) as plain, Secure(Authority(tmp_path), application) as secure:
        for path in ("/list", "/iterator", "/write", "/file"):
            for name, server, tls in (("TCP", plain, False), ("TLS", secure, True)):
                with server.connect(window=1 << 16) as connection:
                    client: socket.socket = connection
                    if tls:
                        client = secure.authority.client().wrap_socket(connection, server_hostname="localhost")
                    # The second response begins when the kernel is full with the end of the first one.
                    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 2 + LAST_GET)
                    with plain.connect() as other:  # meanwhile the responses wait for their client
                        other.sendall(GET)
                        receive_until(other)
                    bodies = [response.body for response in parse(receive(client))]
                    if bodies != [part * 6, part * 6, b"hello"]:
                        failed.append((path, name, [len(body) for body in bodies]))
                    client.close()
    assert not failed


def test_what_waits_behind_something_that_waits_leaves_behind_it() -> None:
    """Of a long body the beginning leaves with the head. Where the kernel takes none of that, both parts wait."""
    failed = []
    listener = Listener()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    stage = Stage()
    with Running(stage, arguments={"sockets": [listener]}) as running:
        for size in range(70_000, 200_000, 10_000):
            body = random.Random(size).randbytes(size)
            stage.body = [body]
            with running.connect(window=1 << 14) as client:
                client.sendall(GET * 7 + LAST_GET)
                running.get()  # meanwhile the kernel's buffers are filled
                if [response.body for response in parse(receive(client))] != [body] * 8:
                    failed.append(size)
    assert not failed


def test_a_client_that_has_left_is_no_error_of_the_system() -> None:
    """What reaches the application, or the log, is Disconnected with its reason, wherever the bytes were to leave."""
    told: dict[str, BaseException] = {}
    begun, gone = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "100000000")])
        path = environ["PATH_INFO"]
        write(b"begin")
        begun.set()
        assert gone.wait(TIME)
        if path == "/list":
            return [bytes(100_000_000 - 5)]
        if path == "/iterator":
            return iter([bytes(1_000_000)] * 99)
        try:
            while True:
                write(bytes(1_000_000))
        except BaseException as error:
            told[path] = error
            raise

    with Running(application) as running:
        for path in ("/write", "/list", "/iterator"):
            begun.clear()
            gone.clear()
            before = len(running.errors.text.getvalue())
            with running.connect() as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert begun.wait(TIME)
                receive_until(client, b"begin")
            gone.set()
            running.wait_for_connections(0)
            log = running.errors.text.getvalue()[before:]
            assert "disconnected before it had received the whole response" in log, path
            assert log.count("\n") == 1, path
    assert isinstance(told["/write"], Disconnected)


def test_a_limit_does_not_run_out_while_the_clock_stands_still() -> None:
    """As it does while a person is at a debugger's prompt; the time that is left is left afterwards."""
    with (
        Running(hello, header_timeout=0.2, keep_alive_timeout=0.2) as running,
        running.connect() as half,
        running.connect() as idle,
    ):
        half.sendall(GET[:-2])
        idle.sendall(b"")
        with running.server.limits_paused():
            running.wait_for_connections(2)
            half.settimeout(0.6)  # three times the limit
            with pytest.raises(TimeoutError):
                half.recv(1)
            half.settimeout(TIME)
        assert half.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert idle.recv(1) == b""
