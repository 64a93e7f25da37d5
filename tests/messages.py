"""List the messages of the command line and the server, for a reviewer: `python -m tests.messages [FOLDER ...]`.

The texts are collected from the syntax tree of the package: those of exceptions that are raised or made, of calls that print or
log, and of options and commands. Values within a text stand in braces, as in the source.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "microwsgi"
CALLS = {
    "abort",
    "append",
    "complain",
    "log_client_error",
    "log_error",
    "log_exception",
    "log_failure",
    "print",
    "refuse",
    "say",
}
"""Functions and methods whose texts people read."""
DECLARATIONS = {"Text", "Integer", "Seconds", "Switch", "Names", "Command"}
"""Classes of microwsgi.options and microwsgi.cli: their texts are help."""


class Message(NamedTuple):
    """A text and its place."""

    module: str
    line: int
    text: str


def messages(paths: list[Path]) -> Iterator[Message]:
    """The messages of modules, in the order of the files."""
    for path in paths:
        module = path.relative_to(PACKAGE.parent).as_posix()
        found = {text for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for text in texts(node)}
        for line, text in sorted(found):
            yield Message(module, line, text)


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a node that a person reads, each with its line."""
    if isinstance(node, ast.Call) and is_message(name_of(node.func)):
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from sentences(argument)
    # A text may be made by a function, in parts, or stand in a table.
    value = node.value if isinstance(node, (ast.Return, ast.Assign, ast.AugAssign, ast.NamedExpr)) else None
    if value is not None:
        yield from sentences(value)


def is_message(name: str) -> bool:
    """Whether the text given to a function is a message."""
    return name in CALLS or name in DECLARATIONS or name.endswith(("Error", "Disconnected", "Timeout", "TooLarge"))


def name_of(function: ast.expr) -> str:
    """The last part of a function's name."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def sentences(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts in an expression that have at least two words with a space between them."""
    if isinstance(node, (ast.Tuple, ast.List)):
        for element in node.elts:
            yield from sentences(element)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from sentences(value)
    elif isinstance(node, ast.IfExp):
        yield from sentences(node.body)
        yield from sentences(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield from sentences(node.left)
        yield from sentences(node.right)
    else:
        text = text_of(node)
        if text.count(" ") >= 1 and any(character.isalpha() for character in text) and "<" not in text[:2]:
            yield node.lineno, text


def text_of(node: ast.expr) -> str:
    """A literal, or an f-string with its values in braces; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                parts.append(f"{{{ast.unparse(part.value)}}}")
            else:
                parts.append(text_of(part))
        return "".join(parts)
    return ""


def main() -> None:
    """Print the messages."""
    folders = [PACKAGE.parent / name for name in sys.argv[1:]] or [PACKAGE]
    paths = [path for folder in folders for path in (sorted(folder.rglob("*.py")) if folder.is_dir() else [folder])]
    for message in messages(paths):
        text = message.text.replace("\n", "\n    ")
        sys.stdout.write(f"{message.module}:{message.line}\n    {text}\n")


if __name__ == "__main__":
    main()
