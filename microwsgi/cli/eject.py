"""`microwsgi eject`: write a script that serves an application on http.server, without microwsgi.

The script is httpsrv.template, in this folder, with the name of the application filled in.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from string import Template
from types import ModuleType
from typing import Any

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.serving.console import say
from microwsgi.serving.loader import load_named


def eject_command(words: list[str], given: dict[str, Any]) -> int:
    """Run `microwsgi eject`. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f"expected one application, not {len(words)}: {' '.join(words)}.")
    options = Options.from_mapping({name: value for name, value in given.items() if name in BY_NAME})
    name, application = load_named(words[0] if words else None, options.app_dir)
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        raise UsageError(f"{name} is a handler class of http.server: it needs no adapter.")
    output = given["output"]
    script = rendered(name, output)
    if output == "-":
        sys.stdout.write(script)
        return 0
    try:
        with open(output, "w" if given["force"] else "x", encoding="utf-8") as file:
            file.write(script)
    except FileExistsError:
        raise UsageError(f"{output} exists already; --force overwrites it.") from None
    except OSError as error:
        raise UsageError(f"{output} can't be written: {error.strerror}.") from None
    say(f"{output} serves {name} without microwsgi:  python {output}")
    if uses_microwsgi(sys.modules[name.partition(":")[0]]):
        say(f"But {name.partition(':')[0]} itself imports microwsgi, and so will the script.")
    return 0


def rendered(name: str, output: str) -> str:
    """Return the script."""
    module, _, attribute = name.partition(":")
    first = attribute.partition(".")[0].removesuffix("()")
    lines = [f"from {module} import {first}"]
    if first != attribute:
        lines += ["", f"application = {attribute}"]
    elif first != "application":
        lines[0] += " as application"
    file = "httpsrv.py" if output == "-" else output
    if folder := path_to_module(module, file):
        lines[:0] = [f"sys.path.insert(0, str(Path(__file__).resolve().parent / {json.dumps(folder)}))", ""]
    return Template(files(__package__).joinpath("httpsrv.template").read_text("utf-8")).substitute(
        name=name,
        file=os.path.basename(file),
        pathlib="from pathlib import Path\n" if folder else "",
        application="\n".join(lines),
    )


def path_to_module(module: str, script: str) -> str:
    """Return the path from the script's folder to the folder of the module; "" if Python finds the module without it."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is None or "site-packages" in file:
        return ""
    root = os.path.abspath(file)
    for _ in range(module.count(".") + 1 + (os.path.basename(file) == "__init__.py")):
        root = os.path.dirname(root)
    path = os.path.relpath(root, os.path.dirname(os.path.abspath(script)))
    return "" if path == os.curdir else path


def uses_microwsgi(module: ModuleType) -> bool:
    """Return whether a module has imported microwsgi or an object of it."""
    for value in vars(module).values():
        owner = getattr(value, "__name__", "") if isinstance(value, ModuleType) else type(value).__module__
        owners = (str(owner), str(getattr(value, "__module__", "")))
        if any(each.partition(".")[0] == "microwsgi" for each in owners):
            return True
    return False
