"""What an idle connection with TLS costs a server's process."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.programs import absent
from tests.running import LIMIT, Running
from tests.tls.authority import Authority

WARM, IDLE = 100, 1000
MOST = 20
"""KiB that each may cost. Measured: 15."""


@pytest.fixture
def _descriptors() -> Iterator[None]:
    """Enough for the clients here, and for the server that inherits the limit."""
    need, before = WARM + IDLE + 200, resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and need > before[1]:
        absent("descriptors", f"the system allows only {before[1]} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(need, before[0]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(pid: int) -> int:
    """KiB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.usefixtures("_descriptors")
def test_an_idle_connection_costs_at_most_20_kib(command: Callable[..., Running], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    leaf = authority.leaf("localhost")
    running = command("serve", "apps.echo:app", "--port", "0", "--access-log", "off", "--tls-cert", leaf)
    address = "127.0.0.1", int(running.url().rpartition(":")[2])
    context = authority.client()
    with ExitStack() as stack:

        def idle() -> None:
            plain = stack.enter_context(socket.create_connection(address, LIMIT))
            client = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

        for _ in range(WARM):
            idle()
        before = resident(running.pid)
        for _ in range(IDLE):
            idle()
        each = (resident(running.pid) - before) / IDLE
    assert 1 < each <= MOST, f"{each:.1f} KiB"
    assert running.stop() == 0
