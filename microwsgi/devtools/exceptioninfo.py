"""An exception as values: type, message, frames with source and local values, causes.

`microwsgi.devtools.errorpage` renders them. They keep no frame, and no object of a frame, alive.
"""

from __future__ import annotations

import linecache
import re
import reprlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, TracebackType
from typing import NamedTuple

from microwsgi.devtools.stack import YOURS, Frame, file_owner, fold, make_frame
from microwsgi.support.source import def_line
from microwsgi.support.tracebacks import code_that_returned

AROUND = 5
"""The number of source lines that are shown above and below."""
FOLLOWED = 50
"""The number of exceptions that are shown: one, its causes, the members of groups. Each is shown once: there may be cycles."""
MAX_LENGTH = 2000
"""The length of a message or a source line that is shown."""
MAX_COUNT = 60
"""The number of frames of a traceback, and of local values of a frame, that are shown."""
REMARK = re.compile(r"  # (?:type: |noqa|pragma: ).*")
"""Comments for tools. They are not shown in source lines of libraries."""
NAMES = r"passw|secret|token|api_?key|authorization|cookie|session|credential|private|signature"
SECRET = re.compile(NAMES, re.IGNORECASE)
GIVEN = re.compile(
    rf"""((?:{NAMES})[\w-]*(?:['"]?\s*[=:]|['"],)\s*)"""
    r"""(?:[bu]?'(?:[^'\\]|\\.)*'?|[bu]?"(?:[^"\\]|\\.)*"?|[^\s'"&;,(){}\[\]][^'"&;,){}\]]*)""",
    re.IGNORECASE,
)
"""A value after the name of a secret within a text: in a dataclass's repr, in a list of pairs, in a query."""
HIDDEN = "(hidden: the name suggests a secret)"
CAUSED = "The above exception was the direct cause of the following exception"
DURING = "During handling of the above exception, another exception occurred"
"""The texts that Python prints for the relation of two exceptions."""


class SafeRepr(reprlib.Repr):
    """repr of bounded size, also for objects whose __repr__ raises. Values with the name of a secret are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 8
        self.maxlevel = 3

    def repr_dict(self, x: Mapping[object, object], level: int) -> str:
        """Format a mapping as reprlib does, without secrets."""
        if level <= 0:
            return "{...}"
        pairs = list(x.items())[: self.maxdict]
        inside = [
            f"{self.repr1(name, level - 1)}: {HIDDEN if SECRET.search(str(name)) else self.repr1(item, level - 1)}"
            for name, item in pairs
        ]
        return "{" + ", ".join([*inside, *(["..."] if len(x) > len(pairs) else [])]) + "}"

    def repr_bytes(self, x: bytes, level: int) -> str:  # reprlib's signature
        """Format bytes without formatting all of a long value."""
        return repr(x) if len(x) <= self.maxother else f"{x[: self.maxother // 2]!r}... ({len(x)} bytes)"

    def repr_str(self, x: str, level: int) -> str:  # reprlib's signature
        """Cut a str at its end, not in its middle as reprlib does: a secret's name could be cut off from its value."""
        return repr(x) if len(x) <= self.maxstring else f"{x[: self.maxstring]!r}... ({len(x)} characters)"

    def repr_instance(self, x: object, level: int) -> str:  # reprlib's signature
        """Format any other object. If its __repr__ raises, the values around it are shown all the same."""
        try:
            return cut(repr(x), self.maxother)
        except Exception as error:  # a __repr__ may raise anything
            return failing(x, error)


shown = SafeRepr()


class Line(NamedTuple):
    """A source line, and the columns that failed."""

    number: int
    text: str
    start: int = 0
    end: int = 0


class FrameInfo(NamedTuple):
    """One frame of a traceback, with the source around it and its local values."""

    frame: Frame
    lines: list[Line]
    values: dict[str, str]
    note: str = ""
    """A note on the frames that were left out before it: rounds of a recursion, or the middle of a deep traceback."""


class ExceptionInfo(NamedTuple):
    """An exception. `before` are its causes, each with its relation; `members` are the exceptions of a group."""

    kind: str
    text: str
    """The message with its notes, as a terminal shows it."""
    frames: list[FrameInfo]
    before: list[tuple[ExceptionInfo, str]]
    members: list[ExceptionInfo]


def exception_info(error: BaseException, seen: set[int] | None = None) -> ExceptionInfo:
    """Return an exception as values; `seen` are the exceptions that are already shown."""
    seen = set() if seen is None else seen
    seen.add(id(error))
    before: list[tuple[ExceptionInfo, str]] = []
    earlier, how = error.__cause__, CAUSED
    if earlier is None and not error.__suppress_context__:
        earlier, how = error.__context__, DURING
    if earlier is not None and is_new(earlier, seen):
        before.append((exception_info(earlier, seen), how))
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return ExceptionInfo(
        type(error).__qualname__,
        message_of(error),
        [*frame_infos(error.__traceback__), *defined_frames(error)],
        before,
        [exception_info(each, seen) for each in members if is_new(each, seen)],
    )


def is_new(error: BaseException, seen: set[int]) -> bool:
    """Return whether an exception is still to be shown."""
    return id(error) not in seen and len(seen) < FOLLOWED


def message_of(error: BaseException) -> str:
    """Return the message as a terminal shows it, with Python's suggestions; also if __str__ raises."""
    # Without frames, but with the traceback: Python searches its local names for suggestions.
    details = traceback.TracebackException(type(error), error, error.__traceback__, limit=0, compact=True)
    return "\n".join(
        cut(line.rstrip("\n"), MAX_LENGTH) for line in list(details.format_exception_only())[:MAX_COUNT]
    ).strip()


def cut(text: str, length: int) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def frame_infos(trace: TracebackType | None) -> Iterable[FrameInfo]:
    """Return the frames of a traceback, the one that raised last."""
    found = []
    while trace:
        found.append(trace)
        trace = trace.tb_next
    shown = fold([(each.tb_frame.f_code, each.tb_lineno) for each in found])
    if len(shown) > MAX_COUNT:
        left_out = len(shown) - MAX_COUNT
        index, _ = shown[-MAX_COUNT // 2]
        shown = [*shown[: MAX_COUNT // 2], (index, f"{left_out} more calls"), *shown[-MAX_COUNT // 2 + 1 :]]
    for index, note in shown:
        each = found[index]
        frame = make_frame(each.tb_frame, each.tb_lineno)
        names = each.tb_frame.f_locals
        if each.tb_frame.f_code.co_name == "<module>":  # only a module's own names, not __builtins__ and __spec__
            names = {name: item for name, item in names.items() if not name.startswith("__")}
        yield FrameInfo(frame, lines_of(each, frame), values_of(names), note)


def defined_frames(error: BaseException) -> Iterator[FrameInfo]:
    """Return the source that an exception is about, if no frame of the traceback is in it.

    For a SyntaxError that is the line, for an exception with a `code` object (ViewError, ApplicationError) the function that
    has returned.
    """
    code = code_that_returned(error)
    if code is not None:
        yield definition(code)
    elif isinstance(error, SyntaxError) and error.filename and error.lineno:
        frame = Frame("", "<module>", error.filename, error.lineno, file_owner(error.filename))
        first, last = error.offset or 0, error.end_offset or 0
        start = max(first - 1, 0)
        end = last - 1 if last > first and error.end_lineno == error.lineno else len((error.text or "").rstrip())
        span = start, max(end, start + 1)
        lines = source_lines(frame, lambda number, _: span if number == frame.line else (0, 0))
        yield FrameInfo(frame, lines, {})


def definition(code: CodeType) -> FrameInfo:
    """Return a frame for a function, with the line of its `def`."""
    linecache.checkcache(code.co_filename)
    text = linecache.getlines(code.co_filename)
    last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    frame = Frame("", code.co_qualname, code.co_filename, def_line(code), file_owner(code.co_filename))
    lines = [
        Line(number, text[number - 1].rstrip("\n")[:MAX_LENGTH])
        for number in range(code.co_firstlineno, min(last, code.co_firstlineno + 4 * AROUND, len(text)) + 1)
    ]
    return FrameInfo(frame, lines, {})


def lines_of(trace: TracebackType, frame: Frame) -> list[Line]:
    """Return the source around a frame, with the columns that failed if Python knows them (PEP 657)."""
    positions = list(trace.tb_frame.f_code.co_positions())
    at = positions[trace.tb_lasti // 2] if 0 <= trace.tb_lasti // 2 < len(positions) else (None,) * 4
    return source_lines(frame, lambda number, line: columns(line, number, at), trace.tb_frame.f_globals)


def source_lines(
    frame: Frame, mark: Callable[[int, str], tuple[int, int]], names: dict[str, object] | None = None
) -> list[Line]:
    """Return the source around a frame; `mark` returns the columns of a line that failed."""
    linecache.checkcache(frame.file)
    text = linecache.getlines(frame.file, names)
    lines = []
    for number in range(max(frame.line - AROUND, 1), min(frame.line + AROUND, len(text)) + 1):
        line = text[number - 1].rstrip("\n")[:MAX_LENGTH]
        if frame.owner != YOURS:
            line = REMARK.sub("", line)
        lines.append(Line(number, line, *mark(number, line)))
    return lines


def columns(line: str, number: int, at: tuple[int | None, ...]) -> tuple[int, int]:
    """Return the columns of a line that failed. Python counts bytes of UTF-8."""
    first, last, start, end = at
    if first is None or last is None or start is None or end is None or not first <= number <= last:
        return 0, 0
    octets = line.encode()
    begin = len(octets[:start].decode(errors="replace")) if number == first else len(line) - len(line.lstrip())
    return begin, len(octets[:end].decode(errors="replace")) if number == last else len(line)


def values_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return local values as texts of bounded size."""
    found = {}
    for name, item in list(values.items())[:MAX_COUNT]:
        if SECRET.search(name):
            found[name] = HIDDEN
            continue
        try:
            found[name] = GIVEN.sub(rf"\1{HIDDEN}", shown.repr(item))
        except BaseException as error:  # a __repr__ may raise anything
            found[name] = failing(item, error)
    return found


def failing(item: object, error: BaseException) -> str:
    """Return the text for a value whose repr raises."""
    return f"({type(item).__name__}, whose repr raises {type(error).__name__})"
