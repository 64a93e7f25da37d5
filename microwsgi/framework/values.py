"""Values of path parameters, queries, forms and JSON, read from text by the same rules.

Python's own constructors accept more than the functions here: int("1_0"), int(" 5 ") and int("٣") succeed, float("nan") and
float("1e999") are not numbers in JSON, and UUID() accepts braces. The functions here raise ValueError for all of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn
from uuid import UUID

INT = "-?[0-9]+"
FLOAT = r"-?[0-9]+(?:\.[0-9]+)?"
"""The text that {name:float} matches in a path."""
UUID_TEXT = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""A valid floating-point number of HTML, as <input type="number"> submits it."""
BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""A browser submits `on` for a checkbox."""
SURROGATE = re.compile(r"\\u[dD][89abAB]")
"""The first half of an escape that may decode to a lone surrogate."""
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def read_int(text: str) -> int:
    """Return an int written in ASCII digits."""
    if not re.fullmatch(INT, text):
        raise ValueError("an int must have digits 0 to 9 only")
    return int(text)


def read_float(text: str) -> float:
    """Return a finite float."""
    value = float(text) if NUMBER.fullmatch(text) else float("nan")
    if not isfinite(value):
        raise ValueError("a float must be a finite decimal number")
    return value


def read_bool(text: str) -> bool:
    """Return a bool: 1, true, yes or on; 0, false, no or off."""
    try:
        return BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("a bool must be one of 1, true, yes, on, 0, false, no, off") from None


def read_uuid(text: str) -> UUID:
    """Return a UUID in the form of RFC 9562, with hyphens."""
    if not re.fullmatch(UUID_TEXT, text):
        raise ValueError("a UUID must have five groups of hexadecimal digits")
    return UUID(text)


READERS: Mapping[Any, Callable[[str], Any]] = {int: read_int, float: read_float, bool: read_bool, UUID: read_uuid}
"""Types that are read by the functions above. Any other callable is called with the text."""


def parse_json(text: str) -> Any:
    """Parse JSON (RFC 8259). Raises ValueError for NaN, numbers beyond a float's range, and lone surrogates."""
    value = json.loads(text, parse_constant=no_constant, parse_float=read_float)
    if SURROGATE.search(text):
        dump_json(value)  # raises UnicodeEncodeError if there is a lone surrogate
    return value


def dump_json(value: object) -> bytes:
    """Serialize to JSON. Raises TypeError, ValueError or RecursionError for values that JSON does not have."""
    return ENCODER.encode(value).encode()


def no_constant(name: str) -> NoReturn:
    """Raise ValueError: JSON has neither NaN nor Infinity, which Python's parser accepts."""
    raise ValueError(f"{name} is not JSON")
