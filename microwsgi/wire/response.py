"""What goes out: status line, fields and framing of a response (RFC 9112 4 and 6), refusals included.

`microwsgi.server.handler` takes the application's status and headers to `check_head` when `start_response` is called, so
that a wrong one raises there, in the application's own line; later it asks `head` for the bytes.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache

from microwsgi.errors import ApplicationError, ClientError

SERVER = "microwsgi"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

STATUS = re.compile(r"[1-9][0-9]{2} [\t -~\x80-\xff]*+")
LENGTH = re.compile(r"[0-9]{1,18}")
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
VALUE = re.compile(r"[\t -~\x80-\xff]*+")
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
)
"""Fields that belong to the connection, which is the server's: PEP 3333 forbids them to applications."""
RESET_CONTENT = 205
NO_LENGTH = frozenset((204, RESET_CONTENT))
"""Statuses whose Content-Length is not the application's: none for 204 (RFC 9110 8.6), 0 for 205 (15.3.6)."""
KNOWN_NAMES = 1024


class FieldNames(dict[str, str]):
    """From a response field's name, checked, to "" for most, and to its lower case for those that the server must see."""

    def __missing__(self, name: str) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ApplicationError(f"{name!r} is not a field name (PEP 3333: headers are (name, value), both str).")
        kind = name.lower()
        if kind in HOP_BY_HOP:
            raise ApplicationError(f"{name} is the server's business: PEP 3333 forbids hop-by-hop fields.")
        if kind not in {"content-length", "date", "server"}:
            kind = ""
        if len(self) < KNOWN_NAMES:
            self[name] = kind
        return kind


NAMES = FieldNames()


ResponseHead = tuple[str, str, int, bool, int | None, int]
"""What of a status and headers passed: status line, field lines, code, whether there is no body at all, Content-Length, and
which of Date (1) and Server (2) the application gave."""


def response_head(status: str, headers: list[tuple[str, str]]) -> ResponseHead:
    """Check a status and headers. Raises ApplicationError with the rule of PEP 3333 that they break."""
    if not isinstance(status, str):  # before check_status, whose cache takes only what has a hash
        raise ApplicationError(f"The status is {status!r}; PEP 3333 asks for a str like '200 OK'.")
    status_line, code, bodiless = check_status(status)
    length, own, lines = None, 0, "Content-Length: 0\r\n" if code == RESET_CONTENT else ""
    if headers.__class__ is not list:
        raise ApplicationError(f"headers is a {type(headers).__name__}; PEP 3333 asks for a list.")
    try:
        for name, value in headers:
            kind = NAMES[name]
            if not (value.isascii() and value.isprintable()):
                check_value(name, value)
            if kind == "content-length":
                length = content_length(value, length)
                if code in NO_LENGTH:
                    continue
            elif kind:
                own |= 1 if kind == "date" else 2
            lines += f"{name}: {value}\r\n"
    except (TypeError, ValueError, AttributeError) as error:
        raise ApplicationError(headers_fault(headers)) from error
    return status_line, lines, code, bodiless, length, own


def check_value(name: str, value: str) -> None:
    """Refuse what would end the line, or could not be sent: an injected CR LF makes a field, or a response, of its own."""
    if not VALUE.fullmatch(value):
        raise ApplicationError(
            f"The value of {name} has a control character, or one beyond latin-1: {value!r} (PEP 3333)."
        )


def content_length(value: str, before: int | None) -> int:
    """The number in a Content-Length."""
    if before is not None or not LENGTH.fullmatch(value):
        raise ApplicationError(f"Content-Length is digits, once, not {value!r} (RFC 9110 8.6).")
    return int(value)


@lru_cache(maxsize=256)
def check_status(status: str) -> tuple[str, int, bool]:
    """Status line, code, and whether a response of that status has no body at all (RFC 9112 6.3)."""
    if not STATUS.fullmatch(status):
        raise ApplicationError(f"The status is {status!r}; PEP 3333 asks for a str like '200 OK'.")
    code = int(status[:3])
    if code < 200:  # noqa: PLR2004 - RFC 9110 15.2: the informational ones
        raise ApplicationError(f"{status!r} is an interim status; start_response takes a final one (RFC 9110 15.2).")
    return f"HTTP/1.1 {status}\r\n", code, code in {204, 205, 304}


def headers_fault(headers: list[tuple[str, str]]) -> str:
    """Which of the headers is no header."""
    wrong = next((each for each in headers if not isinstance(each, tuple) or [*map(type, each)] != [str, str]), headers)
    return f"The header {wrong!r} is not a tuple (name, value) of two str (PEP 3333)."


class Clock:
    """The Date and Server fields, made anew once a second (RFC 9110 6.6.1, 10.2.4)."""

    def __init__(self) -> None:
        self.until = 0.0
        self.fields = ("", "", "", "")

    def tick(self) -> tuple[str, str, str, str]:
        """The fields to add where the application gave neither, Date, Server, both."""
        now = time.time()
        if not self.until - 1 <= now < self.until:  # the clock may have been set back
            second = int(now)
            date, server = f"Date: {formatdate(second, usegmt=True)}\r\n", f"Server: {SERVER}\r\n"
            self.fields = (date + server, server, date, "")
            self.until = second + 1.0
        return self.fields


def refusal(error: ClientError, date: str, *, bodiless: bool = False) -> bytes:
    """The whole response to a request that is refused: it says why, and that the connection closes (RFC 9112 9.6)."""
    content = f"{error.status}\n\n{error}\n".encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {error.status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n{date}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if bodiless else content)


def early_hints(headers: list[tuple[str, str]]) -> bytes:
    """An interim 103 response with these fields (RFC 8297)."""
    return f"HTTP/1.1 103 Early Hints\r\n{response_head('200 OK', headers)[1]}\r\n".encode("latin-1")
