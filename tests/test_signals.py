"""INT and TERM: what runs may finish, a second one ends it at once, and nothing swallows them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from textwrap import dedent

import pytest

from tests.background import ended
from tests.programs import absent, need
from tests.running import LIMIT, Running, environment, microwsgi

Command = Callable[..., Running]
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])

# `began` and `go` are files: the tests wait for the one, the application for the other.
GATED = """
    import os, time
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/gate":
            open("began", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
        elif environ["PATH_INFO"] == "/greedy":
            open("began", "w").close()
            while True:
                try:
                    time.sleep(0.005)
                except BaseException:
                    pass
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gated.py").write_text(dedent(GATED))
    return tmp_path


class Client(threading.Thread):
    """A request in flight, and what came of it."""

    def __init__(self, url: str, path: str, folder: Path) -> None:
        super().__init__()
        self.connection = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
        self.path = path
        self.answer = b""
        self.start()
        wait_for(folder / "began")

    def run(self) -> None:
        try:
            self.connection.request("GET", self.path)
            self.answer = self.connection.getresponse().read()
        except (RemoteDisconnected, ConnectionResetError):
            self.answer = b"cut off"
        finally:
            self.connection.close()


def wait_for(path: Path) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.002)


def accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@BOTH
def test_an_idle_server_stops_at_once_and_says_what_there_was(command: Command, folder: Path, number: int) -> None:
    running = command("serve", "gated", "-p", "0", cwd=folder)
    url = running.url()
    idle = HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
    idle.request("GET", "/")
    idle.getresponse().read()
    with socket.create_connection((idle.host, idle.port)) as half_sent:
        half_sent.sendall(b"GET / HT")
        start = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - start < 2
    assert running.read_lines[-1] == "Stopped. 1 request, 0 errors, up 0 s."
    idle.close()


@BOTH
def test_what_runs_may_finish_while_nobody_else_gets_in(command: Command, folder: Path, number: int) -> None:
    running = command("serve", "gated", "-p", "0", cwd=folder)
    url = running.url()
    client = Client(url, "/gate", folder)
    running.send_signal(number)
    said = running.line("Stopping")
    assert re.fullmatch(r"Stopping; waiting for 1 request \(GET /gate, \d\.\d s\)\. Ctrl-C again to stop now\.", said)
    end = time.monotonic() + LIMIT
    while accepts(client.connection.host, client.connection.port):
        assert time.monotonic() < end, "connections are still accepted"
    (folder / "go").touch()
    client.join(LIMIT)
    assert client.answer == b"done"
    assert running.wait() == 0
    assert running.read_lines[-1].startswith("Stopped. 1 request, 0 errors")


@pytest.mark.parametrize("path", ["/gate", "/greedy"])
@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)]
)
def test_a_second_signal_ends_it_at_once(command: Command, folder: Path, numbers: tuple[int, int], path: str) -> None:
    running = command("serve", "gated", "-p", "0", "--graceful-timeout", "60", cwd=folder)
    client = Client(running.url(), path, folder)
    running.send_signal(numbers[0])
    running.line("Stopping")
    start = time.monotonic()
    assert running.stop(numbers[1]) == 0
    assert time.monotonic() - start < 2
    assert running.read_lines[-1] == "Stopped immediately."
    client.join(LIMIT)
    assert client.answer == b"cut off"


def test_the_grace_time_ends(command: Command, folder: Path) -> None:
    running = command("serve", "gated", "-p", "0", "--graceful-timeout", "0.2", cwd=folder)
    client = Client(running.url(), "/gate", folder)
    start = time.monotonic()
    assert running.stop(signal.SIGTERM) == 0
    assert 0.2 <= time.monotonic() - start < 2
    client.join(LIMIT)
    assert client.answer == b"cut off"


def test_a_signal_while_the_application_is_imported_ends_it(command: Command, folder: Path) -> None:
    (folder / "slow.py").write_text("import time\nopen('began', 'w').close()\ntime.sleep(60)\n")
    running = command("serve", "slow", "-b", f"unix:{folder}/s", cwd=folder)
    wait_for(folder / "began")
    assert running.stop(signal.SIGTERM) == 0
    assert running.read_lines == ["Stopped immediately."]
    assert not (folder / "s").exists()


@BOTH
def test_a_signal_at_any_moment_of_the_start_is_heard(command: Command, folder: Path, number: int) -> None:
    for moment in range(6):
        running = command("serve", "gated", "-p", "0", cwd=folder)
        running.line("microwsgi")
        time.sleep(moment / 1000)  # no waiting for something: the moments between banner and first poll
        assert running.stop(number) == 0


def test_int_is_heard_in_the_background_of_a_script_too(command: Command, folder: Path) -> None:
    script = f"{sys.executable} -m microwsgi serve gated -p 0 & echo pid $!; wait $!; echo code $?"
    running = Running(["sh", "-c", script], cwd=folder)
    try:
        pid = int(running.line("pid").split()[1])
        running.line("Ctrl-C stops")
        os.kill(pid, signal.SIGINT)
        assert running.line("code") == "code 0"
    finally:
        running.end()


def test_threads_that_the_application_left_do_not_keep_it_after_another_signal(command: Command, folder: Path) -> None:
    (folder / "left.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n" + dedent(GATED)
    )
    running = command("serve", "left", "-p", "0", cwd=folder)
    running.line("Ctrl-C stops")
    running.send_signal(signal.SIGTERM)
    running.line("Stopped")
    end = time.monotonic() + LIMIT
    while running.process.poll() is None and time.monotonic() < end:
        running.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert running.wait() == 0


def test_usr1_opens_the_access_log_anew(command: Command, folder: Path) -> None:
    logs = folder / "logs"
    logs.mkdir()
    running = command("serve", "gated", "-p", "0", "--access-log", "logs/log", cwd=folder)
    running.url()
    running.line("Ctrl-C")
    (logs / "log").rename(logs / "log.1")
    running.send_signal(signal.SIGUSR1)
    wait_for(logs / "log")
    logs.rename(folder / "moved")
    running.send_signal(signal.SIGUSR1)
    running.line("can't be reopened: No such file or directory. The server continues with the old file")
    assert running.stop() == 0


def test_usr2_says_the_state_as_json(command: Command, folder: Path) -> None:
    running = command("serve", "gated", "-p", "0", cwd=folder)
    url = running.url()
    running.line("Ctrl-C")
    client = Client(url, "/gate", folder)
    running.send_signal(signal.SIGUSR2)
    state = json.loads(running.line("pid"))
    assert (state["pid"], state["urls"], state["requests"], state["running"]) == (running.pid, [f"{url}/"], 1, 1)
    (folder / "go").touch()
    client.join(LIMIT)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "a parent"])
def test_quit_says_what_runs_and_where(command: Command, folder: Path, options: tuple[str, ...]) -> None:
    running = command("serve", "gated", "-p", "0", *options, cwd=folder)
    url = running.url()
    running.line("Ctrl-C")
    running.send_signal(signal.SIGQUIT)
    running.line(r"^0 requests in flight\.$")
    client = Client(url, "/gate", folder)
    running.send_signal(signal.SIGQUIT)
    running.line("1 request in flight:")
    assert re.fullmatch(r"GET /gate, for \S+ (µs|ms|s), 0 B sent", running.line("GET"))
    assert re.search(r'gated\.py", line \d+, in app', running.line())
    lines = {"time.sleep(0.005)", 'while not os.path.exists("go"):', 'open("began", "w").close()'}
    assert running.line().strip() in lines
    (folder / "go").touch()
    client.join(LIMIT)
    assert running.stop() == 0


def test_hup_says_what_new_code_takes(command: Command, folder: Path) -> None:
    running = command("serve", "gated", "-p", "0", cwd=folder)
    running.line("Ctrl-C")
    running.send_signal(signal.SIGHUP)
    running.line("Start it with --workers 1")
    assert running.stop() == 0


@pytest.mark.parametrize("options", [(), ("--workers", "1")], ids=["one process", "a parent"])
def test_a_terminal_that_is_closed_stops_it(folder: Path, options: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    command = microwsgi("serve", "gated", "-p", "0", *options)
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    with ended(process):
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(ours, 4096)
        os.close(ours)
        process.send_signal(signal.SIGHUP)  # what the shell does, or the kernel for its terminal's session
        assert process.wait(LIMIT) == 0


@pytest.fixture
def process_1(folder: Path) -> Iterator[Running]:
    """The command as process 1 of a PID namespace."""
    unshare = [need("unshare"), "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        absent("namespaces", "this user may not make a PID namespace")
    running = Running([*unshare, *microwsgi("serve", "gated", "-p", "0")], cwd=folder)
    yield running
    running.end()


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@BOTH
def test_process_1_of_a_container_hears_them(process_1: Running, folder: Path, number: int) -> None:
    url = process_1.url()
    client = Client(url, "/gate", folder)
    server = child_of(process_1.pid)
    os.kill(server, number)
    process_1.line("Stopping")
    (folder / "go").touch()
    client.join(LIMIT)
    assert client.answer == b"done"
    assert process_1.wait() == 0
    assert process_1.read_lines[-1].startswith("Stopped. 1 request")


COUNTED = """
from microwsgi import App

app, told = App(), [b"one", b"two", b"three"]


@app.get("/broken")
def broken(request):
    raise ValueError("the bug")


@app.get("/stream")
def stream(request):
    def parts():
        wake = request.environ["microwsgi.resume"]
        for part in told:
            wake(after=0.001)
            yield b""
            yield part
    return parts()
"""


def test_what_goes_on_is_one_request_and_what_an_app_answers_500_is_an_error(command: Command, folder: Path) -> None:
    (folder / "counted.py").write_text(COUNTED)
    running = command("serve", "counted", "-p", "0", cwd=folder)
    connection = HTTPConnection(running.url().removeprefix("http://"), timeout=LIMIT)
    for path, status, body in (("/stream", 200, b"onetwothree"), ("/broken", 500, None), ("/nothing", 404, None)):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, body) or (body is None and response.status == status)
    connection.close()
    assert running.stop(signal.SIGTERM) == 0
    assert running.read_lines[-1].startswith("Stopped. 3 requests, 1 error,")
