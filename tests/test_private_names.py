"""Private names of Python and of WebOb on which we rely: each is listed with the test that shows what we rely on."""

from __future__ import annotations

import ast
import atexit
import socket
import subprocess
import sys
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import webob

from tests.running import ROOT, environment

pytestmark = pytest.mark.slow  # `make check` runs these

RELIED_ON = {
    ("atexit", "_clear"): "test_atexit_forgets_and_runs_functions",
    ("atexit", "_run_exitfuncs"): "test_atexit_forgets_and_runs_functions",
    ("threading", "_threading_atexits"): "test_pools_of_threads_register_their_end",
    ("SourceFileLoader", "get_code"): "test_imports_call_the_get_code_of_the_class",
    ("socket", "_accept"): "test_a_socket_accepts_a_descriptor",
}
DOCUMENTED = {("sys", "_current_frames"), ("sys", "_getframe"), ("os", "_exit"), ("sys", "_is_gil_enabled")}
METHODS = {"_replace", "_asdict", "_fields", "_make"}
"""Documented names of named tuples."""
SOCKET_NAMES = {name for name in dir(socket.socket) if name.startswith("_") and not name.startswith("__")}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_in(file: Path) -> set[tuple[str, str]]:
    """Return the private names of imported modules in a file, those given to getattr as strings too."""
    tree = ast.parse(file.read_bytes())
    modules = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    theirs = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("microwsgi")
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner != "self" and name in SOCKET_NAMES:
                found.add(("socket", name))
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules and private(name):
                found.add((modules[module], name))
            case ast.Call(
                func=ast.Name(id="getattr"), args=[ast.Name(id=module), ast.Constant(value=str(name)), *_]
            ) if module in modules and private(name):
                found.add((modules[module], name))
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr=name)]) if owner in theirs:
                found.add((owner, name))  # a class that is changed for the whole process
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith("microwsgi"):
                found |= {(module, alias.name) for alias in names if private(alias.name)}
    return found


def overridden(file: Path) -> set[tuple[str, str]]:
    """Return the private methods of WebOb's classes that a class in a file overrides."""
    theirs = {name for each in (webob.Request, webob.Response) for name in dir(each) if private(name)}
    classes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ClassDef) and node.bases]
    return {
        (each.name, node.name)
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef) and node.name in theirs
    }


def test_all_private_names_that_are_used_are_listed_here() -> None:
    used: set[tuple[str, str]] = set()
    for file in (ROOT / "microwsgi").rglob("*.py"):
        used |= names_in(file) | overridden(file)
    assert used - DOCUMENTED == set(RELIED_ON)
    assert all(test in globals() for test in RELIED_ON.values())


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_atexit_forgets_and_runs_functions() -> None:
    assert callable(atexit._clear)
    assert run("import atexit; atexit.register(print, 'a'); atexit._clear(); atexit.register(print, 'b')") == "b\n"
    program = "import atexit, os; atexit.register(print, 'a', flush=True); atexit._run_exitfuncs(); os._exit(0)"
    assert run(program) == "a\n"


def test_pools_of_threads_register_their_end() -> None:
    """Each entry is called without arguments, and one ends the pools."""
    program = """
import threading, concurrent.futures, os
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(print, "ran", flush=True).result()
for end in reversed(threading._threading_atexits):
    end()
print(*[thread.is_alive() for thread in pool._threads], flush=True)
os._exit(0)
"""
    assert run(program) == "ran\nFalse\n"
    assert isinstance(threading._threading_atexits, list)  # type: ignore[attr-defined]


def test_imports_call_the_get_code_of_the_class(tmp_path: Path) -> None:
    (tmp_path / "imported_here.py").write_text("value = 1")
    program = f"""
import sys
from importlib.machinery import SourceFileLoader
sys.path.insert(0, {str(tmp_path)!r})
SourceFileLoader.get_code = lambda loader, name: compile("value = 2", name, "exec")
import imported_here
print(imported_here.value)
"""
    assert run(program) == "2\n"
    assert "get_code" not in vars(SourceFileLoader), "we set an attribute of this class, not of its parent"


def test_a_socket_accepts_a_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        descriptor, address = listener._accept()  # type: ignore[attr-defined]
        with socket.socket(fileno=descriptor) as accepted:
            assert address == client.getsockname() == accepted.getpeername()
            assert not accepted.get_inheritable()
