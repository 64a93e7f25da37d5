"""Into the background, and where a background process has its files.

`launch` starts the same command once more, in a session of its own, and waits until that says on a pipe that it serves, or why
it does not: the exit code is the truth. It is another process and not a fork: nothing that this one has opened, started or
locked is in it, and macOS allows it.

What PEP 3143 lists is done so: a session without a terminal (setsid; no file is ever opened so that it could become one), the
working folder kept unless --chdir says otherwise, a umask, all other descriptors closed (they end with exec), and the three
standard streams elsewhere. The library of that name was not taken: a failure after its fork ends with code 0, and its pid
file outlives a kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from select import select

from microwsgi.daemon.background import UMASK, VARIABLE, log_path
from microwsgi.errors import ServiceError, UsageError
from microwsgi.options import Options
from microwsgi.support.typenames import Any

START_TIME = 90.0
"""Seconds for the application to be imported, as systemd's TimeoutStartSec."""
END_TIME = 5.0
"""Seconds for a process to end that has been told to, or whose end of the pipe is closed."""
TAIL = 2000
"""Bytes of the log that are shown when there is no better reason."""


def launch(options: Options) -> int:
    """Start this command in the background, and say what has become of it: 0 only if it serves. Raises UsageError."""
    path = log_path(options)
    try:
        log = open(path, "ab", opener=opener)  # closed below
        begin = log.seek(0, os.SEEK_END) if log.seekable() else 0
    except OSError as error:
        raise UsageError(f"--log-file {path} can't be written: {error.strerror}.") from None
    reader, writer = os.pipe()
    try:
        with log:
            process = subprocess.Popen(  # this very command
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(writer, *given_descriptors(options)),
                env={**os.environ, VARIABLE: str(writer)},
                umask=int(options.umask, 8) if options.umask else UMASK,
            )
        os.close(writer)
        message = wait_for_message(reader, process)
    finally:
        os.close(reader)
    if message is None:
        code = process.wait()
        raise ServiceError(
            f"the server ended with exit code {code} before it was ready.{tail(path, begin)}\n  Log:  {path}"
        )
    if "error" in message:
        process.wait()
        print(f"microwsgi: {message['error']}\n  Log:  {path}", file=sys.stderr)
        return int(str(message["code"]))
    process.returncode = 0  # it is init's child soon: nobody here waits for it
    print_addresses(message, path)
    return 0


def opener(path: str, flags: int) -> int:
    """Opens the log: readable for its group, and never as this session's terminal."""
    return os.open(path, flags | os.O_NOCTTY, 0o640)


def given_descriptors(options: Options) -> list[int]:
    """The sockets that --bind fd://N names: the only others that are passed on."""
    numbers = [address.removeprefix("fd://") for address in options.addresses if address.startswith("fd://")]
    return [int(text) for text in numbers if text.isdigit()]


def wait_for_message(reader: int, process: subprocess.Popen[bytes]) -> dict[str, object] | None:
    """What the background process says; None if it ended without a word. Raises UsageError if it takes too long."""
    try:
        received = receive(reader)
    except BaseException:  # Ctrl-C, too
        process.terminate()
        try:
            process.wait(END_TIME)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    message: dict[str, Any] | None = json.loads(received) if received else None
    return message


def receive(reader: int) -> bytes:
    """A line from the pipe, or nothing at its end. Raises UsageError."""
    received, end = b"", time.monotonic() + START_TIME
    while not received.endswith(b"\n"):
        if not select([reader], [], [], max(end - time.monotonic(), 0))[0]:
            raise ServiceError(f"the server was not ready within {START_TIME:g} s, and was stopped.")
        data = os.read(reader, 65536)
        if not data:
            return b""
        received += data
    return received


def tail(path: str, begin: int) -> str:
    """What has been written to the log since, the end of it."""
    try:
        with open(path, "rb") as log:
            log.seek(max(begin, os.path.getsize(path) - TAIL))
            text = log.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return f" It said:\n{text}" if text else ""


def print_addresses(message: dict[str, Any], path: str) -> None:
    """Tell the person at the terminal where it is, and how to stop it."""
    lines = [f"microwsgi serves {message['application']} in the background, as process {message['pid']}"]
    lines += [f"  {url}" for url in message["urls"]]
    print("\n".join([*lines, f"  Log:   {path}", f"  Stop:  {message['stop']}"]))
