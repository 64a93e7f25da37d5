"""Read the options of a file, and print the effective value and the source of each option.

The file is TOML whose keys are the options' names, and `app`: the one that `--config` names, or else the table [tool.microwsgi]
of pyproject.toml, if it has one. Each error in it is a UsageError that names the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from microwsgi.errors import UsageError
from microwsgi.options.declaration import BY_NAME, OPTIONS, Options, unknown
from microwsgi.options.environment import merged
from microwsgi.options.kinds import Names, Option, Switch, Text
from microwsgi.support import lazy

PROJECT = "pyproject.toml"
OURS = rb"tool.*microwsgi|\[\s*.?tool.?\s*\]"
"""A pyproject.toml that does not match has no table [tool.microwsgi], and is not parsed: that would take 6 ms."""


def read_table(config: str, folder: str) -> tuple[dict[str, object], str]:
    """Return the table of a configuration file, and its relative path; an empty table and "" if there is none.

    `config` is the file; if it is "", pyproject.toml in the folder is read.
    """
    path = config or os.path.relpath(os.path.join(folder, PROJECT))
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        if not config:
            return {}, ""
        raise UsageError(f"--config {config} can't be read: {error.strerror}.") from None
    project = os.path.basename(path) == PROJECT
    if project and not re.search(OURS, data):
        return {}, ""
    try:
        table = lazy.tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} can't be read: it is not UTF-8 (byte {error.start}).") from None
    except ValueError as error:
        raise UsageError(f"{path} can't be read: {error}.") from None
    for name in ("tool", "microwsgi") if project else ():
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{path} can't be read: {name} is not a table.")
    return table, path


def from_file(given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the file that `given` names, or of pyproject.toml. Raises UsageError, also for an unknown key."""
    table, path = read_table(str(given.get("config", "")), str(given.get("app_dir", ".")))
    found: dict[str, object] = {}
    known = ["app", *(name for name in BY_NAME if name != "config")]
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{path}: {unknown('option', key, known)}")
        if name != "app":
            found[name] = parse(BY_NAME[name], value, f"{key} = {lazy.json.dumps(value, default=str)} in {path}")
    if "bind" in found and not found.keys().isdisjoint({"host", "port"}):
        raise UsageError(f"{path}: bind has host and port in it: leave out host and port, or bind.")
    return found


def parse(option: Option, value: object, spelled: str) -> object:
    """Return the value of an option, converted from a TOML value. Raises UsageError."""
    if isinstance(option, Text) and not isinstance(value, str):
        raise UsageError(f"invalid {spelled}: expected a string.")
    return option.parse(value, spelled)


def effective_config(
    file: Mapping[str, object], variables: Mapping[str, object], typed: Mapping[str, object], environ: Mapping[str, str]
) -> str:
    """Return all options as a configuration file, with a comment on the source of each value. Raises UsageError."""
    given = merged(file, variables, typed)
    options = Options.from_mapping(given)
    _, path = read_table(options.config, options.app_dir)
    lines = []
    for option in OPTIONS:
        if option.name == "config" or (options.bind and option.name in {"host", "port"}):
            continue
        if option.name not in given:
            source = "default"
        elif option.name in typed:
            source = "command line"
        elif option.name in variables:
            source = next(variable for variable in option.variables if environ.get(variable))
        else:
            source = path
        text = f"{option.name} = {toml(option, getattr(options, option.name))}"
        # `bind` can't be combined with host and port, even if it is empty: as a comment, the file can be read again.
        lines.append(f"{'# ' if option.name == 'bind' and not options.bind else ''}{text:<36} # {source}")
    return "\n".join(lines)


def toml(option: Option, value: object) -> str:
    """Return a value in the syntax of TOML."""
    if isinstance(option, Switch):
        return "true" if value else "false"
    if isinstance(option, Names):
        return lazy.json.dumps(value)
    text = option.format(value)
    return text if text.replace(".", "", 1).isdigit() and not isinstance(value, str) else lazy.json.dumps(text)
