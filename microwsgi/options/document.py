"""docs/options.md and keywords.pyi, generated from the declaration."""

from __future__ import annotations

from microwsgi.options.declaration import OPTIONS
from microwsgi.options.kinds import Integer, Names, OneOf, Option, Seconds, Switch

INTRODUCTION = """\
An option can be set in four places. `--max-header-size 16K` on the command line is `MICROWSGI_MAX_HEADER_SIZE=16K` in the
environment, `max_header_size = "16K"` in a TOML file, and `serve(app, max_header_size="16K")` in a program. The file is the
one that `--config` names, or else the table `[tool.microwsgi]` of pyproject.toml. The command line takes precedence over
the environment, and the environment over the file. `microwsgi serve --show-config` prints the effective values as
a TOML file, with the source of each value in a comment. The key `app` of the file is the application to serve if none is
named.

Options without `--` have no flag: they are seldom changed, and then for a whole machine or project. Set them in the file or
the environment. Variables that begin with `MICROWSGI_` and are not options are ignored; close misspellings of an option
are refused.

Sizes are in bytes and may end in `K`, `M` or `G`; times are in seconds. A switch like `--debug` is turned off by
`--no-debug`. In a variable, the values of repeatable options are separated by commas. The number in parentheses after a
limit is the status of the response to a request that exceeds the limit.

An address is `HOST:PORT`, `[V6]:PORT`, `unix:PATH`, `unix:@NAME` (abstract, Linux) or `fd://N`, a socket inherited from the
parent process; under systemd also `fd://NAME`. `localhost` means both loopback addresses, 127.0.0.1 and ::1, and port 0 means
any free port. The log format `auto` is `line` on a terminal and `combined` elsewhere.

`microwsgi completion bash` prints a script that completes commands, options and values; bash reads it from `~/.bashrc`. zsh,
which needs `compinit` before it, and fish have one, too.

This page is generated from the declarations in `microwsgi/options`: `python -m microwsgi.options > docs/options.md`."""

STUB = """\
# The types of the options as keyword arguments. Generated: python -m microwsgi.options keywords

from collections.abc import Iterable
from typing import Literal, TypedDict
from typing import Unpack as Unpack

class OptionValues(TypedDict, total=False):
"""


def documentation() -> str:
    """Return docs/options.md."""
    lines = ["# Options", "", INTRODUCTION]
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ["", f"## {group}", "", "| option | variable | default | meaning |", "|---|---|---|---|"]
        name = f"{option.flag} {option.metavar}".rstrip() if option.has_flag else option.name
        if option.short:
            name = f"{option.short}, {name}"
        variables = ", ".join(f"`{variable}`" for variable in option.variables)
        default = option.format(option.default)
        lines.append(f"| `{name}` | {variables} | {f'`{default}`' if default else ''} | {option.help} |")
    return "\n".join(lines) + "\n"


def keywords() -> str:
    """Return keywords.pyi."""
    lines = []
    for option in OPTIONS:
        lines += [f"    {option.name}: {keyword_type(option)}", f'    """{option.help[:1].upper()}{option.help[1:]}"""']
    return STUB + "\n".join(lines) + "\n"


def keyword_type(option: Option) -> str:
    """Return the type that a keyword argument may have."""
    if isinstance(option.convert, OneOf):
        choices = ", ".join(f'"{choice}"' for choice in option.convert.choices)
        return f"Literal[{choices}]"
    types = {Integer: "int | str", Seconds: "float | str", Switch: "bool", Names: "str | Iterable[str]"}
    return types.get(type(option), "str")
