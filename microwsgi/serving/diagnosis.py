"""The messages of the loader for an application that can't be loaded: the reason, the line, and a command to try.

A message has a few lines: the user's own frames only, and the nearest match for a misspelt name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType, TracebackType

from microwsgi.serving.retyped import PACKAGE
from microwsgi.support import lazy
from microwsgi.support.source import relative

MAX_NAMES = 8
"""The number of names that a message lists."""
LENGTH = 60
"""The length of a value in a message."""
STANDARD = os.path.dirname(os.__file__) + os.sep
MACHINERY = (
    "<frozen ",
    os.path.join(STANDARD, "importlib", ""),
    os.path.join(PACKAGE, ""),
)
"""Files whose frames are never shown: the import machinery's and ours."""
LIBRARIES = (*MACHINERY, STANDARD)
SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def describe_import_error(error: BaseException, name: str, attribute: str, folder: str) -> str:
    """Describe an import that failed."""
    frames = users_frames(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename and not library(error.filename):
        return syntax_error(error)
    if isinstance(error, ModuleNotFoundError):
        if not frames and f"{name}.".startswith(f"{error.name}."):
            return describe_missing_module(name, attribute, folder)
        where = f"\n  {relative(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
        files = [frame.filename for frame in frames]
        reason, hint = module_beside(str(error.name), files, attribute) if files else ("which is not installed.", "")
        return f"'{name}' needs '{error.name}', {reason}{where}{hint or f'{chr(10)}  {interpreter()}'}"
    if isinstance(error, (ValueError, TypeError)) and not frames:  # an empty or a relative name
        return describe_missing_module(name, attribute, folder)
    return format_failure(error, f"'{name}' failed while it was imported:")


def describe_missing_module(name: str, attribute: str, folder: str) -> str:
    """Describe a missing module, with a similar name if there is one."""
    similar = similar_module(name, attribute, folder)
    return f"there is no module '{name}' (looked in {folder} and the installed packages).{similar}"


def module_beside(missing: str, files: Sequence[str], attribute: str) -> tuple[str, str]:
    """Return where a missing module is, if it is next to the file that imports it, and the command with which it is found.

    `files` are those of the user's frames: the application's first, the one with the import last.
    """
    folder = os.path.dirname(os.path.abspath(files[-1]))
    path = os.path.join(folder, missing.partition(".")[0])
    found = next((file for file in (f"{path}.py", os.path.join(path, "__init__.py")) if os.path.isfile(file)), "")
    application = os.path.relpath(files[0], folder).removesuffix(".py")
    if not found or application.startswith(os.pardir):
        return "which is not installed.", ""
    spec = application.replace(os.sep, ".") + (f":{attribute}" if attribute else "")
    hint = f"\n  Try:  microwsgi serve --app-dir {lazy.shlex.quote(relative(folder))} {lazy.shlex.quote(spec)}"
    return f"which is {relative(found)}: its directory is not on sys.path.", hint


def interpreter() -> str:
    """Return which Python is used: its packages were searched."""
    virtual = "" if sys.prefix != sys.base_prefix else ", not in a virtual environment"
    return f"This is Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}{virtual}."


def format_failure(error: BaseException, what: str) -> str:
    """Return the file and the line of the user's last frame, and the exception with the user's frames.

    The frames of libraries between them are counted.
    """
    where = "".join(f"{relative(frame.filename)}:{frame.lineno}: " for frame in users_frames(error.__traceback__)[-1:])
    lines, folded = [where + what], 0
    for frame in [*lazy.traceback.extract_tb(error.__traceback__), None]:
        if frame is not None and library(frame.filename):
            folded += not frame.filename.startswith(MACHINERY)
            continue
        if folded:
            lines.append(f"  ... {folded} frame{'s' if folded > 1 else ''} of libraries")
            folded = 0
        if frame is not None:
            lines.append(lazy.traceback.format_list([frame])[0].rstrip())
    return "\n".join([*lines, *lazy.traceback.format_exception_only(error)]).rstrip()


def users_frames(tracebacks: TracebackType | None) -> list[lazy.traceback.FrameSummary]:
    """Return the frames of the user's code."""
    return [frame for frame in lazy.traceback.extract_tb(tracebacks) if not library(frame.filename)]


def library(filename: str) -> bool:
    """Return whether a file is a library's."""
    return filename.startswith(LIBRARIES) or any(site in filename for site in SITES)


def syntax_error(error: SyntaxError) -> str:
    """Describe a syntax error as Python shows it, without frames."""
    place = ":".join([relative(str(error.filename)), *([str(error.lineno)] if error.lineno else [])])
    text = f"{place}: {type(error).__name__}: {error.msg}"
    if not error.text or not error.offset:
        return text
    line = error.text.rstrip()
    indent = len(line) - len(line.lstrip())
    before = line[indent : error.offset - 1]
    length = (error.end_offset or 0) - error.offset if error.end_lineno == error.lineno else 1
    caret = " " * len(before) + "^" * max(min(length, len(line) - indent - len(before)), 1)
    return f"{text}\n{error.lineno:6} | {line[indent:]}\n       | {caret}"


def similar_module(name: str, attribute: str, folder: str) -> str:
    """Return the module that was probably meant: each part of the name is compared with the files of its folder."""
    found: list[str] = []
    parts = name.split(".")
    for position, part in enumerate(parts):
        here = os.path.join(folder, *found)
        match = lazy.difflib.get_close_matches(part, modules(here), 1)
        if not match:
            return listing(f"  (in {relative(here)} there are: ", modules(here)) if not found else ""
        found += match
        rest = parts[position + 1 :]
        if rest and not os.path.isdir(os.path.join(here, match[0])):
            # hello.app where hello is a file: the last part is the attribute
            attribute = ".".join([*rest, *filter(None, [attribute])])
            break
    return f"\n{suggestion('.'.join(found), attribute)}"


def as_module(spec: str) -> str:
    """Return a path without .py as a module name."""
    place, colon, attribute = spec.partition(":")
    return place.strip(f".{os.sep}").replace(os.sep, ".") + colon + attribute


def suggest_file(file: str, folder: str, attribute: str) -> str:
    """Return the file that was probably meant."""
    beside, name = os.path.split(file)
    try:
        names = [each.removesuffix(".py") for each in os.listdir(beside) if each.endswith(".py")]
    except OSError:
        names = []
    nearest = lazy.difflib.get_close_matches(name.removesuffix(".py"), names, 1)
    if not nearest:
        return "."
    path = os.path.relpath(os.path.join(beside, f"{nearest[0]}.py"), folder)
    return f".\n{suggestion(path, attribute)}"


def suggestion(place: str, attribute: str) -> str:
    """Return the command to type instead."""
    spec = f"{place}:{attribute}" if attribute else place
    return f"  Try:  microwsgi serve {lazy.shlex.quote(spec) if '(' in spec else spec}"


def modules(folder: str) -> list[str]:
    """Return the modules and packages of a folder."""
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


def describe_missing_attribute(
    module: ModuleType, owner: object, part: str, done: str, attribute: str, usual: Sequence[str]
) -> str:
    """Describe an attribute that a module, or an object in it, does not have."""
    names = public_callables(module) if owner is module else [name for name in dir(owner) if not name.startswith("_")]
    match = lazy.difflib.get_close_matches(part, names, 1) or [each for each in usual if each in names][:1]
    what = f"'{module.__name__}'" if owner is module else done.removesuffix(".")
    text = f"{what} has no '{part}'.{definitions(module) if owner is module else ''}"
    if not match:
        return text
    rest = f"{module.__name__}:{attribute}".removeprefix(done + part)
    place, _, start = done.partition(":")
    return f"{text}\n{suggestion(place, start + match[0] + rest)}"


def definitions(module: ModuleType) -> str:
    """Return a line with the callables that a module defines."""
    file = relative(getattr(module, "__file__", None) or module.__name__)
    return (
        listing(f"  ({file} defines: ", public_callables(module)) or f"\n  ({file} defines nothing that can be called)"
    )


def listing(opening: str, names: list[str]) -> str:
    """Return a line with some names; "" if there are none."""
    more = ", ..." if len(names) > MAX_NAMES else ""
    return f"\n{opening}{', '.join(names[:MAX_NAMES])}{more})" if names else ""


def public_callables(module: ModuleType) -> list[str]:
    """Return the public callables that a module defines itself, without imported classes and functions."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and (not isinstance(value, (type, FunctionType)) or value.__module__ == module.__name__)
    ]


def short_repr(value: object) -> str:
    """Return a value with its type, shortened."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < LENGTH else text[: LENGTH - 3] + '...'}"
