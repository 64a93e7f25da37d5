"""The options that environment variables set: MICROWSGI_PORT, PORT.

Variables of other programs are ignored. Kubernetes sets several for each service, and those of a service called microwsgi begin
like ours: MICROWSGI_SERVICE_HOST, and MICROWSGI_PORT=tcp://10.0.0.7:80. An unknown variable is refused only if it looks
like a misspelt option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from microwsgi.errors import UsageError
from microwsgi.options.declaration import OPTIONS
from microwsgi.options.kinds import Option
from microwsgi.support import lazy

PREFIX = "MICROWSGI_"
SERVICE_NAME = r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$"
SERVICE_URL = ("tcp://", "udp://", "sctp://")
"""The names and values of the variables that Kubernetes and Docker links set for a service."""
SIMILARITY = 0.8
"""How similar an unknown variable must be to a known one to be a misspelling of it (difflib's ratio)."""


def from_environment(environ: Mapping[str, str], options: Iterable[Option] = OPTIONS) -> dict[str, object]:
    """Return the values that variables set for these options. Raises UsageError, also for a misspelt variable."""
    known = {variable: option for option in OPTIONS for variable in option.variables}
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known and not re.search(SERVICE_NAME, variable):
            refuse_misspelt(variable, known)
    given: dict[str, object] = {}
    for option in options:
        for variable in option.variables:
            value = environ.get(variable, "")
            if value and not value.startswith(SERVICE_URL):
                given[option.name] = option.parse(value, f"{variable}={value}")
                break
    return merged(given, {"bind": given["bind"]}) if "bind" in given else given


def refuse_misspelt(variable: str, known: Iterable[str]) -> None:
    """Raise UsageError if a variable is similar to a known one."""
    names = [name.removeprefix(PREFIX) for name in known]
    nearest = lazy.difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1, SIMILARITY)
    if nearest:
        raise UsageError(f"{variable} is not an option; did you mean {PREFIX}{nearest[0]}? If not: unset {variable}")


def merged(*layers: Mapping[str, object]) -> dict[str, object]:
    """Return the options of several layers; later layers take precedence. `bind` replaces both host and port."""
    result: dict[str, object] = {}
    for layer in layers:
        if "bind" in layer:
            result.pop("host", None)
            result.pop("port", None)
        elif "host" in layer or "port" in layer:
            result.pop("bind", None)
        result.update(layer)
    return result
