"""Commands that a message suggests: the command that was typed, with one part changed.

If a program calls `serve`, no command was typed, and messages suggest none.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from microwsgi.errors import ListenError
from microwsgi.support import lazy

COMMAND = re.compile(r"microwsgi serve (.+?)(?=   \(|$)", re.MULTILINE)
"""A command in a message, without the remark after it."""
WITH_APP = {"serve", "dev", "stack", "check", "routes", "eject", "unit"}
"""Commands that take an application."""
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder of microwsgi."""
PORT = r"(?:^|\0)(?:-p\0?|--port[=\0])|(?:^|\0)(?:-b\0?|--bind[=\0])[^\0]*:"
"""The text before a port. Words are joined by NUL, which no word can contain."""
HOST = r"(?:^|\0)(?:-b\0?|--bind[=\0]|--host[=\0])"
HOSTS = (("127.0.0.1", "only this machine"), ("0.0.0.0", "every interface"))


def typed_command(arguments: Sequence[str] | None = None) -> tuple[str, list[str]] | None:
    """Return the program's name and its arguments; None in another program, or for a command without an application."""
    program, *words = sys.argv if arguments is None else arguments
    base = os.path.basename(program)
    if base == "__main__.py" and os.path.dirname(os.path.abspath(program)) == PACKAGE:
        base = "python -m microwsgi"
    if base not in {"microwsgi", "python -m microwsgi"} or not words or words[0] not in WITH_APP:
        return None
    return base, words


def with_application(message: str, spec: str, arguments: Sequence[str] | None = None) -> str:
    """Replace `microwsgi serve APP` in a message by the command that was typed, with this APP instead of `spec`."""
    typed = typed_command(arguments)
    if typed is None:
        return message
    base, (command, *others) = typed
    position = others.index(spec) if spec in others else 0
    before = lazy.shlex.join(others[:position])
    after = lazy.shlex.join(others[position + (spec in others) :])

    def retyped(found: re.Match[str]) -> str:
        return " ".join(filter(None, [base, command, before, found[1], after]))

    return COMMAND.sub(retyped, message)


def with_suggestions(error: ListenError, arguments: Sequence[str] | None = None) -> ListenError:
    """Return the error with the commands to try instead."""
    typed = typed_command(arguments)
    suggestions: list[tuple[str, str]] = []
    if typed is not None and error.free_port:
        suggestions.append((replaced(typed, rf"({PORT}){error.port}(?=\0|$)", str(error.free_port), "-p"), ""))
    if typed is not None and error.wrong_host:
        pattern = rf"({HOST})\[?{re.escape(error.wrong_host)}\]?(?=:\d|\0|$)"
        suggestions += [(replaced(typed, pattern, host, "--host"), remark) for host, remark in HOSTS]
    if error.holder:
        suggestions.append((f"kill {error.holder}", "stop that program"))
    if not suggestions:
        return error
    width = max(len(command) for command, _ in suggestions)
    lines = [f"{command:<{width}}   ({remark})" if remark else command for command, remark in suggestions]
    return ListenError(f"{error}\n  Try:  " + "\n        ".join(lines))


def replaced(typed: tuple[str, list[str]], pattern: str, value: str, flag: str) -> str:
    """Return the command with a value where the pattern was typed, or with the flag and the value at its end."""
    base, words = typed
    text, count = re.subn(pattern, lambda found: found[1] + value, "\0".join(words))
    return f"{base} {lazy.shlex.join(text.split(chr(0)) if count else [*words, flag, value])}"
