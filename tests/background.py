"""Start, query and stop the real command in the background, as a person does, in separate folders."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.running import LIMIT, environment, microwsgi

APPLICATION = """
    import os, sys, time

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/gate":
            open("began", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
        if path == "/orphan":
            os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "sleep 0.05 &")
        if path == "/variables":
            start_response("200 OK", [])
            return [" ".join(os.environ).encode()]
        if path == "/fail":
            1 / 0
        try:
            print("asked for", path, file=sys.stderr, flush=True)
        except OSError:
            pass
        os.umask(umask := os.umask(0))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{os.getpid()} {os.getcwd()} {os.getuid()}:{os.getgid()} {umask:o}".encode()]
    """


class Machine:
    """A user's folders, and commands that run in them; servers that still run at the end are killed."""

    def __init__(self, folder: Path, python: list[str] | None = None, **variables: str) -> None:
        self.folder = folder
        self.python = python
        for name in ("run", "state"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        self.variables = {"XDG_RUNTIME_DIR": f"{folder}/run", "XDG_STATE_HOME": f"{folder}/state", **variables}
        self.write("site_a.py", APPLICATION)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(dedent(text))
        return path

    def __call__(self, *arguments: str, code: int = 0, **more: str) -> str:
        """Run a command, check its exit code, and return its output. It must not leave its streams to a background process."""
        done = subprocess.run(
            [*self.python, *arguments] if self.python else microwsgi(*arguments),
            cwd=self.folder,
            env=environment(**self.variables, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        text = done.stdout.decode()
        assert done.returncode == code, f"code {done.returncode}, not {code}; its output:\n{text}"
        return text

    def start(self, *arguments: str, app: str = "site_a:app", code: int = 0, **more: str) -> int:
        """Serve in the background on a free port; return the port."""
        where = () if {"-b", "-p"} & {*arguments} else ("-p", "0")
        output = self("serve", app, "--daemon", *where, *arguments, code=code, **more)
        return int(output.split("http://127.0.0.1:")[1].split("/")[0]) if "http://127" in output else 0

    def states(self, *arguments: str) -> list[dict[str, object]]:
        """Return the states of running servers, by `microwsgi status --json`, whatever its exit code."""
        command = microwsgi("status", "--json", *arguments)
        done = subprocess.run(command, env=environment(**self.variables), capture_output=True, timeout=60, check=False)
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    def pids(self) -> list[int]:
        """Return the pids in the pid files."""
        return [int(path.read_text() or 0) for path in [*self.folder.rglob("*.pid")]]

    def log(self) -> str:
        """Return the logs of all background processes."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("state/microwsgi/*.log")))

    def end(self) -> None:
        """Kill the servers that still run."""
        for state in self.states() if [*self.folder.glob("run/microwsgi/*.pid")] else []:
            kill(int(str(state["pid"])))
        for path in self.folder.glob("*.pid"):
            for state in self.states("--pid-file", str(path)):
                kill(int(str(state["pid"])))


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill the process at the end of the block, so that a failing test does not wait for it."""
    with process:
        try:
            yield
        finally:
            process.kill()


def kill(pid: int) -> None:
    """Kill a server whose lock was just seen; its children end when their parent is dead."""
    if pid:
        os.kill(pid, signal.SIGKILL)


def fetch(port: int, path: str = "/") -> str:
    """Return the body of a response, which must have the status 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, (response.status, text)
        return text
    finally:
        connection.close()


def eventually(look: Callable[[], object], what: str = "") -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + LIMIT
    while not look():
        assert time.monotonic() < end, what or "the condition did not become true"
        time.sleep(0.005)


def suspend(pid: int) -> None:
    """Stop a process with SIGSTOP, and wait until it is stopped.

    On a busy machine its other threads run, and accept connections, until the thread that got the signal has run.
    """
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: states_of_threads(pid) == {"T"}, f"{pid} is not stopped")


def states_of_threads(pid: int) -> set[str]:
    """Return the states of a process's threads: T is stopped (proc(5))."""
    return {path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}


def gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return " Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def free_port() -> int:
    """Return a free port below the range from which the system assigns ports (port 0).

    Other tests run at the same time, and a port that a closed socket has left could be given to one of them.
    """
    for port in random.sample(range(10_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("100 ports are in use")
