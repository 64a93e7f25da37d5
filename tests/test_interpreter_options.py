"""Every command under -O, -OO, -X dev, -W error and -P: the same exit codes, no traceback, no warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.background import Machine, fetch
from tests.running import LIMIT, ROOT, Running, environment
from tests.tables import Rows

OPTIONS = {
    "-O": ["-O"],
    "-OO -P": ["-OO", "-P"],
    # WebOb 1.8 imports cgi, which Python 3.11 and 3.12 deprecate.
    "-X dev -W error": ["-X", "dev", "-W", "error", "-W", "ignore:'cgi' is deprecated:DeprecationWarning"],
}
APPLICATION = "apps.hello:app"
COMMANDS = {
    ("--version",): 0,
    ("--help",): 0,
    ("stack", APPLICATION, "/hello/a"): 0,
    ("certs",): 0,
    ("eject", APPLICATION): 0,
    ("check", APPLICATION): 0,
    ("routes", APPLICATION): 0,
    ("unit", APPLICATION): 0,
    ("completion", "bash"): 0,
    ("status",): 3,
    ("stop",): 0,
    ("restart",): 7,
    ("logs",): 1,
}
"""Commands that end by themselves, and their exit codes where no server runs in the background."""
WRONG = ("Traceback", "Warning:", "ResourceWarning")


@pytest.mark.slow
def test_commands_that_end_by_themselves(tmp_path: Path) -> None:
    folders = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    with Rows() as rows:
        for number, (name, options) in enumerate(OPTIONS.items()):
            folder = tmp_path / str(number)  # `eject` writes into it
            folder.mkdir()
            for words, code in COMMANDS.items():
                with rows(f"{name}: {' '.join(words)}"):
                    done = subprocess.run(
                        [sys.executable, *options, "-m", "microwsgi", *words],
                        env=environment(**folders),
                        cwd=folder,
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                    )
                    text = done.stdout + done.stderr
                    assert done.returncode == code, text
                    assert not any(word in text for word in WRONG), text


@pytest.mark.slow
def test_commands_that_serve() -> None:
    with Rows() as rows:
        for name, options in OPTIONS.items():
            for words in (("serve",), ("dev",), ("serve", "--workers", "2"), ("serve", "--tls")):
                with rows(f"{name}: {' '.join(words)}"):
                    command = [
                        sys.executable,
                        *options,
                        "-m",
                        "microwsgi",
                        words[0],
                        APPLICATION,
                        "-p",
                        "0",
                        *words[1:],
                    ]
                    running = Running(command)
                    try:
                        port = int(running.url(3 * LIMIT).rpartition(":")[2])
                        if "--tls" not in words:
                            assert "Say hello" in fetch(port)
                        assert running.stop() in {0, 130}, running.output
                        assert not any(word in running.output for word in WRONG), running.output
                    finally:
                        running.end()


@pytest.mark.slow
def test_a_server_in_the_background(tmp_path: Path) -> None:
    with Rows() as rows:
        for number, (name, options) in enumerate(OPTIONS.items()):
            with rows(name):
                folder = tmp_path / str(number)
                folder.mkdir()
                machine = Machine(folder, [sys.executable, *options, "-m", "microwsgi"])
                try:
                    port = machine.start(PYTHONPATH=f"{ROOT}:{folder}")
                    assert fetch(port)
                    text = "".join(
                        machine(word, PYTHONPATH=f"{ROOT}:{folder}") for word in ("status", "restart", "logs", "stop")
                    )
                    assert not any(word in text + machine.log() for word in WRONG), text
                finally:
                    machine.end()
