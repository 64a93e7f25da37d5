"""The texts of `microwsgi --help` and `microwsgi COMMAND --help`, for terminals of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from microwsgi.cli.command import Command
from microwsgi.options.declaration import OPTIONS
from microwsgi.options.kinds import Option, Switch

WIDTH = 80
"""Columns of a terminal."""
LEFT = 26
"""Columns of the left part, with the name of a command or option."""
JOINED = "\xa0"
"""A space at which a line is not broken."""
NOTES = (
    "A number in parentheses after a limit is the status of the response to a request",
    "that exceeds the limit.",
    "",
    "Options can also be set in the environment (MICROWSGI_PORT=8000) and in a file",
    "(port = 8000 under [tool.microwsgi] in pyproject.toml).",
)


def command_help(command: Command, *, every: bool) -> str:
    """Return the help of a command: the options that people use first, or all of them by group."""
    defaults = command.defaults
    shown = [option for option in command.options if option.name not in command.hidden]
    lines = [f"Usage: microwsgi {command.name} {command.words}".rstrip(), "", command.summary, *command.about]
    if not set(OPTIONS) <= set(command.options):
        lines += ["", "Options:", *option_lines(command.options, defaults)]
    elif every:
        for group, options in groupby(shown, lambda option: option.group):
            lines += ["", f"{group}:", *option_lines(options, defaults)]
        lines += ["", *NOTES]
    else:
        common = [option for option in shown if option.is_common]
        lines += ["", "Options:", *option_lines(common, defaults), *entry("    --help-all", "show all options")]
    return "\n".join([*lines, "", "Examples:", *(f"  {example}" for example in command.examples)])


def option_lines(options: Iterable[Option], defaults: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines for some options, with their defaults."""
    for option in options:
        if not option.has_flag:
            continue
        default = defaults.get(option.name, option.default)
        flag = f"{option.flag} {option.metavar}".rstrip()
        text = option.help
        if isinstance(option, Switch):
            if default is True:
                flag, text = f"--[no-]{flag[2:]}", f"{text} (default:{JOINED}on)"
        elif option.format(default):
            text = f"{text} (default:{JOINED}{option.format(default)})"
        yield from entry(f"{option.short}, {flag}" if option.short else f"    {flag}", text)


def entry(name: str, text: str) -> Iterator[str]:
    """Yield lines with a name and a text in two columns. If the name is too long, the text begins on the next line."""
    left = f"  {name}"
    if len(left) > LEFT:
        yield left
        left = ""
    line = ""
    for part in text.split(" "):
        word = part.replace(JOINED, " ")
        if line and LEFT + 2 + len(line) + 1 + len(word) > WIDTH:
            yield f"{left:<{LEFT}}  {line}"
            left, line = "", word
        else:
            line = f"{line} {word}".strip()
    yield f"{left:<{LEFT}}  {line}"


def overview(commands: Iterable[Command], example: str) -> str:
    """Return the help of `microwsgi` itself."""
    lines = ["Usage: microwsgi COMMAND ...", "", "Serve and develop WSGI applications.", "", "Commands:"]
    for command in commands:
        lines += entry(command.name, command.summary)
    lines += ["", *entry("microwsgi COMMAND --help", "show the options of a command")]
    lines += entry("microwsgi --version", "show the version of microwsgi and of Python")
    return "\n".join([*lines, "", "Examples:", f"  microwsgi dev {example}", "  microwsgi serve --help"])
