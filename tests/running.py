"""Run the real command line in another process, and read its output line by line."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 10.0
"""The time limit of each wait, in seconds."""
URL = re.compile(r"https?://[^\s/]+")
STATE = f"{tempfile.gettempdir()}/microwsgi-tests-{os.getuid()}"
"""The folder of the user's state in tests, instead of the real one."""
TOKEN = re.compile(r"\?token=([0-9a-f]{32})")
OURS = re.compile(r"MICROWSGI_.*|PORT|HOST|NO_COLOR|FORCE_COLOR|LISTEN_.*|NOTIFY_SOCKET|SSLKEYLOGFILE|PYTHON.*")
"""Variables that change what the command does. PYTHONUNBUFFERED and PYTHONDONTWRITEBYTECODE would hide faults."""


def environment(**more: str) -> dict[str, str]:
    """The environment of the tests without variables that microwsgi reads, and with the checkout on PYTHONPATH."""
    kept = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}
    return {**kept, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": STATE, **more}


class Running:
    """A started command; `line` and `url` wait for its output, `stop` for its end."""

    def __init__(self, command: list[str], cwd: Path = ROOT, **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that signals for it do not reach the tests
        )
        self.read_lines: list[str] = []
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self) -> None:
        """Read the output: the main function of a thread, because reading a pipe has no time limit."""
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, having: str = "", limit: float = LIMIT) -> str:
        """Return the next line that matches an expression. Raises AssertionError with the output if there is none in time."""
        end = time.monotonic() + limit
        while True:
            try:
                found = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {having!r} in {limit} s; its output:\n{self.output}") from None
            if found is None:
                self.lines.put(None)
                raise AssertionError(f"it ended, with no line with {having!r}; its output:\n{self.output}")
            self.read_lines.append(found)
            if re.search(having, found):
                return found

    def url(self, limit: float = LIMIT) -> str:
        """Wait for the printed URL, and return it without a slash at the end."""
        found = URL.search(self.line(URL.pattern, limit))
        assert found
        return found[0].rstrip("/")

    def token(self) -> str:
        """Return the token of the address that the server has printed in development."""
        found = TOKEN.search(self.output)
        assert found, self.output
        return found[1]

    @property
    def output(self) -> str:
        """All lines that were read so far, as one text."""
        return "\n".join(self.read_lines)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for the end, read the rest of the output, and return the exit code."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still ran after {limit} s; its output:\n{self.output}") from None
        self.drain()
        return code

    def drain(self) -> None:
        """Read the rest of the output of a process that has ended."""
        self.reader.join(LIMIT)
        while not self.lines.empty():
            if (line := self.lines.get()) is not None:
                self.read_lines.append(line)
        self.lines.put(None)

    def stop(self, number: int = signal.SIGINT, limit: float = LIMIT) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.send_signal(number)
        return self.wait(limit)

    def end(self) -> None:
        """Terminate the process if it still runs, and kill it if that has no effect."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.send_signal(number)
                try:
                    self.process.wait(LIMIT)
                except subprocess.TimeoutExpired:
                    continue
        self.drain()


def python(*arguments: str) -> list[str]:
    """Return a command that runs this interpreter."""
    return [sys.executable, *arguments]


def microwsgi(*arguments: str) -> list[str]:
    """Return a command that runs microwsgi with this interpreter."""
    return python("-m", "microwsgi", *arguments)
