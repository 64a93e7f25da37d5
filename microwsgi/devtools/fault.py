"""An exception as values: what was raised, where, with which local values, because of what.

Values first: `microwsgi.devtools.errorpage` draws them. Nothing here keeps a frame, or what was in one, alive.
"""

from __future__ import annotations

import linecache
import re
import reprlib
import traceback
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import NamedTuple

from microwsgi.devtools.stack import Frame, value

AROUND = 5
"""Source lines that are shown above and below."""
DEEPEST = 20
"""Causes, and groups within groups, that are followed."""
MOST = 60
"""Frames of one traceback that are shown, and local values of one frame; of a recursion the ends are enough."""
SECRET = re.compile(
    r"passw|secret|token|api_?key|authorization|cookie|session|credential|private|signature", re.IGNORECASE
)
HIDDEN = "(hidden: its name says that it is a secret)"
CAUSED, DURING = "This was the cause of", "While this was handled, there came"


class Shown(reprlib.Repr):
    """repr, of bounded size, that survives what objects do in theirs; values of a mapping whose names say so are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 8
        self.maxlevel = 3

    def repr_dict(self, x: Mapping[object, object], level: int) -> str:
        """As reprlib's, but for secrets."""
        if level <= 0:
            return "{...}"
        pairs = list(x.items())[: self.maxdict]
        inside = [
            f"{self.repr1(name, level - 1)}: {HIDDEN if SECRET.search(str(name)) else self.repr1(item, level - 1)}"
            for name, item in pairs
        ]
        return "{" + ", ".join([*inside, *(["..."] if len(x) > len(pairs) else [])]) + "}"

    def repr_bytes(self, x: bytes, level: int) -> str:  # noqa: ARG002 - reprlib's signature
        """Without making a text of all of a long one."""
        return repr(x) if len(x) <= self.maxother else f"{x[: self.maxother // 2]!r}... ({len(x)} bytes)"


shown = Shown()


class Line(NamedTuple):
    """A source line, and the columns in it that failed."""

    number: int
    text: str
    start: int = 0
    end: int = 0


class Place(NamedTuple):
    """One frame of a traceback, with the source around it and its local values."""

    frame: Frame
    lines: list[Line]
    values: dict[str, str]


class Fault(NamedTuple):
    """An exception. `before` are those that led to it, each with how; `members` are a group's."""

    kind: str
    text: str
    """What it says, with its notes, as a terminal shows it."""
    places: list[Place]
    before: list[tuple[Fault, str]]
    members: list[Fault]


def fault_of(error: BaseException, depth: int = DEEPEST) -> Fault:
    """An exception as values."""
    places = list(places_of(error.__traceback__))
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    before: list[tuple[Fault, str]] = []
    if depth:
        if error.__cause__ is not None:
            before.append((fault_of(error.__cause__, depth - 1), CAUSED))
        elif error.__context__ is not None and not error.__suppress_context__:
            before.append((fault_of(error.__context__, depth - 1), DURING))
    return Fault(
        type(error).__qualname__,
        text_of(error),
        places,
        before,
        [fault_of(each, depth - 1) for each in members] if depth else [],
    )


def text_of(error: BaseException) -> str:
    """What it says, as a terminal would; an exception whose __str__ fails says that."""
    return "".join(traceback.TracebackException(type(error), error, None).format_exception_only()).strip()


def places_of(trace: TracebackType | None) -> Iterable[Place]:
    """The frames of a traceback, the one that raised last."""
    found = []
    while trace:
        found.append(trace)
        trace = trace.tb_next
    kept = found if len(found) <= MOST else [*found[: MOST // 2], *found[-MOST // 2 :]]
    for each in kept:
        frame = value(each.tb_frame, each.tb_lineno)
        yield Place(frame, lines_of(each, frame), values_of(each.tb_frame.f_locals))


def lines_of(trace: TracebackType, frame: Frame) -> list[Line]:
    """The source around a place, with what failed marked where Python knows it (PEP 657)."""
    linecache.checkcache(frame.file)
    text = linecache.getlines(frame.file, trace.tb_frame.f_globals)
    positions = list(trace.tb_frame.f_code.co_positions())
    at = positions[trace.tb_lasti // 2] if 0 <= trace.tb_lasti // 2 < len(positions) else (None,) * 4
    lines = []
    for number in range(max(frame.line - AROUND, 1), min(frame.line + AROUND, len(text)) + 1):
        line = text[number - 1].rstrip("\n")
        start, end = columns(line, number, at)
        lines.append(Line(number, line, start, end))
    return lines


def columns(line: str, number: int, at: tuple[int | None, ...]) -> tuple[int, int]:
    """Which characters of a line failed; Python counts in octets of UTF-8."""
    first, last, start, end = at
    if first is None or last is None or start is None or end is None or not first <= number <= last:
        return 0, 0
    octets = line.encode()
    begin = len(octets[:start].decode(errors="replace")) if number == first else len(line) - len(line.lstrip())
    return begin, len(octets[:end].decode(errors="replace")) if number == last else len(line)


def values_of(values: Mapping[str, object]) -> dict[str, str]:
    """Local values as texts of bounded size."""
    found = {}
    for name, item in list(values.items())[:MOST]:
        if SECRET.search(name):
            found[name] = HIDDEN
            continue
        try:
            found[name] = shown.repr(item)
        except BaseException as error:  # noqa: BLE001 - somebody's __repr__ may do anything
            found[name] = f"({type(item).__name__}, whose repr raises {type(error).__name__})"
    return found
