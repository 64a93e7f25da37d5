"""The structure of the server's core: parts that hold each other, in one direction (docs/architecture.md)."""

from __future__ import annotations

import ast
import importlib
import inspect
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import microwsgi
from microwsgi.options import Options
from microwsgi.server.compat import HandlerTransport
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.sockets import UnixListener
from microwsgi.server.state import OWNED
from microwsgi.server.transport import Transport
from tests import states

pytestmark = pytest.mark.slow  # `make check` runs these

PACKAGE = Path(microwsgi.__file__).parent
CORE = ("wire/*", "server/*", "tls/transport", "tls/handshake", "tls/front")
BASES = {
    "Transport": "a TCP or Unix socket's transport, used by every connection without TLS",
    "WSGIRequestHandler": "the handler of every connection of a WSGI application",
}
"""Our classes that others derive from: each is whole, and used on its own."""
OF_OTHERS = {"context", "options", "sni", "sni_callback", "close_connection", "path"}
"""Attributes of ssl's and http.server's objects, which these want to be assigned."""


STANDARD = {
    *("RequestHandlerClass", "__name__", "address_family", "allow_reuse_address", "request"),
    *("server", "server_address", "server_name", "server_port", "socket", "timeout"),
}
"""Attributes that the standard library's base classes assign, or that every class has."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Each module of the core."""
    for pattern in CORE:
        for path in sorted(PACKAGE.glob(f"{pattern}.py")):
            yield f"microwsgi.{path.parent.name}.{path.stem}", ast.parse(path.read_text())


def classes() -> Iterator[tuple[str, ast.ClassDef, type]]:
    """Each class of the core with its syntax and itself."""
    for module, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield module, node, getattr(importlib.import_module(module), node.name)


def own_attributes(node: ast.AST) -> set[str]:
    """The attributes that the code below a node assigns to `self` or `cls`."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and is_self(each.value)
    }


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def ours(cls: type) -> list[type]:
    """The classes of ours among the bases of a class."""
    return [base for base in cls.__mro__[1:] if base.__module__.startswith("microwsgi.")]


def test_no_method_is_left_to_a_subclass() -> None:
    """A part gets as arguments what it needs: no NotImplementedError, no call of a method that the class does not have."""
    wrong = []
    assigned: dict[type, set[str]] = {cls: own_attributes(node) for _, node, cls in classes()}
    for module, node, cls in classes():
        known = (
            set(dir(cls)) | STANDARD | assigned[cls] | set().union(*(assigned.get(base, set()) for base in ours(cls)))
        )
        known |= {name for each in cls.__mro__ for name in vars(each).get("__annotations__", {})}
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and is_self(each.value) and each.attr not in known:
                wrong.append(f"{module}:{each.lineno} {cls.__name__} has no {each.attr}")
            if isinstance(each, ast.Name) and each.id == "NotImplementedError":
                wrong.append(f"{module}:{each.lineno} NotImplementedError")
    assert wrong == []


def test_a_base_class_is_whole_and_used_on_its_own() -> None:
    bases = {base.__name__ for _, _, cls in classes() for base in ours(cls)}
    assert bases == BASES.keys()
    assert issubclass(HandlerTransport, Transport)


def test_attributes_are_assigned_by_the_module_of_their_class() -> None:
    """Other modules call methods."""
    owners: dict[str, set[str]] = {}
    for module, node, _ in classes():
        for name in own_attributes(node):
            owners.setdefault(name, set()).add(module)
    wrong = [
        f"{module}:{each.lineno} {ast.unparse(each)}"
        for module, tree in modules()
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, (ast.Store, ast.Del))
        if not is_self(each.value) and each.attr not in OF_OTHERS and module not in owners.get(each.attr, {module})
    ]
    assert wrong == []


def test_an_attribute_has_one_class_in_a_hierarchy_that_assigns_it() -> None:
    """A class does not assign what its base declares."""
    assigned = {cls: own_attributes(node) for _, node, cls in classes()}
    shared = {
        (cls.__name__, base.__name__): assigned[cls] & assigned.get(base, set())
        for cls in assigned
        for base in ours(cls)
    }
    # An override of a method that sets the state is a method of the state machine; a redirector is one connection's whole life.
    assert {pair: names for pair, names in shared.items() if names} in (
        {},
        {("Redirector", "WSGIRequestHandler"): {"state"}},
    )


def test_options_are_frozen() -> None:
    options = Options()
    with pytest.raises(AttributeError, match="frozen"):
        options.port = 1
    assert options.replaced(port=1).port == 1
    assert options.port == 8000


def test_the_table_of_states_in_the_docs_is_that_of_the_code() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    assert "\n".join(states.lines()) in text, "write it anew: python -m tests.states"
    assert set(states.undocumented()) == OWNED
    for name, meaning in states.docstrings().items():
        assert meaning, f"{name} has no docstring"


# --- The path of a request --------------------------------------------------------------------------------------------------


def traced(count: int) -> tuple[list[list[tuple[str, str]]], list[str]]:
    """The calls of ours in each of some GETs on a kept connection, as (function, file), and the frames in the application."""
    frames: list[str] = []
    calls: list[tuple[str, str]] = []
    recording = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        frame = inspect.currentframe()
        frames[:] = []
        while frame is not None:
            frames.insert(0, frame.f_code.co_name)
            frame = frame.f_back
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def profile(frame: Any, event: str, argument: object) -> None:
        if recording.is_set() and event == "call":
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents and threading.current_thread().name != "serve":
                calls.append((frame.f_code.co_name, path.relative_to(PACKAGE).as_posix()))

    server = microwsgi.WSGIServer(("127.0.0.1", 0), application=application)
    threading.setprofile(profile)
    try:
        serving = threading.Thread(target=server.serve_forever, name="serve")
        serving.start()
        with socket.create_connection(("127.0.0.1", int(server.server_port)), 10) as client:
            for number in range(count + 2):
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(65536).endswith(b"hello")
                if not number:
                    recording.set()
        recording.clear()
        server.shutdown()
        serving.join()
    finally:
        threading.setprofile(None)
        server.server_close()
    begins = [number for number, (function, _) in enumerate(calls) if function == "on_ready"]
    return [calls[begin:end] for begin, end in pairwise(begins)], frames


def test_a_get_on_a_kept_connection_takes_six_files_and_24_calls() -> None:
    """From one event of a connection to the next. The shortest of 50: a clock ticks now and then."""
    found, frames = traced(50)
    # A request that takes more than 0.3 ms, as all do on a busy machine, is classified: that is not part of its path.
    pool = {"next_task"}
    typical = min(
        ([each for each in calls if each[1] != "server/pool.py" or each[0] in pool] for calls in found), key=len
    )
    assert len(typical) <= 24, typical
    around = {"server/loop.py", "server/pool.py"}
    files = {file for _, file in typical} - around
    assert len(files) <= 6, files
    assert frames == ["_bootstrap", "_bootstrap_inner", "run", "handle_one_request", "application"]


def test_the_path_of_a_request_does_not_grow() -> None:
    files = [path for path in (PACKAGE / "wire").glob("*.py") if path.name != "proxy_protocol.py"]  # before any request
    files += [PACKAGE / "server" / f"{name}.py" for name in ("transport", "exchange", "handler", "loop", "pool")]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    # 3340 while there was one loop: the pools of several loops share permits, and their threads read caches without a lock.
    assert lines < 3350, lines


def test_a_handler_is_one_of_http_servers() -> None:
    assert issubclass(WSGIRequestHandler, BaseHTTPRequestHandler)
    assert issubclass(microwsgi.WSGIServer, HTTPServer)
    assert ours(UnixListener) == []
