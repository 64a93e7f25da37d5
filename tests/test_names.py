"""No name of version 0.1 that only its authors understood comes back in its old meaning (tests/names.txt)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from microwsgi.options.declaration import BY_NAME
from tests.tables import Rows

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "names.txt"


class Renamed(NamedTuple):
    """A name of version 0.1, what stands in its place, and the file or folder that must not have it."""

    old: str
    new: str
    where: Path


def renamed() -> list[Renamed]:
    """The rows of the list."""
    rows = [line.split() for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [Renamed(row[0], " ".join(row[1:-1]), ROOT / row[-1]) for row in rows]


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names that a module gives to classes, functions, parameters and attributes, and its environ keys."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno
        elif isinstance(node, ast.Attribute) and is_own(node):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield node.value, node.lineno
    if isinstance(tree, ast.Module):
        for statement in tree.body:  # constants
            if isinstance(statement, ast.Assign):
                yield from ((each.id, each.lineno) for each in statement.targets if isinstance(each, ast.Name))


def is_own(node: ast.Attribute) -> bool:
    """Whether an attribute is assigned, or is one of `self` or of options."""
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return isinstance(node.ctx, ast.Store) or name in {"self", "cls", "options", "limits", "config"}


def modules() -> dict[Path, dict[str, int]]:
    """Each module of the package, the benchmarks and the tests, and dev.py, with its names and their lines."""
    folders = ("microwsgi", "benchmarks", "tests")
    paths = [ROOT / "dev.py", *sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return {path: dict(names(ast.parse(path.read_text(encoding="utf-8")))) for path in paths}


@pytest.mark.slow
def test_no_old_name_has_its_old_meaning() -> None:
    known = modules()
    with Rows() as rows:
        for old, new, where in renamed():
            with rows(old):
                assert where.exists()
                found = [
                    f"{path.relative_to(ROOT)}:{own.get(old, 1)}"
                    for path, own in known.items()
                    if where in {path, *path.parents} and (old in own or old in {path.name, f"{path.parent.name}/"})
                ]
                assert found == [], f"{old} is {new} now"
                assert old not in BY_NAME


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("class Lead: pass", "Lead"),
        ("def f(judge): pass", "judge"),
        ("f(grace_time=1)", "grace_time"),
        ("self.parked = 1", "parked"),
        ("x = options.slow", "slow"),
        ("environ['microwsgi.wake']", "microwsgi.wake"),
        ("HOMES = {}", "HOMES"),
    ],
)
def test_a_name_is_found(source: str, name: str) -> None:
    assert name in dict(names(ast.parse(source)))
