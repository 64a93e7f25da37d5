"""Start the server in the background.

`launch` runs the same command again, in a new session, and waits until the new process reports on a pipe that it is ready, or
why it failed. So the exit code is reliable. The new process is not a fork: it inherits no threads, locks or open files, and
this also works on macOS.

The requirements of PEP 3143 are met: a session without a terminal (setsid, and the log is opened with O_NOCTTY), the same
working folder unless --chdir is given, a umask, no inherited descriptors (they are closed by exec), and redirected standard
streams. The package python-daemon is not used: a failure after its fork ends with exit code 0, and the pid file of a killed
process prevents the next start.
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
"""Seconds within which the application must be imported: the default of systemd's TimeoutStartSec."""
END_TIME = 5.0
"""Seconds to wait for the process to end after SIGTERM; then it is killed."""
TAIL = 2000
"""Bytes from the end of the log that are shown if the process ended without a report."""


def launch(options: Options) -> int:
    """Start this command in the background. Return its exit code, 0 only if the server is ready.

    Raises UsageError, and ServiceError if the server did not start.
    """
    path = log_path(options)
    try:
        log = open(path, "ab", opener=opener)  # closed below
        begin = log.seek(0, os.SEEK_END) if log.seekable() else 0
    except OSError as error:
        raise UsageError(f"--log-file {path} can't be written: {error.strerror}.") from None
    reader, writer = os.pipe()
    try:
        with log:
            process = subprocess.Popen(  # the same command line
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
    process.returncode = 0  # else Popen would warn that it still runs; init adopts it when this command ends
    print_addresses(message, path)
    return 0


def opener(path: str, flags: int) -> int:
    """Open the log, as the `opener` of open(). Its group can read it, and it never becomes the controlling terminal."""
    return os.open(path, flags | os.O_NOCTTY, 0o640)


def given_descriptors(options: Options) -> list[int]:
    """Return the descriptors of --bind fd://N, which the new process inherits."""
    numbers = [address.removeprefix("fd://") for address in options.addresses if address.startswith("fd://")]
    return [int(text) for text in numbers if text.isdigit()]


def wait_for_message(reader: int, process: subprocess.Popen[bytes]) -> dict[str, object] | None:
    """Return the report of the background process; None if it ended without one. Raises ServiceError after START_TIME."""
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
    """Return a line from the pipe; b"" if the pipe ended before the end of the line. Raises ServiceError."""
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
    """Return the last lines that were written to the log since the start."""
    try:
        with open(path, "rb") as log:
            log.seek(max(begin, os.path.getsize(path) - TAIL))
            text = log.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return f" The end of its log:\n{text}" if text else ""


def print_addresses(message: dict[str, Any], path: str) -> None:
    """Print the addresses of the server, and the command that stops it."""
    lines = [f"microwsgi serves {message['application']} in the background, as process {message['pid']}"]
    lines += [f"  {url}" for url in message["urls"]]
    print("\n".join([*lines, f"  Log:   {path}", f"  Stop:  {message['stop']}"]))
