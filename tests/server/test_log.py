"""The log: what stops it does not stop the server, and what was accepted is written or counted."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from microwsgi import WSGIServer
from microwsgi.server import log_writer
from microwsgi.server.exchange import Exchange
from microwsgi.server.log import AccessLog
from microwsgi.server.log_writer import Destination, ErrorStream, LogWriter, Mode
from microwsgi.wire.response import DateFields
from tests.running import environment, microwsgi
from tests.server.exchange import TIME, Environ, Running, hello, wait_until

GOOD = b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"
ROOM = 1 << 20
LONG_PATH = "x" * 4000


class Descriptor:
    """A stream without a buffer on a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


# --- A destination --------------------------------------------------------------------------------------------------------


def test_a_full_disk_and_short_writes_lose_no_byte_and_tear_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write takes seven bytes, and after the third the disk is full until it has room again."""
    real, calls, full = os.write, [0], [False]

    def write(descriptor: int, data: bytes) -> int:
        calls[0] += 1
        if calls[0] == 4:
            full[0] = True
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:7])

    monkeypatch.setattr(log_writer, "_write", write)
    path = tmp_path / "log"
    with path.open("wb") as file:
        destination = Destination(Descriptor(file.fileno()))
        for number in range(5):
            destination.add(f"record {number}\n")
        destination.write()
        assert (destination.unwritten(), destination.unwritten_reason()) == (4, "No space left on device")
        assert path.stat().st_size == 7 + 2 + 7  # the rest of a record goes alone
        full[0] = False
        destination.add("last\n")
        destination.write()
    assert path.read_text() == "".join(f"record {number}\n" for number in range(5)) + "last\n"
    assert destination.unwritten() == 0


def test_what_is_beyond_the_limit_is_counted_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MAX_UNCOUNTED", 90)
    monkeypatch.setattr(log_writer, "MAX_QUEUE_SIZE", 10 * (2000 + log_writer.RECORD_SIZE))
    full = [True]

    def write(descriptor: int, data: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data) if descriptor < 0 else os.write(descriptor, data)

    monkeypatch.setattr(log_writer, "_write", write)
    path = tmp_path / "log"
    with path.open("wb") as file:
        destination = Destination(Descriptor(file.fileno()))
        destination.add("first\n")
        destination.write()  # the record is in hand, and the queue is empty
        for number in range(130):
            destination.add(f"{number}".ljust(1999) + "\n")
        assert destination.unwritten() == 131
        full[0] = False
        destination.write()
        destination.add("behind\n")
        destination.write()
    lines = path.read_text().splitlines()
    assert [line.strip() for line in lines] == [
        "first",
        *map(str, range(100)),
        "... 30 records are missing here: No space left on device.",
        "behind",
    ]


def test_what_an_object_of_the_program_refuses_is_counted() -> None:
    class Stream(io.StringIO):
        broken = False

        def write(self, text: str) -> int:
            if self.broken:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    stream = Stream()
    destination = Destination(stream)
    for broken in (False, True, False):
        stream.broken = broken
        for number in range(3):
            destination.add(f"{broken} {number}\n")
        destination.write()
        destination.write()
    missing = "... 3 records are missing here: Input/output error.\n"
    assert stream.getvalue() == f"False 0\nFalse 1\nFalse 2\n{missing}False 0\nFalse 1\nFalse 2\n"


def test_a_thread_that_can_not_be_started_is_started_with_a_later_record(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, failures = io.StringIO(), [2]
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if failures[0]:
            failures[0] -= 1
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(log_writer, "RETRY", 0.0)
    destination = Destination(stream)
    writer = LogWriter(destination)
    writer.start()
    for text in ("one\n", "two\n", "three\n"):
        destination.add(text)
        if writer.idle:
            writer.wake()
    wait_until(lambda: stream.getvalue() == "one\ntwo\nthree\n")
    writer.stop()


def test_without_a_thread_the_records_are_written_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream = io.StringIO()
    monkeypatch.setattr(threading.Thread, "start", start)
    destination = Destination(stream)
    writer = LogWriter(destination)
    writer.start()
    destination.add("one\n")
    writer.wake()
    writer.stop()
    assert stream.getvalue() == "one\n"


def test_a_second_stop_within_the_first_one_does_no_harm() -> None:
    """As by a signal handler that interrupts the wait for the thread."""
    stream = io.StringIO()
    destination = Destination(stream)
    writer = LogWriter(destination)
    writer.start()
    destination.add("one\n")
    writer.wake()
    wait_until(lambda: writer.thread is not None)
    thread: Any = writer.thread
    join = thread.join

    def interrupted(seconds: float) -> None:
        thread.join = join
        writer.stop()
        join(seconds)

    thread.join = interrupted
    writer.stop()
    assert stream.getvalue() == "one\n"


def test_a_stream_that_blocks_delays_the_end_and_its_records_come_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_writer, "STOP_TIME", 0.05)

    class Stream(io.StringIO):
        goes_on = threading.Event()

        def write(self, text: str) -> int:
            self.goes_on.wait(TIME)
            return super().write(text)

    stream = Stream()
    destination = Destination(stream)
    writer = LogWriter(destination)
    writer.start()
    for text in ("one\n", "two\n"):
        destination.add(text)
        if writer.idle:
            writer.wake()
    writer.stop()
    assert writer.mode is Mode.STUCK
    stream.goes_on.set()
    wait_until(lambda: writer.mode is Mode.DIRECT)
    destination.add("three\n")
    writer.wake()
    assert stream.getvalue() == "one\ntwo\nthree\n"


def test_lines_that_threads_print_stay_whole() -> None:
    stream = io.StringIO()
    destination = Destination(stream)
    writer = LogWriter(destination)
    writer.start()
    errors = ErrorStream(writer, destination)

    def work(name: str) -> None:
        for number in range(200):
            print(name, number, file=errors)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIME)
    errors.write("no end")
    errors.flush()
    writer.stop()
    lines = stream.getvalue().splitlines()
    assert lines.pop() == "no end"
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(200))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # 3.15 sees the writer's thread
def test_a_forked_child_writes_its_own_records_and_none_of_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        destination = Destination(Descriptor(file.fileno()))
        writer = LogWriter(destination)
        writer.start()
        errors = ErrorStream(writer, destination)
        with destination.output:  # the thread can't write meanwhile
            errors.write("of the parent\n")
            pid = os.fork()
            if not pid:
                errors.write("of the child\n")
                os._exit(0)
            os.waitpid(pid, 0)
        writer.stop()
    assert sorted(path.read_text().splitlines()) == ["of the child", "of the parent"]


# --- Lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["line", "common", "combined", "json"])
def test_a_refused_request_is_one_line_with_its_reason_and_size(form: str) -> None:
    """The common format has no place for a reason: it is in the error log."""
    stream = io.StringIO()
    log = AccessLog(stream, form)
    with Running(hello, arguments={"access_log": log}) as running:
        (response,) = running.send(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")
    errors = running.errors.text.getvalue()
    text = stream.getvalue()
    size = len(response.body)
    assert text.count("\n") == 1
    assert size > 0
    if form == "common":
        assert errors.count("\n") == 1
        assert "white space" in errors
    else:
        assert errors == ""
        assert "white space" in text
    if form == "json":
        assert json.loads(text)["bytes"] == size
    elif form == "line":
        assert f"  400!  {size} B  " in text
    else:
        assert f'" 400 {size}' in text


def chunked(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield from [b"x" * 100_000] * 500


def sized(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", "50000000")])
    yield from [b"x" * 100_000] * 500


def whole(_: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "50000000")])
    return [b"x" * 100_000] * 500


@pytest.mark.parametrize("application", [whole, sized, chunked])
def test_the_bytes_of_a_client_that_left_are_those_that_the_socket_took(application: Any) -> None:
    """The kernel keeps some megabytes for a client at most."""
    sizes: list[int] = []
    arguments = {"access_log": lambda exchange, _: sizes.append(exchange.size)}
    with Running(application, arguments=arguments) as running, running.connect(window=4096) as connection:
        connection.sendall(GOOD)
        received = 0
        while received < 200_000:
            received += len(connection.recv(65536))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        wait_until(lambda: sizes)
    assert received - 1000 < sizes[0] < 25_000_000


def test_an_exception_can_not_forge_a_line_nor_write_to_a_terminal() -> None:
    forged = '127.0.0.1 "GET /forged HTTP/1.1" 200'

    def application(environ: Environ, _: Callable[..., Any]) -> list[bytes]:
        error = ValueError(f"a\n{forged}\x1b[2J\r\x9b")
        error.add_note(f"note\n{forged}")
        try:
            return [environ["first"]]
        except KeyError as first:
            raise error from first

    with Running(application) as running:
        running.send(b"GET /%0a%1b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = running.errors.text.getvalue()
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith(forged)]
    assert not set(text) & set("\x1b\r\x9b")
    assert f"ValueError: a\\n{forged}\\x1b[2J\\r\\x9b" in lines
    assert lines.count("Traceback (most recent call last):") == 2
    assert "The above exception was the direct cause of the following exception:" in lines


def test_what_the_application_writes_can_not_control_a_terminal() -> None:
    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        environ["wsgi.errors"].write("\x1b]0;title\x07 ünïcode\t\n")
        return hello(environ, start_response)

    with Running(application) as running:
        running.send(GOOD)
    assert running.errors.text.getvalue() == "\\x1b]0;title\\x07 ünïcode\t\n"


# --- The module logging -----------------------------------------------------------------------------------------------------


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def serving(server: WSGIServer) -> Iterator[tuple[str, int]]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ("127.0.0.1", int(server.server_port))
    finally:
        server.shutdown()
        thread.join(TIME)
        server.server_close()


def ask(address: tuple[str, int], request: bytes = GOOD) -> bytes:
    with socket.create_connection(address, TIME) as connection:
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answers(address: tuple[str, int]) -> bool:
    """Whether a request is answered, which another one than the worker that ends has to do."""
    with contextlib.suppress(ConnectionError):
        return ask(address, GOOD.replace(b"good", b"again")).endswith(b"hello")
    return False


def fails(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("on purpose")
    return hello(environ, start_response)


@pytest.mark.parametrize("given", [False, True], ids=["handlers are installed", "loggers are given"])
def test_an_embedding_program_gets_records_of_logging(given: bool) -> None:
    names = ("mine.access", "mine.error") if given else ("microwsgi.access", "microwsgi.error")
    loggers, kept = [logging.getLogger(name) for name in names], Kept()
    for logger in loggers:
        logger.addHandler(kept)
        logger.setLevel(logging.INFO)
    try:
        arguments: dict[str, Any] = dict(zip(("access_log", "errors"), loggers, strict=True)) if given else {}
        with serving(WSGIServer(("127.0.0.1", 0), application=fails, **arguments)) as address:
            ask(address)
            ask(address, b"GET /fail HTTP/1.1\r\nHost: localhost\r\n\r\n")
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
            logger.setLevel(logging.NOTSET)
    error, *others = [record for record in kept.records if record.name == names[1]]
    assert not others
    assert error.levelno == logging.ERROR
    assert error.exc_info
    assert isinstance(error.exc_info[1], ValueError)
    access = [record.getMessage() for record in kept.records if record.name == names[0]]
    assert [re.findall(r'"GET /\w+ HTTP/1.1" \d+', text) for text in access] == [
        ['"GET /good HTTP/1.1" 200'],
        ['"GET /fail HTTP/1.1" 500'],
    ]


# --- The command line -------------------------------------------------------------------------------------------------------


class Served:
    """`microwsgi serve` with its standard streams at a descriptor."""

    def __init__(self, folder: Path, stream: int, *options: str, application: str = "hello", port_at: str = "") -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.address = found.getsockname()
            found.listen()
            command = microwsgi("serve", application, "--bind", f"fd://{found.fileno()}", *options)
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                pass_fds=[found.fileno()], start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIME)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/error':\n"
        "        print(environ['QUERY_STRING'], file=environ['wsgi.errors'])\n"
        "    start_response('200 OK', [('Content-Length', '5')])\n"
        "    return [b'hello']\n"
    )
    return tmp_path


@contextlib.contextmanager
def unread(kind: str) -> Iterator[tuple[int, int]]:
    """A stream that is not read, and the descriptor to read it by."""
    if kind == "full disk":
        disk = os.open("/dev/full", os.O_WRONLY)
        ends = (disk, disk)
    else:
        ends = os.pipe() if kind == "pipe" else os.openpty()
    try:
        yield ends
    finally:
        for end in {*ends}:
            os.close(end)


KINDS = [
    pytest.param("pipe", id="a pipe"),
    pytest.param("terminal", id="a terminal"),
    pytest.param(
        "full disk", id="a full disk", marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
    ),
]


@pytest.mark.parametrize("access", ["-", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_is_not_read_does_not_stop_the_server(kind: str, access: str, folder: Path) -> None:
    """The records of refused requests are in the access log, or without one in the error log."""
    refuse_beside_normal_requests(kind, access, folder, 150, LONG_PATH)


@pytest.mark.soak
@pytest.mark.parametrize("access", ["-", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_2500_refused_requests_do_not_stop_the_server(kind: str, access: str, folder: Path) -> None:
    refuse_beside_normal_requests(kind, access, folder, 2500, "")


def refuse_beside_normal_requests(kind: str, access: str, folder: Path, count: int, path: str) -> None:
    """Have requests refused and others answered, then read the log: it lacks nothing."""
    refused = f"GET /{path} HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n".encode()
    writes = f"GET /error?told{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()  # to wsgi.errors
    with unread(kind) as (reading, writing), Served(folder, writing, "--access-log", access) as served:
        with socket.create_connection(served.address, TIME) as normal:
            for _ in range(count):
                assert ask_raw(served.address, refused).startswith(b"HTTP/1.1 400 ")
                normal.sendall(writes)
                assert receive_hello(normal)
        if kind == "full disk":
            return
        text = bytearray()
        reader = threading.Thread(target=read_into, args=(reading, text), daemon=True)
        reader.start()
        wait_until(lambda: text.count(b"white space") >= count and text.count(b"\ntold") >= count)
        assert served.stop() == 0
        os.write(writing, b"END")
        reader.join(TIME)
        assert b"missing" not in text
        assert text.count(b"white space") == text.count(b"\ntold") == count


def ask_raw(address: Any, request: bytes) -> bytes:
    with socket.create_connection(address, TIME) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def receive_hello(connection: socket.socket) -> bool:
    connection.settimeout(TIME)
    data = b""
    while not data.endswith(b"hello"):
        part = connection.recv(4096)
        if not part:
            return False
        data += part
    return data.startswith(b"HTTP/1.1 200 ")


def read_into(descriptor: int, text: bytearray) -> None:
    """Read until END."""
    while not text.endswith(b"END"):
        text += os.read(descriptor, 65536)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_a_signal_loses_no_line(number: int, options: list[str], folder: Path) -> None:
    """The lines of the last hundredths of a second are in memory when the signal comes."""
    with Served(folder, subprocess.DEVNULL, "--access-log", "log", *options) as served:
        for _ in range(30):
            ask(served.address)
        assert served.stop(number) == 0
    assert (folder / "log").read_text().count("/good") == 30


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "a worker"])
def test_an_application_that_ends_the_process_loses_no_line(options: list[str], folder: Path) -> None:
    (folder / "hello.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/end':\n"
        "        print('the reason', file=environ['wsgi.errors'])\n"
        "        os._exit(3)\n"
        "    start_response('200 OK', [('Content-Length', '5')])\n"
        "    return [b'hello']\n"
    )
    reading, writing = os.pipe()
    with Served(folder, writing, "--access-log", "log", *options) as served:
        os.close(writing)
        with socket.create_connection(served.address, TIME) as connection:
            for _ in range(30):
                connection.sendall(GOOD)
                assert receive_hello(connection)
            connection.sendall(GOOD.replace(b"good", b"end"))
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        if options:
            wait_until(lambda: answers(served.address))  # the next worker does
            served.stop()
        else:
            assert served.process.wait(TIME) == 3
    with os.fdopen(reading) as stream:
        assert "the reason\n" in stream.read()
    assert (folder / "log").read_text().count("/good") == 30


WHOLE_LINE = re.compile(rb'127\.0\.0\.1 - - \[[^]]+\] "GET /(\d+)\.(\d+)\.y+\.end HTTP/1\.1" 200 5 "-" "-" \d+')


BACKLOG = 6000
"""Lines that may wait for the reader: the server drops those beyond 32 MiB, and says so."""


class LineCounter:
    """Takes the pieces of a log; `seen` has, for each client, how often the line of each of its requests came."""

    def __init__(self, clients: int, each: int) -> None:
        self.seen = [bytearray(each) for _ in range(clients)]
        self.count = 0
        self.torn: list[bytes] = []
        self.rest = b""

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.count += 1
            if match := WHOLE_LINE.fullmatch(line):
                self.seen[int(match[1])][int(match[2])] += 1
            else:
                self.torn.append(line[:200])


def lines_through_trouble(folder: Path, each: int) -> None:
    """Three workers write to a FIFO whose readers come and go; half of the lines are longer than one atomic write."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    found = LineCounter(3, each)
    stop, lock = threading.Event(), threading.Lock()
    current = [os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)]

    def read() -> None:
        while not stop.is_set():
            data = b""
            with lock, contextlib.suppress(BlockingIOError):
                data = os.read(current[0], 1 << 20)
            if data:
                found.take(data)
            else:
                time.sleep(0.001)  # a reader's pause; nothing depends on it

    with Served(folder, subprocess.DEVNULL, "--access-log", "fifo", "--workers", "3") as served:
        reader = threading.Thread(target=read)
        reader.start()

        sent = [0, 0, 0]

        def client(name: int) -> None:
            for start in range(0, each, 50):  # a connection for some requests, so that each worker has some
                sent[name] = start
                wait_until(lambda: sum(sent) - found.count < BACKLOG)
                with socket.create_connection(served.address, TIME) as connection:
                    for number in range(start, min(start + 50, each)):
                        path = f"/{name}.{number}.{'y' * (5000 if number % 2 else 10)}.end"
                        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                        assert receive_hello(connection)

        clients = [threading.Thread(target=client, args=(name,)) for name in range(3)]
        for thread in clients:
            thread.start()
        while any(thread.is_alive() for thread in clients):
            with lock:  # the reader is killed; for a moment nobody reads
                os.close(current[0])
                time.sleep(0.02)
                current[0] = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            time.sleep(0.1)
        wait_until(lambda: found.count >= 3 * each)
        served.stop()
    stop.set()
    reader.join(TIME)
    os.close(current[0])
    assert found.torn == []
    assert found.seen == [bytearray(b"\x01" * each)] * 3


@pytest.mark.slow
def test_workers_on_a_pipe_whose_readers_are_killed_tear_and_lose_no_line(folder: Path) -> None:
    """A pipe holds 64 KiB: the writers must not wait longer than its reader takes, or the last lines come too late."""
    lines_through_trouble(folder, 2000)


@pytest.mark.soak
def test_a_million_requests_are_a_million_lines_on_a_pipe_whose_readers_are_killed(folder: Path) -> None:
    lines_through_trouble(folder, 333_334)


def test_a_rotation_loses_no_line(folder: Path) -> None:
    lines_through_rotations(folder, 4, 100)


@pytest.mark.soak
def test_a_million_requests_are_a_million_lines_through_rotations(folder: Path) -> None:
    lines_through_rotations(folder, 20, 17_000)


def lines_through_rotations(folder: Path, rotations: int, each: int) -> None:
    """Rename the log and send USR1, again and again, under requests of three clients."""
    with Served(folder, subprocess.DEVNULL, "--access-log", "log", "--workers", "3") as served:
        done = threading.Semaphore(0)

        def client() -> None:
            with socket.create_connection(served.address, TIME) as connection:
                for _ in range(rotations * each // 100):
                    connection.sendall(GOOD * 100)
                    left = 100
                    tail = b""
                    while left:
                        data = tail + connection.recv(ROOM)
                        left -= data.count(b"\r\n\r\nhello")
                        tail = data[-8:] if not data.endswith(b"hello") else b""
                    done.release()

        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        for number in range(rotations):
            for _ in range(3 * each // 100):
                assert done.acquire(timeout=60)
            (folder / "log").rename(folder / f"log.{number}")
            served.process.send_signal(signal.SIGUSR1)
            wait_until((folder / "log").exists)
        for thread in clients:
            thread.join(600)
        last = 0
        while not (folder / "log").stat().st_size and last < 1000:  # the workers come to open it after the signal
            last += 1
            ask(served.address, GOOD.replace(b"good", b"last"))
            time.sleep(0.001)  # for no more than a second; a busy loop would keep the workers from it
        assert served.stop() == 0
    assert (folder / "log").stat().st_size
    text = b"".join(path.read_bytes() for path in folder.glob("log*"))
    assert text.count(b"/last ") == last
    assert text.count(b"\n") - last == text.count(b'"GET /good HTTP/1.1" 200 5 ') == 3 * rotations * each


def test_errors_of_the_application_come_in_order_with_the_access_log(folder: Path) -> None:
    reading, writing = os.pipe()
    with Served(folder, writing, "--log-format", "combined") as served:
        os.close(writing)
        for number in range(20):
            ask(served.address, f"GET /error?{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert served.stop() == 0
    with os.fdopen(reading) as stream:
        text = stream.read()
    assert re.findall(r"^(\d+)$|GET /error\?(\d+) ", text, re.MULTILINE) == [
        pair for number in range(20) for pair in ((str(number), ""), ("", str(number)))
    ]


@pytest.mark.parametrize(
    ("level", "seen"), [("info", {"good", "refused", "error"}), ("warning", {"refused", "error"}), ("error", {"error"})]
)
def test_the_log_level_leaves_out_what_is_below(level: str, seen: set[str], folder: Path) -> None:
    (folder / "hello.py").write_text(
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/error':\n"
        "        raise ValueError\n"
        "    start_response('200 OK', [('Content-Length', '5')])\n"
        "    return [b'hello']\n"
    )
    reading, writing = os.pipe()
    with Served(folder, writing, "--log-level", level) as served:
        os.close(writing)
        ask(served.address)
        ask(served.address, b"GET /error HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ask_raw(served.address, b"GET /refused HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")
        assert served.stop() == 0
    with os.fdopen(reading) as stream:
        text = stream.read()
    assert {word for word in ("good", "refused", "error") if f"/{word} " in text} == seen


def test_the_log_of_the_command_line_does_not_depend_on_logging(folder: Path) -> None:
    (folder / "hello.py").write_text(
        "import logging.config\n"
        "logging.basicConfig(level=0, format='BY LOGGING %(message)s')\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})\n"
        "def app(environ, start_response):\n"
        "    raise ValueError('on purpose')\n"
    )
    reading, writing = os.pipe()
    with Served(folder, writing) as served:
        os.close(writing)
        ask(served.address)
        assert served.stop() == 0
    with os.fdopen(reading) as stream:
        text = stream.read()
    assert "ValueError: on purpose" in text
    assert '"GET /good HTTP/1.1" 500' in text
    assert "BY LOGGING" not in text


def test_a_message_of_a_signal_handler_in_the_middle_of_a_write_is_not_lost(tmp_path: Path) -> None:
    """Python's standard error refuses a write within a write."""
    code = (
        "import signal, sys\n"
        "from microwsgi.serving.console import say\n"
        "signal.signal(signal.SIGUSR1, lambda *_: say('heard'))\n"
        "print('ready', flush=True)\n"
        "sys.stderr.write('x' * 300000)\n"  # blocks in the middle of the write, since the pipe is full
        "sys.stderr.flush()\n"
        "sys.stderr.write('done')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        text = process.stderr.read(1)  # the write has begun, and the pipe can't hold all of it
        process.send_signal(signal.SIGUSR1)
        text += process.stderr.read()
    assert b"heard\n" in text


# --- Times and levels -----------------------------------------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """A class that makes its whole response itself."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


def finished(status: int = 200) -> Exchange:
    """Return a stand-in for an exchange that has ended."""
    head = SimpleNamespace(line="GET / HTTP/1.1", raw=b"", fields={}, method="GET", target="/", version="HTTP/1.1")
    context = SimpleNamespace(date=DateFields())
    found = SimpleNamespace(context=context, head=head, client=("192.0.2.1", 1), status=status, size=0, reason="")
    return cast("Exchange", found)


def stamps(text: str) -> list[str]:
    return re.findall(r"\[(.*?) [+-]\d{4}\]", text)


def test_the_time_of_a_request_is_right_if_a_class_makes_the_response_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stream = [1e9], io.StringIO()
    monkeypatch.setattr(time, "time", lambda: now[0])
    with Running(None, Answering, arguments={"access_log": AccessLog(stream, "common")}) as running:
        running.get()
        now[0] += 3600
        running.get()
    first, second = [time.mktime(time.strptime(each, "%d/%b/%Y:%H:%M:%S")) for each in stamps(stream.getvalue())]
    assert second - first == 3600


@pytest.mark.parametrize("stage", ["the body is iterated", "the client receives it"])
def test_the_time_of_a_request_is_that_of_its_end(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other response has updated the Date field since its head was sent."""
    now, stream = [1e9], io.StringIO()
    monkeypatch.setattr(time, "time", lambda: now[0])
    gate = threading.Event()

    def iterated() -> Iterator[bytes]:
        yield b"begin"
        assert gate.wait(TIME)
        yield b"end"

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/long":
            return hello(environ, start_response)
        start_response("200 OK", [])
        return iterated() if stage == "the body is iterated" else [b"x" * 16_000_000]

    with Running(application, arguments={"access_log": AccessLog(stream, "common")}) as running:
        running.get()
        with running.connect(window=4096) as client:
            client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(1)
            now[0] += 3600
            gate.set()
            while client.recv(1 << 20):
                pass
    first, second = [time.mktime(time.strptime(each, "%d/%b/%Y:%H:%M:%S")) for each in stamps(stream.getvalue())]
    assert second - first == 3600


def test_an_aborted_request_without_a_response_has_the_time_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    began, gate = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/fails":
            began.set()
            assert gate.wait(TIME)
            raise ConnectionError
        return iter(hello(environ, start_response))

    stream = io.StringIO()
    with Running(application, arguments={"access_log": AccessLog(stream, "common")}) as running:
        running.get()
        with running.connect() as client:
            client.sendall(b"GET /fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert began.wait(TIME)
            now[0] += 3600
            gate.set()
            client.recv(4096)
    first, second = [time.mktime(time.strptime(each, "%d/%b/%Y:%H:%M:%S")) for each in stamps(stream.getvalue())]
    assert second - first == 3600


@pytest.mark.parametrize("form", ["line", "common", "combined"])
def test_a_request_without_a_response_has_no_status(form: str) -> None:
    stream = io.StringIO()
    log = AccessLog(stream, form)
    log(finished(0), 0.1)
    log.close()
    assert re.search(r"[ ]-+ ", stream.getvalue().partition("GET")[2])
    assert " 0 " not in stream.getvalue().partition('"GET / HTTP/1.1"')[2][:4]


def test_records_of_a_logger_have_the_level_info_however_many_are_queued(caplog: pytest.LogCaptureFixture) -> None:
    log, exchange = AccessLog(logging.getLogger("access"), "common"), finished()
    log.writer.idle = False  # nothing is written yet
    with caplog.at_level(logging.INFO, "access"):
        for _ in range(log_writer.MAX_UNCOUNTED + 10):
            log(exchange, 0.1)
        log.writer.idle = True
        log.close()
    assert [record.levelno for record in caplog.records] == [logging.INFO] * (log_writer.MAX_UNCOUNTED + 10)
