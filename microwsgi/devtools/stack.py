"""The frames of a stack as values: function, location, and owner (library, server, framework or user).

`capture` returns the stack of the current thread, `traceback_frames` and `full_stack` that of an exception.
`microwsgi.devtools.render` renders them.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
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
"""The owners of modules, by the module's name or the nearest package above it. Any other installed package is a framework."""


PERIOD = 8
"""The longest sequence of calls that is recognised as a recursion."""
ROUNDS = 4
"""The number of rounds from which a recursion is folded."""


class Frame(NamedTuple):
    """A call that has not returned: `line` is the current line, `owner` one of OWNERS."""

    module: str
    function: str
    file: str
    line: int
    owner: str


def capture(innermost: FrameType | None = None) -> list[Frame]:
    """Return the stack of this thread, the thread's first frame first, up to the caller or the given frame."""
    frame = innermost or sys._getframe(1)  # inspect.currentframe is the same function, but importing inspect is slow
    return [make_frame(each, each.f_lineno) for each in reversed(list(callers(frame)))]


def traceback_frames(traceback: TracebackType | None) -> list[Frame]:
    """Return the frames that a traceback prints: from the frame that caught the exception to the one that raised it."""
    found = []
    while traceback:
        found.append(make_frame(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def full_stack(error: BaseException) -> list[Frame]:
    """Return the stack at the time when an exception was raised, the thread's first frame first.

    Call it where the exception was caught: the outer frames have not returned yet then.
    """
    traceback = error.__traceback__
    outside = traceback.tb_frame.f_back if traceback else None
    return [*(capture(outside) if outside else ()), *traceback_frames(traceback)]


def fold(keys: Sequence[object]) -> list[tuple[int, str]]:
    """Return the indices of the calls to show, each with a note on the calls that were left out before it.

    For a recursion (a repeated sequence of at most PERIOD calls), only the first and the last round are shown. Python's
    traceback folds a function that calls itself; here functions that call each other are folded, too.
    """
    shown: list[tuple[int, str]] = []
    start = 0
    while start < len(keys):
        period, rounds = max(((each, repeats(keys, start, each)) for each in range(1, PERIOD + 1)), key=covered)
        if rounds < ROUNDS:
            shown.append((start, ""))
            start += 1
            continue
        last = start + (rounds - 1) * period
        shown += [(index, "") for index in range(start, start + period)]
        what = "call" if period == 1 else f"{period} calls"
        shown.append((last, f"the last {what} repeated {rounds - 2} more times"))
        shown += [(index, "") for index in range(last + 1, last + period)]
        start = last + period
    return shown


def covered(found: tuple[int, int]) -> tuple[int, int]:
    """Order repetitions: the longest first, of several the one with the shortest period."""
    period, rounds = found
    return (period * rounds if rounds >= ROUNDS else 0, -period)


def repeats(keys: Sequence[object], start: int, period: int) -> int:
    """Return how many times the next `period` keys follow each other."""
    end = start + period
    while end < len(keys) and keys[end] == keys[end - period]:
        end += 1
    return (end - start) // period


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Return the frame, its caller, and so on to the thread's first frame."""
    while frame:
        yield frame
        frame = frame.f_back


def make_frame(frame: FrameType, line: int) -> Frame:
    """Return a frame as a value that keeps neither the frame nor its variables alive."""
    code, module = frame.f_code, str(frame.f_globals.get("__name__", "?"))
    if module == "__main__" and (spec := frame.f_globals.get("__spec__")):
        module = spec.name  # `python -m module`
    return Frame(module, code.co_qualname, code.co_filename, line, owner(module, code))


def owner(module: str, code: CodeType) -> str:
    """Return the owner of code: by PACKAGES, else by the folder of the file."""
    name = module
    while name:
        if name in PACKAGES:
            return PACKAGES[name]
        name = name.rpartition(".")[0]
    return file_owner(code.co_filename)


def file_owner(file: str) -> str:
    """Return the owner of a file by its folder."""
    if file.startswith(INSTALLED):
        return FRAMEWORK
    if file.startswith(LIBRARY):
        return STDLIB
    # An installer writes console scripts; servers are started by them.
    return SERVER if os.path.dirname(file) == SCRIPTS else YOURS


def short_path(file: str, root: str) -> str:
    """Return a file relative to the folder `root`, to the installed packages or to the standard library."""
    for mark in (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"):
        if mark in file:
            return file.rpartition(mark)[2]
    _, found, rest = file.partition(f"{os.sep}lib{os.sep}python3")
    return rest.partition(os.sep)[2] if found else file.removeprefix(os.path.join(root, ""))


def places(*names: str) -> tuple[str, ...]:
    """Return folders of this interpreter, each with a separator at its end."""
    paths = {sysconfig.get_path(name) for name in names}
    return tuple(os.path.join(each, "") for path in paths for each in (path, os.path.realpath(path)))


INSTALLED = places("purelib", "platlib")
LIBRARY = ("<frozen ", *places("stdlib", "platstdlib"))
SCRIPTS = sysconfig.get_path("scripts")
