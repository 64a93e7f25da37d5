"""The public names: they load when they are used, and type checkers see the same ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from urllib.request import urlopen
from wsgiref.types import WSGIApplication

import pytest

import microwsgi
from tests.running import Running, environment
from tests.running import microwsgi as command_line

WSGI_APP: WSGIApplication = microwsgi.App()
STUB = Path(microwsgi.__file__).with_suffix(".pyi")


def test_the_stub_says_what_the_module_does() -> None:
    tree = ast.parse(STUB.read_text())
    homes = {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert homes == microwsgi.LAZY_IMPORTS
    assert sorted(public) == sorted(microwsgi.__all__)


@pytest.mark.parametrize("name", microwsgi.LAZY_IMPORTS)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    assert getattr(microwsgi, name) is getattr(import_module(microwsgi.LAZY_IMPORTS[name]), name)


def test_an_application_may_be_typed_as_the_standard_library_has_it() -> None:
    """Read by mypy: what wsgiref.types calls an application, and an App, are applications for the server."""
    for application in (WSGI_APP, microwsgi.App()):
        with microwsgi.make_server("127.0.0.1", 0, application) as server:
            assert server.application is application


def test_all_names_are_listed_before_they_are_loaded() -> None:
    assert set(microwsgi.__all__) <= set(dir(microwsgi))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'microwsgi' has no attribute 'Ap'"):
        microwsgi.Ap  # type: ignore[attr-defined]  # noqa: B018


def imported(*arguments: str) -> set[str]:
    """The modules that a run of this Python has imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], env=environment(), capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    assert {name for name in imported("-c", "import microwsgi") if name.startswith("microwsgi.")} == set()


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help"), ("--version",)])
def test_help_never_imports_webob(arguments: tuple[str, ...]) -> None:
    names = imported(*command_line(*arguments)[1:])
    assert "microwsgi.cli" in names
    assert "webob" not in names


def test_a_bare_application_is_served_without_webob(command: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(
        "import sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [' '.join(sys.modules).encode()]\n"
    )
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}  # it imports inspect itself
    url = command("serve", "bare:app", "--port", "0", cwd=tmp_path, **unmeasured).url()
    with urlopen(url) as response:  # noqa: S310 - ours
        names = response.read().decode().split()
    assert "microwsgi.server.server" in names
    slow = {"webob", "dataclasses", "inspect", "logging", "difflib", "json", "tomllib", "traceback", "encodings.idna"}
    assert slow.isdisjoint(names)
