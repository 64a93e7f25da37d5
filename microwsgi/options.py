"""Every option, declared once: the command line, the environment, `serve()`, `WSGIServer` and docs/options.md read it here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from microwsgi.errors import UsageError


def size(text: str | int) -> int:
    """Bytes, from a number or from what people write: 65536, 64K, 16M, 1G."""
    text = str(text).strip()
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in {"K", "M", "G"} else (text, "")
    factor = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}[unit]
    if not (number.isascii() and number.isdigit()):
        raise ValueError("a number of bytes like 65536, 64K or 1G")
    return int(number) * factor


def seconds(text: str | float) -> float:
    """Seconds, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError("a number of seconds, like 10 or 0.5")
    return value


def count(text: str | int) -> int:
    """A number from 1 on."""
    text = str(text)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("a whole number from 1 on")
    return int(text)


def port(text: str | int) -> int:
    """A TCP port; http.server takes a port of 99999 and serves another one."""
    text = str(text)
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):  # noqa: PLR2004 - sixteen bits
        raise ValueError("a port from 0 to 65535 (0 picks a free one)")
    return int(text)


def names(text: str | Iterable[str]) -> tuple[str, ...]:
    """Names: given several times, or with commas between."""
    parts = text.split(",") if isinstance(text, str) else text
    return tuple(part.strip() for part in parts if part.strip())


def one_of(*choices: str) -> Callable[[str], str]:
    """One of these words."""

    def choice(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return choice


class Option:
    """One option: `convert` makes its value of a text, or of a value, and raises ValueError with what it wants."""

    def __init__(
        self, group: str, name: str, default: object, convert: Callable[..., object], metavar: str, text: str
    ) -> None:
        self.group = group
        self.name = name
        self.default = default
        self.convert = convert
        self.metavar = metavar
        self.help = text

    @property
    def flag(self) -> str:
        """As the command line spells it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As the environment spells it."""
        return "MICROWSGI_" + self.name.upper()

    def take(self, value: object) -> object:
        """The value, checked. Raises UsageError."""
        try:
            return self.convert(value)
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(f"{self.flag} {value} is not possible: it is {error}.") from None


OPTIONS = (
    Option("Where", "host", "127.0.0.1", str, "HOST", "the address to listen on; 0.0.0.0 is every interface"),
    Option("Where", "port", 8000, port, "PORT", "the port; 0 picks a free one"),
    Option("Where", "bind", (), names, "ADDRESS", "HOST:PORT, [V6]:PORT, unix:PATH, unix:@NAME or fd://N; repeatable"),
    Option("Where", "allow_host", (), names, "NAME", "answer for this name too, or for all: '*'; repeatable"),
    Option("Where", "app_dir", ".", str, "DIR", "the folder to import the application from"),
    Option("Where", "backlog", 1024, count, "N", "connections that the system keeps before they are accepted"),
    Option("Limits", "threads", 64, count, "N", "application calls at once"),
    Option("Limits", "head_size", 64 * 1024, size, "BYTES", "of a request's line and fields together (431)"),
    Option("Limits", "line_length", 8190, size, "BYTES", "of the request line (414), and of each field (431)"),
    Option("Limits", "field_count", 100, count, "N", "fields in a request (431)"),
    Option("Limits", "body_size", 1024**3, size, "BYTES", "of a request's body (413)"),
    Option("Limits", "head_time", 10.0, seconds, "SECONDS", "for a whole head (408)"),
    Option("Limits", "idle_time", 60.0, seconds, "SECONDS", "between two requests on a connection"),
    Option("Limits", "body_time", 20.0, seconds, "SECONDS", "waited for a body that comes no faster than body_rate (408)"),
    Option("Limits", "body_rate", 500, count, "BYTES", "a second: what a body must come with at least"),
    Option("Limits", "write_time", 20.0, seconds, "SECONDS", "waited for a client that reads no faster than write_rate"),
    Option("Limits", "write_rate", 500, count, "BYTES", "a second: what a client must read at least"),
    Option("Log", "access_log", "-", str, "FILE", "one line a request: off, a file, or - for the terminal"),
    Option(
        "Log",
        "log_format",
        "auto",
        one_of("auto", "line", "common", "combined", "json"),
        "FORMAT",
        "line, common, combined, json; auto is line on a terminal and combined elsewhere",
    ),
    Option("Log", "color", "auto", one_of("auto", "always", "never"), "WHEN", "auto, always or never; NO_COLOR is honoured"),
    Option("Stop", "grace_time", 5.0, seconds, "SECONDS", "for running requests to end when the server stops"),
)
"""The declaration."""

BY_NAME = {option.name: option for option in OPTIONS}


class Options:
    """A value for each option, as attributes: those given, checked, and the defaults. Raises UsageError."""

    host: str
    port: int
    bind: tuple[str, ...]
    allow_host: tuple[str, ...]
    app_dir: str
    backlog: int
    threads: int
    head_size: int
    line_length: int
    field_count: int
    body_size: int
    head_time: float
    idle_time: float
    body_time: float
    body_rate: int
    write_time: float
    write_rate: int
    access_log: str
    log_format: str
    color: str
    grace_time: float

    def __init__(self, **given: object) -> None:
        for name in given:
            if name not in BY_NAME:
                raise UsageError(unknown(name, BY_NAME))
        for option in OPTIONS:
            setattr(self, option.name, option.take(given[option.name]) if option.name in given else option.default)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen: `bind`, or else `host` and `port`."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return self.bind or (f"{host}:{self.port}",)


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say of an option that there isn't: the nearest that there is."""
    nearest = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    return f"There is no option {name}{hint}"
