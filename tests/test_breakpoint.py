"""`breakpoint()` in a view, at a terminal: one prompt at a time, five frames, and nobody's time runs out."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from textwrap import dedent

import pytest

from tests.running import LIMIT, environment, microwsgi

pty = pytest.importorskip("pty")

VIEW = """
    import time
    def app(environ, start_response):
        name = environ["QUERY_STRING"]
        status = "200 OK"
        if name:
            breakpoint()
            answer = "seen " + name
        else:
            answer = "plain"
        start_response(status, [("Content-Type", "text/plain")])
        return [answer.encode()]

    def deep(environ, start_response):
        return app(environ, start_response)

    def careful(environ, start_response):
        try:
            return app(environ, start_response)
        except Exception:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"caught"]

    def thread(environ, start_response):
        def other():
            breakpoint()
            answers.append("in a thread")
        import threading
        answers = []
        worker = threading.Thread(target=other)
        worker.start()
        worker.join()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(answers).encode()]
    """


class Terminal:
    """A command at a terminal of its own: what it says, and what is typed."""

    def __init__(self, command: list[str], cwd: Path, **variables: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        # With a dumb terminal the line editor writes nothing but what is typed.
        env = environment(**{"TERM": "dumb", "PYTHONBREAKPOINT": "", **variables})
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self.text = ""
        self.seen = 0
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            with self.changed:
                self.text += data.decode(errors="replace").replace("\r", "")
                self.changed.notify_all()

    def until(self, expression: str) -> str:
        """What is said from the last such call on up to a match."""
        pattern = re.compile(expression)
        with self.changed:
            found = self.changed.wait_for(lambda: pattern.search(self.text, self.seen), LIMIT)
            assert found, f"no {expression!r} in:\n{self.text}"
            start, self.seen = self.seen, found.end()
            return self.text[start : self.seen]

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        os.close(self.slave)  # the last one: the reader's read fails
        self.reader.join(LIMIT)
        os.close(self.master)


Start = Callable[..., tuple[Terminal, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serves an application of VIEW; answers the terminal, and host and port."""
    (tmp_path / "view.py").write_text(dedent(VIEW))
    terminals: list[Terminal] = []

    def start(*arguments: str, **variables: str) -> tuple[Terminal, str]:
        terminals.append(Terminal(microwsgi("serve", *arguments, "-p", "0"), tmp_path, **variables))
        found = re.search(r"http://([^/]+)/", terminals[-1].until(r"Ctrl-C stops"))
        assert found
        return terminals[-1], found[1]

    yield start
    for terminal in terminals:
        terminal.end()


class Client(threading.Thread):
    """A request, and what came of it."""

    def __init__(self, where: str, path: str) -> None:
        super().__init__()
        self.connection = HTTPConnection(where, timeout=LIMIT)
        self.path = path
        self.status, self.answer = 0, b""
        self.start()

    def run(self) -> None:
        try:
            self.connection.request("GET", self.path)
            response = self.connection.getresponse()
            self.status, self.answer = response.status, response.read()
        except (RemoteDisconnected, ConnectionResetError):
            pass
        finally:
            self.connection.close()

    def result(self) -> tuple[int, bytes]:
        self.join(LIMIT)
        assert not self.is_alive(), "no answer"
        return self.status, self.answer


def frames(text: str) -> list[tuple[str, str]]:
    """Module and function of the frames that the debugger showed."""
    return re.findall(r"^[> ] .*/(\w+)\.py\(\d+\)(\w+)\(\)", text, re.MULTILINE)


def fetch(where: str, path: str) -> tuple[int, bytes]:
    return Client(where, path).result()


def test_where_shows_the_five_frames_and_the_prompt_is_in_the_view(start: Start) -> None:
    terminal, where = start("view:app")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("where")
    assert frames(terminal.until(r"\(Pdb\) ")) == [
        ("threading", "_bootstrap"),
        ("threading", "_bootstrap_inner"),
        ("pool", "run"),
        ("handler", "handle_one_request"),
        ("view", "app"),
    ]
    terminal.type("name = 'changed'")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert client.result() == (200, b"seen changed")


def test_others_wait_their_turn_and_requests_without_a_breakpoint_do_not(start: Start) -> None:
    terminal, where = start("view:app")
    clients = [Client(where, "/?a")]
    terminal.until(r"\(Pdb\) ")
    clients += [Client(where, f"/?{name}") for name in "bc"]
    assert fetch(where, "/") == (200, b"plain")
    for turn in range(3):
        terminal.type("p 'at', name")
        assert re.search(r"\('at', '[abc]'\)", terminal.until(r"\(Pdb\) "))
        terminal.type("c")
        if turn < 2:
            terminal.until(r"\(Pdb\) ")
    assert sorted(client.result() for client in clients) == [(200, f"seen {name}".encode()) for name in "abc"]
    assert fetch(where, "/") == (200, b"plain")


def test_no_time_limit_runs_out_at_the_prompt(start: Start) -> None:
    terminal, where = start(
        "view:app", "--header-timeout", "0.2", "--keep-alive-timeout", "0.2", MICROWSGI_BODY_TIMEOUT="0.2"
    )
    host, port = where.split(":")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as half_sent:
        half_sent.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.6)  # no waiting for something: three times the limit in which nothing must happen
        half_sent.sendall(b"\r\n")
        assert half_sent.recv(65536).startswith(b"HTTP/1.1 200"), "the limit stood still"
        terminal.type("c")
        assert client.result() == (200, b"seen a")
        half_sent.sendall(b"GET / HTTP/1.1\r\n")
        assert half_sent.recv(65536).startswith(b"HTTP/1.1 408"), "and goes on afterwards"


@pytest.mark.parametrize("application", ["app", "deep", "careful"])
def test_quit_ends_that_request_and_no_other_with_a_short_message(start: Start, application: str) -> None:
    terminal, where = start(f"view:{application}")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("q")
    status, answer = client.result()
    assert (status, answer[:3]) == (500, b"500")
    terminal.until("ended at the debugger's prompt")
    assert fetch(where, "/") == (200, b"plain")
    assert "Traceback" not in terminal.text


def test_stepping_out_of_the_view_ends_the_session(start: Start) -> None:
    terminal, where = start("view:app")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("r")
    assert "--Return--" in terminal.until(r"\(Pdb\) ")
    terminal.type("n")
    assert client.result() == (200, b"seen a")
    again = Client(where, "/?b")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert again.result() == (200, b"seen b")


def test_stepping_into_start_response_is_possible(start: Start) -> None:
    terminal, where = start("view:app")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("until 11")
    terminal.until(r"\(Pdb\) ")
    terminal.type("s")
    assert "start_response()" in terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert client.result() == (200, b"seen a")


def test_a_breakpoint_that_was_set_at_the_prompt_asks_again(start: Start) -> None:
    terminal, where = start("view:app")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.type("b 12")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert "return [answer.encode()]" in terminal.until(r"\(Pdb\) ")
    terminal.type("cl 1")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert client.result() == (200, b"seen a")


def test_a_thread_of_the_application_has_its_prompt_too(start: Start) -> None:
    terminal, where = start("view:thread")
    client = Client(where, "/")
    terminal.until(r"\(Pdb\) ")
    terminal.type("c")
    assert client.result() == (200, b"['in a thread']")


def test_control_c_at_the_prompt_waits_for_the_person_and_a_second_one_does_not(start: Start) -> None:
    terminal, where = start("view:app", "--graceful-timeout", "0.3")
    client = Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("Stopping; waiting for 1 request")
    time.sleep(0.6)  # no waiting for something: twice the grace time, which stands still
    terminal.type("p 'still', 'here'")
    terminal.until(r"\('still', 'here'\)")
    terminal.type("c")
    assert client.result() == (200, b"seen a")
    assert terminal.process.wait(LIMIT) == 0
    terminal.until(r"Stopped\. 1 request")


def test_an_end_at_the_prompt_leaves_the_terminal_as_it_was(start: Start) -> None:
    terminal, where = start("view:app")
    Client(where, "/?a")
    terminal.until(r"\(Pdb\) ")
    for _ in range(2):
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("Stop(ping|ped)")
    assert terminal.process.wait(LIMIT) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_without_a_terminal_the_request_ends_and_the_server_does_not(tmp_path: Path) -> None:
    (tmp_path / "view.py").write_text(dedent(VIEW))
    with subprocess.Popen(
        microwsgi("serve", "view:app", "-p", "0"),
        cwd=tmp_path,
        env=environment(PYTHONBREAKPOINT=""),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = None
        while not found:
            found = re.search(r"http://([^/]+)/", process.stdout.readline())
        assert fetch(found[1], "/?a")[0] == 500
        assert fetch(found[1], "/") == (200, b"plain")
        process.terminate()
        assert "Traceback" not in process.stdout.read()
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize(("chosen", "answer"), [("0", b"seen a"), ("builtins.print", b"seen a")])
def test_another_debugger_that_was_chosen_is_left_alone(start: Start, chosen: str, answer: bytes) -> None:
    _, where = start("view:app", PYTHONBREAKPOINT=chosen)
    assert fetch(where, "/?a") == (200, answer)


def test_pdb_is_imported_with_the_first_breakpoint_only(tmp_path: Path) -> None:
    code = "import sys, microwsgi.serving.serve; print('pdb' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert output == "False\n"


def test_with_the_echo_application_under_a_breakpoint_of_its_own(start: Start, tmp_path: Path) -> None:
    source = (Path(__file__).parent.parent / "apps" / "echo.py").read_text()
    (tmp_path / "echo.py").write_text(
        source.replace('    title, content = "Echo", ""\n', '    title, content = "Echo", ""\n    breakpoint()\n')
    )
    terminal, where = start("echo:app")
    client = Client(where, "/")
    terminal.until(r"\(Pdb\) ")
    terminal.type("where")
    assert frames(terminal.until(r"\(Pdb\) "))[-1] == ("echo", "app")
    assert len(frames(terminal.text)) == 6, "five, and the one with which the prompt began"
    terminal.type("c")
    status, answer = client.result()
    assert status == 200
    assert b"<form" in answer
