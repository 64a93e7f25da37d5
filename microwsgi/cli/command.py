"""One command of the command line: its arguments, parsed with argparse, and the function that it calls."""

from __future__ import annotations

import gc
import os
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

from microwsgi.errors import UsageError
from microwsgi.options.declaration import BY_NAME, unknown
from microwsgi.options.kinds import Names, Option, Switch
from microwsgi.support import lazy
from microwsgi.support.typenames import NoReturn

BACKGROUND = "microwsgi.cli.control"
"""The module of the commands for servers in the background, which not every system supports."""


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are raised."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, where argparse would print its usage and exit."""
        raise UsageError(f"{message.replace('argument ', '', 1)}.\n  Try:  {self.prog} --help")


class Command:
    """One command: its function, as module:function, and its arguments.

    The function is called with the positional arguments and the options. An option of the command line takes precedence over
    the environment, that over the file of `--config`, and that over `defaults`. Options that only this command has are not
    read from the environment; they are validated and always present. The help leaves out the options in `hidden`, which the
    command refuses or ignores. `choices` are the words that its first argument can be.
    """

    def __init__(
        self,
        name: str,
        function: str,
        summary: str,
        *,
        words: str = "",
        choices: Sequence[str] = (),
        about: Sequence[str] = (),
        options: tuple[Option, ...] = (),
        defaults: Mapping[str, object] = MappingProxyType({}),
        examples: Sequence[str] = (),
        hidden: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.function = function
        self.summary = summary
        self.words = words
        self.choices = choices
        self.about = about
        self.options = options
        self.defaults = defaults
        self.examples = examples
        self.hidden = hidden

    def parse(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, object]]:
        """Parse the positional arguments and the options. Raises UsageError."""
        parser = Parser(prog=f"microwsgi {self.name}", add_help=False, allow_abbrev=False, argument_default=SUPPRESS)
        group = parser.add_argument_group()  # a parser itself formats each argument, for which 3.14 imports dataclasses
        group.add_argument("words", nargs="*")
        group.add_argument("-h", "--help", action="store_true")
        group.add_argument("--help-all", action="store_true")
        words = [word.partition("=")[0] for word in arguments]
        for option in self.options:
            flags = [option.short, option.flag] if option.short else [option.flag]
            off = option.off_flag if isinstance(option, Switch) else option.flag
            if not option.has_flag or not (option.short or option.flag in words or off in words):
                continue  # adding all options takes argparse 3 ms
            if isinstance(option, Switch):
                group.add_argument(*flags, dest=option.name, action="store_const", const=True)
                group.add_argument(off, dest=option.name, action="store_const", const=False)
            else:
                action = "append" if isinstance(option, Names) else "store"
                group.add_argument(*flags, dest=option.name, action=action)
        known, strange = parser.parse_known_intermixed_args(list(arguments))
        self.accept_http_server_arguments(arguments, vars(known), strange)
        if strange:
            raise UsageError(self.unknown_flag(strange[0].partition("=")[0]))
        typed = vars(known)
        return typed.pop("words", []), typed

    @property
    def flags(self) -> list[str]:
        """Return all long options."""
        options = [option for option in self.options if option.has_flag]
        switches = [option.off_flag for option in options if isinstance(option, Switch)]
        return ["--help", "--help-all", *(option.flag for option in options), *switches]

    def unknown_flag(self, flag: str) -> str:
        """Return the message for an unknown flag, with a command to try."""
        option = next((each for each in self.options if flag == each.flag), None)
        if option is None:
            return f"{unknown('option', flag, self.flags)}\n  Try:  microwsgi {self.name} --help"
        return (
            f"{option.name} can't be set on the command line, only in the environment or in pyproject.toml."
            f"\n  Try:  {option.variables[0]}=VALUE microwsgi {self.name} ..."
        )

    def accept_http_server_arguments(
        self, arguments: Sequence[str], typed: dict[str, object], strange: Sequence[str]
    ) -> None:
        """Accept arguments of `python -m http.server`, or raise UsageError with the right command."""
        if BY_NAME["bind"] not in self.options:
            return
        program = ["microwsgi", self.name]
        flag, _, value = strange[0].partition("=") if strange else ("", "", "")
        if flag in {"-d", "--directory"}:
            others = [word if word != strange[0] else value for word in arguments if word != flag]
            command = lazy.shlex.join([*program, *(others or ["DIRECTORY"])])
            raise UsageError(f"{flag} is not an option: write the directory alone.\n  Try:  {command}")
        words = typed.get("words", [])
        ports = [word for word in words if word.isascii() and word.isdigit()] if isinstance(words, list) else []
        if ports and not strange and not os.path.exists(ports[0]):
            position = arguments.index(ports[0])
            others = [*arguments[:position], "-p", *arguments[position:]]
            text = f"to set the port, use -p.\n  Try:  {lazy.shlex.join([*program, *others])}"
            if words == ports:
                text += f"\n        {lazy.shlex.join([*program, '.', *others])}   (the files of this directory)"
            raise UsageError(text)
        addresses = typed.get("bind")
        if isinstance(addresses, list) and len(addresses) == 1 and ":" not in addresses[0]:
            typed["host"] = addresses[0]  # http.server's -b has no port
            del typed["bind"]

    def load(self) -> Callable[[list[str], dict[str, object]], int]:
        """Import the function. Enable garbage collection, which `main` has disabled, for new objects only (gc.freeze)."""
        module, _, name = self.function.partition(":")
        if module == BACKGROUND and not hasattr(os, "fork"):  # Windows
            raise UsageError(
                f"microwsgi {self.name} is for background servers (--daemon), which this system does not support. "
                "To stop a server, press Ctrl-C in its window."
            )
        function: Callable[[list[str], dict[str, object]], int] = getattr(import_module(module), name)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return function
