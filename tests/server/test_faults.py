"""Kinds of faults that version 0.1 had: a slow or lying part delays or confuses one client, and never the others."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microwsgi import App, WSGIServer
from microwsgi.events import Stream
from microwsgi.options import Options
from microwsgi.server.poller import SelectorPoller
from tests.server.exchange import (
    GET,
    LAST_GET,
    TIME,
    Environ,
    Log,
    Running,
    StartResponse,
    hello,
    parse,
    receive,
    receive_until,
    wait_until,
)
from tests.tls.authority import Authority, Secure

RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# --- Files that are shorter than their size --------------------------------------------------------------------------------


class LongerFiles:
    """os.stat and os.fstat that report more than there is, as Linux does of files in /sys, and as a truncation does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.extra = "", 0
        for name in ("stat", "fstat"):
            monkeypatch.setattr(os, name, self.longer(getattr(os, name)))

    def longer(self, function: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        """The function with the size of one file changed."""
        real = os.stat

        def changed(*arguments: Any, **options: Any) -> os.stat_result:
            found = function(*arguments, **options)
            if not self.path or not os.path.samestat(found, real(self.path)):
                return found
            values = list(found)
            values[6] += self.extra  # st_size; the names beyond the tuple follow
            return os.stat_result(values, {"st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_ctime_ns})

        return changed


def test_a_file_that_is_shorter_than_its_size_does_not_confuse_the_next_response(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is whole and the next one follows, or the connection ends within it."""
    (tmp_path / "file").write_bytes(b"")
    framework = App()
    framework.static("/static", tmp_path)

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/static"):
            return framework(environ, start_response)
        if environ["PATH_INFO"] == "/next":
            return hello(environ, start_response)
        length = [("Content-Length", environ["QUERY_STRING"])] if environ["QUERY_STRING"] else []
        start_response("200 OK", length)
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))
        return wrapped

    files = LongerFiles(monkeypatch)
    failed = []
    with Running(application) as plain, Secure(authority, application) as secure:
        for size, extra in ((0, 100), (6, 100), (6, 200_000), (70_000, 100), (200_000, 5_000_000)):
            (tmp_path / "file").write_bytes(b"." * size)
            files.path, files.extra = str(tmp_path / "file"), extra
            for target in ("/wrapped", f"/wrapped?{size + extra}", "/static/file"):
                requests = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n".encode()
                for name, server, connect in (("TCP", plain, plain.connect), ("TLS", secure, secure.secure)):
                    with connect() as client:
                        client.sendall(requests)
                        with contextlib.suppress(OSError):  # it has been reset already
                            if name == "TCP":
                                client.shutdown(socket.SHUT_WR)
                        data = until_next_or_end(client)
                        first, *others = parse(data)
                        right = [each.body for each in others] == [b"hello"] if first.whole else not others
                        if not right or (first.status != 500 and first.body.strip(b".")):
                            failed.append((name, target, size, extra, first, server.errors.text.getvalue()[-200:]))
    assert not failed


def until_next_or_end(client: socket.socket) -> bytes:
    """What comes until the second response, or the end."""
    data = b""
    with contextlib.suppress(OSError):  # a reset, and an end without a closure alert
        while not data.endswith(b"hello"):
            piece = client.recv(1 << 16)
            if not piece:
                break
            data += piece
    return data


# --- Application code that is slow -----------------------------------------------------------------------------------------


class Slow:
    """An application whose /slow returns an iterable with a `close` that waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closing, self.may_close = threading.Event(), threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            file = self.path.open("rb")
            wrapper = environ["wsgi.file_wrapper"](file)

            def close() -> None:
                self.close()
                file.close()

            wrapper.close = close
            answer: Iterable[bytes] = wrapper
            return answer
        return SlowClose(self, environ)

    def close(self) -> None:
        self.closing.set()
        assert self.may_close.wait(2 * TIME)  # longer than the other clients do


class SlowClose:
    """The iterable: suspended for good after its first chunk, or never."""

    def __init__(self, slow: Slow, environ: Environ) -> None:
        self.slow, self.wake = slow, environ["microwsgi.resume"]
        self.big = environ["PATH_INFO"] == "/big"
        self.left = 100 if self.big else 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.left:
            self.left -= 1
            return bytes(1 << 16) if self.big else b"begin"
        if self.big:
            raise StopIteration
        self.wake(after=3600)
        return b""

    def close(self) -> None:
        self.slow.close()


@pytest.mark.parametrize("why", ["close", "reset", "stop", "reader", "file", "limit"])
def test_a_slow_close_of_a_response_delays_no_other_client(tmp_path: Path, why: str) -> None:
    (tmp_path / "file").write_bytes(bytes(6 << 20))
    slow = Slow(tmp_path / "file")
    path = {"file": "/file", "reader": "/big", "limit": "/big"}.get(why, "/suspended")
    limits: dict[str, Any] = {"send_timeout": 0.1} if why == "limit" else {}
    with Running(slow, threads=8, **limits) as running, running.connect() as other:
        other.sendall(GET)
        receive_until(other)
        with running.connect(window=1 << 16) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
            if path == "/suspended":
                receive_until(client, b"begin\r\n")
                wait_until(lambda: not running.server.in_flight())
            if why in {"reader", "file"}:
                reader = threading.Thread(target=receive, args=(client,))
                reader.start()
            elif why == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
            elif why == "close":
                client.close()
            elif why == "stop":
                with running.connect() as busy:
                    stop_while_closing(running, slow, busy)
                return
            assert slow.closing.wait(TIME)
            try:
                for _ in range(20):
                    other.sendall(GET)
                    receive_until(other)
                    assert running.get().body == b"hello"
            finally:
                slow.may_close.set()
            if why in {"reader", "file"}:
                client.shutdown(socket.SHUT_WR)
                reader.join(TIME)


def stop_while_closing(running: Running, slow: Slow, busy: socket.socket) -> None:
    """A stop ends suspended responses; those who are idle are not held up by the slow close of one."""
    busy.sendall(GET)
    receive_until(busy)
    running.server.request_stop()
    assert slow.closing.wait(TIME)
    try:
        assert busy.recv(1) == b"", "the stop closes idle connections"
    finally:
        slow.may_close.set()


def test_a_slow_callback_of_an_event_stream_delays_no_other_client() -> None:
    app = App()
    leaving, may_leave = threading.Event(), threading.Event()

    def left(_: Stream) -> None:
        leaving.set()
        assert may_leave.wait(2 * TIME)  # longer than the other clients do

    @app.get("/events")
    def events(request: Any) -> Any:
        return Stream(request, on_close=left).response

    @app.get("/")
    def index(_: Any) -> str:
        return "hello"

    with Running(app, threads=4) as running:
        with running.connect() as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        assert leaving.wait(TIME)
        try:
            for _ in range(20):
                assert running.get().body == b"hello"
        finally:
            may_leave.set()


# --- Wake-ups with select() ------------------------------------------------------------------------------------------------


class SelectPoller(SelectorPoller):
    """select(), which does not see what another thread registers meanwhile; it notes each call that would be lost."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.polls_in: int | None = None
        self.lost: list[str] = []

    def check(self, name: str) -> None:
        if self.polls_in not in {None, threading.get_ident()}:
            self.lost.append(name)

    def register(self, descriptor: int, event: int) -> None:
        self.check("register")
        super().register(descriptor, event)

    def modify(self, descriptor: int, event: int) -> None:
        self.check("modify")
        super().modify(descriptor, event)

    def unregister(self, descriptor: int) -> None:
        self.check("unregister")
        super().unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self.polls_in = threading.get_ident()
        try:
            return super().poll(timeout)
        finally:
            self.polls_in = None


def test_with_select_no_wake_up_is_lost() -> None:
    pollers: list[SelectPoller] = []
    words = threading.Semaphore(0)

    def new_poller() -> SelectPoller:
        pollers.append(SelectPoller())
        return pollers[-1]

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        if path == "/suspend":
            return suspended(environ["microwsgi.resume"])
        if path == "/big":
            return [bytes(3_000_000), b"hello"]
        if path == "/wait":
            assert words.acquire(timeout=TIME)
        return [b"hello"]

    def suspended(wake: Callable[..., None]) -> Iterator[bytes]:
        yield b"begin"
        wake(after=3600)
        threading.Thread(target=wake).start()
        yield b""
        yield b"hello"

    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
    # Accepted before, so that their requests come to threads that do not poll.
    with (
        Running(application, threads=4, body_buffer_size="16K", arguments={"poller": new_poller}) as running,
        running.connect() as client,
        running.connect() as other,
    ):
        for _ in range(5):
            client.sendall(post)
            other.sendall(GET)
            receive_until(other)
            client.sendall(bytes(200_000))
            receive_until(client)
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
            running.wait_for_requests(1)
            other.sendall(GET)
            receive_until(other)
            words.release()
            receive_until(client)
            client.sendall(b"TP/1.1\r\nHost: a\r\n\r\n")
            receive_until(client)
            client.sendall(b"GET /suspend HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(client, b"0\r\n\r\n")
            client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
            other.sendall(GET)
            receive_until(other)
            data = b""
            while data.count(b"hello") < 2:
                data += client.recv(1 << 16)
    assert [poller.lost for poller in pollers] == [[]]


# --- What is said, and when ------------------------------------------------------------------------------------------------


SHORTAGE = "threads are busy"


@pytest.mark.parametrize("loops", [1, 2])
def test_each_shortage_of_threads_is_logged_once(loops: int) -> None:
    """Once while it lasts: as the requests of a burst end, there may be a short time without a shortage, and then another."""
    gate = threading.Semaphore(0)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            assert gate.acquire(timeout=TIME)
        return hello(environ, start_response)

    with Running(application, threads=2, loops=loops) as running, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.connect()) for _ in range(6)]
        for _ in range(3):
            before = running.errors.text.getvalue().count(SHORTAGE)
            for client in clients:
                client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            running.errors.wait_for(SHORTAGE, before + 1)
            assert running.errors.text.getvalue().count(SHORTAGE) == before + 1
            gate.release(len(clients))
            for client in clients:
                receive_until(client)
            assert running.get().body == b"hello"
            wait_until(lambda: not running.server.in_flight())


def test_refusals_within_the_application_are_recorded_once() -> None:
    """The access log and the error log have one line for each, whoever finds out."""
    records: list[int] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    begun = b"9c40\r\n" + b"x" * 40_000  # more than is received before the application is called
    rows = {
        "too large": (head + begun + b"\r\nffff\r\n", 413),
        "no chunk": (head + begun + b"\r\nzz\r\n", 400),
        "no line end": (head + begun + b"xx\r\n", 400),
        "cut short": (head + begun, 0),  # the client has left
        "cut short, with a length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 45000\r\n\r\n" + b"x" * 40_000, 0),
    }
    found = {}
    arguments = {"access_log": lambda request, seconds: records.append(request.status)}
    options: dict[str, Any] = {"max_body_size": 50_000, "body_buffer_size": "16K", "stream_chunked": True}
    with Running(application, arguments=arguments, **options) as running:
        for name, (data, _) in rows.items():
            before = len(running.errors.text.getvalue())
            statuses = [response.status for response in running.send(data)]
            running.wait_for_connections(0)
            found[name] = (statuses, records[:], running.errors.text.getvalue()[before:].count("\n"))
            records.clear()
    assert found == {name: ([status] * bool(status), [status], 1) for name, (_, status) in rows.items()}


# --- The beginning and the end -----------------------------------------------------------------------------------------------


def test_a_server_that_gets_no_thread_says_so_and_does_not_listen_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = WSGIServer(("127.0.0.1", 0), application=hello, options=Options(graceful_timeout=3600), errors=Log())
    refused, raised = threading.Event(), []

    def serve() -> None:
        assert refused.wait(TIME)
        with pytest.raises(RuntimeError, match="thread") as caught:
            server.serve_forever()
        raised.append(caught)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refused.set()
        serving.join(TIME)
    if not raised:
        server.limit_drain(0)
        serving.join(TIME)
        server.server_close()
        pytest.fail("it goes on without a thread, or waits for requests that nobody can serve")
    thread = threading.Thread(target=server.serve_forever)  # with threads, it serves
    thread.start()
    with socket.create_connection(server.server_address[:2], TIME) as client:  # type: ignore[arg-type]
        client.sendall(GET)
        receive_until(client)
    server.shutdown()
    thread.join(TIME)
    server.server_close()


MOST_WOKEN = 3


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="this counts the switches of threads in /proc")
def test_a_server_that_waits_for_its_last_request_does_not_poll() -> None:
    inside, gate = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        inside.set()
        assert gate.wait(TIME)
        return hello(environ, start_response)

    def switches() -> int:
        found = 0
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                text = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
                found += int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        return found

    def woken() -> int:
        """How often threads were woken in a third of a second; by version 0.1 some 60 times."""
        before = switches()
        threading.Event().wait(0.3)  # the time that is measured
        return switches() - before

    with Running(application, graceful_timeout=3600) as running, running.connect() as busy, running.connect() as idle:
        busy.sendall(GET)
        assert inside.wait(TIME)
        running.server.request_stop()
        assert idle.recv(1) == b""
        measured = [woken()]
        while measured[-1] > MOST_WOKEN and len(measured) < 10:  # the watchdog first sees that no more requests come
            measured.append(woken())
        gate.set()
        receive_until(busy)
    assert measured[-1] <= MOST_WOKEN, measured


def test_a_stop_at_any_line_of_its_thread_is_not_lost() -> None:
    """A signal may come between any two lines: its handler calls request_stop, which takes no lock and loses no wake-up."""
    lines = run_to_the_end(None)
    failed = [number for number in range(lines) if run_to_the_end(number) < 0]
    assert lines > 20
    assert not failed


def run_to_the_end(stop_at: int | None) -> int:
    """Serve until a stop at this line of the server's code; -1 if it does not end. Without one, how many lines there are."""
    server = WSGIServer(("127.0.0.1", 0), application=hello, errors=Log())
    lines = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if not frame.f_globals.get("__name__", "").startswith("microwsgi.server"):
            return None
        if event == "line":
            if lines == stop_at:
                sys.settrace(None)
                server.request_stop()
            lines += 1
        return trace

    def serve() -> None:
        sys.settrace(trace)
        try:
            server.serve_forever()
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    if stop_at is None:
        with socket.create_connection(server.server_address[:2], TIME) as client:  # type: ignore[arg-type]
            client.sendall(LAST_GET)
            receive_until(client)
        found = lines
        server.request_stop()
    thread.join(TIME)
    server.server_close()
    return -1 if thread.is_alive() else found if stop_at is None else 0


def test_stops_while_threads_come_and_go_raise_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        time.sleep(0.001)  # so that other threads are called
        return hello(environ, start_response)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            with Running(application, threads=8) as running, contextlib.ExitStack() as stack:
                clients = [stack.enter_context(running.connect()) for _ in range(8)]
                for client in clients:
                    client.sendall(GET)
                receive_until(clients[0])
    finally:
        sys.setswitchinterval(interval)
    assert not raised


def test_failures_in_many_threads_are_all_counted() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        raise ValueError("on purpose")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Running(application, threads=16) as running, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(running.connect()) for _ in range(16)]
            for client in clients:
                client.sendall(GET * 30)
                client.shutdown(socket.SHUT_WR)
            answered = sum(receive(client).count(b" 500 ") for client in clients)
            running.wait_for_connections(0)
            stats = running.server.stats()
    finally:
        sys.setswitchinterval(interval)
    assert (answered, stats["requests"], stats["errors"]) == (480, 480, 480)


# --- Thousands, and thousands of bytes ---------------------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"this needs 4,096 descriptors, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LISTENERS = 1500


@pytest.mark.usefixtures("many_descriptors")
def test_a_broadcast_to_many_lets_others_in() -> None:
    wakes: list[Callable[..., None]] = []
    resumed: list[int] = []
    served_after: list[int] = []
    other: list[socket.socket] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/":
            served_after.append(len(resumed))
            return hello(environ, start_response)
        start_response("200 OK", [])
        return listen(environ["microwsgi.resume"])

    def listen(wake: Callable[..., None]) -> Iterator[bytes]:
        wake(after=3600)
        wakes.append(wake)
        yield b""
        if not resumed:
            other[0].sendall(GET)  # when the broadcast has begun
        resumed.append(1)
        yield b"word"
        while True:
            wake(after=3600)
            yield b""

    with Running(application, threads=4) as running, contextlib.ExitStack() as stack:
        other.append(stack.enter_context(running.connect()))
        listeners = [stack.enter_context(running.connect()) for _ in range(LISTENERS)]
        for client in listeners:
            client.sendall(b"GET /listen HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(wakes) == LISTENERS and not running.server.in_flight())
        for wake in wakes:
            wake()
        receive_until(other[0])
        for client in listeners:
            receive_until(client, b"word\r\n")
    assert served_after[0] < LISTENERS // 2


def test_a_stop_says_little_of_many_suspended_responses() -> None:
    """They are ended as they must be: a line for each would be thousands."""
    begun: list[int] = []

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begin"
        begun.append(1)
        while True:
            environ["microwsgi.resume"](after=3600)
            yield b""

    with Running(application, threads=4) as running, contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(running.connect()).sendall(GET)
        wait_until(lambda: len(begun) == 50 and not running.server.in_flight())
        running.server.shutdown()
    assert running.errors.text.getvalue().count("\n") <= 2


def test_a_head_that_comes_byte_by_byte_costs_the_same_for_each_byte() -> None:
    """The processor time of a byte does not depend on how much of its line has come."""
    size, part = 1_000_000, 100
    limits: dict[str, Any] = {"max_line_size": 4_000_000, "max_header_size": 8_000_000, "header_timeout": 3600}
    with Running(hello, **limits) as running, running.connect() as client, running.connect() as other:

        def spent(data: bytes) -> float:
            """Processor time of this process, for these bytes one by one."""
            start = time.process_time()
            for octet in data:
                client.sendall(bytes([octet]))
                other.sendall(GET)  # when it is answered, the byte before it has been looked at
                receive_until(other)
            return time.process_time() - start

        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        spent(b"x" * part)
        short = min(spent(b"x" * part) for _ in range(3))
        client.sendall(b"x" * size)
        other.sendall(GET)
        receive_until(other)
        long = min(spent(b"x" * part) for _ in range(3))
        client.sendall(b"\r\n\r\n")
        receive_until(client)
    assert long < 3 * short


def test_options_are_not_changed_by_serving() -> None:
    options = Options(threads=2, graceful_timeout=1.5)
    before = dict(vars(options))
    server = WSGIServer(("127.0.0.1", 0), application=hello, options=options, errors=Log())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.create_connection(server.server_address[:2], TIME) as client:  # type: ignore[arg-type]
        client.sendall(LAST_GET)
        receive_until(client)
    server.limit_drain(0.5)
    server.request_stop()
    thread.join(TIME)
    server.server_close()
    assert not thread.is_alive()
    assert dict(vars(options)) == before
