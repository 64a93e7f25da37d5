"""The frames from the socket to the function, as values: who is on the stack, and whose each one is.

A request comes here from the function that wants to see its own stack, and from whoever caught an exception; drawings
are made from what `capture` and `traceback_frames` return.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType
from typing import NamedTuple

STDLIB, SERVER, FRAMEWORK, YOURS = OWNERS = ("stdlib", "server", "framework", "yours")

PACKAGES = {
    "microwsgi": SERVER,
    "microwsgi.framework": FRAMEWORK,
    "microwsgi.devtools": FRAMEWORK,
    "bjoern": SERVER,
    "cheroot": SERVER,
    "granian": SERVER,
    "gunicorn": SERVER,
    "uvicorn": SERVER,
    "waitress": SERVER,
    "werkzeug.serving": SERVER,
    "django.core.servers": SERVER,
}
"""Whose a module is, by its name or the nearest package above it. Any other installed package is a framework."""


class Frame(NamedTuple):
    """One call that has not returned: `line` is where it stands, `owner` one of OWNERS."""

    module: str
    function: str
    file: str
    line: int
    owner: str


def capture(innermost: FrameType | None = None) -> list[Frame]:
    """The stack of this thread, the thread's first frame first, up to the caller or the frame that is given."""
    frame = innermost or sys._getframe(1)  # noqa: SLF001 - what inspect.currentframe is, without importing inspect
    return [make_frame(each, each.f_lineno) for each in reversed(list(callers(frame)))]


def traceback_frames(traceback: TracebackType | None) -> list[Frame]:
    """The frames that a traceback prints: from the one that caught the exception to the one that raised it."""
    found = []
    while traceback:
        found.append(make_frame(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def full_stack(error: BaseException) -> list[Frame]:
    """The stack as it was when an exception was raised: the thread's first frame first, the one that raised it last.

    To be called where the exception was caught: what is outside of there has not returned yet.
    """
    traceback = error.__traceback__
    outside = traceback.tb_frame.f_back if traceback else None
    return [*(capture(outside) if outside else ()), *traceback_frames(traceback)]


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, its caller, and so on to the thread's first."""
    while frame:
        yield frame
        frame = frame.f_back


def make_frame(frame: FrameType, line: int) -> Frame:
    """A frame as a value, which keeps neither the frame nor its variables alive."""
    code, module = frame.f_code, str(frame.f_globals.get("__name__", "?"))
    if module == "__main__" and (spec := frame.f_globals.get("__spec__")):
        module = spec.name  # `python -m module`
    return Frame(module, code.co_qualname, code.co_filename, line, owner(module, code))


def owner(module: str, code: CodeType) -> str:
    """Whose code it is: what PACKAGES says, else what the file's place says."""
    name = module
    while name:
        if name in PACKAGES:
            return PACKAGES[name]
        name = name.rpartition(".")[0]
    file = code.co_filename
    if file.startswith(INSTALLED):
        return FRAMEWORK
    if file.startswith(LIBRARY):
        return STDLIB
    # A console script was written by an installer for the package that it starts; servers have them.
    return SERVER if os.path.dirname(file) == SCRIPTS else YOURS


def short_path(file: str, root: str) -> str:
    """A file as its reader names it: from the folder `root`, the installed packages or the standard library on."""
    for mark in (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"):
        if mark in file:
            return file.rpartition(mark)[2]
    _, found, rest = file.partition(f"{os.sep}lib{os.sep}python3")
    return rest.partition(os.sep)[2] if found else file.removeprefix(os.path.join(root, ""))


def places(*names: str) -> tuple[str, ...]:
    """Directories of this interpreter, each with its separator at the end."""
    paths = {sysconfig.get_path(name) for name in names}
    return tuple(os.path.join(each, "") for path in paths for each in (path, os.path.realpath(path)))


INSTALLED = places("purelib", "platlib")
LIBRARY = ("<frozen ", *places("stdlib", "platstdlib"))
SCRIPTS = sysconfig.get_path("scripts")
