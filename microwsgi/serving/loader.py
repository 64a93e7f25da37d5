"""Load the application that the command line names: `module:attribute`, a file, a factory, or a folder of files.

    load
      locate       return the name of the module, the attribute, and the folder to put on sys.path
      import_user  import the module; an exception in it is the user's, and is shown without our frames
      resolve      return the attribute, or the return value of the factory
      check        check that it can be called as PEP 3333 requires

Every failure is a LoadError of a few lines; its `__cause__` is the exception, for `--full-traceback`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from types import FrameType, FunctionType, MethodType, ModuleType

from microwsgi.errors import LoadError, UsageError
from microwsgi.options.config_file import read_table
from microwsgi.serving.diagnosis import (
    as_module,
    definitions,
    describe_import_error,
    describe_missing_attribute,
    format_failure,
    library,
    public_callables,
    short_repr,
    suggest_file,
)
from microwsgi.serving.retyped import with_application
from microwsgi.support import lazy
from microwsgi.support.source import code_of, relative

FILES = ("app.py", "wsgi.py", "main.py")
"""The files that are tried if none is named."""
NAMES = ("app", "application")
"""The attributes that are tried if none is named."""
FACTORIES = {"app_factory", "build_app", "create_app", "create_application", "factory", "get_app", "make_app"}
"""Names of functions that count as factories even if they accept two arguments."""
SLOW = 2.0
"""Seconds after which the line is printed that a slow import is executing."""
VARARGS, COROUTINE = 0x04, 0x80
"""Flags of code objects. `inspect` has names for them, but takes 10 ms to import."""


def load(spec: str | None = None, app_dir: str = ".") -> object:
    """Return a WSGI application, or a handler class of http.server. Raises LoadError.

    `spec` is `module:attribute`, `module`, `path/to/file.py[:attribute]`, `module:factory("literal", key=1)` or a folder of
    files; attributes may be dotted. Without it pyproject.toml names the application, or it is that of app.py, wsgi.py or
    main.py.
    """
    return load_named(spec, app_dir)[1]


def load_named(spec: str | None, app_dir: str = ".", config: str = "") -> tuple[str, object]:
    """Return the full name, module:attribute, and the application. `config` replaces pyproject.toml if `spec` is empty."""
    folder = os.path.abspath(app_dir)
    if not os.path.isdir(folder):
        raise LoadError(f"there is no directory {app_dir} to import the application from (--app-dir).")
    if spec:
        return find(spec, folder)
    spec, file = configured(config, folder)
    try:
        return find(spec, folder)
    except LoadError as error:
        if spec:
            raise LoadError(f'{error}\n  The name comes from app = "{spec}" in {relative(file)}.') from error.__cause__
        raise


def find(spec: str, folder: str) -> tuple[str, object]:
    """Return the full name and the application. The commands in the text of a LoadError are variants of the one typed."""
    try:
        path = os.path.join(folder, spec)
        return file_server(spec, path) if spec and is_folder(spec, path) else find_application(spec, folder)
    except LoadError as error:
        raise LoadError(with_application(str(error), spec)) from error.__cause__


def is_folder(spec: str, path: str) -> bool:
    """Return whether a spec means a folder of files to serve, and not a package to import."""
    if not os.path.isdir(path):
        return False
    is_path = os.sep in spec or spec in {".", ".."}
    return is_path or not (os.path.isfile(path + ".py") or os.path.isfile(os.path.join(path, "__init__.py")))


def file_server(spec: str, path: str) -> tuple[str, object]:
    """Return a name and an application that serves the files of a folder."""
    name = os.path.join(spec, "")
    if file := next((file for file in FILES if os.path.isfile(os.path.join(path, file))), ""):
        option = "" if os.path.samefile(path, os.curdir) else f" --app-dir {lazy.shlex.quote(spec)}"
        name += f" (serves files; to run {file}: microwsgi serve{option})"
    # Imported here: a bare WSGI application is served without the framework.
    return name, import_module("microwsgi.framework.fileserver").file_server(path)


def find_application(spec: str, folder: str) -> tuple[str, object]:
    """Return the full name and the application of a module or a file."""
    name, attribute, file = locate(spec, folder)
    module = import_user(name, attribute, sys.path[0])
    if file and not same_file(file, module):
        other = getattr(module, "__file__", None) or "a built-in module"
        raise LoadError(f"{relative(file)} can't be imported: the name {name} is already used by {other}. Rename it.")
    attribute = attribute or next((each for each in NAMES if hasattr(module, each)), "") or handler_class(module)
    application = resolve(module, attribute)
    check(application, f"{name}:{attribute}")
    return f"{name}:{attribute}", application


def handler_class(module: ModuleType) -> str:
    """Return the name of the one handler class of http.server that a module defines; "" if there are none, or several.

    Classes from which another class of the module derives do not count.
    """
    defined = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseHTTPRequestHandler) and value.__module__ == module.__name__
    }
    last = [
        name
        for name, value in defined.items()
        if any(method.startswith("do_") for method in dir(value))
        and not any(issubclass(other, value) and other is not value for other in defined.values())
    ]
    return last[0] if len(last) == 1 else ""


def locate(spec: str, folder: str) -> tuple[str, str, str]:
    """Return the module's name, the attribute and, if a file was named, its path. Put its folder on sys.path."""
    spec = spec or next((file for file in FILES if os.path.isfile(os.path.join(folder, file))), "")
    if not spec:
        raise LoadError(
            f"there is no {' or '.join(FILES)} in {folder}.\n  Try:  microwsgi serve module:attribute"
            "\n        microwsgi serve .   (the files of this directory)"
        )
    place, _, attribute = spec.partition(":")
    if not place.endswith(".py"):
        importable(folder)
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
    """Return the application that the configuration names, and the name of the file; "" if it names none."""
    try:
        table, file = read_table(config, folder)
    except UsageError as error:
        raise LoadError(str(error)) from error
    app = table.get("app", "")
    if not isinstance(app, str):
        raise LoadError(f'invalid app in {file}: expected a string, like app =  "module:attribute".')
    return app, file


def importable(folder: str) -> None:
    """Put a folder first on sys.path."""
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def same_file(file: str, module: ModuleType) -> bool:
    """Return whether a module was imported from this file, and not from another file of the same name."""
    origin = getattr(module, "__file__", None)
    return origin is not None and os.path.realpath(origin) == os.path.realpath(file)


def import_user(name: str, attribute: str, folder: str) -> ModuleType:
    """Import the user's module. Raises LoadError for any exception in it; a UsageError is one sentence without a traceback."""
    try:
        with slow_import_reported(name):
            return import_module(name)
    except KeyboardInterrupt:
        raise
    except UsageError as error:  # the application's own message about its configuration needs no traceback
        raise LoadError(str(error)) from error
    except BaseException as error:
        raise LoadError(describe_import_error(error, name, attribute, folder)) from error


@contextmanager
def slow_import_reported(name: str) -> Iterator[None]:
    """Print the current line of an import that takes longer than SLOW: one that starts a server at module level never ends."""
    thread = threading.get_ident()
    timer = threading.Timer(SLOW, lambda: report_slow_import(name, sys._current_frames().get(thread)))  # documented
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def report_slow_import(name: str, frame: FrameType | None) -> None:
    """Print the line of the user's code that an import is executing."""
    serves, where = False, ""
    while frame is not None and not where:
        serves = serves or frame.f_code.co_name == "serve_forever"
        if not library(frame.f_code.co_filename):
            line = lazy.linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            where = f"\n  {relative(frame.f_code.co_filename)}:{frame.f_lineno}: {line}"
        frame = frame.f_back
    text = f"'{name}' is still being imported after {SLOW:g} s.{where}"
    if serves:
        text += '\n  It starts its own server. Put that line under:  if __name__ == "__main__":'
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        pass  # the standard error is closed


def resolve(module: ModuleType, attribute: str) -> object:
    """Return an attribute, which may be dotted, or the result of calling it if it has parentheses. Raises LoadError."""
    if not attribute:
        names = public_callables(module)
        raise LoadError(
            f"'{module.__name__}' has neither 'app' nor 'application'.{definitions(module)}"
            f"\n  Try:  microwsgi serve {module.__name__}:{names[0] if len(names) == 1 else 'NAME'}"
        )
    path, call, _ = attribute.partition("(")
    value: object = module
    done = module.__name__ + ":"
    for part in path.split("."):
        if not hasattr(value, part):
            raise LoadError(describe_missing_attribute(module, value, part, done, attribute, NAMES))
        value = getattr(value, part)
        done += part + "."
    return run_factory(value, f"{module.__name__}:{path}", attribute) if call else value


def literal_arguments(call: str) -> tuple[list[object], dict[str, object]]:
    """Return the arguments of a call, all literals: 'create_app("prod", debug=True)'. Raises LoadError."""
    ast = lazy.ast
    try:
        node = ast.parse(call, mode="eval").body
        if isinstance(node, ast.Call) and all(each.arg for each in node.keywords):
            keywords = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
            return [ast.literal_eval(each) for each in node.args], keywords
    except (SyntaxError, ValueError):
        pass
    name = call.partition("(")[0]
    raise LoadError(f'{call}: the arguments of a factory must be literals, as in {name}("prod", debug=True).')


def run_factory(factory: object, name: str, call: str) -> object:
    """Return what a factory returns."""
    if not callable(factory):
        raise LoadError(f"{name} is {short_repr(factory)}, which can't be called.")
    arguments, keywords = ([], {}) if call.endswith("()") else literal_arguments(call)
    try:
        return factory(*arguments, **keywords)
    except KeyboardInterrupt:
        raise
    except UsageError as error:
        raise LoadError(str(error)) from error
    except BaseException as error:
        text = format_failure(error, f"{name.partition(':')[0]}:{call} failed:")
        not_entered = error.__traceback__ is not None and error.__traceback__.tb_next is None
        if isinstance(error, TypeError) and not_entered and not arguments and not keywords:
            code = code_of(factory)
            if code is not None and code.co_argcount == 1:
                text += f"\n  Try:  microwsgi serve '{name}(\"...\")'"
            else:
                text += f"\n  Is it the application itself?  Try:  microwsgi serve {name}"
        raise LoadError(text) from error


def check(application: object, name: str) -> None:
    """Raise LoadError for an object that is neither a WSGI application nor a handler class of http.server."""
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        return
    if not callable(application):
        raise LoadError(
            f"{name} is {short_repr(application)}, not a WSGI app."
            "\n  A WSGI app is a callable: def app(environ, start_response): ..."
        )
    called = application if isinstance(application, (FunctionType, MethodType, type)) else type(application).__call__
    code = getattr(called, "__code__", None)  # only Python functions can be inspected
    if code is not None and code.co_flags & COROUTINE:
        raise LoadError(f"{name} is an ASGI app (async); microwsgi serves WSGI apps.\n  Try:  uvicorn {name}")
    if isinstance(application, (FunctionType, MethodType)):
        check_arguments(application, name)


def check_arguments(function: FunctionType | MethodType, name: str) -> None:
    """Raise LoadError for a function that can't be called with environ and start_response."""
    code = function.__code__
    most = code.co_argcount - isinstance(function, MethodType)
    least = most - len(function.__defaults__ or ())
    is_factory = function.__name__ in FACTORIES and least < 2  # environ and start_response
    if not is_factory and (least <= 2 <= most or code.co_flags & VARARGS):
        return
    if not least:
        raise LoadError(f"{name} can be called without arguments: is it a factory?\n  Try:  microwsgi serve '{name}()'")
    if is_factory:
        raise LoadError(f"{name} is a factory with an argument.\n  Try:  microwsgi serve '{name}(\"...\")'")
    raise LoadError(
        f"{name} takes {most} argument{'s' if most > 1 else ''}, and a WSGI app takes two."
        "\n  A WSGI app is a callable: def app(environ, start_response): ..."
    )
