"""What to say of an application that can't be had: what is wrong, where, and what was probably meant.

`microwsgi.loader` asks. A message has a few lines: the user's own frames only, the nearest match for a misspelt name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType, TracebackType

from microwsgi import later
from microwsgi.source import relative

SHOWN = 8
"""Names that a message lists."""
LENGTH = 60
"""Characters of a value that a message shows."""
STANDARD = os.path.dirname(os.__file__) + os.sep
MACHINERY = (
    "<frozen ",
    os.path.join(STANDARD, "importlib", ""),
    os.path.join(os.path.dirname(os.path.abspath(__file__)), ""),
)
"""Files of frames that tell nobody anything: those of import, and ours."""
LIBRARIES = (*MACHINERY, STANDARD)
SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def why_not_imported(error: BaseException, name: str, attribute: str, folder: str) -> str:
    """What a person needs to know of an import that failed."""
    frames = users_frames(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename and not library(error.filename):
        return syntax_error(error)
    if isinstance(error, ModuleNotFoundError):
        if not frames and f"{name}.".startswith(f"{error.name}."):
            return no_module(name, attribute, folder)
        where = f"\n  {relative(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
        return f"'{name}' needs '{error.name}', which is not installed.{where}\n  {interpreter()}"
    if isinstance(error, (ValueError, TypeError)) and not frames:  # an empty name, a relative one
        return no_module(name, attribute, folder)
    return failure(error, f"'{name}' failed while it was imported:")


def no_module(name: str, attribute: str, folder: str) -> str:
    """Where it was looked for, and what it may have been."""
    return f"there is no module '{name}' (looked in {folder} and the installed packages).{nearest(name, attribute, folder)}"


def interpreter() -> str:
    """Whose packages are the installed ones. How to install one is not said: import names are not names of packages."""
    virtual = "" if sys.prefix != sys.base_prefix else ", not in a virtual environment"
    return f"This is Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}{virtual}."


def failure(error: BaseException, what: str) -> str:
    """An exception with the user's own frames; those of libraries between them are only counted."""
    lines, folded = [what], 0
    for frame in [*later.traceback.extract_tb(error.__traceback__), None]:
        if frame is not None and library(frame.filename):
            folded += not frame.filename.startswith(MACHINERY)
            continue
        if folded:
            lines.append(f"  ... {folded} frame{'s' if folded > 1 else ''} of libraries")
            folded = 0
        if frame is not None:
            lines.append(later.traceback.format_list([frame])[0].rstrip())
    return "\n".join([*lines, *later.traceback.format_exception_only(error)]).rstrip()


def users_frames(tracebacks: TracebackType | None) -> list[later.traceback.FrameSummary]:
    """The frames of neither a library nor the import machinery nor ours."""
    return [frame for frame in later.traceback.extract_tb(tracebacks) if not library(frame.filename)]


def library(filename: str) -> bool:
    """Whether a file is a library's: not the user's to mend."""
    return filename.startswith(LIBRARIES) or any(site in filename for site in SITES)


def syntax_error(error: SyntaxError) -> str:
    """The line, and where in it, as Python shows it but for the frames."""
    text = f"{relative(str(error.filename))} has a syntax error on line {error.lineno}: {error.msg}"
    if not error.text or not error.offset:
        return text
    line = error.text.rstrip()
    indent = len(line) - len(line.lstrip())
    before = line[indent : error.offset - 1]
    length = (error.end_offset or 0) - error.offset if error.end_lineno == error.lineno else 1
    caret = " " * len(before) + "^" * max(min(length, len(line) - indent - len(before)), 1)
    return f"{text}\n{error.lineno:6} | {line[indent:]}\n       | {caret}"


def nearest(name: str, attribute: str, folder: str) -> str:
    """What may have been meant by the name of a module that there isn't: each part compared with what is in its folder."""
    found: list[str] = []
    parts = name.split(".")
    for position, part in enumerate(parts):
        here = os.path.join(folder, *found)
        match = later.difflib.get_close_matches(part, modules(here), 1)
        if not match:
            return listing(f"  (in {relative(here)} there are: ", modules(here)) if not found else ""
        found += match
        rest = parts[position + 1 :]
        if rest and not os.path.isdir(os.path.join(here, match[0])):
            # hello.app where hello is a file: a dot too many.
            attribute = ".".join([*rest, *filter(None, [attribute])])
            break
    return f"\n{attempt('.'.join(found), attribute)}"


def as_module(spec: str) -> str:
    """A path without .py, as a module."""
    place, colon, attribute = spec.partition(":")
    return place.strip(f".{os.sep}").replace(os.sep, ".") + colon + attribute


def suggest_file(file: str, folder: str, attribute: str) -> str:
    """The file that may have been meant."""
    beside, name = os.path.split(file)
    try:
        names = [each.removesuffix(".py") for each in os.listdir(beside) if each.endswith(".py")]
    except OSError:
        names = []
    nearest = later.difflib.get_close_matches(name.removesuffix(".py"), names, 1)
    if not nearest:
        return "."
    path = os.path.relpath(os.path.join(beside, f"{nearest[0]}.py"), folder)
    return f".\n{attempt(path, attribute)}"


def attempt(place: str, attribute: str) -> str:
    """The command to type instead."""
    spec = f"{place}:{attribute}" if attribute else place
    return f"  Try:  microwsgi serve {spec if '(' not in spec else repr(spec)}"


def modules(folder: str) -> list[str]:
    """The modules and packages of a folder."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError:
        return []
    names = [
        entry.removesuffix(".py")
        for entry in entries
        if entry.endswith(".py") or os.path.isfile(os.path.join(folder, entry, "__init__.py"))
    ]
    return [name for name in names if name.isidentifier()]


def no_attribute(module: ModuleType, owner: object, part: str, done: str, attribute: str, usual: Sequence[str]) -> str:
    """What to say of a name that a module, or an object in it, does not have."""
    names = defined(module) if owner is module else [name for name in dir(owner) if not name.startswith("_")]
    match = later.difflib.get_close_matches(part, names, 1) or [each for each in usual if each in names][:1]
    what = f"'{module.__name__}'" if owner is module else done.removesuffix(".")
    text = f"{what} has no '{part}'.{definitions(module) if owner is module else ''}"
    if not match:
        return text
    rest = f"{module.__name__}:{attribute}".removeprefix(done + part)
    place, _, start = done.partition(":")
    return f"{text}\n{attempt(place, start + match[0] + rest)}"


def definitions(module: ModuleType) -> str:
    """The line that says what could have been asked for."""
    file = relative(getattr(module, "__file__", None) or module.__name__)
    return listing(f"  ({file} defines: ", defined(module)) or f"\n  ({file} defines nothing that can be called)"


def listing(opening: str, names: list[str]) -> str:
    """A line with some names, if there are any."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"\n{opening}{', '.join(names[:SHOWN])}{more})" if names else ""


def defined(module: ModuleType) -> list[str]:
    """Public names of a module that can be called and are its own: not imported classes and functions."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and (not isinstance(value, (type, FunctionType)) or value.__module__ == module.__name__)
    ]


def described(value: object) -> str:
    """A value with its type, short."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < LENGTH else text[: LENGTH - 3] + '...'}"
