"""Systems without epoll, kqueue, poll, fork, fcntl, resource, sendfile, pread and Unix sockets, like Windows.

`tests/server/lacking.py` takes these away in a process of its own; the server then polls with select().
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from microwsgi.server.poller import SELECT_LIMIT, SelectorPoller
from tests.running import ROOT, environment
from tests.running import Running as Command
from tests.server.exchange import GET, TIME, Recorder, Running, hello, parse, receive, receive_until
from tests.server.test_wire_cases import ALL, check
from tests.tables import Rows

LACKING = [sys.executable, "-m", "tests.server.lacking"]


def select_poller() -> SelectorPoller:
    """What such a system has."""
    return SelectorPoller(selectors.SelectSelector())


@pytest.mark.slow
def test_every_wire_case_has_the_same_outcome_with_select() -> None:
    with Rows() as rows:
        for options in {str(case.options): case.options for case in ALL}.values():
            seen = Recorder()
            with Running(seen, arguments={"poller": select_poller}, **options) as running:
                for case in ALL:
                    if case.options == options:
                        with rows(case.name), running.connect() as connection:
                            seen.requests.clear()
                            with contextlib.suppress(OSError):
                                connection.sendall(case.data)
                                connection.shutdown(socket.SHUT_WR)
                            responses = parse(receive(connection), [request["method"] for request in case.requests])
                            (requests,) = [*seen.requests.values()] or [[]]
                            check(case, responses, requests)


@pytest.mark.skipif(SELECT_LIMIT > 2000, reason="select() has no such limit here")
def test_with_select_no_connection_has_a_descriptor_that_it_can_not_watch() -> None:
    """More connections than select() can watch: the idle ones are closed, and each new one is served."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1400:
        pytest.skip("the process may not have so many files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        running = stack.enter_context(Running(hello, arguments={"poller": select_poller}))
        files: list[int] = []
        clients = []
        while not files or files[-1] < SELECT_LIMIT - 8:  # the limit comes near without a thousand connections
            files.append(os.open(os.devnull, os.O_RDONLY))
            stack.callback(os.close, files[-1])
        for _ in range(12):
            client = stack.enter_context(socket.create_connection(running.address, TIME))
            client.sendall(GET)
            assert receive_until(client).endswith(b"hello")
            clients.append(client)
        log = running.errors.text.getvalue()
    assert f"The connection limit is reached: {SELECT_LIMIT} (the limit of select())" in log


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        (["status"], "does not support", 2),
        (["stop"], "does not support", 2),
        (["restart"], "does not support", 2),
        (["logs"], "does not support", 2),
        (["serve", "apps.hello:app", "--daemon", "-p", "0"], "--daemon is not available on this system", 2),
        (["serve", "apps.hello:app", "--workers", "2", "-p", "0"], "are not available on this system", 2),
        (["serve", "apps.hello:app", "--reload", "-p", "0"], "are not available on this system", 2),
        (["serve", "apps.hello:app", "--bind", "unix:/tmp/none"], "no Unix sockets", 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_such_a_system_does_not_have_is_refused_in_a_sentence(command: list[str], words: str, code: int) -> None:
    done = subprocess.run(
        [*LACKING, "microwsgi", *command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_applications_and_static_files_are_served_there(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2000
    (tmp_path / "file.bin").write_bytes(content)
    command = Command([*LACKING, "microwsgi", "serve", str(tmp_path), "-p", "0"])
    try:
        client = HTTPConnection("127.0.0.1", int(command.url().rpartition(":")[2]), timeout=TIME)
        for fields, status, body in (({}, 200, content), ({"Range": "bytes=1000-200000"}, 206, content[1000:200001])):
            client.request("GET", "/file.bin", headers=fields)
            response = client.getresponse()
            assert (response.status, response.read()) == (status, body)
        client.close()
    finally:
        command.process.terminate()
        command.process.wait(TIME)
