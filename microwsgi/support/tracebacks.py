"""The text of an exception, for a log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import groupby
from types import CodeType

from microwsgi.support import lazy
from microwsgi.support.source import def_line

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
STANDARD = os.path.join(os.path.dirname(os.__file__), "")
SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
FRAME = re.compile(r'[ |]+File "([^"]*)"')
"""The beginning of a frame; in an exception group it is indented by " | "."""


def exception_text(error: BaseException) -> str:
    """Return the traceback of an exception. If there are frames of an application, those of microwsgi are folded.

    Line feeds in the text of an exception are escaped: the text may contain data from a client, which could otherwise forge
    records of the log.
    """
    details = lazy.traceback.TracebackException.from_exception(error)
    code = code_that_returned(error)
    if code is not None:
        details.stack.append(lazy.traceback.FrameSummary(code.co_filename, def_line(code), code.co_qualname))
    parts: list[str] = []
    is_note = False
    for part in folded(list(details.format())):
        # A frame, an exception of a group, or a line between two tracebacks.
        if part.startswith((" ", "\n", "Traceback (")):
            parts.append(part)
            is_note = False
        else:  # an exception's type and text, or one of its notes, which follow
            text = part.rstrip("\n").replace("\n", "\\n")
            parts.append(f"  {text}\n" if is_note else f"{text}\n")
            is_note = True
    return "".join(parts)


def code_that_returned(error: BaseException) -> CodeType | None:
    """Return the `code` of an exception (ViewError, ApplicationError), unless a frame of it is on the traceback."""
    code = getattr(error, "code", None)
    if not isinstance(code, CodeType):
        return None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return None
        trace = trace.tb_next
    return code


def folded(parts: list[str]) -> Iterator[str]:
    """Yield the parts of a traceback's text, with one line that replaces the frames of microwsgi.

    If there are only frames of microwsgi and the standard library, none is folded: the exception is then a bug of the server.
    """
    files = [file_of(part) for part in parts]
    if all(file.startswith(PACKAGE) or is_standard(file) for file in files if file):
        yield from parts
        return
    for is_ours, group in groupby(zip(files, parts, strict=True), key=lambda each: each[0].startswith(PACKAGE)):
        found = [part for _, part in group]
        if is_ours:
            indent = found[0].partition("File ")[0]
            yield f"{indent}... {len(found)} frame{'' if len(found) == 1 else 's'} of microwsgi\n"
        else:
            yield from found


def file_of(part: str) -> str:
    """Return the file of a frame; "" for any other part of a traceback."""
    found = FRAME.match(part)
    return found[1] if found is not None else ""


def is_standard(file: str) -> bool:
    """Return whether a file is of the standard library."""
    return file.startswith(("<frozen ", STANDARD)) and not any(site in file for site in SITES)
