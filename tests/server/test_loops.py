"""Several loops in one process: connections are balanced, threads shared, and the rest is as with one.

By default only an interpreter without the global interpreter lock has several. Here each server has two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import microwsgi
from microwsgi.options import Options
from microwsgi.server import loops
from microwsgi.tls.front import make_tls
from tests.server import test_detached, test_handler, test_handoff, test_threads
from tests.server.exchange import GET, TIME, Environ, Listener, Running, StartResponse, parse, wait_until
from tests.tls.authority import Authority

# With two loops, too: pipelining, bodies, time limits, suspended responses, sockets that the application takes, stops, and
# connections that another process takes over.
test_what_was_received_before_comes_first = (
    test_detached.test_what_was_received_before_comes_first_however_the_application_receives
)
test_a_given_socket_blocks_and_sends_whole_messages = test_detached.test_a_given_socket_blocks_and_sends_whole_messages
test_requests_that_are_pipelined_behind_a_body = (
    test_handler.test_requests_that_are_pipelined_behind_a_body_are_answered
)
test_resting_responses_hold_no_thread_and_miss_nothing = (
    test_handler.test_resting_responses_hold_no_thread_and_miss_nothing
)
test_a_wake_between_the_look_and_the_rest_is_not_lost = (
    test_handler.test_a_wake_between_the_look_and_the_rest_is_not_lost
)
test_a_stop_ends_resting_responses = test_handler.test_a_stop_ends_resting_responses
test_each_time_limit_ends_the_wait = test_handler.test_each_time_limit_ends_the_wait_and_is_in_the_log
test_connections_between_requests_go_to_the_successor = (
    test_handoff.test_connections_between_requests_go_to_the_successor
)
test_a_head_that_was_received_in_part = (
    test_handoff.test_a_head_that_was_received_in_part_goes_to_the_successor_with_its_connection
)
test_long_bodies_that_trickle_leave_threads_for_others = (
    test_threads.test_long_bodies_that_trickle_leave_threads_for_others
)
test_waiting_applications_run_side_by_side = test_threads.test_waiting_applications_run_side_by_side
test_when_no_thread_is_free = test_threads.test_when_no_thread_is_free_polling_and_time_limits_go_on
test_no_thread_runs_a_connection_that_another_has = test_threads.test_no_thread_runs_a_connection_that_another_has
test_a_stop_lets_running_requests_end = test_threads.test_a_stop_lets_running_requests_end_and_closes_the_idle
test_a_stop_under_load = test_threads.test_a_stop_under_load_answers_every_request_that_it_took
test_it_can_serve_again_after_a_shutdown = test_threads.test_it_can_serve_again_after_a_shutdown
test_no_thread_is_left_over = test_threads.test_no_thread_is_left_over


@pytest.fixture(autouse=True)
def _two_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Running, "loops", 2)


def loop_of_the_thread() -> bytes:
    """The names of the threads of the second loop have one number more."""
    return b"second" if threading.current_thread().name.count("-") == 2 else b"first"


class Application:
    """Answers with the loop that serves; /wait waits until it is released, and counts the most calls at once."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.order: list[str] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"].startswith("/wait"):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.entered.release()
            assert self.gate.acquire(timeout=TIME)
            with self.lock:
                self.running -= 1
                self.order.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [loop_of_the_thread()]


def request(path: str) -> bytes:
    return GET.replace(b" / ", f" {path} ".encode())


@contextlib.contextmanager
def served(
    count: int, **options: Any
) -> Iterator[tuple[Running, Application, list[socket.socket], list[socket.socket]]]:
    """A server, and so many connections that have sent a request: those of the first and those of the second loop."""
    application = Application()
    with Running(application, **options) as running, contextlib.ExitStack() as stack:
        first: list[socket.socket] = []
        second: list[socket.socket] = []
        for _ in range(count):
            connection = stack.enter_context(running.connect())
            (first if ask(connection) == b"first" else second).append(connection)
        try:
            yield running, application, first, second
        finally:
            application.gate.release(100)


def ask(connection: socket.socket) -> bytes:
    """Send a request; return the loop that has served it."""
    connection.sendall(GET)
    return answer(connection)


def answer(connection: socket.socket) -> bytes:
    """Receive a response; return the loop that has served the request."""
    data = b""
    while not data.endswith((b"first", b"second")):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return parse(data)[0].body


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed a connection."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.settimeout(TIME)


def number_of_open(connections: list[socket.socket], wanted: int) -> bool:
    """Whether so many of these are open."""
    return sum(map(is_open, connections)) == wanted


def test_an_interpreter_with_the_global_lock_has_one_loop_and_others_one_for_each_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert loops.default_count(Options()) == 1
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3}, raising=False)
    assert loops.default_count(Options()) == 3
    assert loops.default_count(Options(threads=2)) == 2
    assert loops.default_count(Options(workers=2)) == 1, "several processes use the processors"
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert loops.default_count(Options()) == 5


def test_connections_are_balanced_and_counters_are_totals() -> None:
    with served(8) as (running, application, first, second):
        assert [len(first), len(second)] == [4, 4]
        for connection in first[1:]:
            connection.close()
        running.wait_for_connections(5)
        with contextlib.ExitStack() as stack:
            newcomers = [stack.enter_context(running.connect()) for _ in range(3)]
            assert [ask(connection) for connection in newcomers] == [b"first"] * 3
            for connection in (*newcomers[:2], *second[:2]):
                connection.sendall(request("/wait"))
            for _ in range(4):
                assert application.entered.acquire(timeout=TIME)
            assert running.server.stats() == {"requests": 15, "errors": 0, "connections": 8, "running": 4}
            wait_until(lambda: len(running.server.threads) >= 4)  # a thread is in the list after it has started
            application.gate.release(4)
            for connection in (*newcomers[:2], *second[:2]):
                answer(connection)


def test_a_loop_may_use_all_threads_and_all_loops_together_use_no_more() -> None:
    with served(8, threads=3) as (running, application, first, second):
        for connection in first:
            connection.sendall(request("/wait"))
        for _ in range(3):
            assert application.entered.acquire(timeout=TIME), "the idle loop keeps a permit"
        for connection in second:
            connection.sendall(request("/wait"))
        running.wait_for_requests(8)
        for _ in range(5):
            application.gate.release()
            assert application.entered.acquire(timeout=TIME)
        application.gate.release(3)
        assert [answer(connection) for connection in (*first, *second)] == [b"first"] * 4 + [b"second"] * 4
        assert application.most == 3


def test_a_loop_with_many_requests_does_not_keep_the_threads_from_the_other() -> None:
    with served(12, threads=2) as (running, application, first, second):
        for connection in first:
            connection.sendall(request("/wait/first"))
        for _ in range(2):
            assert application.entered.acquire(timeout=TIME)
        second[0].sendall(request("/wait/second"))
        running.wait_for_requests(7)
        for _ in range(5):
            application.gate.release()
            assert application.entered.acquire(timeout=TIME)
        application.gate.release(2)
        for connection in (*first, second[0]):
            answer(connection)
        assert "/wait/second" in application.order[:4]


def test_at_the_limit_one_idle_connection_is_closed_for_each_new_one() -> None:
    with served(6, max_connections=6) as (running, application, first, second):
        for connection in first:
            connection.sendall(request("/wait"))
        for _ in first:
            assert application.entered.acquire(timeout=TIME)
        with contextlib.ExitStack() as stack:
            for left in (2, 1):
                assert ask(stack.enter_context(running.connect())) == b"second", "the other loop has no idle connection"
                wait_until(partial(number_of_open, second, left))
                assert running.connections == 6
        application.gate.release(3)
        for connection in first:
            assert answer(connection) == b"first"
        assert running.errors.text.getvalue().count("The connection limit is reached") == 1


def test_where_all_are_answered_a_new_connection_waits() -> None:
    with served(4, max_connections=4) as (running, application, first, second):
        for connection in (*first, *second):
            connection.sendall(request("/wait"))
        for _ in range(4):
            assert application.entered.acquire(timeout=TIME)
        with running.connect() as newcomer:
            newcomer.sendall(GET)
            running.errors.wait_for("The connection limit is reached")
            assert running.connections == 4
            application.gate.release(4)
            answer(newcomer)


def test_without_descriptors_each_loop_closes_an_idle_connection() -> None:
    listener = Listener(error=OSError(errno.EMFILE, "Too many open files"))
    with served(4, arguments={"sockets": [listener]}) as (running, _, first, second):
        listener.failures = 1
        with running.connect() as newcomer:
            ask(newcomer)
            wait_until(lambda: number_of_open(first, 1) and number_of_open(second, 1))
            assert running.connections == 3


def test_a_server_that_accepts_by_itself_has_connections_in_both_loops() -> None:
    class Own(microwsgi.WSGIServer):
        accepted = 0

        def get_request(self) -> Any:
            self.accepted += 1
            return super().get_request()

    server = Own(("127.0.0.1", 0), application=Application(), options=Options())
    server.loop_count = 2
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with contextlib.ExitStack() as stack:
        for expected in (b"first", b"second", b"first"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", int(server.server_port)), TIME))
            assert ask(connection) == expected
    assert server.accepted == 3
    server.shutdown()
    thread.join(TIME)
    server.server_close()


def test_handshakes_and_requests_over_tls_in_both_loops(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = make_tls(Options(tls_cert=(authority.leaf("localhost"),)))
    context = authority.client()
    with Running(Application(), tls=tls) as running, contextlib.ExitStack() as stack:
        found = []
        for _ in range(4):
            plain = stack.enter_context(running.connect())
            found.append(ask(stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))))
        assert found == [b"first", b"second"] * 2
