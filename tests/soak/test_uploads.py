"""Slow and stuck uploads, with a full disk for temporary files, beside requests of other clients: those notice nothing."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from microwsgi.options import Options
from tests.programs import absent, need
from tests.running import LIMIT, Running, microwsgi
from tests.server.exchange import receive

pytestmark = pytest.mark.soak

Figure = Callable[[str, str, str], None]

SLOW, STUCK = 40, 3000
OTHERS = 6
"""Threads that run no requests: the main one, the watchdog, the log's, one that polls."""
ROUNDS = 100
KINDS = {"GET": 0, "POST of 10 KB": 10_000, "POST of 100 KB": 100_000}
LONG = {"POST of 3 MB": 3_000_000}
"""Measured where the disk is not full: it is received into a file, since the slow clients have all permits."""
APPLICATION = """
def app(environ, start_response):
    count = 0
    while data := environ["wsgi.input"].read(65536):
        count += len(data)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(count).encode()]
"""
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%b\r\n"


@contextmanager
def serving(folder: Path, *, full: bool) -> Iterator[tuple[Running, int]]:
    """The command with a folder for temporary files; a full one is a file system in a mount namespace of its own."""
    (folder / "upload.py").write_text(APPLICATION)
    temporary = folder / "temporary"
    temporary.mkdir()
    command = microwsgi("serve", "upload:app", "-p", "0", "--access-log", "off")
    if full:
        script = 'mount -t tmpfs -o size=8m tmpfs "$TMPDIR"; exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", *command]
    running = Running(command, folder, TMPDIR=str(temporary), MICROWSGI_BODY_TIMEOUT="600")
    try:
        port = int(running.url().rpartition(":")[2])
        if full:
            fill(port, Path("/proc", str(running.pid), "root", *temporary.parts[1:]))
        yield running, port
    finally:
        running.end()


def fill(port: int, temporary: Path) -> None:
    """Fill the file system once the server has chosen it: the tempfile module would not choose one that is full."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (2_000_000, b"x" * 2_000_000))
        assert receive(client).endswith(b"2000000")
    with (temporary / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def seconds(port: int, size: int) -> float:
    """How long a request on a new connection takes."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
        if size:
            client.sendall(HEAD % (size, b"Connection: close\r\n") + b"x" * size)
        else:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = receive(client)
    assert data.startswith(b"HTTP/1.1 200 "), data[:200]
    assert data.endswith(b"\r\n\r\n%d" % size)
    return time.perf_counter() - start


def measure(port: int, kinds: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Median and maximum in milliseconds for each kind; the kinds take turns."""
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, size in kinds.items():
            found[kind].append(seconds(port, size) * 1000)
    return {kind: (statistics.median(times), max(times)) for kind, times in found.items()}


@contextmanager
def uploads(port: int) -> Iterator[None]:
    """Clients that send 600 bytes a second, and others that send nothing after 1,000 bytes; long and short bodies in turn."""
    over = threading.Event()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT)) for _ in range(SLOW + STUCK)
        ]
        for number, client in enumerate(clients):
            client.sendall(HEAD % (1_000_000 if number % 2 else 50_000_000, b"") + b"x" * 1000)

        def drip() -> None:
            while not over.wait(1.0):
                for client in clients[:SLOW]:
                    client.send(b"x" * 600)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status."""
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize("full", [True, False], ids=["the disk is full", "there is room"])
def test_slow_and_stuck_uploads_change_nothing_for_the_others(full: bool, tmp_path: Path, figure: Figure) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < SLOW + STUCK + 500:
        absent("descriptors", f"a process may have {hard} descriptors here, which is not enough")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if full and (os.getuid() or subprocess.run([need("unshare"), "-m", "true"], check=False).returncode):
        absent("unshare", "a mount namespace can't be made here")
    kinds = KINDS if full else KINDS | LONG
    with serving(tmp_path, full=full) as (running, port):
        measure(port, kinds)  # its threads are there
        alone, threads, memory = measure(port, kinds), status(running.pid, "Threads"), status(running.pid, "VmRSS")
        with uploads(port):
            seconds(port, 0)  # their heads have been read
            if full:  # one that has to go to the disk is refused, and ends nobody else
                with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
                    client.sendall(HEAD % (3_000_000, b"") + b"x" * 2_000_000)
                    assert client.recv(100).startswith(b"HTTP/1.1 507 ")
            beside = measure(port, kinds)
            threads_beside, memory_beside = status(running.pid, "Threads"), status(running.pid, "VmRSS")
    where = "full disk" if full else "room on the disk"
    for kind in kinds:
        (median, worst), (median_beside, worst_beside) = alone[kind], beside[kind]
        figure(
            f"{kind} beside {SLOW} slow and {STUCK:,} stuck uploads, {where}: median, worst",
            f"{median_beside:.2f}, {worst_beside:.1f} ms; alone {median:.2f}, {worst:.1f}",
            "median at most twice, worst at most 20 ms more",
        )
    each = (memory_beside - memory) / (SLOW + STUCK)
    figure(f"memory for each of these uploads, {where}", f"{each:.1f} KiB", "less than 16 KiB")
    figure(
        f"threads, {where}", f"{threads}, and {threads_beside} beside the uploads", "no more than --threads and a few"
    )
    for kind in kinds:
        assert beside[kind][0] <= 2 * alone[kind][0], kind
        if kind in KINDS:  # the worst of long bodies has the kernel's 200 ms, after which it probes a full window again
            assert beside[kind][1] <= alone[kind][1] + 20, kind
    assert each < 16
    assert threads_beside <= Options().threads + OTHERS
