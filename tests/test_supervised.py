"""`--reload` and `--workers`: a parent that never imports the application, and children that are replaced unnoticed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from textwrap import dedent

import pytest

from tests.running import LIMIT, Running

Command = Callable[..., Running]

APPLICATION = """
    import os
    import helper

    open("imports", "a").write(f"{os.getpid()}\\n")

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/gate":
            import time
            open("began", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{helper.VALUE} {os.getpid()}".encode()]
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(dedent(APPLICATION))
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    return tmp_path


def fetch(url: str, path: str = "/") -> tuple[int, str]:
    """Status and body of a request on a connection of its own."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def value(url: str) -> str:
    """What the helper holds, in the process that answers."""
    return fetch(url)[1].split()[0]


def eventually(expected: object, look: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT
    while (found := look()) != expected:
        assert time.monotonic() < end, f"still {found!r}, not {expected!r}"
        time.sleep(0.002)


BOTH = pytest.mark.parametrize("how", [(), ("--reload-poll",)], ids=["inotify", "polling"])


@BOTH
def test_what_is_saved_is_served_and_what_is_broken_is_not(
    command: Command, folder: Path, how: tuple[str, ...]
) -> None:
    running = command("serve", "main", "-p", "0", "--reload", *how, cwd=folder)
    url = running.url()
    running.line("Reloads on save")
    assert value(url) == "1"
    (folder / "helper.py").write_text("VALUE = 2\n")
    running.line(r"changed: helper\.py; serving main:app after \d+ ms")
    eventually("2", lambda: value(url))
    (folder / "helper.py").write_text("VALUE = = 3\n")
    running.line(r"helper\.py has a syntax error on line 1")
    running.line(r"\^")
    running.line("The last version that worked goes on serving")
    assert value(url) == "2"
    (folder / "helper.py").write_text("VALUE = 3\n")
    running.line(r"fixed: helper\.py; serving main:app")
    eventually("3", lambda: value(url))
    assert running.stop(signal.SIGINT) == 0
    assert running.said[-1].startswith("Stopped. ")


def test_a_start_with_a_broken_application_shows_why_until_it_is_mended(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("VALUE = = 3\n")
    running = command("dev", "main", "-p", "0", cwd=folder)
    running.line("helper.py has a syntax error")
    url = running.url()
    eventually(500, lambda: fetch(url)[0])
    assert "helper.py has a syntax error on line 1" in fetch(url)[1]
    (folder / "helper.py").write_text("VALUE = 3\n")
    running.line("fixed: helper.py")
    running.line("serving main:app")
    eventually("3", lambda: value(url))


def test_hup_replaces_the_workers_and_a_killed_one_is_replaced(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    url = running.url()
    running.line("2 workers")
    eventually(2, lambda: len({fetch(url)[1].split()[1] for _ in range(30)}))
    before = {fetch(url)[1].split()[1] for _ in range(30)}
    (folder / "helper.py").write_text("VALUE = 2\n")
    assert value(url) == "1"
    running.send_signal(signal.SIGHUP)
    running.line("loaded anew; serving main:app")
    eventually("2", lambda: value(url))
    assert not before & {fetch(url)[1].split()[1] for _ in range(30)}
    victim = int(fetch(url)[1].split()[1])
    os.kill(victim, signal.SIGKILL)
    running.line(rf"Worker {victim} was killed by SIGKILL; another takes its place")
    assert value(url) == "2"
    assert running.stop(signal.SIGTERM) == 0


def test_without_reload_a_broken_application_is_the_end_of_the_start(command: Command, folder: Path) -> None:
    (folder / "helper.py").write_text("1 / 0\n")
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    assert running.wait() == 3
    assert "ZeroDivisionError" in running.output


def test_children_stop_when_their_parent_is_killed(command: Command, folder: Path) -> None:
    running = command("serve", "main", "-p", "0", "--workers", "2", cwd=folder)
    url = running.url()
    pids = [int(fetch(url)[1].split()[1])]
    running.send_signal(signal.SIGKILL)
    eventually([], lambda: [pid for pid in pids if Path(f"/proc/{pid}").exists()])
