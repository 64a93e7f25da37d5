"""The kinds of options: how a value is converted from text, checked, and formatted as text.

`Options` (microwsgi/options/declaration.py) declares each option as an attribute of one of these kinds. The `__get__` of a kind
tells type checkers the type of the attribute; no kind needs the module typing, whose import takes milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from microwsgi.errors import ListenError, UsageError

LAST_PORT = 65535
MAX_SECONDS = 10**9
"""The maximum time limit, in seconds (thirty years). Longer times overflow in system calls."""
MAX_MODE = 0o777
MAX_HOST, MAX_LABEL = 253, 63
"""The maximum length of a domain name, and of one label in it (RFC 1035 2.3.4)."""
UNITS = ((1024**3, "G"), (1024**2, "M"), (1024, "K"))


# --- Converters: each returns a value, or raises ValueError with the description of a valid one -----------------------------


def parse_size(text: object) -> int:
    """Return a number of bytes, from a number or a text like 65536, 64K, 16M or 1G."""
    number = str(text).strip()
    factor = 1
    for units, unit in UNITS:
        if number[-1:].upper() == unit:
            number, factor = number[:-1], units
            break
    if not (number.isascii() and number.isdigit()):
        raise ValueError("a number of bytes, like 65536, 64K or 1G")
    return int(number) * factor


def parse_seconds(text: object) -> float:
    """Return a number of seconds that is not negative."""
    try:
        value = float(str(text))
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError("a number of seconds, like 10 or 0.5")
    return value


def parse_count(text: object) -> int:
    """Return a number that is at least 1."""
    digits = str(text).strip()
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise ValueError("a whole number, 1 or more")
    return int(digits)


def parse_limit(text: object) -> int:
    """Return a number; 0 means no limit."""
    try:
        return parse_count(text) if str(text).strip() != "0" else 0
    except ValueError:
        raise ValueError("a whole number, or 0 for no limit") from None


def parse_processes(text: object) -> int:
    """Return a number of processes; auto is the number of processors that this process may use."""
    if str(text).strip().lower() == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return parse_count(text) if str(text).strip() != "0" else 0
    except ValueError:
        raise ValueError("a whole number, or auto") from None


def parse_port(text: object) -> int:
    """Return a TCP port. Raises ListenError for a number out of range: http.server accepts 99999, and binds another port."""
    digits = str(text).strip()
    magnitude = digits.removeprefix("-")
    if not (magnitude.isascii() and magnitude.isdigit()):
        raise ValueError(f"a port from 0 to {LAST_PORT}")
    if not 0 <= int(digits) <= LAST_PORT:
        raise ListenError(f"invalid port {text}: expected 0 to {LAST_PORT} (0 picks a free one).")
    return int(digits)


def parse_switch(text: object) -> bool:
    """Return whether a switch is on."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(text).strip().lower()]
    except KeyError:
        raise ValueError("on or off") from None


def parse_names(values: object) -> tuple[str, ...]:
    """Return texts from a list, or from a text with commas."""
    if isinstance(values, str):
        return tuple(filter(None, (part.strip() for part in values.split(","))))
    if not isinstance(values, Iterable):
        raise TypeError
    parts = [part.strip() for part in values]
    if "" in parts:
        raise ValueError("a value that is not empty")
    return tuple(parts)


def parse_host(text: object) -> str:
    """Return a host without a port. Raises ValueError with the option that takes both."""
    text = str(text)
    name, colon, number = text.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        raise ValueError(f"a host without a port: --host {name} --port {number}, or --bind {text}")
    return text


def parse_host_names(values: object) -> tuple[str, ...]:
    """Return names as a Host field has them: in lower case, without a final dot, IDN names in their ASCII form."""
    return tuple(map(parse_host_name, parse_names(values)))


def parse_host_name(text: str) -> str:
    """Return one name: a host, `.domain` for a domain and its subdomains, an IP address, or `*`."""
    if text == "*":
        return text
    bare = text.rpartition("://")[2].partition("/")[0]
    if bare.startswith("["):
        bare, _, rest = bare[1:].partition("]")
        text = text if rest else text[1:-1]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    if bare != text:
        raise ValueError(f"a host name without a scheme, port or path, like {bare or 'example.org'}")
    if ":" in text:
        return text.lower()  # an IPv6 address
    if text.startswith("*."):
        raise ValueError(f"{text[1:]} for a domain and its subdomains")
    name = text.rstrip(".").lower()
    if not name.isascii():
        try:
            # The codec refuses an empty first label.
            name = "." * name.startswith(".") + name.removeprefix(".").encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("a host name, like example.org") from None
    labels = name.removeprefix(".").split(".")
    valid = all(0 < len(each) <= MAX_LABEL and each.replace("-", "a").replace("_", "a").isalnum() for each in labels)
    if not valid or len(name) > MAX_HOST:
        raise ValueError("a host name, like example.org")
    return name


def parse_octal(text: object) -> str:
    """Return a mask of permissions in octal."""
    text = str(text)
    if text and not (text.isascii() and text.isdigit() and not set(text) & {"8", "9"} and int(text, 8) <= MAX_MODE):
        raise ValueError("an octal number, like 027")
    return text


class OneOf:
    """A converter that accepts certain words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, text: object) -> str:
        if text not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        return str(text)


# --- Kinds ------------------------------------------------------------------------------------------------------------------


class Option:
    """One option: its name, its default and its texts. A subclass defines the type of its value."""

    def __init__(
        self,
        group: str,
        default: object,
        convert: Callable[..., object],
        metavar: str,
        text: str,
        *,
        name: str = "",
        short: str = "",
        variables: tuple[str, ...] = (),
        common: bool = False,
        flag: bool = True,
    ) -> None:
        self.group = group
        self.convert = convert
        self.default = default
        self.metavar = metavar
        self.help = text
        self.name = name
        """The name in a TOML file and in a program. An attribute of `Options` has its own name."""
        self.short = short
        self.other_variables = variables
        self.is_common = common
        """Whether --help shows the option, and not only --help-all."""
        self.has_flag = flag
        """Whether the command line accepts the option. Options that are set once for a machine have no flag."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def flag(self) -> str:
        """The long option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables; the first that is set is used."""
        return ("MICROWSGI_" + self.name.upper(), *self.other_variables)

    @property
    def label(self) -> str:
        """The name of the option in messages: its flag, or its key in a file."""
        return self.flag if self.has_flag else self.name

    def parse(self, value: object, spelled: str = "") -> object:
        """Return the converted value. `spelled` is the user's text. Raises UsageError."""
        try:
            return self.convert(value)
        except (ValueError, TypeError, AttributeError) as error:
            expected = error if isinstance(error, ValueError) else "a string, or a list of strings"
            typed = ",".join(map(str, value)) or "''" if isinstance(value, (list, tuple)) else value
            given = f"{self.flag} {typed}" if self.has_flag else f"{self.name} = {typed}"
            raise UsageError(f"invalid {spelled or given}: expected {expected}.") from None

    def format(self, value: object) -> str:
        """Return a value as it is typed; "" if it is empty."""
        return str(value)


class Text(Option):
    """An option whose value is a text."""

    def __get__(self, instance: object, owner: type | None = None) -> str:
        return str(self.default)


class Integer(Option):
    """An option whose value is a whole number."""

    def __get__(self, instance: object, owner: type | None = None) -> int:
        return int(str(self.default))

    def format(self, value: object) -> str:
        """Return a number; a number of bytes with its unit."""
        if self.convert is parse_size and isinstance(value, int):
            return next((f"{value // factor}{unit}" for factor, unit in UNITS if value % factor == 0), str(value))
        return str(value)


class Seconds(Option):
    """An option whose value is a number of seconds."""

    def __get__(self, instance: object, owner: type | None = None) -> float:
        return float(str(self.default))

    def format(self, value: object) -> str:
        """Return the number without a fraction that is 0."""
        return f"{value:g}"


class Switch(Option):
    """An option that is on or off. `--no-NAME` turns it off."""

    def __init__(
        self,
        group: str,
        default: object,
        text: str,
        *,
        name: str = "",
        short: str = "",
        common: bool = False,
        flag: bool = True,
    ) -> None:
        super().__init__(group, default, parse_switch, "", text, name=name, short=short, common=common, flag=flag)

    def __get__(self, instance: object, owner: type | None = None) -> bool:
        return self.default is True

    def format(self, value: object) -> str:
        """Return on or off."""
        return "on" if value else "off"

    @property
    def off_flag(self) -> str:
        """The long option that turns the switch off."""
        return "--no-" + self.flag[2:]


class Names(Option):
    """An option with any number of values. Each use on the command line adds one."""

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]:
        return parse_names(self.default)

    def format(self, value: object) -> str:
        """Return the values with commas."""
        return ",".join(parse_names(value))
