"""A program that serves with a system whose calls fail as the files `fault-NAME` say, as long as they are there.

A file has the name of an error, and perhaps how often it comes: `EMFILE`, `EAGAIN 1`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.process.system import System
from microwsgi.serving.supervised import run

PARENT = os.getpid()


def failing(name: str, call: Callable[..., object]) -> Callable[..., object]:
    """The call, or the failure that is asked for."""

    def attempt(*arguments: object) -> object:
        if os.getpid() == PARENT and (fault := read(f"fault-{name}")):
            error, _, count = fault.partition(" ")
            if count:
                put(f"fault-{name}", f"{error} {int(count) - 1}" if int(count) > 1 else "")
            number = getattr(errno, error)
            raise OSError(number, os.strerror(number))
        return call(*arguments)

    return attempt


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def put(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main() -> int:
    system = System()
    for name in dir(System):
        if not name.startswith("_"):
            setattr(system, name, failing(name, getattr(system, name)))
    options = Options(
        port=0,
        workers=2,
        pid_file="x.pid",
        log_file="log",
        access_log="off",
        graceful_timeout=1,
        reload="reload" in sys.argv,
    )
    try:
        run("main:app", options, system=system)
    except UsageError as error:
        sys.stderr.write(f"microwsgi: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
