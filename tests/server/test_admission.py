"""The limit of connections is reached: who leaves, who stays, and what is said of it."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microwsgi.server.loop import Loop
from microwsgi.server.poller import SelectorPoller
from tests.programs import absent
from tests.running import Running as Command
from tests.server.exchange import TIME, Listener, Running, parse, receive_until, wait_until
from tests.tls.authority import Authority, Secure, closed_within

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SAID = "The connection limit is reached"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Gate:
    """An application whose /held waits until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_leave = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer."""
        if environ["PATH_INFO"] == "/held":
            self.entered.release()
            assert self.may_leave.wait(TIME)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]


@contextlib.contextmanager
def crowd(server: Running, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many clients that were all accepted, one after the other, and have sent this and no more."""
    with contextlib.ExitStack() as stack:
        yield [join(server, stack, sent) for _ in range(count)]


def counted() -> dict[str, Any]:
    """Arguments for a server whose accepted connections can be counted."""
    return {"sockets": [Listener()]}


def join(server: Running, stack: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    """A client that the server has accepted."""
    listener: Any = server.server.socket
    before = listener.accepted
    client = stack.enter_context(server.connect())
    client.sendall(sent)
    wait_until(lambda: listener.accepted > before)
    return client


def exchange(client: socket.socket, request: bytes = GET) -> bytes:
    """The body of a response of `Gate`, with the connection left open."""
    client.sendall(request)
    data = b""
    while not data.endswith(b"\r\n\r\nhello"):
        piece = client.recv(1 << 16)
        assert piece, f"closed after {data!r}"
        data += piece
    return data[-5:]


def is_open(client: socket.socket) -> bool:
    """Whether the server has not closed this one."""
    client.setblocking(False)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        client.settimeout(TIME)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_who_shakes_hands_gets_in_although_a_flood_of_others_does_not(authority: Authority, sent: bytes) -> None:
    with Secure(authority, Gate(), max_connections=20, arguments=counted()) as server, server.secure() as there:
        assert exchange(there) == b"hello"
        with crowd(server, 200, sent) as clients:
            assert server.connections <= 20
            for _ in range(3):
                with server.secure() as good:
                    assert exchange(good) == b"hello"
            assert exchange(there) == b"hello", "handshakes that are not finished leave before those that are"
            assert all(closed_within(each) for each in clients[:180]), "the oldest leave first"
            assert all(map(is_open, clients[-15:]))
        assert server.errors.text.getvalue().count(SAID) == 1


def test_of_plain_connections_who_waits_longest_leaves_and_who_is_answered_stays() -> None:
    gate = Gate()
    with Running(gate, loops=1, max_connections=4, arguments=counted()) as server, contextlib.ExitStack() as stack:
        first, second, third = (join(server, stack) for _ in range(3))
        held = join(server, stack, GET.replace(b"/ ", b"/held "))
        assert gate.entered.acquire(timeout=TIME)
        assert exchange(first) == b"hello"  # so that the second has waited longest by now
        join(server, stack)
        assert closed_within(second)
        assert is_open(third)
        join(server, stack)
        assert closed_within(third)
        assert is_open(first)
        gate.may_leave.set()
        assert parse(exchange_rest(held))[0].body == b"hello"


def exchange_rest(client: socket.socket) -> bytes:
    """One response whose request was sent before."""
    data = b""
    while not data.endswith(b"hello"):
        data += client.recv(1 << 16)
    return data


def test_where_all_are_answered_newcomers_wait_and_are_served_then() -> None:
    gate = Gate()
    with Running(gate, max_connections=3, arguments=counted()) as server, contextlib.ExitStack() as stack:
        held = [join(server, stack, GET.replace(b"/ ", b"/held ")) for _ in range(3)]
        for _ in held:
            assert gate.entered.acquire(timeout=TIME)
        newcomer = stack.enter_context(server.connect())
        newcomer.sendall(GET)
        server.errors.wait_for(SAID)
        assert server.connections == 3
        gate.may_leave.set()
        assert exchange_rest(newcomer).endswith(b"hello")
        for each in held:
            assert exchange_rest(each).endswith(b"hello")


def test_as_many_as_are_allowed_is_no_shortage_and_another_is_told_of_again() -> None:
    with Running(Gate(), max_connections=8, arguments=counted()) as server:
        for times in (1, 2):
            with crowd(server, 8):
                assert server.errors.text.getvalue().count(SAID) == times - 1
                with crowd(server, 20):
                    server.wait_for_connections(8)  # 7 for a moment, between closing an idle one and accepting
                    assert server.errors.text.getvalue().count(SAID) == times
            server.wait_for_connections(0)
            with server.connect() as client:
                assert exchange(client) == b"hello"


class Held(SelectorPoller):
    """A poller that holds its events back when it is told to, and tells of the listening socket first."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__()
        self.listener = listener.fileno()
        self.may_go = threading.Event()
        self.may_go.set()

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        found = super().poll(timeout)
        if not self.may_go.is_set():
            assert self.may_go.wait(TIME)
            found = super().poll(0)
        return sorted(found, key=lambda each: each[0] != self.listener)


def test_who_has_just_asked_is_not_closed_unread() -> None:
    """Waiting longest, but with a request that the leader has not come to yet; one that has left is closed first."""
    for leaves in (False, True):
        (listener,) = counted()["sockets"]
        poller = Held(listener)
        arguments = {"sockets": [listener], "poller": lambda poller=poller: poller}
        with (
            Running(Gate(), max_connections=2, arguments=arguments) as server,
            contextlib.ExitStack() as stack,
        ):
            asks, waits = join(server, stack), join(server, stack)
            poller.may_go.clear()
            if leaves:
                asks.shutdown(socket.SHUT_WR)
            else:
                asks.sendall(GET)
            newcomer = stack.enter_context(server.connect())
            newcomer.sendall(GET)
            poller.may_go.set()
            receive_until(newcomer)
            if leaves:
                assert is_open(waits)
            else:
                receive_until(asks)
                assert closed_within(waits)


def test_without_descriptors_a_good_client_gets_in_beside_a_silent_flood(
    command: Callable[..., Command], tmp_path: Path, authority: Authority
) -> None:
    if not hasattr(resource, "prlimit"):
        absent("prlimit", "no other process's limits can be set here")
    failed = "Accepting a connection failed: Too many open files"
    leaf = authority.leaf("localhost")
    log = str(tmp_path / "access.log")
    running = command("serve", "apps.echo:app", "--port", "0", "--access-log", log, "--tls-cert", leaf)
    port = int(running.url().rpartition(":")[2])
    context = authority.client()
    with contextlib.ExitStack() as stack:

        def good() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", port), TIME) as connection,
                context.wrap_socket(connection, server_hostname="localhost") as client,
            ):
                client.sendall(LAST_GET)
                return client.recv(12)

        assert good() == b"HTTP/1.1 200"
        used = len(os.listdir(f"/proc/{running.pid}/fd"))
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), TIME))
        for _ in range(3):
            assert good() == b"HTTP/1.1 200"
        running.line(failed)
    assert running.stop() == 0
    assert running.output.count(failed) == 1


def test_the_limit_holds_while_all_clients_have_just_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these is closed unread, and so the newcomer waits until one has been answered."""
    counts = []
    add = Loop.add

    def counted_add(loop: Loop, connection: Any) -> None:
        add(loop, connection)
        counts.append(len(loop.connections))

    monkeypatch.setattr(Loop, "add", counted_add)
    (listener,) = counted()["sockets"]
    poller = Held(listener)
    arguments = {"sockets": [listener], "poller": lambda: poller}
    with Running(Gate(), max_connections=2, arguments=arguments) as server, contextlib.ExitStack() as stack:
        clients = [join(server, stack), join(server, stack)]
        poller.may_go.clear()
        for client in clients:
            client.sendall(GET)
        newcomer = stack.enter_context(server.connect())
        newcomer.sendall(GET)
        poller.may_go.set()
        for client in (*clients, newcomer):
            receive_until(client)
    assert len(counts) == 3
    assert max(counts) == 2
