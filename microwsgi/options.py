"""All options, declared once: for the command line, the environment, `serve()`, `WSGIServer` and docs/options.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping

from microwsgi import later
from microwsgi.errors import ListenError, UsageError

LAST_PORT = 65535
LONGEST = 10**9
"""The longest time limit, in seconds (thirty years). Longer ones overflow system calls."""


def size(text: str | int) -> int:
    """Return a number of bytes, from a number or a text like 65536, 64K, 16M or 1G."""
    text = str(text).strip()
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in {"K", "M", "G"} else (text, "")
    factor = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}[unit]
    if not (number.isascii() and number.isdigit()):
        raise ValueError("a number of bytes, like 65536, 64K or 1G")
    return int(number) * factor


def seconds(text: str | float) -> float:
    """Return a number of seconds that is not negative."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= LONGEST:
        raise ValueError("a number of seconds, like 10 or 0.5")
    return value


def count(text: str | int) -> int:
    """Return a number that is at least 1."""
    text = str(text).strip()
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("a whole number from 1 on")
    return int(text)


def limit(text: str | int) -> int:
    """Return a number; 0 is no limit."""
    try:
        return count(text) if str(text).strip() != "0" else 0
    except ValueError:
        raise ValueError("a whole number, or 0 for no limit") from None


def processes(text: str | int) -> int:
    """Return a number of processes; auto is the number of processors that this process may use."""
    if str(text).strip().lower() == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return count(text) if str(text).strip() != "0" else 0
    except ValueError:
        raise ValueError("a whole number, or auto") from None


def port(text: str | int) -> int:
    """Return a TCP port. Raises ListenError for a number out of range: http.server takes 99999 and binds another port."""
    digits = str(text).strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"a port from 0 to {LAST_PORT}")
    if int(text) < 0 or int(text) > LAST_PORT:
        raise ListenError(f"Invalid port {text}: expected 0 to {LAST_PORT} (0 picks a free one).")
    return int(text)


def host(text: str) -> str:
    """Return a host without a port. Raises ValueError with the option that takes both."""
    text = str(text)
    name, colon, number = text.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        raise ValueError(f"a host without a port: --host {name} --port {number}, or --bind {text}")
    return text


def names(text: str | Iterable[str]) -> tuple[str, ...]:
    """Return names from a list, or from a text with commas."""
    parts = [part.strip() for part in (text.split(",") if isinstance(text, str) else text)]
    if not isinstance(text, str) and "" in parts:
        raise ValueError("a value that is not empty")
    return tuple(filter(None, parts))


def switch(text: str | int) -> bool:
    """Return whether a switch is on."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(text).strip().lower()]
    except KeyError:
        raise ValueError("on or off") from None


def octal(text: str) -> str:
    """Return a mask of permissions in octal."""
    if text and not (text.isascii() and text.isdigit() and not set(text) & {"8", "9"} and int(text, 8) <= 0o777):  # noqa: PLR2004
        raise ValueError("an octal number, like 027")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a converter that accepts certain words."""

    def choice(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return choice


class Option:
    """One option. `convert` returns the value for a text or a value, or raises ValueError with what it expects."""

    def __init__(
        self,
        group: str,
        name: str,
        default: object,
        convert: Callable[..., object],
        metavar: str,
        text: str,
        *,
        short: str = "",
        variables: tuple[str, ...] = (),
    ) -> None:
        self.group = group
        self.name = name
        self.default = default
        self.convert = convert
        self.metavar = metavar
        self.help = text
        self.short = short
        self.variables = ("MICROWSGI_" + name.upper(), *variables)
        """The environment variables; the first that is set is used."""

    @property
    def flag(self) -> str:
        """The long option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def repeatable(self) -> bool:
        """Whether the option may be repeated, and each use adds a value."""
        return self.convert is names

    @property
    def shown_default(self) -> str:
        """The default as it is typed; "" if there is none."""
        return self.shown(self.default)

    def shown(self, value: object) -> str:
        """Return a value as it is typed; "" if there is none."""
        if self.convert is switch:
            return "on" if value else "off"
        if self.convert is size and isinstance(value, int):
            units = ((1024**3, "G"), (1024**2, "M"), (1024, "K"))
            return next((f"{value // factor}{unit}" for factor, unit in units if value % factor == 0), str(value))
        return f"{value:g}" if isinstance(value, float) else ",".join(value) if isinstance(value, tuple) else str(value)

    def take(self, value: object, spelled: str = "") -> object:
        """Return the converted value. `spelled` is the user's text. Raises UsageError."""
        try:
            return self.convert(value)
        except (ValueError, TypeError) as error:
            wanted = error if isinstance(error, ValueError) else "a text, or a list of texts"
            typed = "''" if value == [""] else value
            raise UsageError(f"Invalid {spelled or f'{self.flag} {typed}'}: expected {wanted}.") from None


OPTIONS = (
    Option("Where", "host", "127.0.0.1", host, "HOST", "the address; 0.0.0.0 is every interface"),
    Option("Where", "port", 8000, port, "PORT", "the port; 0 picks a free one", short="-p", variables=("PORT",)),
    Option("Where", "bind", (), names, "ADDRESS", "HOST:PORT, unix:PATH, fd://N; repeatable", short="-b"),
    Option("Where", "socket_mode", "600", octal, "OCTAL", "permissions of a Unix socket's file"),
    Option("Where", "socket_group", "", str, "GROUP", "group of a Unix socket's file"),
    Option("Where", "allow_host", (), names, "NAME", "answer requests for this name; '*' is any"),
    Option(
        "Where",
        "forwarded_allow_ips",
        (),
        names,
        "IP",
        "trust these proxies: IPs, networks, unix",
        variables=("FORWARDED_ALLOW_IPS",),
    ),
    Option(
        "Where",
        "forwarded_fields",
        ("for", "proto"),
        names,
        "F",
        "what they set: for,proto,host,port,prefix",
    ),
    Option("Where", "proxy_protocol", False, switch, "", "they begin with a PROXY protocol header"),
    Option("Where", "app_dir", ".", str, "DIR", "the folder to import the application from"),
    Option("Where", "config", "", str, "FILE", "read options from this file, not pyproject.toml"),
    Option("Where", "backlog", 1024, count, "N", "length of the queue of new connections"),
    Option("Processes", "workers", 0, processes, "N", "worker processes; auto is one per processor"),
    Option("Processes", "reload", False, switch, "", "serve new code as soon as it is saved"),
    Option("Processes", "reload_include", (), names, "GLOB", "watch these files beside imported ones"),
    Option("Processes", "reload_exclude", (), names, "GLOB", "do not watch these files and folders"),
    Option("Processes", "reload_poll", False, switch, "", "poll files, for network file systems"),
    Option("Development", "debug", False, switch, "", "show exceptions to browsers that have the token"),
    Option("Development", "load_error_page", False, switch, "", "serve the error of a bad save, not the old code"),
    Option("Development", "slow", 0.0, seconds, "SECONDS", "log a stack trace of requests that take longer"),
    Option("Development", "editor", "", str, "NAME", "link to vscode, pycharm, ... or x://{file}:{line}"),
    Option("Log", "access_log", "-", str, "FILE", "off, a file, or - for the terminal"),
    Option(
        "Log",
        "log_format",
        "auto",
        one_of("auto", "line", "common", "combined", "json"),
        "FORMAT",
        "auto, line, common, combined or json",
    ),
    Option(
        "Log", "color", "auto", one_of("auto", "always", "never"), "WHEN", "auto, always or never; NO_COLOR is honoured"
    ),
    Option(
        "Log",
        "log_level",
        "info",
        one_of("info", "warning", "error"),
        "LEVEL",
        "info, warning or error: the least that is logged",
    ),
    Option("Log", "traceback", False, switch, "", "print all frames if the application can't load"),
    Option("Stop", "grace_time", 5.0, seconds, "SECONDS", "time for running requests to end at a stop"),
    Option("TLS", "tls", False, switch, "", "https with a certificate of a development CA"),
    Option("TLS", "tls_cert", (), names, "FILE", "https with this certificate (PEM); repeatable"),
    Option("TLS", "tls_key", (), names, "FILE", "its key, if in another file; repeatable"),
    Option("TLS", "tls_password_file", "", str, "F", "file with the password of an encrypted key"),
    Option("TLS", "tls_min", "1.2", one_of("1.2", "1.3"), "VERSION", "the oldest version of TLS: 1.2 or 1.3"),
    Option("TLS", "tls_client_ca", "", str, "FILE", "verify client certificates with these CAs"),
    Option(
        "TLS",
        "tls_client",
        "required",
        one_of("required", "optional"),
        "WHEN",
        "client certificates: required or optional",
    ),
    Option(
        "TLS",
        "tls_keylog",
        "",
        str,
        "FILE",
        "write session keys to this file for Wireshark",
        variables=("SSLKEYLOGFILE",),
    ),
    Option("TLS", "http_too", False, switch, "", "serve plain HTTP as well, do not redirect it"),
    Option("TLS", "handshake_time", 10.0, seconds, "S", "time for a whole TLS handshake"),
    Option("Service", "daemon", False, switch, "", "serve in the background; see microwsgi status"),
    Option("Service", "pid_file", "", str, "FILE", "write and lock a pid file"),
    Option("Service", "log_file", "", str, "FILE", "write all output to this file"),
    Option("Service", "user", "", str, "NAME", "drop privileges to this user after binding"),
    Option("Service", "group", "", str, "NAME", "drop privileges to this group"),
    Option("Service", "umask", "", octal, "OCTAL", "mask of permissions for new files"),
    Option("Service", "chdir", "", str, "DIR", "change to this folder"),
    Option("Limits", "threads", 64, count, "N", "concurrent calls of the application"),
    Option("Limits", "max_connections", 0, limit, "N", "concurrent connections; 0 is as many as possible"),
    Option("Limits", "head_size", 64 * 1024, size, "BYTES", "request line and fields together (431)"),
    Option("Limits", "line_length", 8190, size, "BYTES", "request line (414), or a field (431)"),
    Option("Limits", "field_count", 100, count, "N", "number of fields of a request (431)"),
    Option("Limits", "body_size", 1024**3, size, "BYTES", "request body (413)"),
    Option("Limits", "body_buffer", 1024**2, size, "BYTES", "receive a body up to this size before the call"),
    Option("Limits", "body_files", 4 * 1024**3, size, "BYTES", "all bodies in temporary files (503)"),
    Option("Limits", "stream_chunked", False, switch, "", "pass chunked bodies on while they arrive"),
    Option("Limits", "head_time", 10.0, seconds, "SECONDS", "time to receive a request's head (408)"),
    Option("Limits", "idle_time", 60.0, seconds, "SECONDS", "idle time of a keep-alive connection"),
    Option("Limits", "body_time", 20.0, seconds, "SECONDS", "time for a body slower than body-rate (408)"),
    Option("Limits", "body_rate", 500, count, "BYTES", "lowest rate of a body, per second"),
    Option("Limits", "write_time", 20.0, seconds, "SECONDS", "time for a client slower than write-rate"),
    Option("Limits", "write_rate", 500, count, "BYTES", "lowest rate of a client, per second"),
)
"""The declarations."""

BY_NAME = {option.name: option for option in OPTIONS}


class Options:
    """The values of all options as attributes. Raises UsageError."""

    host: str
    port: int
    bind: tuple[str, ...]
    socket_mode: str
    socket_group: str
    allow_host: tuple[str, ...]
    forwarded_allow_ips: tuple[str, ...]
    forwarded_fields: tuple[str, ...]
    proxy_protocol: bool
    app_dir: str
    config: str
    backlog: int
    threads: int
    max_connections: int
    head_size: int
    line_length: int
    field_count: int
    body_size: int
    body_buffer: int
    body_files: int
    stream_chunked: bool
    head_time: float
    idle_time: float
    body_time: float
    body_rate: int
    write_time: float
    write_rate: int
    workers: int
    reload: bool
    reload_include: tuple[str, ...]
    reload_exclude: tuple[str, ...]
    reload_poll: bool
    tls: bool
    tls_cert: tuple[str, ...]
    tls_key: tuple[str, ...]
    tls_password_file: str
    tls_min: str
    tls_client_ca: str
    tls_client: str
    tls_keylog: str
    http_too: bool
    handshake_time: float
    daemon: bool
    pid_file: str
    log_file: str
    user: str
    group: str
    umask: str
    chdir: str
    access_log: str
    log_format: str
    log_level: str
    color: str
    debug: bool
    load_error_page: bool
    slow: float
    editor: str
    traceback: bool
    grace_time: float

    def __init__(self, **given: object) -> None:
        for name in given:
            if name not in BY_NAME:
                raise UsageError(unknown("option", name, BY_NAME))
        if given.get("bind") and not given.keys().isdisjoint({"host", "port"}):
            raise UsageError("--bind has host and port in it: leave out --host and --port, or --bind.")
        for option in OPTIONS:
            value = option.take(given[option.name]) if option.name in given else option.default
            object.__setattr__(self, option.name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Options are frozen: {name} can't be set. `replaced` makes other options.")

    def replaced(self, **changes: object) -> Options:
        """Return a copy with other values. Raises UsageError."""
        copy = Options.__new__(Options)
        for option in OPTIONS:
            value = option.take(changes[option.name]) if option.name in changes else getattr(self, option.name)
            object.__setattr__(copy, option.name, value)
        return copy

    @property
    def is_service(self) -> bool:
        """Whether an option is set that needs a parent process."""
        names = ("reload", "workers", "daemon", "pid_file", "log_file", "user", "group", "umask", "chdir")
        return any(getattr(self, name) for name in names)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to listen on: `bind`, or else `host` and `port`."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return self.bind or (f"{host}:{self.port}",)


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the options in MICROWSGI_ variables and $PORT. Raises UsageError, also for an unknown variable."""
    known = {variable: option for option in OPTIONS for variable in option.variables}
    for variable in environ:
        if variable.startswith("MICROWSGI_") and variable not in known:
            cure = f"unset {variable}   (variables that begin with MICROWSGI_ are options)"
            raise UsageError(f"{unknown('variable', variable, known)}\n  Try:  {cure}")
    given: dict[str, object] = {}
    for variable, option in known.items():
        if environ.get(variable) and option.name not in given:
            given[option.name] = option.take(environ[variable], f"{variable}={environ[variable]}")
    return merged(given, {"bind": given["bind"]}) if "bind" in given else given


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


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the most similar known one."""
    nearest = later.difflib.get_close_matches(name, list(known), 1)
    return f"there is no {kind} {name}{f'; did you mean {nearest[0]}?' if nearest else '.'}"


def documentation() -> str:
    """Return docs/options.md."""
    lines = ["# Options", "", INTRODUCTION, "", "| option | variable | default | |", "|---|---|---|---|"]
    for option in OPTIONS:
        flag = " ".join(filter(None, [f"{option.short}," if option.short else "", option.flag, option.metavar]))
        variables = ", ".join(f"`{variable}`" for variable in option.variables)
        default = f"`{option.shown_default}`" if option.shown_default else ""
        lines.append(f"| `{flag}` | {variables} | {default} | {option.help} |")
    return "\n".join(lines) + "\n"


INTRODUCTION = """\
Each option can be set in four places. `--head-size 16K` on the command line is `MICROWSGI_HEAD_SIZE=16K` in the environment,
`head_size = "16K"` in a TOML file, and `serve(app, head_size="16K")` in a program. The file is the one named by `--config`,
or else the table `[tool.microwsgi]` of pyproject.toml. The command line takes precedence over the environment, and that over
the file. `microwsgi serve --show-config` prints the effective values, and the source of each, as such a file. The key `app`
of the file is the application to serve if none is named.

Sizes are in bytes and may end in `K`, `M` or `G`; times are in seconds. A switch like `--traceback` is turned off by
`--no-traceback`. In a variable, repeatable options are separated by commas. The status behind a limit is the response to a
request that exceeds it.

An address is `HOST:PORT`, `[V6]:PORT`, `unix:PATH`, `unix:@NAME` (abstract, Linux) or `fd://N`, a socket that the parent
process left open. `localhost` is both loopback addresses, and port 0 is any free port. The log format `auto` is `line` on a
terminal and `combined` elsewhere.

This page is generated from the declarations in `microwsgi/options.py`: `python -m microwsgi.options > docs/options.md`."""

if __name__ == "__main__":
    sys.stdout.write(documentation())
