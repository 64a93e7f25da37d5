"""A service in the background under mixed load, reloads and killed workers: no request fails but those of the killed.

The first half has reloads and kills, the second half only load. Ten seconds of it run with all tests, half an hour with
`make soak`.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.background import Machine, eventually
from tests.running import LIMIT

Figure = Callable[[str, str, str], None]

APPLICATION = """
    import os, time

    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/wait":
            time.sleep(0.02)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Worker", str(os.getpid()))])
        if environ["PATH_INFO"] == "/stream":
            return (b"x" * 1000 for _ in range(50))
        return [body or b"hello"]
    """
CLIENTS, RATE = 4, 50
"""Clients, and the requests per second of each: 200 in all."""
FLAT = (
    ("memory", "KiB of memory", 2048),
    ("parent", "descriptors of the parent", 0),
    ("workers", "descriptors of a worker", 2),
    ("threads", "threads of a worker", 3),
)
"""What does not grow in the second half: of the first third of it to the last one; and by how much it may waver."""
CHURN = 12
"""Reloads in the first half of ten seconds; in more time more, up to one in 10 s. Each third is followed by a kill."""


class Client(threading.Thread):
    """Requests of all kinds, on connections that last and on new ones; what failed, and on which worker."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__()
        self.port = port
        self.random = random.Random(seed)
        self.answered = 0
        self.failures: list[tuple[str, float, str]] = []
        self.done = threading.Event()
        self.connection: HTTPConnection | None = None
        self.worker = ""  # that has answered last on this connection

    def run(self) -> None:
        due = time.monotonic()
        while not self.done.is_set():
            try:
                self.ask()
                self.answered += 1
            except (OSError, HTTPException) as error:
                self.failures.append((self.worker, time.monotonic(), repr(error)))
                self.leave()
            due = max(due + 1 / RATE, time.monotonic() - 1)
            self.done.wait(max(0.0, due - time.monotonic()))
        self.leave()

    def ask(self) -> None:
        if self.connection is None:
            self.connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
            self.connection.auto_open = 0  # a connection that was closed is to be seen
            self.connection.connect()
        kind = self.random.choice(["/", "/", "/wait", "/stream", "/post"])
        if kind == "/post":
            body = b"b" * self.random.choice([1, 1000, 100_000])
            self.connection.request("POST", kind, body)
        else:
            body = b"x" * 50_000 if kind == "/stream" else b"hello"
            self.connection.request("GET", kind)
        response = self.connection.getresponse()
        found = response.read()
        self.worker = response.headers["Worker"]
        if response.status != 200 or found != body:
            raise HTTPException(f"{response.status}, {len(found)} bytes")
        if response.will_close or self.random.random() < 0.2:  # a worker that retires says so in its last response
            self.leave()

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection, self.worker = None, ""


class Sample:
    """What the service holds: KiB of memory, descriptors, threads; the parent's, and a worker's on average."""

    def __init__(self, machine: Machine) -> None:
        (state,) = machine.states()
        pids = [int(worker["pid"]) for worker in state["workers"]]  # type: ignore[attr-defined]
        self.memory = int(str(state["memory"])) / 1024
        self.parent = descriptors(int(str(state["pid"])))
        self.workers = statistics.mean(descriptors(pid) for pid in pids)
        self.threads = statistics.mean(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
        self.requests = int(str(state["requests"]))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.write("load.py", APPLICATION)
    yield machine
    machine.end()


def churn(machine: Machine, seconds: float) -> tuple[list[int], list[float], int]:
    """Reload, and kill workers, for so long: who was killed, when, and how many reloads there were."""
    killed, times, reloads = [], [], 0
    pause = min(seconds / CHURN, 10)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        machine("restart", "--graceful")
        reloads += 1
        if reloads % 3 == 0:
            serving = [worker for worker in workers(machine) if worker["state"] == "serving"]
            victim = int(str(serving[0]["pid"]))
            times.append(time.monotonic())
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            # The next reload is not to meet a service that is one short.
            eventually(lambda: sum(worker["state"] == "serving" for worker in workers(machine)) == 2)
        time.sleep(max(0.0, pause - (time.monotonic() - begin)))  # the pace, not a wait for something
    return killed, times, reloads


def workers(machine: Machine) -> list[dict[str, object]]:
    (state,) = machine.states()
    found: list[dict[str, object]] = state["workers"]  # type: ignore[assignment]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "minutes", [pytest.param(1 / 6, id="10s"), pytest.param(30, marks=pytest.mark.soak, id="30min")]
)
def test_nothing_fails_and_nothing_grows(machine: Machine, minutes: float, figure: Figure) -> None:
    port = machine.start("--workers", "2", "--access-log", "off", app="load:app")
    clients = [Client(port, seed) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        killed, times, reloads = churn(machine, minutes * 30)
        samples = []
        end = time.monotonic() + minutes * 30
        while time.monotonic() < end:
            samples.append(Sample(machine))
            time.sleep(minutes * 30 / 20)  # the pace
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join(LIMIT)
    failures = [failure for client in clients for failure in client.failures]
    # On a connection that the killed worker had, or on a new one that it may have accepted.
    meant = [
        failure
        for failure in failures
        if failure[0] in map(str, killed) or (not failure[0] and any(0 <= failure[1] - when < 1 for when in times))
    ]
    answered = sum(client.answered for client in clients)
    assert [failure for failure in failures if failure not in meant] == []
    assert killed
    assert reloads >= 3
    assert answered > minutes * 60 * RATE * CLIENTS / 4  # a machine that others use, too, may be slow, not idle
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    for name, what, slack in FLAT:
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (first, last))
        bar = before * (1.1 if name == "memory" else 1) + slack
        figure(f"service, {minutes:.2g} min: {what}", f"{before:.0f}, then {after:.0f}", f"{bar:.0f} at most")
        assert after <= bar, what
    figure(f"service, {minutes:.2g} min: requests, reloads, kills", f"{answered}, {reloads}, {len(killed)}", "")
    figure(f"service, {minutes:.2g} min: failed", f"{len(failures)}, of killed workers {len(meant)}", "no others")
