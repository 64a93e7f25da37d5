"""The head of a response and its framing (RFC 9112 4 and 6), interim responses and refusals. Values in, bytes out.

`start_response` passes the application's status and headers to `response_head`, so that an invalid status or header raises
in the application's own call. `encode_head` chooses the framing, with or without knowing the length of the body.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from enum import IntEnum
from functools import lru_cache

from microwsgi.errors import ApplicationError, ClientError
from microwsgi.wire.syntax import TOKEN
from microwsgi.wire.syntax import VALUE as VALUE_CHARACTER

SERVER = "microwsgi"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

STATUS = re.compile(r"[1-9][0-9]{2} [\t -~\x80-\xff]*+")
LENGTH = re.compile(r"[0-9]{1,18}")
NAME = re.compile(rf"{TOKEN}++")
VALUE = re.compile(rf"{VALUE_CHARACTER}*+")
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Fields about the connection, which the server controls: PEP 3333 forbids applications to set them."""
RESET_CONTENT = 205
LENGTH_DROPPED = frozenset((204, RESET_CONTENT))
"""The application's Content-Length is dropped: a 204 must have none (RFC 9110 8.6), a 205 gets a length of 0 (15.3.6)."""
MAX_KNOWN_NAMES = 1024
MAX_KNOWN_HEADS = 256
MAX_KNOWN_HEAD_LENGTH = 1024
"""The maximum number of remembered field names and heads, and the maximum length of a remembered head's field lines."""


class Framing(IntEnum):
    """How the client finds the end of a response's body (RFC 9112 6.3)."""

    NO_BODY = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3


NO_BODY, LENGTH_FRAMING = Framing.NO_BODY, Framing.LENGTH
"""For code that runs for each response: looking a member up in its class costs as much as a method call."""


class FieldNames(dict[str, str]):
    """Check a response field's name; map it to its lower case if the server needs to know it, else to ""."""

    def __missing__(self, name: str) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ApplicationError(f"{name!r} is not a field name (PEP 3333: headers are (name, value), both str).")
        kind = name.lower()
        if kind in HOP_BY_HOP:
            raise ApplicationError(f"{name} is a hop-by-hop field: PEP 3333 does not allow applications to send it.")
        if kind not in {"content-length", "date", "server"}:
            kind = ""
        if len(self) < MAX_KNOWN_NAMES:
            self[name] = kind
        return kind


NAMES = FieldNames()


class ResponseHead:
    """A checked status and headers. Never changed: equal heads share one object.

    `given` is 1 if the application gave a Date, plus 2 if it gave a Server: the index into `DateFields.lines`. `length` is the
    application's Content-Length.
    """

    __slots__ = ("bodiless", "code", "field_lines", "given", "length", "status_and_fields")

    def __init__(
        self, status_line: str, field_lines: str, code: int, *, bodiless: bool, length: int | None, given: int
    ) -> None:
        self.status_and_fields = (status_line + field_lines).encode("latin-1")
        self.field_lines = field_lines
        self.code = code
        self.bodiless = bodiless
        self.length = length
        self.given = given


_known_heads: dict[tuple[object, ...], ResponseHead] = {}
# Applications repeat their heads: one that was checked before is looked up in this dict. A lost update by another thread
# only costs one more check. Heads with cookies are not kept: they rarely repeat, and may be secret.


def response_head(status: str, headers: list[tuple[str, str]]) -> ResponseHead:
    """Check a status and headers. Raises ApplicationError with the rule of PEP 3333 that they break."""
    if headers.__class__ is list:
        try:
            return _known_heads[status, tuple(headers)]
        except (KeyError, TypeError):  # TypeError: not hashable; check_head reports that
            pass
    head = check_head(status, headers)
    # Equal is not identical: True == 1 and a subclass of str may equal a str, so only exact types are remembered.
    if (
        len(head.field_lines) <= MAX_KNOWN_HEAD_LENGTH
        and "cookie" not in head.field_lines.lower()
        and status.__class__ is str
        and all(each.__class__ is tuple and each[0].__class__ is each[1].__class__ is str for each in headers)
    ):
        if len(_known_heads) >= MAX_KNOWN_HEADS:
            _known_heads.clear()
        _known_heads[status, tuple(headers)] = head
    return head


def check_head(status: str, headers: list[tuple[str, str]]) -> ResponseHead:
    """Check a status and headers that are not known yet. Raises ApplicationError."""
    if not isinstance(status, str):  # before check_status, whose cache takes only hashable values
        raise ApplicationError(f"The status is {status!r}; PEP 3333 requires a str like '200 OK'.")
    status_line, code, bodiless = check_status(status)
    length, given, lines = None, 0, "Content-Length: 0\r\n" if code == RESET_CONTENT else ""
    if headers.__class__ is not list:
        raise ApplicationError(f"headers is a {type(headers).__name__}; PEP 3333 requires a list.")
    try:
        for name, value in headers:
            kind = NAMES[name]
            if not (value.isascii() and value.isprintable()):
                check_value(name, value)
            if kind == "content-length":
                length = content_length(value, length)
                if code in LENGTH_DROPPED:
                    continue
            elif kind:
                given |= 1 if kind == "date" else 2
            lines += f"{name}: {value}\r\n"
    except (TypeError, ValueError, AttributeError):
        raise ApplicationError(describe_header_error(headers)) from None
    return ResponseHead(status_line, lines, code, bodiless=bodiless, length=length, given=given)


def check_value(name: str, value: str) -> None:
    """Reject a value that contains a line end or can't be encoded: an injected CR LF would add a field, or a response."""
    if not VALUE.fullmatch(value):
        raise ApplicationError(f"{name} has a control character, or one outside latin-1: {value!r} (PEP 3333).")


def content_length(value: str, before: int | None) -> int:
    """Return the number in a Content-Length. `before`: the number of an earlier one, which is an error."""
    if not LENGTH.fullmatch(value):
        raise ApplicationError(f"Content-Length must be digits, not {value!r} (RFC 9110 8.6).")
    if before is not None:
        raise ApplicationError(f"Content-Length must be given once, not {before} and then {value} (RFC 9110 8.6).")
    return int(value)


@lru_cache(maxsize=256)
def check_status(status: str) -> tuple[str, int, bool]:
    """Return status line, code, and whether a response of that status has no body at all (RFC 9112 6.3, RFC 9110 15.3.6)."""
    if not STATUS.fullmatch(status):
        raise ApplicationError(f"The status is {status!r}; PEP 3333 requires a str like '200 OK'.")
    code = int(status[:3])
    if code < 200:  # RFC 9110 15.2
        raise ApplicationError(f"{status!r} is an interim status; start_response takes a final one (RFC 9110 15.2).")
    return f"HTTP/1.1 {status}\r\n", code, code in {204, 205, 304}


def describe_header_error(headers: list[tuple[str, str]]) -> str:
    """Return a text that names the header which is not a pair of str."""
    wrong = next((each for each in headers if not isinstance(each, tuple) or [*map(type, each)] != [str, str]), headers)
    return f"The header {wrong!r} is not a tuple (name, value) of two str (PEP 3333)."


def encode_head(
    head: ResponseHead,
    method: str,
    version: str,
    length: int | None,
    close: bool,  # positional: a keyword argument would cost more
    more: bytes,
) -> tuple[bytes, Framing, int]:
    """Return the bytes of a head, the framing of its body, and the number of bytes that Content-Length promises.

    `length` is that of the body, None if it is not known. `close`: the connection ends with this response. `more` are lines to
    add, Date and Server among them.
    """
    remaining = head.length if head.length is not None else length or 0
    framing, line = LENGTH_FRAMING, b""
    if head.bodiless or method == "HEAD":
        framing = NO_BODY
        # RFC 9110 8.6: the length in a response to HEAD is that of the response to GET, or absent; 204 and 304 get none.
        if head.length is None and length and not head.bodiless:
            line = b"Content-Length: %d\r\n" % length
    elif head.length is None:
        if length is not None:
            line = b"Content-Length: %d\r\n" % length
        elif version == "HTTP/1.1":
            framing, line = Framing.CHUNKED, b"Transfer-Encoding: chunked\r\n"
        else:
            framing, close = Framing.UNTIL_CLOSE, True
    if close:
        line += b"Connection: close\r\n"
    elif version == "HTTP/1.0":
        line += b"Connection: keep-alive\r\n"
    return b"".join((head.status_and_fields, more, line, b"\r\n")), framing, remaining


def encode_chunk(data: bytes) -> bytes:
    """Return a chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class DateFields:
    """The Date and Server fields, updated once a second (RFC 9110 6.6.1, 10.2.4)."""

    def __init__(self) -> None:
        self.since = self.until = 0.0
        self.lines = (b"", b"", b"", b"")

    def current_lines(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the lines to add, indexed by `ResponseHead.given`: for neither field, only Date, only Server, both."""
        now = time.time()
        if not self.since <= now < self.until:  # the clock may have been set back
            second = int(now)
            date, server = f"Date: {formatdate(second, usegmt=True)}\r\n".encode(), f"Server: {SERVER}\r\n".encode()
            self.lines = (date + server, server, date, b"")
            self.since, self.until = float(second), second + 1.0
        return self.lines


def refusal(error: ClientError, date: bytes, *, bodiless: bool = False) -> bytes:
    """Return the whole response to a refused request: it contains the reason, and Connection: close (RFC 9112 9.6)."""
    content = f"{error.status}\n\n{error}\n".encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {error.status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n{error.fields}"
    )
    return b"%b%bConnection: close\r\n\r\n%b" % (head.encode("latin-1"), date, b"" if bodiless else content)


def early_hints(headers: list[tuple[str, str]]) -> bytes:
    """Return an interim 103 response with these fields (RFC 8297)."""
    return f"HTTP/1.1 103 Early Hints\r\n{response_head('200 OK', headers).field_lines}\r\n".encode("latin-1")
