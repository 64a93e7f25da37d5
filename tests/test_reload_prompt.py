"""`breakpoint()` under `--reload` and `--workers`: the prompt has the terminal to itself, and nothing is replaced meanwhile."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.running import LIMIT, environment, microwsgi
from tests.test_breakpoint import VIEW, Client, Terminal, fetch

Start = Callable[..., tuple[Terminal, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serves VIEW with these options; answers the terminal, and host and port."""
    (tmp_path / "view.py").write_text(dedent(VIEW))
    terminals: list[Terminal] = []

    def start(*options: str) -> tuple[Terminal, str]:
        terminals.append(Terminal(microwsgi("serve", "view", "-p", "0", "--access-log", "off", *options), tmp_path))
        found = re.search(r"http://([^/]+)/", terminals[-1].until(r"Ctrl-C stops"))
        assert found
        return terminals[-1], found[1]

    yield start
    for terminal in terminals:
        terminal.end()


def processor_seconds(pid: int) -> float:
    """What a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_nothing_is_replaced_while_a_prompt_is_open(start: Start, tmp_path: Path) -> None:
    terminal, where = start("--reload")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    view = tmp_path / "view.py"
    view.write_text(view.read_text().replace('"plain"', '"new"'))
    terminal.type("p 'still', name")
    terminal.until(r"\('still', 'a'\)")
    assert fetch(where, "/") == (200, b"plain"), "new code came while the prompt was open"
    terminal.type("c")
    assert client.result() == (200, b"seen a")
    terminal.until(r"changed: view\.py; serving view:app")
    assert fetch(where, "/") == (200, b"new")


def test_workers_have_the_terminal_in_turn(start: Start) -> None:
    terminal, where = start("--workers", "2")
    clients = [Client(where, f"/?{number}") for number in range(8)]
    for turn in range(8):
        terminal.until(r"\(Pdb\) ")
        terminal.type(f"p 'turn', {turn} + 100")
        terminal.until(rf"\('turn', {turn + 100}\)")
        terminal.type("c")
    assert sorted(client.result() for client in clients) == [(200, f"seen {number}".encode()) for number in range(8)]


def test_control_c_waits_for_the_person_and_a_second_one_leaves_the_terminal_as_it_was(start: Start) -> None:
    terminal, where = start("--reload", "--graceful-timeout", "0.1")
    Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("Stopping; waiting for 1 request")
    before = processor_seconds(terminal.process.pid)
    time.sleep(1.5)  # no waiting for something: more than graceful_timeout and what is added to it
    assert processor_seconds(terminal.process.pid) - before < 0.5, "the parent waits without working"
    terminal.type("p 'still', 'here'")
    terminal.until(r"\('still', 'here'\)")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(LIMIT) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_worker_that_dies_at_the_prompt_gives_the_terminal_back(start: Start) -> None:
    terminal, where = start("--workers", "2")
    Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("import os; print('at', os.getpid())")
    found = re.search(r"at (\d+)\n", terminal.until(r"at \d+\n(.|\n)*\(Pdb\) "))
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    terminal.until("was killed by SIGKILL; a new worker starts")
    assert termios.tcgetattr(terminal.slave) == terminal.before
    again = Client(where, "/?b")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert again.result() == (200, b"seen b")


def test_hup_by_a_terminal_that_is_closed_is_the_end_and_any_other_is_new_code(start: Start, tmp_path: Path) -> None:
    terminal, _ = start("--reload")
    terminal.process.send_signal(signal.SIGHUP)
    terminal.until("reloaded; serving view:app")
    master, slave = pty.openpty()

    def own() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    command = microwsgi("serve", "view", "-p", "0", "--reload")
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=own,  # noqa: PLW1509 - it makes two system calls, and there is no other way to a terminal of its own
    ) as process:
        os.close(slave)
        said = b""
        while b"Ctrl-C stops" not in said:
            said += os.read(master, 65536)
        os.close(master)
        assert process.wait(LIMIT) == 0
