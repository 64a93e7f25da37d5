"""The configuration of apps/probe.py and apps/path.py: a TOML file.

interval = 10                 # seconds between the rounds
probes = 10                   # in a round
timeout = 2                   # seconds for a whole probe
allow = ["10.1.0.0/16"]       # networks that visitors may ask for; none without this line
ports = [22, 80, 443]         # and the ports
per_minute = 600              # probes that a visitor, or a Prometheus, may ask for in a minute
history = "probe.db"          # "" keeps the history in memory; without this line it is beside this file

[[target]]
name = "web"
module = "https"              # icmp, tcp, tls, http, https, dns
target = "www.example.test"
path = "/health"              # http and https: path, and status, which are the expected ones;
status = [200, 301]           # dns: query and type
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

from apps.probing.policy import WELL_KNOWN, Policy, Refused, parse
from apps.probing.probes import MODULES, TIMEOUT, Check
from microwsgi.errors import UsageError

NUMBERS = {
    "interval": (1.0, 3600.0, 10.0),
    "probes": (1, 100, 10),
    "timeout": (0.05, 30.0, TIMEOUT),
    "per_minute": (1, 10**6, 600),
}
"""Numbers: the minimum, the maximum and the default. The limits keep this from being a load generator."""
KEYS = {"allow": list, "ports": list, "history": str, "target": list}
REQUIRED = {"name", "module", "target"}


class ConfigError(UsageError):
    """The file is invalid; the text is one sentence with the place. The command line prints it without a traceback."""


class Config:
    """A checked configuration. Raises ConfigError."""

    def __init__(self, values: dict[str, Any], source: str = "the configuration") -> None:
        for key, value in values.items():
            if key not in KEYS and key not in NUMBERS:
                raise ConfigError(f"{source}: unknown key {key}; expected {', '.join((*NUMBERS, *KEYS))}.")
            if key in KEYS and not isinstance(value, KEYS[key]):
                raise ConfigError(f"{source}: {key} is {value!r}; expected a {KEYS[key].__name__}.")
        try:
            self.interval, probes, self.timeout, per_minute = (number(values, key) for key in NUMBERS)
            self.probes, self.per_minute = int(probes), int(per_minute)
            self.policy = Policy(values.get("allow", ()), map(int, values.get("ports", WELL_KNOWN)))
            self.targets: dict[str, Check] = {}
            for name, check in map(target, values.get("target", ())):
                if name in self.targets:
                    raise ValueError(f"more than one target has the name {name}")
                self.targets[name] = check
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{source}: {error}.") from None
        beside = str(Path(source).with_suffix(".db")) if Path(source).exists() else ""
        self.history: str = values.get("history", beside)


def number(values: dict[str, Any], key: str) -> float:
    """A number of the file. Raises ValueError."""
    smallest, largest, default = NUMBERS[key]
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{key} is {value!r}; expected a number")
    if not smallest <= value <= largest:
        raise ValueError(f"{key} is {value}; expected {smallest:g} to {largest:g}")
    return float(value)


def target(entry: Any) -> tuple[str, Check]:  # of a file
    """The name of a target, and how to probe it. Raises ValueError."""
    if not isinstance(entry, dict) or not all(isinstance(v, str) for k, v in entry.items() if k != "status"):
        raise ValueError("a [[target]] has name, module and target, all text")
    place = f"the target {entry.get('name', '')!r}"
    if missing := REQUIRED - entry.keys():
        raise ValueError(f"{place} has no {', '.join(sorted(missing))}")
    module, own = entry["module"], {key: value for key, value in entry.items() if key not in REQUIRED}
    if module not in MODULES:
        raise ValueError(f"{place}: unknown module {module}; expected {', '.join(MODULES)}")
    if strange := own.keys() - MODULES[module].keys:
        raise ValueError(f"{place}: unknown key {', '.join(sorted(strange))} for the module {module}")
    path = own.get("path", "/")
    if not path.startswith("/") or not all("!" <= character <= "~" for character in path):
        raise ValueError(f"{place}: the path {path!r} is not an absolute path in ASCII; percent-encode the rest")
    try:
        parse(entry["target"])
        own |= {"status": frozenset(map(int, own["status"]))} if "status" in own else {}
    except (Refused, ValueError, TypeError) as error:
        raise ValueError(f"{place}: {str(error).removesuffix('.')}") from None
    return entry["name"], Check(module, entry["target"], **own)


def load(path: str) -> Config:
    """The configuration in a file; without one, port 8000 of this machine is probed. Raises ConfigError."""
    if not path:
        return Config({"target": [{"name": "port 8000", "module": "tcp", "target": "localhost:8000"}]})
    try:
        return Config(tomllib.loads(Path(path).read_text(encoding="utf-8")), path)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
