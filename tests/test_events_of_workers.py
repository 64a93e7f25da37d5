"""Broadcasters in several workers: each event reaches the clients of all, in one order, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.background import suspend
from tests.running import LIMIT, Running

Command = Callable[..., Running]
APPLICATION = """
import os
from webob import Request, Response
from microwsgi.events import Broadcaster

news = Broadcaster(history=HISTORY)
others = Broadcaster(history=5)
named = {}


def app(environ, start_response):
    request = Request(environ)
    if request.path == "/events":
        response = news.listen(request)
        response.headers["Worker"] = str(os.getpid())
    elif request.path.startswith("/named/"):
        room = named.setdefault(request.path, Broadcaster(name=request.path))
        if request.method == "POST":
            room.send("for " + request.path)
            response = Response("told")
        else:
            response = room.listen(request)
    elif request.path == "/burst":
        name, count, *size = request.query_string.split(",")
        for number in range(int(count)):
            news.send(f"{name} {number} " + "x" * int(*size))
        response = Response(str(os.getpid()))
    else:
        others.send("for others")
        response = Response(str(os.getpid()))
    return response(environ, start_response)
"""


class Listener:
    """A client of the event stream."""

    def __init__(self, url: str, last: str | None = None, path: str = "/events") -> None:
        self.connection = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
        self.connection.request("GET", path, headers={} if last is None else {"Last-Event-ID": last})
        self.response: HTTPResponse = self.connection.getresponse()
        self.worker = int(self.response.getheader("Worker") or 0)
        self.ids: list[str] = []

    def read(self, count: int) -> list[str]:
        """The data of the next events."""
        found: list[str] = []
        while len(found) < count:
            line = self.response.readline().decode()
            assert line, f"the stream ended after {found[-3:]}"
            name, _, text = line.strip().partition(": ")
            if name == "id":
                self.ids.append(text)
            elif name == "data":
                found.append(text)
        return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def ask(url: str, path: str, data: bytes | None = None) -> str:
    with urlopen(url + path, data, timeout=LIMIT) as response:  # noqa: S310 - ours
        return str(response.read().decode())


@contextlib.contextmanager
def listeners(url: str, last: str | None = None, count: int = 2) -> Iterator[list[Listener]]:
    """One listener in each of so many workers."""
    found: dict[int, Listener] = {}
    end = time.monotonic() + LIMIT
    try:
        while len(found) < count:
            assert time.monotonic() < end, f"only workers {[*found]} answer"
            listener = Listener(url, last)
            if listener.worker in found:
                listener.close()
            else:
                found[listener.worker] = listener
        yield [*found.values()]
    finally:
        for each in found.values():
            each.close()


@contextlib.contextmanager
def publishers(url: str) -> Iterator[list[Callable[[str], str]]]:
    """Functions that send requests, one for each of two workers."""
    found: dict[str, HTTPConnection] = {}

    def ask_on(connection: HTTPConnection, path: str) -> str:
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    with contextlib.ExitStack() as stack:
        end = time.monotonic() + LIMIT
        while len(found) < 2:
            assert time.monotonic() < end, f"only workers {[*found]} answer"
            connection = stack.enter_context(
                contextlib.closing(HTTPConnection(url.removeprefix("http://"), timeout=LIMIT))
            )
            found.setdefault(ask_on(connection, "/"), connection)
        yield [partial(ask_on, connection) for connection in found.values()]


def start(command: Command, folder: Path, *options: str, history: int = 1000) -> tuple[Running, str]:
    (folder / "streams.py").write_text(APPLICATION.replace("HISTORY", str(history)))
    running = command("serve", "streams:app", "-p", "0", "--access-log", "off", *options, cwd=folder)
    return running, running.url()


def test_listeners_of_all_workers_get_all_events_in_one_order(command: Command, tmp_path: Path) -> None:
    """The events of all publishers arrive, and those of each publisher in its order."""
    running, url = start(command, tmp_path, "--workers", "2")
    with listeners(url) as (one, two):
        with publishers(url) as asks, ThreadPoolExecutor(2) as pool:
            assert all(pool.map(lambda ask: [ask(f"/burst?{name},40") for name in "abcdef"], asks))
        found = one.read(12 * 40)
        assert two.read(12 * 40) == found
        assert two.ids == one.ids
        for publisher in {each.partition("-")[0] for each in one.ids}:
            mine = [text for id, text in zip(one.ids, found, strict=True) if id.startswith(publisher)]
            assert mine == [f"{name} {number}" for name in "abcdef" for number in range(40)]
        with listeners(url, one.ids[99]) as again:
            for each in again:
                assert each.read(12 * 40 - 100) == found[100:]
    assert running.stop(signal.SIGTERM) == 0


def test_broadcasters_are_told_apart_by_their_names(command: Command, tmp_path: Path) -> None:
    """Whatever the order in which the workers make them; those of a module have names by themselves."""
    _, url = start(command, tmp_path, "--workers", "2")
    rooms = [f"/named/{name}" for name in "abc"]
    with listeners(url) as modules, contextlib.ExitStack() as stack:
        found = {
            room: [stack.enter_context(contextlib.closing(Listener(url, path=room))) for _ in range(6)]
            for room in rooms
        }
        # The parent reads one worker's messages in order: after these events it knows all broadcasters of both workers.
        with publishers(url) as asks:
            for number, publish in enumerate(asks):
                publish(f"/burst?{number},1")
        assert [sorted(each.read(2)) for each in modules] == [["0 0", "1 0"]] * 2
        for room in rooms:
            assert ask(url, room, b"") == "told"
        ask(url, "/burst?x,1")
        assert {room: [each.read(1) for each in found[room]] for room in rooms} == {
            room: [[f"for {room}"]] * 6 for room in rooms
        }
        assert [each.read(1) for each in modules] == [["x 0"]] * 2


def test_a_killed_worker_a_reload_and_a_restart_of_all_keep_the_history(command: Command, tmp_path: Path) -> None:
    running, url = start(command, tmp_path, "--workers", "2")
    with listeners(url) as (one, two):
        ask(url, "/burst?a,3")
        assert one.read(3) == two.read(3) == ["a 0", "a 1", "a 2"]
        os.kill(one.worker, signal.SIGKILL)
        running.line("was killed by SIGKILL")
        ask(url, "/burst?b,2")
        assert two.read(2) == ["b 0", "b 1"]
        with listeners(url, one.ids[1]) as fresh:
            for each in fresh:
                assert each.read(3) == ["a 2", "b 0", "b 1"]
        running.send_signal(signal.SIGHUP)
        running.line("reloaded")
        with listeners(url, one.ids[2]) as fresh:
            assert not {each.worker for each in fresh} & {one.worker, two.worker}
            for each in fresh:
                assert each.read(2) == ["b 0", "b 1"]
            ask(url, "/burst?c,2")
            assert [each.read(2) for each in fresh] == [["c 0", "c 1"]] * 2
            with contextlib.suppress(HTTPException):
                two.response.read()  # the stream of a retired worker ends, and browsers reconnect
            reconnected = Listener(url, two.ids[-1])
            assert reconnected.read(2) == ["c 0", "c 1"]
            reconnected.close()


def test_a_save_with_reload_keeps_listeners_and_history(command: Command, tmp_path: Path) -> None:
    running, url = start(command, tmp_path, "--reload")
    with listeners(url, count=1) as (one,):
        ask(url, "/burst?a,2")
        assert one.read(2) == ["a 0", "a 1"]
        (tmp_path / "streams.py").write_text("# changed\n" + (tmp_path / "streams.py").read_text())
        running.line("changed: streams")
        with listeners(url, one.ids[0], count=1) as (two,):
            assert two.worker != one.worker
            assert two.read(1) == ["a 1"]
            ask(url, "/burst?b,1")
            assert two.read(1) == ["b 0"]


@pytest.mark.slow
def test_a_worker_that_reads_nothing_delays_nobody_is_reported_and_catches_up(command: Command, tmp_path: Path) -> None:
    running, url = start(command, tmp_path, "--workers", "2", history=3)
    with listeners(url) as (one, two):
        suspend(two.worker)
        names: list[str] = []
        try:
            while not said(running, f"Worker {two.worker} is not reading its events"):
                names.append(f"big{len(names)}")
                assert len(names) < 200, "nothing is reported"
                ask(url, f"/burst?{names[-1]},1,300000")
                assert one.read(1)[0].startswith(f"{names[-1]} 0 x")
        finally:
            os.kill(two.worker, signal.SIGCONT)
        ask(url, "/burst?end,1")
        seen = [two.read(1)[0].split()[0]]
        while seen[-1] != "end":
            seen.append(two.read(1)[0].split()[0])
        assert seen[-3:-1] == names[-2:], "of the history"
        assert len(seen) == len({*seen}), "some came twice"
        assert running.output.count("is not reading its events") == 1


def said(running: Running, text: str) -> bool:
    """Whether a server has said something already."""
    while not running.lines.empty():
        running.read_lines.append(running.lines.get() or "")
    return text in running.output


def test_who_publishes_does_not_wait_for_the_parent(command: Command, tmp_path: Path) -> None:
    """Nor lose its events: more than a socket holds."""
    running, url = start(command, tmp_path, "--workers", "2")
    with listeners(url) as (one, two):
        suspend(running.pid)
        try:
            ask(url, "/burst?a,20,100000")
        finally:
            running.send_signal(signal.SIGCONT)
        for each in (one, two):
            assert [text.split()[1] for text in each.read(20)] == [str(number) for number in range(20)]
