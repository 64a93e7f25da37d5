"""docs/deploy.md: its commands and its configurations, run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.background import ended, eventually, free_port
from tests.programs import need
from tests.proxies import listens, nginx, open_folder
from tests.running import LIMIT, ROOT, Running, environment, microwsgi, python

PAGE = (ROOT / "docs" / "deploy.md").read_text()
Command = Callable[..., Running]


def block(language: str, number: int = 0) -> str:
    """A block of the page."""
    found: str = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]
    return found


def words(command: str) -> list[str]:
    """The words of a command; `microwsgi` is this checkout."""
    first, *rest = shlex.split(command)
    return microwsgi(*rest) if first == "microwsgi" else [first, *rest]


def get(port: int, path: str = "/", host: str = "hello.example") -> tuple[int, str]:
    """Status and text of a response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT, source_address=("127.0.0.9", 0))
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_on_a_laptop(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(block("python"))
    command = words(block("sh", 0))
    assert command == microwsgi("dev", "hello:app")
    running = Running([*command, "-p", "0"], cwd=tmp_path)
    try:
        port = int(running.url().rpartition(":")[2])
        assert running.token()
        assert get(port, host="localhost") == (200, "http://localhost for 127.0.0.9\n")
    finally:
        running.end()


@pytest.mark.slow
def test_the_unit_behind_nginx_with_this_configuration() -> None:
    """The manager is this test: it makes the folders, sets the variables and starts the command of the unit."""
    analyze = need("systemd-analyze")
    need("nginx")
    curl = need("curl")
    printing, verifying, copying, enabling = block("sh", 2).splitlines()
    command, target = printing.split(" > ")
    with open_folder() as folder:
        (folder / "hello.py").write_text(block("python"))
        unit = subprocess.run(
            words(command), cwd=folder, env=environment(), capture_output=True, text=True, check=True
        ).stdout
        (folder / target).write_text(unit)
        assert verifying.startswith("systemd-analyze ")
        verified = subprocess.run(
            [analyze, *verifying.split()[1:]], cwd=folder, capture_output=True, text=True, check=True
        )
        assert verified.stderr == ""
        assert copying.split()[1:3] == ["cp", target]
        assert enabling == f"sudo systemctl enable --now {target.removesuffix('.service')}"
        for line in ("RuntimeDirectory=microwsgi/%N hello", "SupplementaryGroups=www-data", "StateDirectory=%N"):
            assert line in unit.splitlines()
        run, state = folder / "run", folder / "state"
        for each in (run, state):
            each.mkdir()
        (start,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
        arguments = [word.replace("/run/hello", str(run)) for word in shlex.split(start)]
        log = folder / "requests.log"
        more = {"RUNTIME_DIRECTORY": str(run), "HOME": str(state), "NOTIFY_SOCKET": str(run / "notify")}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(run / "notify"))
            manager.settimeout(LIMIT)
            process = subprocess.Popen(
                [*arguments, "--access-log", str(log), "--log-format", "json"], cwd=state, env=environment(**more)
            )
            with ended(process):
                while b"READY=1" not in manager.recv(4096):
                    pass
                port = free_port()
                site = block("nginx").replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/run/hello", str(run))
                with nginx(folder, port, "127.0.0.1:1", site):
                    assert get(port) == (200, "http://hello.example for 127.0.0.9\n")
                    request = block("sh", 3).splitlines()[-1]
                    assert request.split()[0] == "curl"
                    (answer,) = re.findall("^Load it.* The answer is `(.*)`:$", PAGE, re.MULTILINE)
                    asked = shlex.split(request.replace("127.0.0.1/", f"127.0.0.1:{port}/"))
                    asked[0] = curl
                    said = subprocess.run(
                        [*asked, "--silent"], env=environment(), capture_output=True, text=True, check=True
                    )
                    assert said.stdout == f"{answer}\n"
                    assert get(port, host="other.example")[0] == 421, "nginx has one site, and passes on any name"
                eventually(lambda: log.read_text().count("127.0.0.9") == 2)
                assert json.loads(log.read_text().splitlines()[0])["client"] == "127.0.0.9"
                process.send_signal(signal.SIGTERM)
                assert process.wait(LIMIT) == 0


@pytest.mark.slow
def test_in_a_container(tmp_path: Path) -> None:
    """The command of the image, as process 1 of its own namespace."""
    unshare = need("unshare")
    if os.geteuid() != 0:
        pytest.skip("only root can make a namespace of processes")
    (tmp_path / "hello.py").write_text(block("python"))
    (line,) = re.findall(r"^CMD (\[.*\])$", block("dockerfile"), re.MULTILINE)
    first, *rest = json.loads(line)
    assert first == "microwsgi"
    port = free_port()
    changed = [{"/srv": str(tmp_path), "0.0.0.0": "127.0.0.1", "8000": str(port)}.get(word, word) for word in rest]
    command = [unshare, "--pid", "--fork", "--kill-child=TERM", "--mount-proc", *python("-m", "microwsgi", *changed)]
    running = Running(command, cwd=tmp_path)
    try:
        running.line("2 workers")
        eventually(lambda: listens(port))
        assert get(port, host="localhost") == (200, "http://localhost for 127.0.0.9\n")
    finally:
        running.end()
