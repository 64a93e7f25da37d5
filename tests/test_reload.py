"""Files that are edited, broken, mended, renamed, deleted and touched while requests come: none fails, none gets a mixture."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from textwrap import dedent

import pytest

from tests.running import LIMIT, Running

Command = Callable[..., Running]

NAMES = ("ape", "bee", "cat")
APPLICATION = """
    import ape, bee, cat

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{ape.VALUE} {bee.VALUE} {cat.VALUE}".encode()]
    """


class Tree:
    """Three modules on disk; `states` has all that an application may have read there, as it answers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.values = dict.fromkeys(NAMES, 1000)
        self.broken: set[str] = set()
        self.next = 1001
        self.states = {self.state()}
        (folder / "zoo.py").write_text(dedent(APPLICATION))
        for name in NAMES:
            self.path(name).write_text(self.text(name))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.py"

    def text(self, name: str) -> str:
        return f"VALUE = {self.values[name]}\n"

    def state(self) -> str:
        """What the application answers now; "" if it can't be imported."""
        return "" if self.broken else " ".join(str(self.values[name]) for name in NAMES)

    def step(self) -> str:
        """Do something to a file; what it was."""
        name = self.random.choice(sorted(self.broken) if self.broken and self.random.random() < 0.6 else NAMES)
        deed = self.random.choice([self.edit, self.replace, self.spoil, self.delete, self.move, self.touch, self.age])
        deed(name)
        if state := self.state():
            self.states.add(state)
        return f"{deed.__name__} {name}"

    def renew(self, name: str) -> str:
        """A new value, of the same size as the old, and the text with it."""
        self.values[name], self.next = self.next, self.next + 1
        self.broken.discard(name)
        if state := self.state():
            self.states.add(state)  # before it is on disk, and may be served
        return self.text(name)

    def edit(self, name: str) -> None:
        """As a simple editor saves."""
        self.path(name).write_text(self.renew(name))

    def replace(self, name: str) -> None:
        """As a careful editor saves."""
        beside = self.folder / f".{name}.new"
        beside.write_text(self.renew(name))
        beside.replace(self.path(name))

    def spoil(self, name: str) -> None:
        """Of a syntax error, an exception and a module that isn't there, one."""
        self.broken.add(name)
        self.path(name).write_text(self.random.choice(["VALUE = = 1\n", "1 / 0\n", "import nowhere\n"]))

    def delete(self, name: str) -> None:
        """Away, and perhaps back at once."""
        self.path(name).unlink(missing_ok=True)
        self.broken.add(name)
        if self.random.random() < 0.5:
            self.edit(name)

    def move(self, name: str) -> None:
        """As an editor that keeps a backup saves."""
        if self.path(name).exists():
            self.path(name).rename(self.folder / f"{name}.py~")
        self.edit(name)

    def touch(self, name: str) -> None:
        """No change at all."""
        if self.path(name).exists():
            self.path(name).touch()

    def age(self, name: str) -> None:
        """As git checks an old version out: older than what was there."""
        self.edit(name)
        os.utime(self.path(name), (1_000_000_000, 1_000_000_000))


class Load:
    """Requests without end: each on a connection of its own, all on one, and on connections that were open beforehand."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.address = host, int(port)
        self.answers: set[str] = set()
        self.failures: list[str] = []
        self.requests = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(way,)) for way in (self.new, self.same, self.waiting)]
        for thread in self.threads:
            thread.start()

    def run(self, way: Callable[[], Generator[str, None, None]]) -> None:
        try:
            with closing(way()) as answers:
                for answer in answers:
                    self.requests += 1
                    self.answers.add(answer)
                    if self.over.wait(0.002):
                        return
        except (OSError, HTTPException, ValueError) as error:
            self.failures.append(f"{way.__name__}: {error!r}")

    def ask(self, connection: HTTPConnection) -> str:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise ValueError(f"{response.status} {body}")
        return body

    def new(self) -> Generator[str, None, None]:
        while True:
            yield self.answer()

    def same(self) -> Generator[str, None, None]:
        """No retry: a connection may only end after a response that says so."""
        with closing(HTTPConnection(*self.address, timeout=LIMIT)) as connection:
            while True:
                yield self.ask(connection)

    def waiting(self) -> Generator[str, None, None]:
        """As browsers do: connected in advance, used later; some with a head that is half sent."""
        while True:
            with closing(HTTPConnection(*self.address, timeout=LIMIT)) as connection:
                connection.sock = socket.create_connection(self.address, timeout=LIMIT)
                connection.sock.sendall(random.choice([b"", b"\r\n"]))
                self.over.wait(0.02)
                yield self.ask(connection)

    def answer(self) -> str:
        """Of one more request."""
        with closing(HTTPConnection(*self.address, timeout=LIMIT)) as connection:
            return self.ask(connection)

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(LIMIT)


def edit_under_load(command: Command, folder: Path, steps: int, seed: int, *options: str) -> None:
    tree = Tree(folder, seed)
    running = command("serve", "zoo", "-p", "0", "--reload", *options, "--access-log", "off", cwd=folder)
    load = Load(running.url())
    done = []
    try:
        for _ in range(steps):
            done.append(tree.step())
            if tree.state() and tree.random.random() < 0.7:
                end = time.monotonic() + LIMIT
                while load.answer() != tree.state():
                    assert time.monotonic() < end, f"not served: {tree.state()} after {done[-5:]}"
            else:
                time.sleep(
                    tree.random.random() * 0.03
                )  # no waiting for something: some changes come before others are served
    finally:
        load.stop()
    assert load.failures == [], running.output
    assert load.answers <= tree.states, "a mixture was served"
    assert load.requests > steps
    assert len(load.answers) > steps / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "options"),
    [(200, ()), (50, ("--workers", "2")), (15, ("--reload-poll",))],
    ids=["one process", "two", "polling"],
)
def test_no_request_fails_while_files_change(
    command: Command, tmp_path: Path, steps: int, options: tuple[str, ...]
) -> None:
    edit_under_load(command, tmp_path, steps, 7, *options)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_no_request_fails_while_files_change_whatever_the_order(command: Command, tmp_path: Path, seed: int) -> None:
    edit_under_load(command, tmp_path, 200, seed)


def replace_under_load(command: Command, folder: Path, times: int, *options: str) -> float:
    """HUP, again and again, while requests come; how many a second."""
    Tree(folder, 1)
    running = command("serve", "zoo", "-p", "0", *options, "--access-log", "off", cwd=folder)
    load = Load(running.url())
    running.line("Ctrl-C stops")
    start = time.monotonic()
    try:
        for _ in range(times):
            running.send_signal(signal.SIGHUP)
            running.line("reloaded; serving zoo:app")
            before = load.requests
            while load.requests < before + 10:
                assert not load.failures
                assert time.monotonic() < start + times * LIMIT
                time.sleep(0.001)
    finally:
        load.stop()
    assert load.failures == [], running.output
    return load.requests / (time.monotonic() - start)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_fails_while_workers_are_replaced(command: Command, tmp_path: Path, workers: str) -> None:
    replace_under_load(command, tmp_path, 20, "--workers", workers)


@pytest.mark.soak
def test_no_request_fails_while_workers_are_replaced_a_hundred_times(command: Command, tmp_path: Path) -> None:
    assert replace_under_load(command, tmp_path, 100, "--workers", "2") > 200, "requests a second"


@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("def app(environ, start_response)\n", "app.py:1: SyntaxError: expected ':'"),
        ("import os\nos._exit(4)\n", "the process that imports the application ended with code 4"),
    ],
    ids=["syntax error", "ended process"],
)
def test_a_load_error_is_served_if_that_is_asked_for(
    broken: str, message: str, option: bool, command: Command, tmp_path: Path
) -> None:
    """By `dev`, as by Flask; with --no-reload-error-page the last good version is served, and the terminal says so."""

    def get(accept: str = "text/plain") -> tuple[int, str]:
        client = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        client.request("GET", "/", headers={"Accept": accept, "Microwsgi-Token": running.token()})
        response = client.getresponse()
        with closing(client):
            return response.status, response.read().decode()

    good = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{}']\n"
    (tmp_path / "app.py").write_text(good.format("first"))
    running = command("dev", *([] if option else ["--no-reload-error-page"]), "-p", "0", cwd=tmp_path)
    port = int(running.url().rpartition(":")[2])
    running.line("Ctrl-C")
    assert get() == (200, "first")
    (tmp_path / "app.py").write_text(broken)
    running.line(f"^microwsgi: {message}")
    if option:
        running.line("Until a saved file fixes this, the error is also shown at http")
    else:
        running.line(r"Changed: app\.py\. The last good version is still being served \(PID \d+\)\.")
        running.line(r"^  Save again to retry\.$")
    end = time.monotonic() + LIMIT
    status, text = get()
    while option and status == 200 and time.monotonic() < end:
        status, text = get()  # until the old process is stopped, either may answer
    assert (status, message in text) == ((500, True) if option else (200, False))
    (tmp_path / "app.py").write_text(good.format("second"))
    running.line("serving app:app")
    assert get() == (200, "second")
