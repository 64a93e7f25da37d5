"""A signal handler may interrupt the main thread anywhere: it sets flags, wakes a thread, and does nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # `make check` runs these

PACKAGE = Path(__file__).parent.parent / "microwsgi"
INSTALL = {"signal", "_install"}
"""The names of `signal.signal` in this package."""
SAFE_CALLS = {"append", "send", "_exit", "limit_drain", "request_stop"}
"""What a handler may call: it takes no lock, and writes nothing but a byte that wakes a thread."""
HANDLERS = {"on_signal", "exit_on_signal", "nothing", "ignored"}


def called(node: ast.Call) -> str:
    """The name of what is called; "" for what is found in a table, as the application's own handler is."""
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def installed(tree: ast.AST) -> Iterator[str]:
    """The names in each expression that a module installs as a signal handler."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2 and called(node) in INSTALL:
            for part in ast.walk(node.args[1]):
                yield getattr(part, "attr", getattr(part, "id", ""))


def unsafe_calls(handler: ast.AST, functions: dict[str, ast.FunctionDef], depth: int = 3) -> set[str]:
    """What a handler calls beside that, also by functions of the package."""
    found: set[str] = set()
    for node in ast.walk(handler):
        if isinstance(node, ast.Call) and (name := called(node)) and name not in SAFE_CALLS:
            inner = functions.get(name)
            found |= {name} if inner is None or not depth else unsafe_calls(inner, functions, depth - 1)
    return found


def test_every_signal_handler_sets_flags_and_wakes_a_thread_and_does_nothing_else() -> None:
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    functions = {
        module: {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for module, tree in trees.items()
    }
    everywhere = functions["prefork/processes.py"] | functions["prefork/channel.py"] | functions["prefork/worker.py"]
    found, faults = set(), []
    for module, tree in trees.items():
        known = everywhere | functions[module]
        for name in {*installed(tree)} & {*known}:
            found.add(name)
            if calls := unsafe_calls(known[name], known):
                faults.append(f"{module}: the handler {name} calls {sorted(calls)}")
    assert found == HANDLERS
    assert not faults, "\n".join(faults)
