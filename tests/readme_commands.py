"""Run the commands of README.md as printed, in a fresh clone with a fresh HOME: `python3 -m tests.readme_commands`.

It uses the standard library only, so it runs before anything is installed. The commands are

1. the lines of the blocks marked `sh`, in their order; a line or code within a sentence that begins with `. ` stays in effect
   for those below it,
2. the dialogues in blocks marked `console`, whose output is compared,
3. code within sentences that begins with `make`, `microwsgi` or `python`. `microwsgi COMMAND` and `python -m MODULE` without
   arguments are names: their --help must work. Code with a word in capital letters has a placeholder: it is not run.

A command that ends must end with exit code 0. One that says where it serves is asked for that page and interrupted; if it
has gone to the background by then, `microwsgi stop` ends it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 900.0
"""Seconds for a command that ends; the first installs packages."""
STOPPING = 20.0
"""Seconds for a server to end after Ctrl-C."""
DETACHING = 0.5
"""Seconds for a command to return to the shell after it has said where it serves."""
URL = re.compile(r"\s*(https?://(?:127\.0\.0\.1|localhost):\d+\S*)")
"""How the line of a server begins that says where it serves."""
KEPT = re.compile(r"PATH|LANG|PIP_.*|.*_(?:proxy|PROXY)|SSL_CERT_.*|REQUESTS_CA_BUNDLE")
"""Variables that stay: how the network is reached, and nothing that a developer's shell has set."""
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}[A-Z-]*\b(?!=)")


class Dialogue(NamedTuple):
    """A command of a `console` block and the output that the README shows."""

    command: str
    output: str


class Commands(NamedTuple):
    """All commands of a page."""

    blocks: list[str]
    dialogues: list[list[Dialogue]]
    inline: list[str]


def without_comment(line: str) -> str:
    """The command of a line, without the explanation behind it."""
    return re.sub(r"\s+# .*", "", line).strip()


def commands(text: str) -> Commands:
    """Extract the commands of a page."""
    found = Commands([], [], [])
    parts = re.split(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for sentences, kind, content in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
        for span in [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", sentences)]:
            if span.startswith(". "):
                found.blocks.append(span)
            elif (command := inline_command(span)) and command not in found.inline:
                found.inline.append(command)
        if kind == "sh":
            found.blocks.extend(line for line in map(without_comment, content.splitlines()) if line)
        elif kind == "console":
            steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", content, re.MULTILINE)
            found.dialogues.append([Dialogue(*step) for step in steps])
    return found


def inline_command(span: str) -> str:
    """Return the command to run for code within a sentence; "" for other code."""
    words = span.split()
    if PLACEHOLDER.search(span):
        return ""
    if re.fullmatch(r"microwsgi [a-z]+|python3? -m \S+", span):
        return f"{span} --help"
    return span if len(words) > 1 and words[0] in {"make", "microwsgi", "python", "python3"} else ""


class Failed(Exception):
    """A command of the README does not work."""


class Process:
    """A command in a shell; its lines can be waited for."""

    def __init__(self, script: str, folder: Path, variables: dict[str, str], stderr: int = subprocess.STDOUT) -> None:
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script], cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.queue: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line)
                self.queue.put(line)
        self.queue.put(None)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def url(self) -> str | None:
        """Where it serves; None if it ended without a word of that."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                line = self.queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise Failed(f"still runs after {LIMIT:.0f} s") from None
            if line is None:
                return None
            if found := URL.match(line):
                return found[1].rstrip("/.,")

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None if it still runs."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.reader.join(1)  # a process in the background may keep the pipe
        return code

    def interrupt(self) -> None:
        """Send what Ctrl-C sends, to all processes of the command, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        if self.wait(STOPPING) is None:
            raise Failed(f"still runs {STOPPING:.0f} s after Ctrl-C")
        if "Traceback" in self.output:
            raise Failed("ended with a traceback")

    def end(self) -> None:
        """Make sure that nothing of it runs on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(1)


class Runner:
    """Runs the commands one after another; `failures` names those that did not work."""

    def __init__(self, clone: Path, home: Path) -> None:
        self.clone = clone
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        self.variables = {"LANG": "C.UTF-8", **kept, "HOME": str(home)}
        self.sourced: list[str] = []
        self.failures: list[str] = []

    def script(self, command: str) -> str:
        return "\n".join([*self.sourced, command])

    @contextlib.contextmanager
    def reporting(self, command: str, stderr: int = subprocess.STDOUT) -> Iterator[Process]:
        """Start a command; say how it ended, and with its output if it failed."""
        start = time.monotonic()
        process = Process(self.script(command), self.clone, self.variables, stderr)
        try:
            yield process
        except (Failed, OSError) as error:
            self.failures.append(command)
            say(f"$ {command}\n{process.output}FAILED: {error}")
        else:
            say(f"$ {command}    # ok, {time.monotonic() - start:.1f} s")
        finally:
            process.end()

    def run(self, command: str) -> None:
        """Run a command to its end, or if it is a server until it has served."""
        if command.startswith(". "):
            self.sourced.append(command)
        with self.reporting(command) as process:
            url = process.url()
            if url is None or process.wait(DETACHING) is not None:
                code = process.wait(LIMIT)
                if code != 0:
                    raise Failed(f"exit code {code}")
                if "--daemon" in command:
                    fetch(url)
                    subprocess.run(
                        ["/bin/bash", "-c", self.script("microwsgi stop")],
                        cwd=self.clone,
                        env=self.variables,
                        check=True,
                    )
                return
            fetch(url)
            process.interrupt()

    def converse(self, dialogue: list[Dialogue]) -> None:
        """Run the commands of a dialogue: servers run until its end; the output of others is compared."""
        with contextlib.ExitStack() as stack:
            for command, expected in dialogue:
                errors = subprocess.DEVNULL if expected else subprocess.STDOUT
                process = stack.enter_context(self.reporting(command, errors))
                url = None if expected else process.url()
                if url is not None:
                    stack.callback(process.interrupt)
                elif process.wait(LIMIT) != 0 or not process.output.endswith(expected):
                    raise Failed(f"the README shows {expected!r}")


def fetch(url: str | None) -> None:
    """Get the page of a server; any answer will do that is not an error of the server."""
    if url is None:
        raise Failed("did not say where it serves")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        secure = context if url.startswith("https") else None
        with urlopen(url, timeout=STOPPING, context=secure) as response:  # noqa: S310 - http or https
            response.read()
    except HTTPError as error:
        error.close()  # it is the response, too; else its socket is open until the exception is collected as garbage
        if error.code >= 500:
            raise Failed(f"{url} answered {error.code}") from None


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run all commands; 1 if one does not work."""
    readme = (ROOT / "README.md").read_text()
    found = commands(readme)
    hello = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder, "microwsgi"), Path(folder, "home")
        home.mkdir()
        subprocess.run([shutil.which("git") or "git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone / "hello.py").write_text(hello)
        runner = Runner(clone, home)
        for command in found.blocks:
            runner.run(command)
        for dialogue in found.dialogues:
            runner.converse(dialogue)
        for command in found.inline:
            runner.run(command)
    if runner.failures:
        say(f"Commands of README.md that do not work: {', '.join(runner.failures)}")
    return 1 if runner.failures else 0


if __name__ == "__main__":
    sys.exit(main())
