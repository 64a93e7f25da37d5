"""What the operator says, in a TOML file: whom to probe, how often, and whom others may have probed.

interval = 10                 # seconds between the rounds
probes = 10                   # in a round
allow = ["10.1.0.0/16"]       # networks that whoever sees the pages may ask for; none without this line
ports = [22, 80, 443]         # and the ports

[[target]]
name = "web"
module = "https"              # icmp, tcp, tls, http, https, dns
target = "www.example.test"
path = "/health"              # http and https; `query` and `type` are dns's
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from apps.probing.outcome import Outcome
from apps.probing.policy import WELL_KNOWN, Policy, Refused, Target, parse
from apps.probing.probes import MODULES, TIMEOUT, dns_query, http_get

KEYS = {"interval": float, "probes": int, "timeout": float, "allow": list, "ports": list, "target": list}
OWN = {"http": {"path"}, "https": {"path"}, "dns": {"query", "type"}}
"""What a target of a module may say beside name, module and target."""
SHORTEST, MOST = 1.0, 100
"""Seconds of an interval, and probes in a round: this is no load generator."""


class ConfigError(ValueError):
    """The file says something that it can't mean; the text is one sentence with the place."""


class Watched:
    """One target of the file: its name, how it is probed, and where it is; looked up anew for each round, and judged anew."""

    def __init__(self, name: str, module: str, target: str, **own: str) -> None:
        self.name, self.module, self.target = name, module, target
        self.send: Callable[[Target, float], Outcome] = MODULES[module].send
        if module in {"http", "https"} and "path" in own:
            self.send = partial(http_get, secure=module == "https", path=own["path"])
        elif module == "dns":
            self.send = partial(dns_query, name=own.get("query", "localhost"), kind=own.get("type", "A"))

    def resolve(self, policy: Policy) -> Target:
        """Raises Refused."""
        return policy.resolve(self.target, MODULES[self.module].port, configured=True)


class Config:
    """A checked configuration. Raises ConfigError."""

    def __init__(self, values: dict[str, Any], source: str = "the configuration") -> None:
        self.source = source
        for key, value in values.items():
            if key not in KEYS:
                raise ConfigError(f"{source}: there is no {key}; there are {', '.join(KEYS)}.")
            if not isinstance(value, (int, float) if KEYS[key] is float else KEYS[key]) or isinstance(value, bool):
                raise ConfigError(f"{source}: {key} is {value!r}, and should be of type {KEYS[key].__name__}.")
        self.interval = max(float(values.get("interval", 10.0)), SHORTEST)
        self.probes = min(max(int(values.get("probes", 10)), 1), MOST)
        self.timeout = float(values.get("timeout", TIMEOUT))
        try:
            self.policy = Policy(values.get("allow", ()), map(int, values.get("ports", WELL_KNOWN)))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{source}: {error}.") from None
        self.targets = [self.watched(each) for each in values.get("target", ())]
        names = [each.name for each in self.targets]
        if len(set(names)) < len(names):
            raise ConfigError(f"{source}: two targets have one name.")

    def watched(self, entry: Any) -> Watched:  # noqa: ANN401 - of a file
        """One [[target]]."""
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise ConfigError(f"{self.source}: a [[target]] has name, module and target, all text.")
        missing = {"name", "module", "target"} - entry.keys()
        if missing:
            raise ConfigError(f"{self.source}: the target {entry.get('name', '')} has no {', '.join(sorted(missing))}.")
        module = entry["module"]
        if module not in MODULES:
            raise ConfigError(f"{self.source}: there is no module {module}; there are {', '.join(MODULES)}.")
        strange = entry.keys() - {"name", "module", "target"} - OWN.get(module, set())
        if strange:
            raise ConfigError(f"{self.source}: a target of {module} has no {', '.join(sorted(strange))}.")
        try:
            parse(entry["target"])
        except Refused as error:
            raise ConfigError(f"{self.source}: {entry['target']!r}: {error}") from None
        return Watched(**entry)


def load(path: str) -> Config:
    """The configuration in a file; of "", one that watches this machine's own port 8000. Raises ConfigError."""
    if not path:
        return Config({"target": [{"name": "here", "module": "tcp", "target": "localhost:8000"}]})
    try:
        return Config(tomllib.loads(Path(path).read_text(encoding="utf-8")), path)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.") from None
