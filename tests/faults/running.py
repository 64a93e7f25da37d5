"""A server for tests of faults: start it in one of four modes, send requests, stop it, and check that it has ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.running import environment, microwsgi

LIMIT = 20.0
"""The time limit of each wait, in seconds. It is long because these tests run several servers at once."""
MODES: dict[str, tuple[str, ...]] = {
    "serve": ("serve", "main:app"),
    "dev": ("dev", "main:app"),
    "workers": ("serve", "main:app", "--workers", "2"),
    "daemon": ("serve", "main:app", "--daemon", "--pid-file", "x.pid", "--log-file", "log"),
}
Row = TypeVar("Row")
AT_ONCE = 3
"""The number of servers that run at the same time."""


def wait_until(look: Callable[[], object], limit: float = LIMIT) -> bool:
    """Wait for a condition; return whether it became true within the limit."""
    end = time.monotonic() + limit
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Server:
    """A running command in its own folder, with a file for its output."""

    def __init__(self, folder: Path, mode: str, *options: str, command: list[str] | None = None) -> None:
        self.folder = folder
        self.mode = mode
        self.pid = 0
        self.port = 0
        self.out = folder / ("log" if mode == "daemon" else "out")
        where = () if command else ("-p", "0", "--access-log", "access", *options)
        with (folder / "out").open("ab") as out:
            self.process = subprocess.Popen(
                command or microwsgi(*MODES[mode], *where),
                cwd=folder,
                env=environment(XDG_RUNTIME_DIR=str(folder), XDG_STATE_HOME=str(folder), XDG_DATA_HOME=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def output(self) -> str:
        texts = [
            path.read_text(errors="replace") for path in (self.folder / "out", self.folder / "log") if path.exists()
        ]
        return "".join(texts)

    def wait_for_output(self, having: str, limit: float = LIMIT) -> bool:
        return wait_until(lambda: re.search(having, self.output()), limit)

    def starts(self) -> bool:
        """Wait for the start; return whether the server has printed its address and runs."""
        wait_until(lambda: "Ctrl-C stops" in self.output() or "in the background, as" in self.output() or self.ended())
        found = re.search(r"https?://127\.0\.0\.1:(\d+)/", self.output())
        self.port = int(found[1]) if found else 0
        self.pid = self.process.pid
        if self.mode == "daemon" and (self.folder / "x.pid").exists():
            self.pid = int((self.folder / "x.pid").read_text() or 0)
        return bool(self.port) and (self.mode == "daemon" or not self.ended())

    def ended(self) -> bool:
        return self.process.poll() is not None

    def get(self, path: str = "/", limit: float = LIMIT) -> bytes:
        """Return the body of a response with 200, else the status or the error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error).encode()
        finally:
            connection.close()
        return body if response.status == 200 else f"{response.status}".encode()

    def send(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def runs(self) -> bool:
        """Return whether the server's main process runs."""
        if self.mode != "daemon":
            return not self.ended()
        try:
            return " Z" not in Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2][:3]
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Stop the server. Return the fault in its end; "" if there is none."""
        self.send(number)
        if not wait_until(lambda: not self.runs()):
            return f"it still runs {LIMIT:g} s after signal {number}"
        if self.mode != "daemon" and self.process.returncode:
            return f"it ended with code {self.process.returncode}"
        return "" if wait_until(self.port_is_free, 3.0) else "the port is not free"

    def port_is_free(self) -> bool:
        with socket.socket() as probe:
            return not self.port or probe.connect_ex(("127.0.0.1", self.port)) != 0

    def processes(self) -> list[int]:
        """Return the pids of the server, its workers, and the children of the application."""
        # The sessions of this test. `pid` is 0 before the start, and session 0 has processes of the whole machine.
        sessions = {pid for pid in (self.process.pid, self.pid) if pid > 1}
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) in sessions and fields[0] != "Z" and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill all processes that still run."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        self.process.wait()


def ask_state(server: Server, limit: float = LIMIT) -> dict[str, object]:
    """Return the answer of the control socket; {} if there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(limit)
        try:
            client.connect(str(server.folder / "x.sock"))
            client.sendall(b"state\n")
            received = b""
            while data := client.recv(65536):
                received += data
            return dict(json.loads(received or b"{}"))
        except OSError:
            return {}


def pids(server: Server) -> list[int]:
    workers = ask_state(server).get("workers", ())
    return [int(worker["pid"]) for worker in workers if worker["state"] == "serving"]  # type: ignore[attr-defined]


def report_all(folder: Path, rows: Mapping[str, Row], check: Callable[[Path, str, Row], str]) -> None:
    """Check all rows, AT_ONCE at a time, each in its own folder, and report all failures.

    The folders have short names: the path of a Unix socket has 107 bytes at most.
    """
    folders = [folder / str(number) for number in range(len(rows))]
    for each in folders:
        each.mkdir()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(check, folders, rows, rows.values())
    faults = [f"{name}: {text}" for name, text in zip(rows, results, strict=True) if text]
    assert not faults, "\n\n".join(faults)
