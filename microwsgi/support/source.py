"""Where a function is defined, for messages: `app.py:12`."""

from __future__ import annotations

import os
from types import CodeType

from microwsgi.support import lazy

DEPTH = 50
"""The maximum number of nested decorators and partials."""


def code_of(function: object) -> CodeType | None:
    """Return the code object of a function, a method, a decorated one, or an object with __call__; None if it is built in."""
    for _ in range(DEPTH):
        inner = getattr(function, "__wrapped__", None) or getattr(function, "func", None)  # functools.wraps, partial
        if inner is None:
            break
        function = inner
    for each in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - the method itself is needed
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def source_location(function: object) -> str:
    """Return the file and the line of a function: "app.py:12". The file is relative if it is below the current folder."""
    code = code_of(function)
    return f"{relative(code.co_filename)}:{def_line(code)}" if code is not None else "built in"


def def_line(code: CodeType) -> int:
    """Return the line of a function's `def`: a code object has the line of the first decorator."""
    lines = lazy.linecache.getlines(code.co_filename)
    opening = tuple(f"{word} {code.co_name}" for word in ("def", "async def", "class"))  # a <lambda> matches none
    for number, line in enumerate(lines[code.co_firstlineno - 1 :], code.co_firstlineno):
        if line.lstrip().startswith(opening):
            return number
    return code.co_firstlineno


def relative(path: str) -> str:
    """Return a path relative to the current folder, if it is below that folder."""
    short = os.path.relpath(path) if os.path.isabs(path) else path
    return path if short.startswith("..") else short
