"""docs/tutorial.md and docs/migrate.md: every program is written, every command is run, and its output is compared.

In a `console` block a command without output below it is a server: it runs until the block ends. `...` in an output stands for
any text.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.background import free_port
from tests.programs import need
from tests.running import LIMIT, ROOT, Running, environment

COMMAND_LIMIT = 60.0
"""Seconds for a command that ends, on a busy machine."""


class Section(NamedTuple):
    """A section of a page: the files written so far, and dialogues of commands and their outputs."""

    title: str
    files: dict[str, str]
    dialogues: list[list[tuple[str, str]]]
    packages: set[str]
    """Packages that the section needs, and that are not installed for every run of the tests."""


def sections(page: str) -> Iterator[Section]:
    """The sections with a dialogue. A block of Python belongs to the file that the text before it names last."""
    files: dict[str, str] = {}
    for part in (ROOT / "docs" / page).read_text(encoding="utf-8").split("\n## ")[1:]:
        dialogues = []
        for words, kind, content in re.findall(r"(.*?)^```(\w+)\n(.*?)^```", part, re.DOTALL | re.MULTILINE):
            if kind == "python":
                name = re.findall(r"`(\w+\.py)`", words)[-1]
                files[name] = f"{files[name]}\n\n{content}" if f"end of `{name}`" in words else content
            elif kind == "console":
                dialogues.append(re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", content, re.MULTILINE))
            elif kind == "sh":
                dialogues += [[(line, "")] for line in content.splitlines()]
        if dialogues:
            packages = {name for name in ("flask", "django") if name in part}
            yield Section(f"{page}: {part.partition(chr(10))[0]}", dict(files), dialogues, packages)


SECTIONS = [*sections("tutorial.md"), *sections("migrate.md")]


class Terminal:
    """A folder with the files of a section, where commands see a port of their own instead of 8000."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.port = folder, free_port()
        for name, text in files.items():
            (folder / name).write_text(self.here(text), encoding="utf-8")
        for name in ("bin", "run", "state", "home"):
            (folder / name).mkdir(mode=0o700)
        for name, arguments in {"python": "", "microwsgi": " -m microwsgi"}.items():
            path = folder / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
            path.chmod(0o755)
        self.variables = environment(
            MICROWSGI_PORT=str(self.port), HOME=f"{folder}/home", XDG_STATE_HOME=f"{folder}/state",
            XDG_DATA_HOME=f"{folder}/home/data", XDG_RUNTIME_DIR=f"{folder}/run", PYTEST_ADDOPTS="-p no:cacheprovider",
        )  # fmt: skip
        self.variables["PATH"] = f"{folder}/bin:{self.variables['PATH']}"

    def here(self, text: str) -> str:
        """A text of the page, with the port of this terminal."""
        return text.replace("8000", str(self.port))

    def run(self, command: str, expected: str) -> None:
        """Run a command to its end, and compare its output."""
        done = subprocess.run(
            ["/bin/bash", "-c", self.here(command.replace("curl ", "curl -sS "))], check=False, cwd=self.folder,
            env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_LIMIT,
        )  # fmt: skip
        pattern = ".*".join(map(re.escape, self.here(expected).strip().split("...")))
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"$ {command}\n{done.stdout}{done.stderr}"

    @contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """Start a server, and stop it at the end."""
        server = Running(["/bin/bash", "-c", f"exec {command}"], cwd=self.folder, **self.variables)
        try:
            self.wait_until_open(server)
            yield
        finally:
            server.end()

    def wait_until_open(self, server: Running) -> None:
        """Return when something listens at the port: http.server prints nothing to wait for."""
        end = time.monotonic() + 3 * LIMIT
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                if server.process.poll() not in {None, 0}:
                    break
                time.sleep(0.01)
            else:
                return
        server.end()
        raise AssertionError(f"nothing listens at port {self.port}:\n{server.output}")

    def converse(self, dialogue: list[tuple[str, str]]) -> None:
        """Run the commands of a block."""
        (first, output), *rest = dialogue
        if rest:
            assert not output, "the first command is a server"
            with self.serving(first):
                for command, expected in rest:
                    self.run(command, expected)
        else:
            self.run(first, output)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS, ids=[section.title for section in SECTIONS])
def test_a_section_works_as_printed(section: Section, tmp_path: Path) -> None:
    need("curl")
    for package in section.packages:
        pytest.importorskip(package)
    terminal = Terminal(tmp_path, section.files)
    for dialogue in section.dialogues:
        terminal.converse(dialogue)
