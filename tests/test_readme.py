"""README.md and docs/http-server.md: their applications and programs run, and their links have a target."""

from __future__ import annotations

import ast
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.background import free_port
from tests.running import LIMIT, ROOT, Running, python
from tests.tables import Rows

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
HELLO, SERVE, APP = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROGRAMS = (ROOT / "docs" / "http-server.md").read_text()
SERVER, ADAPTER, THREADING = re.findall(r"```python\n(.*?)```", PROGRAMS, re.DOTALL)[:3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application as the README has it."""
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


def get(url: str) -> bytes:
    with urlopen(url) as response:  # noqa: S310 - ours
        body: bytes = response.read()
    return body


def wait_until_open(port: int, server: Running) -> None:
    """Neither program says that it listens: try to connect, while it runs, for so long."""
    end = time.monotonic() + LIMIT
    while server.process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    server.end()
    raise AssertionError(f"nothing listens at port {port}; it said:\n{server.output}")


def test_the_frames_are_those_of_a_running_request(folder: Path, command: Callable[..., Running]) -> None:
    (block,) = re.findall(r"```\n(Thread\._bootstrap .*?)```", README, re.DOTALL)
    spy = "    frame, found = __import__('sys')._getframe(), []\n"
    spy += "    while frame:\n        found[:0] = [(frame.f_code.co_qualname, frame.f_code.co_filename)]\n"
    spy += "        frame = frame.f_back\n    start_response('200 OK', [])\n    return [repr(found).encode()]\n"
    (folder / "hello.py").write_text(HELLO.replace("    request = Request(environ)\n", spy, 1))
    found = ast.literal_eval(get(command("serve", "hello:app", "--port", "0", cwd=folder).url()).decode())
    shown = [line.split() for line in block.splitlines()]
    assert [name for name, _ in found] == [name for name, _ in shown]
    assert all(file.endswith(end) for (_, file), (_, end) in zip(found, shown, strict=True))


def test_the_application_has_seven_lines() -> None:
    assert len(HELLO.splitlines()) == 7


def test_the_application_passes_check(folder: Path, command: Callable[..., Running]) -> None:
    running = command("check", "hello:app", cwd=folder)
    assert running.wait(60) == 0, running.output


def test_the_application_answers_as_it_says(command: Callable[..., Running], folder: Path) -> None:
    shown = re.search(r"\$ curl http://127.0.0.1:8000(\S+)\n(.*\n)", README)
    assert shown
    assert get(command("serve", "hello:app", "--port", "0", cwd=folder).url() + shown[1]) == shown[2].encode()


def test_the_app_escapes(command: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    url = command("serve", "hello:app", "--port", "0", cwd=tmp_path).url()
    assert get(f"{url}/hello/%3Cb%3E") == b"<p>Hello, &lt;b&gt;!"


@pytest.mark.parametrize(
    "program", [SERVE, SERVER, ADAPTER, THREADING], ids=["serve", "server", "adapter", "threading"]
)
def test_the_programs_serve_it(program: str, folder: Path) -> None:
    """As they are, but on another port."""
    port = free_port()
    assert program.count("8000") == 1
    (folder / "program.py").write_text(program.replace("8000", str(port)))
    server = Running(python("program.py"), cwd=folder)
    try:
        wait_until_open(port, server)
        assert get(f"http://127.0.0.1:{port}/") == b"Hello, 127.0.0.1!\n"
        if program in {SERVE, SERVER}:
            assert server.stop(signal.SIGINT) == 0
            assert str(port) in server.output, "the address is printed"
            assert "Traceback" not in server.output
    finally:
        server.end()


def test_links_lead_somewhere() -> None:
    with Rows() as rows:
        for page in PAGES:
            with rows(page.name):
                links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
                assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_text_names_the_machine_it_was_written_on() -> None:
    with Rows() as rows:
        for page in PAGES:
            with rows(page.name):
                assert not re.search(r"/(root|work)/", page.read_text())


def test_each_page_is_in_the_list_of_the_site() -> None:
    """Sphinx warns of others, and `make docs` fails then."""
    listed = set((ROOT / "docs" / "index.md").read_text().split())
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in PAGES[2:]}
    assert pages - {"index"} - listed == set()
