"""Broadcasters of several servers, by way of a real Redis, which is stopped, started and suspended."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.background import suspend
from tests.programs import need
from tests.running import LIMIT, Running, python
from tests.test_events_of_workers import APPLICATION, Listener, ask, listeners

pytest.importorskip("redis")
Command = Callable[..., Running]


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Running]:
    """A Redis on a Unix socket, which keeps nothing on disk."""
    where = ("--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", str(folder))
    running = Running([need("redis-server"), *where, "--save", "", "--appendonly", "no"])
    try:
        running.line("[Rr]eady to accept connections")
        yield running
    finally:
        running.send_signal(signal.SIGCONT)
        running.end()


@pytest.fixture
def server(command: Command, tmp_path: Path) -> Callable[..., Running]:
    """Starts a server that uses that Redis."""
    (tmp_path / "streams.py").write_text(APPLICATION.replace("HISTORY", "100"))
    url = f"unix://{tmp_path}/redis.sock"

    def start(*options: str) -> Running:
        arguments = ("serve", "streams:app", "-p", "0", "--access-log", "off", *options)
        return command(*arguments, cwd=tmp_path, EVENTS_REDIS_URL=url)

    return start


def test_all_servers_have_the_same_events_in_one_order(server: Callable[..., Running], tmp_path: Path) -> None:
    # A busy machine must not look like a Redis that does not answer: without Redis each server has its own order.
    patient = "import microwsgi.framework.redis_events as limits\nlimits.WRITE_TIME = limits.READ_TIME = 60\n"
    (tmp_path / "streams.py").write_text(patient + (tmp_path / "streams.py").read_text())
    with redis(tmp_path):
        servers = server("--workers", "2"), server()
        one, two = (each.url() for each in servers)
        with listeners(one) as (a, b), listeners(two, count=1) as (c,):
            for number in range(10):
                ask(one, f"/burst?one{number},3")
                ask(two, f"/burst?two{number},3")
            found = a.read(60)
            assert b.read(60) == c.read(60) == found
            assert a.ids == b.ids == c.ids
            late = server().url()  # a host that is started now has the history, too
            for url in (one, two, late):
                again = Listener(url, a.ids[49])
                assert again.read(10) == found[50:]
                again.close()
        for each in servers:
            each.stop(signal.SIGTERM)
            assert "Redis" not in each.output


@pytest.mark.slow
@pytest.mark.parametrize("how", ["suspended", "stopped"])
def test_a_redis_that_does_not_answer_delays_nobody(how: str, server: Callable[..., Running], tmp_path: Path) -> None:
    """It is reported; the events reach the other hosts later, and nobody twice."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(redis(tmp_path))
        servers = server("--workers", "2"), server()
        one, two = (each.url() for each in servers)
        a, b = stack.enter_context(listeners(one))
        (c,) = stack.enter_context(listeners(two, count=1))
        ask(one, "/burst?before,1")
        assert a.read(1) == b.read(1) == c.read(1) == ["before 0"]
        if how == "suspended":
            suspend(first.pid)
        else:
            first.end()
        began = time.monotonic()
        ask(one, "/burst?during,20")
        expected = [f"during {number}" for number in range(20)]
        assert a.read(20) == b.read(20) == expected
        servers[0].line("Redis does not answer")
        ask(one, "/burst?later,1")
        assert a.read(1) == b.read(1) == ["later 0"]
        assert time.monotonic() - began < LIMIT
        if how == "suspended":
            first.send_signal(signal.SIGCONT)
        else:
            stack.enter_context(redis(tmp_path))
        found = c.read(21)  # another worker has published the last one, perhaps: the order is that of each publisher
        assert [each for each in found if each != "later 0"] == expected
        servers[0].line("Redis answers")
        # Both servers use Redis alone again once nothing waits: this event comes once, by one way or the other.
        ask(two, "/burst?after,1")
        assert a.read(1) == b.read(1) == c.read(1) == ["after 0"]


@pytest.mark.slow
def test_a_redis_that_is_not_there_at_the_start_delays_nobody(server: Callable[..., Running], tmp_path: Path) -> None:
    running = server("--workers", "2")
    url = running.url()
    with listeners(url) as (a, b):
        ask(url, "/burst?x,2")
        assert a.read(2) == b.read(2) == ["x 0", "x 1"]
        running.line("Redis does not answer")
        with redis(tmp_path):
            running.line("Redis answers")
            late = server().url()
            with listeners(late, "unknown", count=1) as (c,):
                assert c.read(2) == ["x 0", "x 1"]


@pytest.mark.slow
def test_gunicorn_takes_part(server: Callable[..., Running], tmp_path: Path) -> None:
    """With the application loaded before the fork: the workers have threads and ids of their own."""
    pytest.importorskip("gunicorn")
    with redis(tmp_path):
        one = server("--workers", "2").url()
        words = (
            "-m",
            "gunicorn",
            "--workers",
            "2",
            "--worker-class",
            "gthread",
            "--threads",
            "99",
            "--preload",
        )
        settings = {"EVENTS_REDIS_URL": f"unix://{tmp_path}/redis.sock", "HOME": str(tmp_path)}
        other = Running(python(*words, "--bind", "127.0.0.1:0", "streams:app"), tmp_path, **settings)
        try:
            two = other.url()
            with listeners(one) as (a, b), listeners(two) as (c, d):
                for url in (one, two) * 5:
                    ask(url, "/burst?x,4")
                found = a.read(40)
                assert [each.read(40) for each in (b, c, d)] == [found] * 3
                assert len({*a.ids}) == 40
        finally:
            other.end()
