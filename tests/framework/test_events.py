"""microwsgi/framework/events.py: the format, the order, who waits where, and who is noticed to have left."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from webob import Request, Response

from microwsgi.framework import events
from microwsgi.framework.events import COMMENT, PENDING, Broadcaster, Stream, event_bytes
from microwsgi.options import Options
from microwsgi.server.loops import default_count
from microwsgi.support.relay import relay
from tests.framework.peers import PEERS, serving
from tests.lab import NEAR, Lab, fetch, socket_path
from tests.programs import absent
from tests.running import Running as Command
from tests.running import python
from tests.server.exchange import TIME, Running

Environ = dict[str, Any]
STREAMS = 1000
GET = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Application:
    """/events are those of a broadcaster; anything else is answered at once."""

    def __init__(self, **options: Any) -> None:
        self.broadcaster = Broadcaster(**options)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        request = Request(environ)
        response = self.broadcaster.listen(request) if request.path == "/events" else Response("hello")
        return response(environ, start_response)


def wait_until(condition: Callable[[], Any]) -> None:
    """Look until something holds that can be seen only from outside."""
    end = time.monotonic() + TIME
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.001)


def listener(broadcaster: Broadcaster, request: Request | None = None) -> Stream:
    """The stream of one that listens on a server that parks."""
    stream = broadcaster.listen(request or Server().request).app_iter
    assert isinstance(stream, Stream)
    return stream


def receive(connection: socket.socket, ending: bytes) -> bytes:
    """What comes until it has this in it."""
    data = b""
    while ending not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


@contextlib.contextmanager
def listening(port: int, path: str = "/events", **headers: str) -> Iterator[HTTPResponse]:
    """An open response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIME)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    try:
        yield response
    finally:
        response.close()
        connection.close()


def read_events(response: HTTPResponse, count: int) -> list[str]:
    """So many events, without comments."""
    found: list[str] = []
    lines: list[str] = []
    while len(found) < count:
        line = response.readline().decode().rstrip("\n")
        if line and not line.startswith(":"):
            lines.append(line)
        elif not line and lines:
            found.append("|".join(lines))
            lines = []
    return found


# --- The format ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "data", "options"),
    [
        ("data: hello\n\n", "hello", {}),
        ("data: \n\n", "", {}),
        ("data: a\ndata: b\ndata: c\ndata: \ndata: d\n\n", "a\nb\r\nc\r\rd", {}),
        ("data: a\u2028b\n\n", "a\u2028b", {}),  # no line end here, though it is one of str.splitlines
        ('data: {"a": "ä"}\n\n', {"a": "ä"}, {}),
        ("data: 1\n\n", 1, {}),
        ("event: tick\nid: 7\nretry: 1500\ndata: x\n\n", "x", {"event": "tick", "id": "7", "retry": 1.5}),
    ],
)
def test_an_event_is_sent_as_the_standard_has_it(expected: str, data: object, options: dict[str, Any]) -> None:
    assert event_bytes(data, **options) == expected.encode()


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b"])
def test_nothing_gets_out_of_its_field(name: str) -> None:
    with pytest.raises(ValueError, match="line end or a NUL"):
        event_bytes("x", event=name)
    with pytest.raises(ValueError, match="line end or a NUL"):
        event_bytes("x", id=name)


@pytest.mark.parametrize("data", [float("nan"), object()])
def test_what_is_no_json_is_told_to_the_sender(data: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Broadcaster().send(data)


# --- A stream, asked by hand ----------------------------------------------------------------------------------------------


class Server:
    """A server that parks, without a server: what a stream asks of it."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.request = Request.blank("/")
        self.request.environ["microwsgi.resume"] = self.wake

    def wake(self, after: float = 0.0) -> None:
        self.calls.append(after)


def test_the_first_chunk_comes_at_once() -> None:
    """So that the head leaves, and the browser knows that it is connected."""
    assert next(Stream(Server().request)) == COMMENT
    assert next(Stream(Server().request, retry=2)) == b"retry: 2000\n\n"


def test_a_stream_arms_its_rest_before_it_looks() -> None:
    server = Server()
    stream = Stream(server.request, heartbeat=60)
    assert next(stream)
    server.calls.clear()
    assert next(stream) == b""
    (after,) = server.calls
    assert 59 < after <= 60
    stream.send("x")
    assert server.calls[1:] == [0.0]
    assert next(stream) == b"data: x\n\n"


def test_what_came_meanwhile_leaves_in_one_chunk_and_in_order() -> None:
    stream = Stream(Server().request)
    for number in range(3):
        stream.send(number)
    assert next(stream) == COMMENT + b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_silence_is_broken_by_a_heartbeat() -> None:
    server = Server()
    stream = Stream(server.request, heartbeat=0.001)
    assert next(stream) == COMMENT
    wait_until(lambda: next(stream) == COMMENT)


def test_without_a_wake_a_stream_sleeps_until_its_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks a few times, rather than all the time, and is not early."""
    looks: list[float] = []

    def look() -> float:
        looks.append(time.monotonic())
        return looks[-1]

    monkeypatch.setattr(events, "monotonic", look)
    stream = Stream(Request.blank("/"), heartbeat=0.05)
    stream.send("x")
    assert next(stream) == COMMENT + b"data: x\n\n"
    sent = time.monotonic()
    assert next(stream) == COMMENT
    assert time.monotonic() - sent > 0.04
    assert len(looks) < 8


def test_a_stream_that_is_to_end_sends_all_first() -> None:
    server = Server()
    stream = Stream(server.request)
    stream.send("last")
    stream.end()
    server.calls.clear()
    assert list(stream) == [COMMENT + b"data: last\n\n"]
    assert len(server.calls) == 1, "a response that is over must not rest"
    stream.send("too late")
    assert list(stream) == []


@pytest.mark.parametrize("parks", [True, False])
def test_an_end_between_the_look_and_the_rest_is_not_lost(parks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may call it just then; the stream would rest until its heartbeat."""
    request = Server().request if parks else Request.blank("/")
    stream = Stream(request, heartbeat=60)
    assert next(stream)

    def end_then_min(*times: float) -> float:  # what it calls just before it arms its rest
        stream.end()
        return min(*times)

    monkeypatch.setattr(events, "min", end_then_min, raising=False)
    assert list(stream) == []


def test_a_stream_asks_for_what_it_sends() -> None:
    """`every` so many seconds; None is nothing."""
    server, values = Server(), iter(["a", None, "b"])
    stream = Stream(server.request, poll=lambda: next(values), every=0.001)
    assert next(stream) == COMMENT + b"data: a\n\n"
    assert server.calls[-1] <= 0.001
    wait_until(lambda: next(stream) == b"data: b\n\n")


def test_who_reads_too_slowly_is_let_go() -> None:
    broadcaster = Broadcaster()
    stream = listener(broadcaster)
    for number in range(PENDING + 5):
        broadcaster.send(number)
    data = b"".join(stream)
    assert data.count(b"data:") == PENDING - 1
    assert data.endswith(b"data: %d\n\n" % (PENDING - 2))


# --- A broadcaster ----------------------------------------------------------------------------------------------------------


def test_the_response_is_one_that_nobody_collects() -> None:
    response = Broadcaster().listen(Server().request)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in response.headers


def test_head_listens_to_nothing() -> None:
    """HEAD's response is closed at once."""
    application = Application()
    response = Request.blank("/events", method="HEAD").get_response(application)
    assert response.content_type == "text/event-stream"
    response.app_iter.close()  # type: ignore[attr-defined]  # as a server does
    assert len(application.broadcaster) == 0


def test_all_streams_end_when_the_broadcaster_does() -> None:
    broadcaster = Broadcaster()
    streams = [listener(broadcaster) for _ in range(3)]
    broadcaster.send("last")
    broadcaster.end()
    assert [list(stream) for stream in streams] == [[COMMENT + b"data: last\n\n"]] * 3
    for stream in streams * 2:  # a server may close what it has closed
        stream.close()
    assert len(broadcaster) == 0
    Stream(Server().request).close()  # nobody is told


def missed(broadcaster: Broadcaster, last: str) -> list[bytes]:
    """The data that a client gets which says what it had last."""
    request = Server().request
    request.headers["Last-Event-ID"] = last
    stream = listener(broadcaster, request)
    return [line for line in next(stream).split(b"\n") if line.startswith(b"data")]


def test_who_comes_back_gets_what_it_missed() -> None:
    broadcaster = Broadcaster(history=3)
    for number in range(5):
        broadcaster.send(number)
    ids = [each for each, _ in broadcaster.history]
    assert missed(broadcaster, ids[0]) == [b"data: 3", b"data: 4"]
    assert missed(broadcaster, ids[-1]) == []
    assert next(listener(broadcaster)) == COMMENT, "who comes for the first time has missed nothing"
    assert missed(broadcaster, "of another time") == [b"data: 2", b"data: 3", b"data: 4"]
    assert Broadcaster(history=1).series != broadcaster.series


def test_without_a_history_events_have_no_ids_but_those_they_are_given() -> None:
    broadcaster = Broadcaster()
    stream = listener(broadcaster)
    broadcaster.send("a")
    broadcaster.send("b", id="7", event="tick")
    assert next(stream) == COMMENT + b"data: a\n\nevent: tick\nid: 7\ndata: b\n\n"


def test_events_of_many_senders_have_one_order() -> None:
    broadcaster = Broadcaster()
    streams = [listener(broadcaster) for _ in range(5)]

    def fifty(name: str) -> None:
        for number in range(50):
            broadcaster.send(f"{name}{number}")

    senders = [threading.Thread(target=fifty, args=(name,)) for name in "abc"]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    first, *others = [next(stream) for stream in streams]
    assert first.count(b"data:") == 150
    assert others == [first] * 4


# --- On our server ------------------------------------------------------------------------------------------------------


APPLICATION = """
import threading
from webob import Request, Response
from microwsgi.events import Broadcaster

broadcaster = Broadcaster(heartbeat=0.5, history=10)


def app(environ, start_response):
    request = Request(environ)
    if request.path == "/events":
        response = broadcaster.listen(request)
    elif request.path == "/send":
        response = Response(broadcaster.send(request.query_string) or "sent")
    else:
        response = Response(f"{len(broadcaster)} listen, {threading.active_count()} threads")
    return response(environ, start_response)
"""
KIB_PER_STREAM = 8
"""Measured: 3; with the thread's stack that another server needs for each, it is far more."""


def resident(pid: int) -> int:
    """KiB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def vanish(connection: socket.socket) -> None:
    """Leave with a reset rather than an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def _descriptors() -> Iterator[None]:
    """Enough for the clients here, and for the server that inherits the limit."""
    need, before = STREAMS + 200, resource.getrlimit(resource.RLIMIT_NOFILE)
    if need > before[1]:
        absent("descriptors", f"the system allows only {before[1]} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(need, before[0]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_descriptors")
def test_a_thousand_streams_hold_no_thread_and_miss_nothing(command: Callable[..., Command], tmp_path: Path) -> None:
    """Beside requests that are answered meanwhile; who vanishes is noticed within a heartbeat."""
    (tmp_path / "streams.py").write_text(APPLICATION)
    server = command("serve", "streams:app", "--port", "0", "--threads", "4", "--access-log", "off", cwd=tmp_path)
    url = server.url()
    port = int(url.rpartition(":")[2])

    def ask(path: str) -> str:
        with urlopen(url + path, timeout=TIME) as response:  # noqa: S310 - ours
            return str(response.read().decode())

    threads = int(ask("/").removeprefix("0 listen, ").removesuffix(" threads"))  # several loops have more
    before = resident(server.pid)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), TIME)) for _ in range(STREAMS)]
        for client in clients:
            client.sendall(GET)
        for client in clients:
            receive(client, COMMENT)
        each = (resident(server.pid) - before) / STREAMS
        print(f"{each:.1f} KiB for each of {STREAMS} streams")
        assert each < KIB_PER_STREAM
        for number in range(5):
            assert ask(f"/send?event-{number}.") == "sent"
        said = ask("/").split()
        assert said[:2] == [f"{STREAMS}", "listen,"]
        assert int(said[2]) <= threads + 4 * default_count(Options(threads=4)), said  # those of --threads, in each loop
        for client in clients:
            data = receive(client, b"event-4.\n\n")
            positions = [data.find(b"data: event-%d.\n\n" % number) for number in range(5)]
            assert -1 not in positions
            assert positions == sorted(positions)
        vanish(clients[0])
        clients[1].close()
        wait_until(lambda: ask("/").startswith(f"{STREAMS - 2} listen"))
    wait_until(lambda: ask("/").startswith("0 listen"))
    assert server.stop() == 0
    assert "rror" not in server.output.replace("0 errors", "")


VANISHING = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 8000)) as connection:
    connection.sendall(b"GET /events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print(connection.recv(4096).partition(b" ")[0], flush=True)
    time.sleep(60)
"""
IMPATIENT = """
import sys
from microwsgi.cli import main
from microwsgi.server import sockets
sockets.USER_TIMEOUT = 300
sys.exit(main(sys.argv[1:]))
"""


def test_a_client_whose_network_is_gone_is_noticed_by_the_heartbeat(tmp_path: Path) -> None:
    """No end and no reset comes from it: what was sent is not acknowledged."""
    (tmp_path / "streams.py").write_text(APPLICATION)
    path = socket_path(tmp_path)
    with Lab() as lab:
        arguments = [
            "serve",
            str(tmp_path / "streams.py") + ":app",
            "-b",
            f"{NEAR}:8000",
            "-b",
            path,
            "--allow-host",
            "*",
        ]
        server = lab.start(lab.near, python("-c", IMPATIENT, *arguments))
        server.line("Ctrl-C")
        client = lab.start(lab.far, python("-c", VANISHING, NEAR))
        client.line("HTTP/1.1")
        assert fetch(path, "/")[1].startswith(b"1 listen")
        lab.do(lab.router, "ip link set line down")
        wait_until(lambda: fetch(path, "/")[1].startswith(b"0 listen"))
        client.end()
        server.end()


def test_a_connection_can_be_used_again_after_a_stream() -> None:
    """What woke the stream may come late, and disturbs no later request."""
    application = Application()
    with Running(application) as running, running.connect() as connection:
        for _ in range(3):
            connection.sendall(GET)
            receive(connection, COMMENT)
            (stream,) = application.broadcaster.streams
            stream.end()
            receive(connection, b"0\r\n\r\n")
            stream.resume()
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            receive(connection, b"hello")


def test_heartbeats_come_by_themselves() -> None:
    with Running(Application(heartbeat=0.01)) as running, running.connect() as connection:
        connection.sendall(GET)
        data = b""
        while data.count(COMMENT) < 4:
            data += connection.recv(65536)


# --- On another server: a thread for each stream ---------------------------------------------------------------------------


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


class Threading(contextlib.ExitStack):
    """wsgiref's server with a thread for each request."""

    def __init__(self, application: Any) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []
        threads = self.threads

        class Server(WSGIServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                arguments = (request, client_address)
                threads.append(threading.Thread(target=super().process_request, args=arguments))
                threads[-1].start()

        self.server = make_server("127.0.0.1", 0, application, Server, Quiet)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.callback(self.server.server_close)
        self.callback(thread.join, TIME)
        self.callback(self.server.shutdown)


@pytest.mark.parametrize("server", PEERS)
def test_the_same_application_does_the_same_on_each_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "streams.py").write_text(APPLICATION)
    with serving(server, tmp_path, "streams:app") as url:
        port = int(url.rpartition(":")[2])

        def ask(path: str) -> str:
            with urlopen(url + path, timeout=TIME) as response:  # noqa: S310 - ours
                return str(response.read().decode())

        with listening(port) as one, listening(port) as two:
            assert one.getheader("Content-Type") == "text/event-stream"
            wait_until(lambda: ask("/").startswith("2 listen"))
            for number in range(5):
                ask(f"/send?event-{number}")
            found = read_events(one, 5)
            assert [event.partition("|")[2] for event in found] == [f"data: event-{number}" for number in range(5)]
            assert read_events(two, 5) == found
            with listening(port, **{"Last-Event-ID": found[2].partition("|")[0].removeprefix("id: ")}) as three:
                assert read_events(three, 2) == found[3:]
        # All have left: a heartbeat finds it out, if nothing else does.
        wait_until(lambda: ask("/").startswith("0 listen"))


def test_without_a_wake_a_stream_waits_in_its_own_thread() -> None:
    application = Application(heartbeat=0.2, history=10)
    with Threading(application) as other:
        with listening(other.server.server_port) as one, listening(other.server.server_port) as two:
            wait_until(lambda: len(application.broadcaster) == 2)
            for number in range(3):
                application.broadcaster.send(f"event {number}")
            series = application.broadcaster.series
            expected = [f"id: {series}-{number + 1}|data: event {number}" for number in range(3)]
            assert read_events(one, 3) == expected
            assert read_events(two, 3) == expected
            with listening(other.server.server_port, **{"Last-Event-ID": f"{series}-2"}) as three:
                assert read_events(three, 1) == expected[2:]
        # All have left: a heartbeat finds it out.
        wait_until(lambda: not len(application.broadcaster))
        for thread in other.threads:
            thread.join(TIME)
            assert not thread.is_alive()


def test_a_broadcaster_of_a_function_that_other_processes_can_not_know_is_warned_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two that workers make in different orders must not get each other's events."""
    assert Broadcaster().name == "", "nothing to reach: no warning"
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(relay, "send", lambda **message: sent.append(message))
    with pytest.warns(UserWarning, match="needs a name"):
        alone = Broadcaster()
    named = Broadcaster(name="room-7", history=3)
    stream = listener(alone)
    alone.send("here")
    named.send("there")
    assert next(stream) == COMMENT + b"data: here\n\n"
    assert [(*message,) for message in sent] == [("subscribe", "history"), ("publish", "unique", "id", "chunk")]
    module: dict[str, Any] = {"__name__": "of_a_test", "Broadcaster": Broadcaster}
    exec("one = Broadcaster()\nmany = [Broadcaster() for _ in range(2)]", module)  # noqa: S102 - a module
    assert [each.name for each in (module["one"], *module["many"])] == ["of_a_test.1", "of_a_test.2", "of_a_test.3"]


def test_the_public_module_has_the_same_names() -> None:
    import microwsgi.events as public  # what is tested

    assert public.Broadcaster is events.Broadcaster
    assert public.Stream is events.Stream
