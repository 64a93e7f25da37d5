"""The declaration of all options.

Each option is declared once, here. This is the source of the command line (microwsgi/cli), the environment variables
(`environment`), the keys of a TOML file (`config_file`), the keyword arguments of `serve()` (`keywords`) and docs/options.md
(`document`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from microwsgi.errors import UsageError
from microwsgi.options.keywords import OptionValues, Unpack
from microwsgi.options.kinds import (
    Integer,
    Names,
    OneOf,
    Option,
    Seconds,
    Switch,
    Text,
    parse_count,
    parse_host,
    parse_host_names,
    parse_limit,
    parse_names,
    parse_octal,
    parse_port,
    parse_processes,
    parse_seconds,
    parse_size,
)
from microwsgi.support import lazy


class Options:
    """The values of all options, converted and validated. They are frozen.

    The body declares the options. For a type checker, each is a descriptor with the type of the option's value. At run time the
    declarations are moved to OPTIONS, below, and an instance has the values in its `__dict__`: access makes no call.
    """

    host = Text(
        "Address", "127.0.0.1", parse_host, "HOST", "address to listen on; 0.0.0.0 for all interfaces", common=True
    )
    port = Integer(
        "Address",
        8000,
        parse_port,
        "PORT",
        "port to listen on; 0 for any free port",
        short="-p",
        variables=("PORT",),
        common=True,
    )
    bind = Names(
        "Address",
        (),
        parse_names,
        "ADDRESS",
        "listen on HOST:PORT, unix:PATH or fd://N; repeatable",
        short="-b",
        common=True,
    )
    allow_host = Names(
        "Address",
        (),
        parse_host_names,
        "NAME",
        "accept requests for this host name; .example.org for a domain and its subdomains, '*' for any; repeatable",
        common=True,
    )
    socket_mode = Text("Address", "600", parse_octal, "OCTAL", "file mode of a Unix socket, such as 660")
    socket_group = Text("Address", "", str, "GROUP", "group of a Unix socket")
    backlog = Integer(
        "Address", 1024, parse_count, "N", "maximum length of the queue of pending connections", flag=False
    )
    forwarded_allow_ips = Names(
        "Proxies",
        (),
        parse_names,
        "IP",
        "trust the forwarded fields of these proxies: addresses, networks, unix, or '*' for all; repeatable",
        variables=("FORWARDED_ALLOW_IPS",),
    )
    forwarded_fields = Names(
        "Proxies",
        ("for", "proto"),
        parse_names,
        "FIELD",
        "fields that the proxies of --forwarded-allow-ips set: for, proto, host, port, prefix, or forwarded; repeatable",
    )
    proxy_protocol = Switch("Proxies", False, "expect the PROXY protocol from the proxies of --forwarded-allow-ips")
    app_dir = Text("Application", ".", str, "DIR", "directory to import the application from")
    config = Text("Application", "", str, "FILE", "read options from this file instead of pyproject.toml")
    full_traceback = Switch("Application", False, "print the whole traceback if the application cannot be loaded")
    workers = Integer(
        "Processes",
        0,
        parse_processes,
        "N",
        "number of worker processes; auto: one per CPU; 0: serve in this process, unless another option needs a worker",
        common=True,
    )
    threads = Integer(
        "Processes", 64, parse_count, "N", "maximum number of concurrent calls of the application", common=True
    )
    graceful_timeout = Seconds(
        "Processes", 5.0, parse_seconds, "SECONDS", "time for running requests to finish when the server stops"
    )
    reload = Switch("Development", False, "load new code as soon as a file is saved", common=True)
    reload_include = Names("Development", (), parse_names, "GLOB", "also watch the files that match GLOB; repeatable")
    reload_exclude = Names(
        "Development", (), parse_names, "GLOB", "do not watch files and directories that match GLOB; repeatable"
    )
    reload_poll = Switch("Development", False, "look for changes by polling, for network file systems")
    reload_error_page = Switch(
        "Development", False, "if saved code cannot be loaded, serve the error instead of the last good version"
    )
    debug = Switch(
        "Development", False, "show tracebacks in browsers that have opened the printed address", common=True
    )
    log_slow_requests = Seconds(
        "Development",
        0.0,
        parse_seconds,
        "SECONDS",
        "log a stack trace of requests that take longer than SECONDS; 0 for never",
    )
    editor = Text(
        "Development",
        "",
        str,
        "NAME",
        "open source lines of error pages in this editor: vscode, pycharm, sublime, emacs, zed, or a URL such as x://{file}:{line}",
        flag=False,
    )
    access_log = Text("Log", "-", str, "FILE", "file for the access log; - for standard output, off for none")
    log_format = Text(
        "Log",
        "auto",
        OneOf("auto", "line", "common", "combined", "json"),
        "FORMAT",
        "format of the access log: auto, line, common, combined or json",
    )
    log_level = Text(
        "Log",
        "info",
        OneOf("info", "warning", "error"),
        "LEVEL",
        "least severe level to log: info, warning or error",
    )
    color = Text("Log", "auto", OneOf("auto", "always", "never"), "WHEN", "colored output: auto, always or never")
    tls = Switch("TLS", False, "serve HTTPS with a certificate of a local development CA", common=True)
    tls_cert = Names("TLS", (), parse_names, "FILE", "serve HTTPS with this certificate (PEM); repeatable")
    tls_key = Names("TLS", (), parse_names, "FILE", "private key of the certificate, if in another file; repeatable")
    tls_password_file = Text("TLS", "", str, "FILE", "file with the password of an encrypted private key")
    tls_min = Text("TLS", "1.2", OneOf("1.2", "1.3"), "VERSION", "minimum TLS version: 1.2 or 1.3")
    tls_client_ca = Text("TLS", "", str, "FILE", "verify client certificates with the CAs in this file")
    tls_client_cert = Text(
        "TLS",
        "required",
        OneOf("required", "optional"),
        "MODE",
        "whether clients need a certificate: required or optional",
    )
    tls_keylog = Text(
        "TLS",
        "",
        str,
        "FILE",
        "file for session keys, which Wireshark can read",
        variables=("SSLKEYLOGFILE",),
        flag=False,
    )
    https_redirect = Switch("TLS", True, "redirect plain HTTP to HTTPS on the same port, instead of serving both")
    tls_handshake_timeout = Seconds("TLS", 10.0, parse_seconds, "SECONDS", "time limit for a TLS handshake", flag=False)
    daemon = Switch("Service", False, "serve in the background", common=True)
    pid_file = Text("Service", "", str, "FILE", "pid file of the server")
    log_file = Text("Service", "", str, "FILE", "write all output to this file")
    user = Text("Service", "", str, "NAME", "after binding, run as this user; requires root")
    group = Text("Service", "", str, "NAME", "after binding, run as this group; requires root")
    umask = Text("Service", "", parse_octal, "OCTAL", "file mode creation mask, such as 027")
    chdir = Text("Service", "", str, "DIR", "change to this directory before the application is loaded")
    max_connections = Integer(
        "Limits", 0, parse_limit, "N", "maximum number of open connections; 0 for as many as the system allows"
    )
    max_body_size = Integer("Limits", 1024**3, parse_size, "BYTES", "maximum size of a request body (413)")
    max_header_size = Integer(
        "Limits", 64 * 1024, parse_size, "BYTES", "maximum size of the request line and all header fields (431)"
    )
    max_line_size = Integer(
        "Limits",
        8190,
        parse_size,
        "BYTES",
        "maximum size of the request line (414), and of a header field (431)",
        flag=False,
    )
    max_header_count = Integer(
        "Limits", 100, parse_count, "N", "maximum number of header fields of a request (431)", flag=False
    )
    body_buffer_size = Integer(
        "Limits",
        1024**2,
        parse_size,
        "BYTES",
        "receive bodies up to this size before the application is called",
        flag=False,
    )
    max_temp_files_size = Integer(
        "Limits", 4 * 1024**3, parse_size, "BYTES", "maximum total size of bodies in temporary files (503)", flag=False
    )
    stream_chunked = Switch("Limits", False, "pass chunked bodies to the application while they arrive", flag=False)
    header_timeout = Seconds(
        "Limits", 10.0, parse_seconds, "SECONDS", "time limit for receiving the headers of a request (408)"
    )
    keep_alive_timeout = Seconds(
        "Limits", 60.0, parse_seconds, "SECONDS", "close a connection that has been idle for SECONDS"
    )
    body_timeout = Seconds(
        "Limits",
        20.0,
        parse_seconds,
        "SECONDS",
        "time limit for a body that arrives more slowly than min_body_rate (408)",
        flag=False,
    )
    min_body_rate = Integer(
        "Limits", 500, parse_count, "BYTES", "minimum rate of a request body, in bytes per second", flag=False
    )
    send_timeout = Seconds(
        "Limits",
        20.0,
        parse_seconds,
        "SECONDS",
        "time limit for a client that reads more slowly than min_send_rate",
        flag=False,
    )
    min_send_rate = Integer(
        "Limits", 500, parse_count, "BYTES", "minimum rate at which a client reads, in bytes per second", flag=False
    )

    def __init__(self, **given: Unpack[OptionValues]) -> None:
        """Set the given options, the others to their defaults. Raises UsageError for an unknown option or an invalid value."""
        self.__dict__.update(convert(given))

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Options:
        """Return the options with these values. Raises UsageError."""
        options = cls()
        options.__dict__.update(convert(given))
        return options

    def replaced(self, **changes: object) -> Options:
        """Return a copy with other values. Raises UsageError for an unknown option or an invalid value."""
        check_names(changes)
        copy = Options.__new__(Options)
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update({name: BY_NAME[name].parse(value) for name, value in changes.items()})
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Options are frozen: {name} can't be set. `replaced` returns a copy with other values.")

    @property
    def is_service(self) -> bool:
        """Whether an option needs a parent process."""
        names = ("reload", "workers", "daemon", "pid_file", "log_file", "user", "group", "umask", "chdir")
        return any(getattr(self, name) for name in names)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to listen on: `bind`, or else `host` and `port`."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return self.bind or (f"{host}:{self.port}",)


OPTIONS: tuple[Option, ...] = tuple(option for option in vars(Options).values() if isinstance(option, Option))
"""All declarations."""
for _option in OPTIONS:  # CPython reads an attribute of an instance faster if its class has none of that name
    delattr(Options, _option.name)
BY_NAME = {option.name: option for option in OPTIONS}
DEFAULTS = {option.name: option.default for option in OPTIONS}


def convert(given: Mapping[str, object]) -> dict[str, object]:
    """Return the values of all options; those that are not given have their defaults. Raises UsageError."""
    check_names(given)
    if given.get("bind") and not given.keys().isdisjoint({"host", "port"}):
        raise UsageError("--bind has host and port in it: leave out --host and --port, or --bind.")
    return DEFAULTS | {name: BY_NAME[name].parse(value) for name, value in given.items()}


def check_names(given: Iterable[str]) -> None:
    """Raise UsageError if one of these is not the name of an option."""
    for name in given:
        if name not in BY_NAME:
            raise UsageError(unknown("option", name, BY_NAME))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the most similar known one."""
    nearest = lazy.difflib.get_close_matches(name, list(known), 1)
    return f"there is no {kind} {name}{f'; did you mean {nearest[0]}?' if nearest else '.'}"
