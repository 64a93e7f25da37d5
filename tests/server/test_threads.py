"""Which thread polls, which runs requests, and that no client waits for nothing: seen from applications and clients."""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from microwsgi.server.poller import SelectorPoller
from tests.server.exchange import (
    GET,
    TIME,
    Environ,
    Listener,
    Running,
    hello,
    receive_until,
    wait_until,
)


def frames() -> list[str]:
    """The functions from the thread's first frame to the caller."""
    names, frame = [], sys._getframe(1)  # there is no other way to see them
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return names[::-1]


# --- Five frames ------------------------------------------------------------------------------------------------------

FIVE = ["_bootstrap", "_bootstrap_inner", "run", "handle_one_request", "application"]


def test_five_frames_to_the_application_whoever_leads() -> None:
    """DESIGN 2: on the first request, on later ones of a connection, and after a change of the leader."""
    seen: list[tuple[str, list[str]]] = []
    gate, inside = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        seen.append((threading.current_thread().name, frames()))
        if environ["PATH_INFO"] == "/wait":
            inside.set()
            assert gate.wait(TIME)
        return hello(environ, start_response)

    with Running(application) as running, running.connect() as one, running.connect() as two:
        for _ in range(2):
            one.sendall(GET)
            receive_until(one)
        one.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert inside.wait(TIME)
        two.sendall(GET)
        receive_until(two)
        gate.set()
        receive_until(one)
    assert [names for _, names in seen] == [FIVE] * 4
    assert seen[3][0] != seen[0][0], "another thread leads while the first waits"


def test_five_frames_into_a_generator() -> None:
    """The body of a generator function runs when its iterable is asked, no deeper."""
    seen: list[list[str]] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        seen.append(frames())
        start_response("200 OK", [])
        yield b"hello"

    with Running(application) as running:
        assert running.get().body == b"hello"
    assert seen == [FIVE]


def test_no_more_frames_to_do_get_than_under_http_server() -> None:
    seen: list[list[str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(frames())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as standard:
        thread = threading.Thread(target=standard.serve_forever, args=(0.01,))
        thread.start()
        with socket.create_connection(standard.server_address[:2], TIME) as connection:  # type: ignore[arg-type]
            connection.sendall(GET)
            receive_until(connection)
        standard.shutdown()
        thread.join(TIME)
    with Running(None, Handler) as running, running.connect() as connection:
        connection.sendall(GET)
        receive_until(connection)
    theirs, ours = seen
    assert ours[-1] == theirs[-1] == "do_GET"
    assert len(ours) <= len(theirs)


# --- Waiting costs no thread ------------------------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 6000:
        pytest.skip(f"this needs 6,000 descriptors, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 6000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_idle_and_half_sent_connections_hold_no_thread() -> None:
    """1,000 idle and 1,000 half-sent connections beside live ones, do not each need a thread."""
    with (
        Running(hello, loops=1, header_timeout=1000, keep_alive_timeout=1000) as running,
        contextlib.ExitStack() as stack,
    ):
        for number in range(2000):
            connection = stack.enter_context(running.connect())
            if number % 2:
                connection.sendall(GET[:-2])
            else:
                connection.sendall(GET)
                receive_until(connection)
        running.wait_for_connections(2000)
        for _ in range(50):
            assert running.get().body == b"hello"
        assert len(running.pool) < 20, "a few spare ones may have been started on a busy machine"


def test_long_bodies_that_trickle_leave_threads_for_others() -> None:
    """As many clients as there are threads send large bodies slowly: at most half of the threads wait for them.

    The other bodies are received without a thread.
    """
    inside: list[int] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            inside.append(1)
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    with Running(application, threads=8, body_buffer_size="16K") as running, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(running.connect()) for _ in range(8)]
        for connection in slow:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + b"x" * 10)
        running.wait_for_connections(8)
        wait_until(lambda: len(inside) == 4)
        for _ in range(20):
            assert running.get().body == b"hello"
        assert len(inside) == 4
        for connection in slow:
            connection.sendall(b"x" * 19990)
        for connection in slow:
            receive_until(connection)


def test_small_bodies_that_trickle_hold_no_thread_at_all() -> None:
    inside: list[str] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        inside.append(environ["REQUEST_METHOD"])
        return hello(environ, start_response)

    with Running(application, threads=2) as running, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(running.connect()) for _ in range(20)]
        for number, connection in enumerate(slow):
            framing = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel" if number % 2 else b"Content-Length: 5\r\n\r\nhel"
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        for _ in range(20):
            assert running.get().body == b"hello"
        assert inside == ["GET"] * 20
        for number, connection in enumerate(slow):
            connection.sendall(b"lo\r\n0\r\n\r\n" if number % 2 else b"lo")
        for connection in slow:
            receive_until(connection)


@pytest.mark.parametrize("kind", ["list", "generator", "write"])
def test_slow_readers_leave_threads_for_others(kind: str) -> None:
    """Known bytes are finished by the poller; at most half of the threads wait to send what an application yields."""
    size = 8 * 1024 * 1024

    def application(environ: Environ, start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        write = start_response("200 OK", [("Content-Length", str(size))])
        chunk = bytes(64 * 1024)
        if kind == "list":
            return [bytes(size)]
        if kind == "generator":
            return (chunk for _ in range(size // len(chunk)))
        for _ in range(size // len(chunk)):
            write(chunk)
        return []

    clients = 4 if kind == "write" else 8  # write can't let go of its thread: there is nothing to come back to
    with Running(application, threads=8) as running, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(running.connect(window=1 << 16)) for _ in range(clients)]
        for connection in slow:
            connection.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for connection in slow:
            assert connection.recv(1, socket.MSG_PEEK)
        for _ in range(20):
            assert running.get().body == b"hello"
        for connection in slow:
            total = 0
            while data := connection.recv(1 << 20):
                total += len(data)
            assert total > size


# --- Applications that wait -------------------------------------------------------------------------------------------


def test_waiting_applications_run_side_by_side() -> None:
    """Each of 64 requests waits for the other 63: served one after the other, none would ever end."""
    barrier = threading.Barrier(64)

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        barrier.wait(TIME)
        return hello(environ, start_response)

    with Running(application) as running, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(64)]
        for _ in range(3):
            for connection in connections:
                connection.sendall(GET)
            for connection in connections:
                receive_until(connection)


def test_one_thread_is_one_application_call_at_a_time() -> None:
    inside: list[int] = []
    most: list[int] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)  # what is tested is that nobody comes in meanwhile
        inside.pop()
        return hello(environ, start_response)

    with Running(application, loops=1, threads=1) as running, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(16)]
        for connection in connections:
            connection.sendall(GET)
        for connection in connections:
            receive_until(connection)
        assert len(running.pool) <= 2
    assert most == [1] * 16


def test_when_no_thread_is_free_polling_and_time_limits_go_on() -> None:
    gate = threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        assert gate.wait(TIME)
        return hello(environ, start_response)

    with Running(application, threads=2, header_timeout=0.1) as running, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(running.connect()) for _ in range(5)]
        for connection in waiting:
            connection.sendall(GET)
        running.errors.wait_for("All 2 threads are busy")
        with running.connect() as half:
            half.sendall(GET[:-2])
            assert half.recv(65536).startswith(b"HTTP/1.1 408 ")
        gate.set()
        for connection in waiting:
            receive_until(connection)
        assert running.errors.text.getvalue().count("threads are busy") == 1


def test_a_limit_that_runs_out_while_a_request_runs_leaves_it_alone() -> None:
    """The look for who is late skips connections that a thread has."""
    gate, inside = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            inside.set()
            assert gate.wait(TIME)
        return hello(environ, start_response)

    with Running(application, keep_alive_timeout=0.05) as running, running.connect() as one:
        one.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert inside.wait(TIME)
        with running.connect() as idle:
            assert idle.recv(1) == b"", "this one has nothing to say, and was ended"
        gate.set()
        receive_until(one)
        assert one.recv(1) == b""


# --- The leader must not die ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit, RecursionError])
def test_whatever_an_application_raises_the_server_goes_on(kind: type[BaseException]) -> None:
    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/raise":
            raise kind
        return hello(environ, start_response)

    with Running(application) as running:
        assert running.get("/raise").status == 500
        assert running.get().body == b"hello"
        assert kind.__name__ in running.errors.text.getvalue()


def test_without_new_threads_the_one_that_is_there_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        time.sleep(0.02)  # long enough to be watched
        return hello(environ, start_response)

    with Running(application) as running:
        assert running.get().body == b"hello"

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(5):
                assert running.get().body == b"hello"
        assert running.get().body == b"hello"


class FailingPoller(SelectorPoller):
    """A poller that raises once when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = threading.Event()
        self.polls = threading.Event()

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self.polls.set()
        found = super().poll(timeout)
        if self.fails.is_set():
            self.fails.clear()
            raise RuntimeError("on purpose")
        return found


def test_a_thread_that_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No error that we foresee ends a thread; one that we don't ends that thread only."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    poller = FailingPoller()
    with Running(hello, arguments={"poller": lambda: poller}) as running:
        for _ in range(3):
            assert running.get().body == b"hello"
            poller.fails.set()
            assert running.get().body == b"hello"
            assert not poller.fails.is_set()


def test_out_of_descriptors_it_says_so_once_and_recovers() -> None:
    """EMFILE: no spinning, those who are here are served, and the others when there is room again."""
    listener = Listener(error=OSError(errno.EMFILE, "Too many open files"))
    listener.failures = 3
    with Running(hello, arguments={"sockets": [listener]}) as running:
        assert running.get().body == b"hello"
        assert listener.failures == 0
        assert running.errors.text.getvalue().count("Too many open files") == 1
        assert running.get().body == b"hello"


# --- Order and fairness -----------------------------------------------------------------------------------------------


def test_one_that_pipelines_for_ever_does_not_keep_others_out() -> None:
    """At most 16 requests of one connection in a turn. With one loop, which both connections belong to."""
    served: list[str] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        served.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with Running(application, loops=1) as running, running.connect() as greedy, running.connect() as modest:
        greedy.sendall(b"GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n" * 400)
        modest.sendall(b"GET /modest HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(modest)
        data = b""
        while data.count(b"hello") < 400:
            data += greedy.recv(65536)
    assert served.index("/modest") < 380


def test_a_slow_write_keeps_the_order_of_what_follows() -> None:
    big = b"x" * (8 * 1024 * 1024)

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/big":
            start_response("200 OK", [])
            return [big]
        return hello(environ, start_response)

    with Running(application) as running, running.connect() as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        running.get()  # meanwhile the response waits for its client
        data = receive_until(connection)
        assert data.count(b"x") >= len(big)
        assert data.index(b"\r\n\r\n" + big[:100]) < data.index(b"hello")


def test_descriptors_that_are_used_again_within_a_batch_reach_the_right_connection() -> None:
    """Connections close and others come, on the same numbers, faster than the poller tells of either."""
    with Running(hello) as running:
        for _ in range(100):
            with contextlib.ExitStack() as stack:
                connections = [stack.enter_context(running.connect()) for _ in range(8)]
                for connection in connections[:4]:
                    connection.close()
                for connection in connections[4:]:
                    connection.sendall(GET)
                for connection in connections[4:]:
                    assert receive_until(connection).count(b"hello") == 1
        running.wait_for_connections(0)


def test_no_thread_runs_a_connection_that_another_has() -> None:
    """Bytes that come while the application runs are not acted on before it is done; the lead changes all the time."""
    inside: set[int] = set()
    twice: list[int] = []

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        port = int(environ["REMOTE_PORT"])
        if port in inside:
            twice.append(port)
        inside.add(port)
        time.sleep(0.001 * (port % 8))
        inside.discard(port)
        return hello(environ, start_response)

    with Running(application, threads=16) as running, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(16)]
        for _ in range(30):
            for connection in connections:
                connection.sendall(GET)
        for connection in connections:
            data = b""
            while data.count(b"hello") < 30:
                data += connection.recv(65536)
    assert not twice


# --- Beginning and end ------------------------------------------------------------------------------------------------


def test_shutdown_while_polling_without_end() -> None:
    poller = FailingPoller()
    with Running(hello, arguments={"poller": lambda: poller}) as running:
        assert poller.polls.wait(TIME)
    assert not running.thread.is_alive()


def test_a_stop_lets_running_requests_end_and_closes_the_idle() -> None:
    gate, inside = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            inside.set()
            assert gate.wait(TIME)
        return hello(environ, start_response)

    with Running(application) as running, running.connect() as busy, running.connect() as idle:
        idle.sendall(GET)
        receive_until(idle)
        busy.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert inside.wait(TIME)
        running.server.request_stop()
        assert idle.recv(1) == b""
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset: it listens no more
            running.get()
        gate.set()
        data = receive_until(busy)
        assert b"Connection: close" in data


def test_a_stop_under_load_answers_every_request_that_it_took() -> None:
    results: list[bool] = []

    def client(address: tuple[str, int]) -> None:
        while True:
            try:
                with socket.create_connection(address, TIME) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    data = b""
                    while piece := connection.recv(65536):
                        data += piece
            except ConnectionError:
                return  # it had not been taken
            if data:
                results.append(data.endswith(b"hello"))
            else:
                return

    with Running(hello) as running:
        clients = [threading.Thread(target=client, args=(running.address,)) for _ in range(8)]
        for thread in clients:
            thread.start()
        wait_until(lambda: len(results) > 100)
        running.server.request_stop()
        for thread in clients:
            thread.join(TIME)
            assert not thread.is_alive()
    assert all(results)


def test_who_has_not_ended_after_the_grace_time_is_cut_off_and_the_log_says_so() -> None:
    gate, inside = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        inside.set()
        assert gate.wait(TIME)
        return hello(environ, start_response)

    with Running(application, graceful_timeout=0.05) as running, running.connect() as connection:
        connection.sendall(GET)
        assert inside.wait(TIME)
        running.server.shutdown()
        assert connection.recv(1) == b""
        running.errors.wait_for("Requests aborted because the wait for them is over (graceful_timeout): 1.")
        (left,) = running.pool
        gate.set()
        left.join(TIME)
        assert not left.is_alive(), "it finds a closed socket, and ends"


def test_a_response_that_is_cut_off_while_it_is_sent_is_closed() -> None:
    closed = threading.Event()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return (bytes(1 << 20) for _ in range(64))

        def close(self) -> None:
            closed.set()

    def application(environ: Environ, start_response: Callable[..., Any]) -> Chunks:
        start_response("200 OK", [])
        return Chunks()

    with (
        Running(application, graceful_timeout=0.05, threads=1) as running,
        running.connect() as one,
        running.connect() as two,
    ):
        one.sendall(GET)  # its thread waits for it
        two.sendall(GET)
        assert one.recv(1, socket.MSG_PEEK)
        running.server.shutdown()
        assert running.connections == 0
        assert closed.wait(TIME)


def test_it_can_serve_again_after_a_shutdown() -> None:
    running = Running(hello)
    for _ in range(2):
        thread = threading.Thread(target=running.server.serve_forever)
        thread.start()
        with running.connect() as connection:
            connection.sendall(GET)
            receive_until(connection)
        running.server.shutdown()
        thread.join(TIME)
    running.server.server_close()


def test_no_thread_is_left_over() -> None:
    before = set(threading.enumerate())
    with Running(hello) as running:
        running.get()
    assert set(threading.enumerate()) <= before


def test_requests_and_limits_work_with_every_poller_of_the_standard_library() -> None:
    """Where the system has neither epoll nor the resource usage of a thread, and with select()."""
    kinds = {
        selectors.DefaultSelector,
        selectors.SelectSelector,
        getattr(selectors, "PollSelector", selectors.SelectSelector),
    }
    for kind in kinds:
        barrier = threading.Barrier(8)

        def application(
            environ: Environ, start_response: Callable[..., Any], barrier: threading.Barrier = barrier
        ) -> list[bytes]:
            if environ["PATH_INFO"] == "/meet":
                barrier.wait(TIME)
            return hello(environ, start_response)

        arguments = {"poller": lambda kind=kind: SelectorPoller(kind())}
        with (
            Running(application, threads=8, header_timeout=0.3, arguments=arguments) as running,
            contextlib.ExitStack() as stack,
        ):
            clients = [stack.enter_context(running.connect()) for _ in range(8)]
            for _ in range(5):
                for client in clients:
                    client.sendall(b"GET /meet HTTP/1.1\r\nHost: a\r\n\r\n")
                for client in clients:
                    receive_until(client)
                for client in clients:
                    client.sendall(GET)
                    receive_until(client)
            clients[0].sendall(GET[:-2])
            assert clients[0].recv(65536).startswith(b"HTTP/1.1 408 "), kind
        assert not running.thread.is_alive()
