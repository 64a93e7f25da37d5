"""From what a person types to an application: `module:attribute` and its kin, and what to say when it can't be had.

    load
      locate       the module's name and the attribute, and the folder that makes the module importable
      import_user  the module; whatever goes wrong in it is the user's, and is shown without our frames
      pick         the attribute, or what the factory returns
      check        whether it can be called as PEP 3333 wants

Every failure is a LoadError of a few lines whose `__cause__` has the whole story, for `--traceback`.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from types import FunctionType, MethodType, ModuleType

from microwsgi.config import read_table
from microwsgi.diagnosis import (
    as_module,
    defined,
    definitions,
    described,
    failure,
    no_attribute,
    suggest_file,
    why_not_imported,
)
from microwsgi.errors import LoadError, UsageError
from microwsgi.source import relative

FILES = ("app.py", "wsgi.py", "main.py")
"""Where the application is looked for when nothing says where."""
NAMES = ("app", "application")
"""What it is looked for as when nothing says as what."""
VARARGS, COROUTINE = 0x04, 0x80
"""Flags of code objects; `inspect`, which names them, takes 10 ms to import."""


def load(spec: str | None = None, app_dir: str = ".") -> object:
    """A WSGI application, or a class of http.server's handlers. Raises LoadError.

    `module:attribute`, `module`, `path/to/file.py[:attribute]`, `module:factory()`, also with dotted attributes; with
    nothing what pyproject.toml says, or the application of app.py, wsgi.py or main.py.
    """
    return load_named(spec, app_dir)[1]


def load_named(spec: str | None, app_dir: str = ".", config: str = "") -> tuple[str, object]:
    """The same, and its full name: module:attribute. With nothing, `config` is the file that says what it is."""
    folder = os.path.abspath(app_dir)
    if not os.path.isdir(folder):
        raise LoadError(f"there is no folder {app_dir} to import the application from (--app-dir).")
    if spec:
        return find(spec, folder)
    spec, file = configured(config, folder)
    try:
        return find(spec, folder)
    except LoadError as error:
        if spec:
            raise LoadError(f'{error}\n  That is app = "{spec}" in {file}.') from error.__cause__
        raise


def find(spec: str, folder: str) -> tuple[str, object]:
    """The full name and the application."""
    name, attribute, file = locate(spec, folder)
    module = import_user(name, attribute, sys.path[0])
    if file and not same_file(file, module):
        other = getattr(module, "__file__", None) or "a built-in module"
        raise LoadError(f"{relative(file)} can't be imported: the name {name} is that of {other} already. Rename it.")
    attribute = attribute or next((each for each in NAMES if hasattr(module, each)), "")
    application = pick(module, attribute)
    check(application, f"{name}:{attribute}")
    return f"{name}:{attribute}", application


def locate(spec: str, folder: str) -> tuple[str, str, str]:
    """The module's name, the attribute and, if it was given as such, the file. Makes the module importable."""
    spec = spec or next((file for file in FILES if os.path.isfile(os.path.join(folder, file))), "")
    if not spec:
        raise LoadError(f"there is no {' or '.join(FILES)} in {folder}.\n  Try:  microwsgi serve module:attribute")
    place, _, attribute = spec.partition(":")
    if not place.endswith(".py"):
        importable(folder)
        inner = os.path.join(folder, place)
        if os.path.isdir(inner) and (os.sep in place or place in {".", ".."}):
            raise LoadError(
                f"{place} is a folder.\n  Try:  microwsgi serve --app-dir {relative(inner)}   (its {' or '.join(FILES)})"
            )
        if os.sep in place:
            raise LoadError(
                f"{place} is neither a module nor a Python file.\n  Try:  microwsgi serve {as_module(spec)}"
            )
        return place, attribute, ""
    file = os.path.join(folder, place)
    if not os.path.isfile(file):
        raise LoadError(f"there is no file {place}{suggest_file(file, folder, attribute)}")
    root, name = os.path.split(os.path.abspath(file))
    name = name.removesuffix(".py")
    while os.path.isfile(os.path.join(root, "__init__.py")):
        root, package = os.path.split(root)
        name = f"{package}.{name}" if name != "__init__" else package
    importable(folder)
    importable(root)
    return name, attribute, file


def configured(config: str, folder: str) -> tuple[str, str]:
    """The application that the configuration names, and the file that does; empty texts if none does."""
    try:
        table, file = read_table(config, folder)
    except UsageError as error:
        raise LoadError(str(error)) from error
    app = table.get("app", "")
    if not isinstance(app, str):
        raise LoadError(f'app in {file} is not possible: give a text, like app = "module:attribute".')
    return app, file


def importable(folder: str) -> None:
    """Have modules of a folder found, before any others."""
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def same_file(file: str, module: ModuleType) -> bool:
    """Whether a module was imported from a file, and not from another of its name."""
    origin = getattr(module, "__file__", None)
    return origin is not None and os.path.realpath(origin) == os.path.realpath(file)


def import_user(name: str, attribute: str, folder: str) -> ModuleType:
    """A module of the user's. Raises LoadError, whatever goes wrong in it."""
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadError(why_not_imported(error, name, attribute, folder)) from error


def pick(module: ModuleType, attribute: str) -> object:
    """An attribute, through dots, or what calling it returns where it ends in (). Raises LoadError."""
    if not attribute:
        names = defined(module)
        raise LoadError(
            f"'{module.__name__}' has neither 'app' nor 'application'.{definitions(module)}"
            f"\n  Try:  microwsgi serve {module.__name__}:{names[0] if len(names) == 1 else 'NAME'}"
        )
    path, call, arguments = attribute.partition("(")
    if call and arguments != ")":
        raise LoadError(f"{attribute} is not possible: a factory is called without arguments, as {path}().")
    value: object = module
    done = module.__name__ + ":"
    for part in path.split("."):
        if not hasattr(value, part):
            raise LoadError(no_attribute(module, value, part, done, attribute, NAMES))
        value = getattr(value, part)
        done += part + "."
    return run_factory(value, f"{module.__name__}:{path}") if call else value


def run_factory(factory: object, name: str) -> object:
    """What a factory returns."""
    if not callable(factory):
        raise LoadError(f"{name} is {described(factory)}, which can't be called.")
    try:
        return factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = failure(error, f"{name}() failed:")
        if isinstance(error, TypeError) and error.__traceback__ is not None and error.__traceback__.tb_next is None:
            text += f"\n  Is it the application itself?  Try:  microwsgi serve {name}"  # it was not even entered
        raise LoadError(text) from error


def check(application: object, name: str) -> None:
    """Raises LoadError for what can't be a WSGI application, nor a handler class of http.server."""
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        return
    if not callable(application):
        raise LoadError(
            f"{name} is {described(application)}, not a WSGI app."
            "\n  A WSGI app is a callable: def app(environ, start_response): ..."
        )
    called = application if isinstance(application, (FunctionType, MethodType, type)) else type(application).__call__
    code = getattr(called, "__code__", None)  # of anything but Python's own functions there is nothing to tell
    if code is not None and code.co_flags & COROUTINE:
        raise LoadError(f"{name} is an ASGI app (async); microwsgi serves WSGI apps.\n  Try:  uvicorn {name}")
    if isinstance(application, (FunctionType, MethodType)):
        check_arguments(application, name)


def check_arguments(function: FunctionType | MethodType, name: str) -> None:
    """Raises LoadError for a function that can't take environ and start_response."""
    code = function.__code__
    most = code.co_argcount - isinstance(function, MethodType)
    least = most - len(function.__defaults__ or ())
    if least <= 2 <= most or code.co_flags & VARARGS:  # noqa: PLR2004 - environ and start_response
        return
    if not most:
        raise LoadError(f"{name} takes no arguments: is it a factory?\n  Try:  microwsgi serve '{name}()'")
    raise LoadError(
        f"{name} takes {most} argument{'s' if most > 1 else ''}, and a WSGI app takes two."
        "\n  A WSGI app is a callable: def app(environ, start_response): ..."
    )
