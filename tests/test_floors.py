"""Which module may import which (docs/architecture.md): imports only go down, there is no circle, and none is hidden."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow  # `make check` runs these

PACKAGE = Path(__file__).parent.parent / "microwsgi"
EDGE = {"microwsgi", "__main__", "cli", "events", "pytest_plugin", "testing"}
"""What may use everything: the command line, and the modules that users import."""
BELOW = {
    "errors": set[str](),
    "support": set[str](),
    "options": {"errors", "support"},
    "wire": {"errors", "options", "support"},
    "server": {"errors", "options", "support", "wire"},
    "tls": {"errors", "options", "support", "wire", "server"},
    "process": {"support"},
    "prefork": {"errors", "options", "process", "server", "support"},
    "daemon": {"errors", "options", "process", "support"},
    "framework": {"errors", "support"},
    "devtools": {"errors", "framework", "support"},
}
BELOW["serving"] = {*BELOW, "microwsgi"}  # the version
BELOW |= {name: {*BELOW, *EDGE} for name in EDGE}
"""Each floor, and those that it may import; it may import itself too."""
WEBOB = {"framework", "devtools", "serving", *EDGE}
"""Floors that may import WebOb, the one dependency."""
CRYPTOGRAPHY = (
    "cryptography",
    "cryptography.hazmat.primitives",
    "cryptography.hazmat.primitives.asymmetric",
    "cryptography.x509.oid",
)
OPTIONAL = {
    # Servers to compare with, of which those are drawn that are installed.
    ("microwsgi.cli.stack", "cheroot.wsgi"),
    ("microwsgi.cli.stack", "waitress.server"),
    ("microwsgi.cli.stack", "werkzeug.serving"),
    *(("microwsgi.tls.signers", name) for name in CRYPTOGRAPHY),  # the extra [tls], where there is no openssl command
    ("microwsgi.tls.authority", "fcntl"),  # Windows has none
    ("microwsgi.server.log_writer", "fcntl"),  # Windows has none
    ("microwsgi.server.pool", "resource"),  # Windows has none, and macOS does not count a thread's use
}
"""Imports inside functions and blocks: (module, what it imports there); only what a system may lack."""
PYTEST = {"microwsgi.pytest_plugin"}
"""Modules that pytest itself imports, and nobody else."""
SLOW = {"dataclasses", "inspect", "logging", "typing"}
"""Modules of the standard library that `microwsgi serve` is to start without, 3 to 20 ms each."""
QUICK = {"errors", "options", "wire", "server", "tls", "process", "prefork", "daemon", "serving", *EDGE} - {
    "cli",
    "testing",
}
OUTSIDE = {"asyncio", "http", "select", "selectors", "socket", "socketserver", "ssl", "subprocess", "threading"}
"""What wire/ has nothing to do with: bytes go in, and values come out."""


class Import(NamedTuple):
    """One imported module; `nested` when it is inside a function or a block."""

    name: str
    nested: bool


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(), str(path))
    return found


def floor(module: str) -> str:
    """The wing or the single module, by which BELOW names it."""
    return module.split(".")[1] if "." in module else module


def imports(tree: ast.Module, known: set[str]) -> Iterator[Import]:
    """The modules that a module imports; `from package import module` is an import of that module."""
    for node in ast.walk(tree):
        nested = node not in tree.body
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, nested) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are written in full"
            source = node.module or ""
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in known else source, nested)


def climbs(module: str, name: str) -> bool:
    """Whether an import of one of our modules goes up, or across."""
    mine, other = floor(module), floor(name)
    return mine != other and other not in BELOW[mine]


def outside(module: str, name: str) -> bool:
    """Whether an import of somebody else's is one that the floor does not have."""
    mine, top = floor(module), name.split(".", 1)[0]
    if (module, name) in OPTIONAL:
        return False
    if top not in sys.stdlib_module_names:
        return not ((top == "webob" and mine in WEBOB) or (top == "pytest" and module in PYTEST))
    return (top in SLOW and mine in QUICK) or (top in OUTSIDE and mine == "wire")


def faults(module: str, tree: ast.Module, known: set[str]) -> list[str]:
    """What is wrong with the imports of a module."""
    if floor(module) not in BELOW:
        return [f"{module} is on no floor: enter it in EDGE or BELOW"]
    found = []
    for name, nested in imports(tree, known):
        if nested and (module, name) not in OPTIONAL:
            found.append(f"{module} imports {name} inside a function or a block")
        ours = name == "microwsgi" or name.startswith("microwsgi.")
        if climbs(module, name) if ours else outside(module, name):
            found.append(f"{module} may not import {name}")
    if any(isinstance(node, ast.Name) and node.id == "TYPE_CHECKING" for node in ast.walk(tree)):
        found.append(f"{module} has a TYPE_CHECKING block, which can hide a circle")
    if tree.body[1:] and "annotations" not in ast.unparse(tree.body[1]):
        found.append(f"{module} does not begin with `from __future__ import annotations`")
    return found


def lazy_imports(tree: ast.Module) -> Iterator[str]:
    """The modules that `import_module("...")` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))


def circle(known: dict[str, ast.Module]) -> list[str]:
    """A circle of modules that import each other, by a statement or by `import_module`, if there is one."""
    graph = {
        module: {name for name, _ in imports(tree, set(known)) if name in known}
        | {name for name in lazy_imports(tree) if name in known}
        for module, tree in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_only_go_down() -> None:
    known = modules()
    assert [fault for module, tree in known.items() for fault in faults(module, tree, set(known))] == []


def test_no_circle() -> None:
    assert circle(modules()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("microwsgi.wire.head", "import microwsgi.server.server"),
        ("microwsgi.wire.head", "from microwsgi import cli"),
        ("microwsgi.wire.head", "import socket"),
        ("microwsgi.server.handler", "import webob"),
        ("microwsgi.server.handler", "from webob import Response"),
        ("microwsgi.server.handler", "import typing"),
        ("microwsgi.server.handler", "from microwsgi.framework.app import App"),
        ("microwsgi.server.handler", "import numpy"),
        ("microwsgi.server.handler", "def f():\n    import json"),
        ("microwsgi.server.handler", "if TYPE_CHECKING:\n    import json"),
        ("microwsgi.framework.app", "from microwsgi.server import server"),
        ("microwsgi.devtools.stack", "import microwsgi.server.handler"),
        ("microwsgi.errors", "import microwsgi.options"),
        ("microwsgi.new", "import os"),
    ],
)
def test_a_wrong_import_is_found(module: str, line: str) -> None:
    known = {"microwsgi", "microwsgi.cli", "microwsgi.server.server", "microwsgi.server.handler", "microwsgi.options"}
    tree = ast.parse(f'"""A module."""\nfrom __future__ import annotations\n{line}\n')
    assert faults(module, tree, known)


def test_a_missing_future_import_is_found() -> None:
    assert faults("microwsgi.errors", ast.parse('"""A module."""\nimport os\n'), set())


@pytest.mark.parametrize(
    "line",
    ["import microwsgi.a", "from microwsgi import a", "from microwsgi.a import name", "import_module('microwsgi.a')"],
)
def test_a_circle_is_found(line: str) -> None:
    known = {"microwsgi.a": ast.parse("from microwsgi.b import name"), "microwsgi.b": ast.parse(line)}
    assert circle(known)
