"""The head of a request: request line and fields (RFC 9112 2 to 5), and its framing (RFC 9112 6 and 9).

`microwsgi.server.handler` passes the bytes before the empty line to `parse_head`. An invalid head raises a `ClientError` with
the status and the reason. The parser is strict on purpose: request smuggling is possible when two parsers (of a proxy and of a
server) interpret one message in different ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from microwsgi.errors import (
    ClientError,
    ContentTooLarge,
    ExpectationFailed,
    FieldsTooLarge,
    NotImplementedByServer,
    TargetTooLong,
    VersionNotSupported,
)
from microwsgi.options import Options
from microwsgi.wire.syntax import CONTROL, FIELD_LINE, TARGET, TOKEN, VALUE, VERSION, valid_host

END = b"\r\n\r\n"
CHUNKED = -1
"""The result of `body_length` for a chunked body, whose length is unknown until its end."""

# The request line, and the field lines after it. The quantifiers are possessive: a line that does not match fails in one pass.
HEAD = re.compile(rf"({TOKEN}++) ({TARGET}++) (HTTP/1\.[01])(?:\r\n(.++))?+", re.DOTALL)
FIELD_VALUE = re.compile(rf"{VALUE}*+")
ABSOLUTE = re.compile(rf"(?i:https?)://([^/?]*+)({TARGET}*+)")

LAST_PORT = 65535

MAX_KNOWN_NAMES = 1024
MAX_KNOWN_LINES = 1024
MAX_KNOWN_SECTIONS = 256
"""The maximum number of remembered field names, lines, and sections (all lines of a head). Beyond it, all are forgotten."""
MAX_KNOWN_LINE_LENGTH = 256
MAX_KNOWN_SECTION_LENGTH = 2048
"""Longer lines and sections are not remembered."""
COOKIE = "\r\nCookie: "
PRIVATE = {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"}
"""Fields that are secrets of one client: lines and sections with these fields are not kept."""


class FieldKeys(dict[str, str]):
    """Map a field name to its environ key (RFC 3875 4.1.18): Accept-Language becomes HTTP_ACCEPT_LANGUAGE.

    The key is "" for a name with an underscore. X_Y and X-Y would share a key, and a client could forge a field that a proxy
    sets.
    """

    def __missing__(self, name: str) -> str:
        key = "" if "_" in name else name.upper().replace("-", "_")
        if key and key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        if len(self) >= MAX_KNOWN_NAMES:
            self.clear()  # names that one client invents must not slow down the other clients forever
        self[name] = key
        return key


KEYS = FieldKeys()


class FieldLines(dict[str, tuple[str, str]]):
    """Check a field line; map it to its environ key and its value. Raises ValueError for a line that breaks RFC 9112 5.

    Most clients repeat most of their lines with each request.
    """

    def __missing__(self, line: str) -> tuple[str, str]:
        match = FIELD_LINE.fullmatch(line)
        if match is None:
            raise ValueError(line)
        key = KEYS[match[1]]
        pair = key, match[2].strip(" \t")
        if len(line) <= MAX_KNOWN_LINE_LENGTH and key not in PRIVATE:
            if len(self) >= MAX_KNOWN_LINES:
                self.clear()
            self[line] = pair
        return pair


LINES = FieldLines()


_known_sections: dict[str, Mapping[str, str]] = {}
# The fields of sections that were checked before: the requests of one page, and those of a health check or a program, often
# differ only in their target and their cookies. Requests share the values, which are never changed. No key is removed, since
# another thread may look it up: a full dict is replaced. `get` would lock the dict where there is no global interpreter lock.


class RequestHead:
    """A parsed head. `raw` is the head without the empty line at its end.

    `fields` has environ keys. Heads with the same field lines share one dict, so it is never changed.
    A head that was refused before it was parsed has an empty method, target and version.
    """

    def __init__(self, raw: bytes, method: str, target: str, version: str, fields: Mapping[str, str]) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields

    @property
    def line(self) -> str:
        """The request line, with control characters escaped."""
        if self.method:
            return f"{self.method} {self.target} {self.version}"
        return ascii(self.raw[:200].partition(b"\r\n")[0].decode("latin-1"))[1:-1]

    def field_lines(self) -> list[tuple[str, str]]:
        """Each field line in order, as (name, value)."""
        lines = self.raw.decode("latin-1").lstrip("\r\n").split("\r\n")
        return [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines[1:])]


def parse_head(raw: bytes, limits: Options) -> RequestHead:
    """Parse the bytes before the empty line of a head.

    The values of a repeated field are joined (RFC 9110 5.3). Raises ClientError for an invalid line, Host or target.
    """
    match = HEAD.fullmatch(raw.decode("latin-1"))
    if match is None:
        if raw.startswith(b"\r\n"):  # RFC 9112 2.2: one empty line before the request line is ignored
            return parse_head(raw[2:], limits)
        check_lines(raw, limits)
        raise ClientError("There is more than one empty line before the request line.")
    method, target, version, section = match.groups("")
    known = _known_sections
    fields = known[section] if section in known else parse_fields(section, raw, limits)
    size = len(raw)
    if size > limits.max_line_size or size > limits.max_header_size or len(fields) > limits.max_header_count:
        check_lines(raw, limits)
    if version == "HTTP/1.1" and "HTTP_HOST" not in fields:
        raise ClientError("An HTTP/1.1 request needs a Host field (RFC 9112 3.2).")
    if target[0] != "/" or method == "CONNECT":
        fields = check_target(method, target, fields)
    return RequestHead(raw, method, target, version, fields)


def parse_fields(section: str, raw: bytes, limits: Options) -> Mapping[str, str]:
    """Parse the field lines of the head `raw`. Raises ClientError.

    Sections are remembered without their cookies, since two requests often differ only in these.
    """
    global _known_sections  # noqa: PLW0603  # replaced and not cleared: see above
    before, cookie, after = section.partition(COOKIE)
    if cookie:
        value, _, after = after.partition("\r\n")
        rest = f"{before}\r\n{after}" if after else before
        known = _known_sections
        if rest in known and FIELD_VALUE.fullmatch(value):
            return {**known[rest], "HTTP_COOKIE": value.strip(" \t")}
    else:
        rest = section
    lines = section.split("\r\n") if section else []
    fields: dict[str, str] = {}
    try:
        for line in lines:
            key, content = LINES[line]
            fields[key] = content
    except ValueError:
        check_lines(raw, limits)
        raise
    if len(fields) < len(lines) or "" in fields:
        if len(lines) > limits.max_header_count:
            check_lines(raw, limits)
        return combine(lines)
    check_host(fields)
    shared = {key: value for key, value in fields.items() if key != "HTTP_COOKIE"} if cookie else fields
    if len(rest) <= MAX_KNOWN_SECTION_LENGTH and PRIVATE.isdisjoint(shared):
        if len(_known_sections) >= MAX_KNOWN_SECTIONS:
            _known_sections = {}
        _known_sections[rest] = shared
    return fields


def combine(lines: list[str]) -> dict[str, str]:
    """Return the fields of a head in which a name is repeated, or a name with an underscore is dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        key, value = LINES[line]
        if not key:
            continue
        if key not in fields:
            fields[key] = value
        elif key == "HTTP_HOST":
            raise ClientError("The request has more than one Host field (RFC 9112 3.2).")
        else:  # cookies are not joined by a comma: RFC 6265 5.4, RFC 9113 8.2.3
            fields[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
    check_host(fields)
    return fields


def check_host(fields: Mapping[str, str]) -> None:
    """Check the syntax of Host, if there is one."""
    host = fields.get("HTTP_HOST")
    if host is not None and not valid_host(host):
        raise ClientError(f"{host!r} is not a valid value for the Host field (RFC 9112 3.2).")


def check_target(method: str, target: str, fields: Mapping[str, str]) -> Mapping[str, str]:
    """Check a target that does not begin with a slash (RFC 9112 3.2); return the fields.

    The authority of an absolute form replaces Host (RFC 9112 3.2.2).
    """
    if method == "CONNECT":
        port = target.rpartition(":")[2]
        if valid_host(target) and re.fullmatch("[0-9]{1,5}", port) and int(port) <= LAST_PORT and port != target:
            raise NotImplementedByServer("CONNECT asks for a tunnel, and this is an origin server.")
        raise ClientError("The target of CONNECT must be host:port (RFC 9112 3.2.3).")
    if target == "*" and method == "OPTIONS":
        return fields
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        raise ClientError(f"{target!r} is not a target for {method}: it must begin with a slash (RFC 9112 3.2).")
    authority = match[1]
    if not authority or not valid_host(authority):
        raise ClientError(f"{authority!r} is not a valid authority (RFC 9110 4.2).")
    return {**fields, "HTTP_HOST": authority}


def origin_form(target: str) -> str:
    """Return the path and query of any target that `parse_head` accepts; "" for the asterisk."""
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        return "" if target == "*" else target
    return match[2] if match[2].startswith("/") else f"/{match[2]}"


def body_length(head: RequestHead, limit: int) -> int:
    """Return the length of the body in bytes, or CHUNKED (RFC 9112 6.3). Corrects a repeated Content-Length in the fields.

    Raises ClientError for framing that RFC 9112 6.1 to 6.3 forbid, ContentTooLarge for more than `limit` bytes.
    """
    fields = head.fields
    codings = fields.get("HTTP_TRANSFER_ENCODING")
    length = fields.get("CONTENT_LENGTH")
    if codings is not None:
        if length is not None:
            raise ClientError("The request has both Content-Length and Transfer-Encoding (RFC 9112 6.1).")
        if head.version != "HTTP/1.1":
            raise ClientError("An HTTP/1.0 request must not have Transfer-Encoding (RFC 9112 6.1).")
        *others, last = [coding.strip(" \t").lower() for coding in codings.split(",")]
        if last != "chunked" or "chunked" in others or "" in others:  # only attackers send ", chunked"
            raise ClientError("Transfer-Encoding must end with chunked, and contain it once (RFC 9112 6.3).")
        if others:
            raise NotImplementedByServer(f"The only supported transfer coding is chunked, not {others[0]!r}.")
        return CHUNKED
    if length is None:
        return 0
    if "," in length:  # RFC 9110 8.6: equal values may count as one
        first, *others = [value.strip(" \t") for value in length.split(",")]
        if any(value != first for value in others):
            raise ClientError("The request has two different Content-Length values (RFC 9112 6.3).")
        head.fields = {**fields, "CONTENT_LENGTH": first}
        length = first
    if not (length.isascii() and length.isdigit()):
        raise ClientError(f"Content-Length must be digits, not {length!r} (RFC 9110 8.6).")
    digits = length.lstrip("0") or "0"
    if len(digits) > len(str(limit)) or int(digits) > limit:
        raise ContentTooLarge(f"The body has {digits[:40]} bytes; the limit (max_body_size) is {limit}.")
    return int(digits)


def is_persistent(head: RequestHead) -> bool:
    """Return whether the request allows the connection to outlive the response (RFC 9112 9.3)."""
    connection = head.fields.get("HTTP_CONNECTION")
    if connection is None:
        return head.version == "HTTP/1.1"
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    return "close" not in options and (head.version == "HTTP/1.1" or "keep-alive" in options)


def expects_continue(head: RequestHead) -> bool:
    """Return whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1); an HTTP/1.0 client never does.

    Raises ExpectationFailed for another expectation.
    """
    expect = head.fields.get("HTTP_EXPECT")
    if expect is None or head.version != "HTTP/1.1":
        return False
    expectations = {expectation.strip(" \t").lower() for expectation in expect.split(",")} - {""}
    if expectations - {"100-continue"}:
        raise ExpectationFailed(f"This server can't meet the expectation {expect!r}.")
    return bool(expectations)


# --- Heads that arrive in pieces, and invalid heads -------------------------------------------------------------------


class PartialHead:
    """A head that has arrived in part. It is refused as soon as it can no longer become valid.

    Each byte is searched once, however many pieces the head arrives in: a client that sends single bytes must not make the
    server search the whole buffer for each byte.
    """

    __slots__ = ("buffer", "limits", "line", "number", "searched", "start")

    def __init__(self, limits: Options) -> None:
        self.limits = limits
        self.buffer = bytearray()
        self.start = 0  # the offset of the request line
        self.line = 0  # the offset of the first line whose end has not arrived
        self.number = 0  # the number of that line; that of the request line is 0
        self.searched = 0  # the bytes before this offset have no control character, and no line end from `line` on

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Add bytes. Return the head and the bytes after it once the head is complete. Raises ClientError."""
        begin = max(len(self.buffer) - len(END) + 1, 0)
        self.buffer += data
        end = self.buffer.find(END, begin)
        if end >= 0:
            return bytes(self.buffer[:end]), bytes(self.buffer[end + len(END) :])
        self.check()
        return None

    def check(self) -> None:
        """Raise for the first error in the stream: the response must not depend on how the network has split the bytes."""
        buffer = self.buffer
        if not self.start and buffer.startswith(b"\r\n"):  # RFC 9112 2.2: ignore one empty line
            self.start = self.line = self.searched = 2
        while True:
            end = buffer.find(b"\r\n", max(self.searched - 1, self.line))
            last = end if end >= 0 else len(buffer) - buffer.endswith(b"\r")
            self.check_length(max(last, self.line))
            if end < 0:
                self.searched = max(last, self.line)
                return
            line = buffer[self.line : end].decode("latin-1")
            if self.number:
                check_field(line)
                if self.number > self.limits.max_header_count:
                    raise FieldsTooLarge(f"There are more than {self.number - 1} header fields (max_header_count).")
            else:
                check_request_line(line)
            self.line = self.searched = end + 2
            self.number += 1

    def check_length(self, end: int) -> None:
        """Check a line, complete or not: 400 for a control character, else 414 or 431 if it is longer than allowed."""
        limits = self.limits
        head_room = max(limits.max_header_size - self.line + self.start, 0)
        room, option = min((limits.max_line_size, "max_line_size"), (head_room, "max_header_size"))
        control = CONTROL.search(self.buffer, max(self.searched, self.line), end)
        if control is not None and control.start() - self.line <= room:
            start = bytes(self.buffer[self.line : min(self.line + 40, end)])
            where = f"The field line {start!r}" if self.number else "The request line"
            found = {b"\r": "a bare CR", b"\n": "a bare LF"}.get(control[0], "a control character")
            raise ClientError(f"{where} contains {found} (RFC 9112 2.2).")
        if end - self.line <= room:
            return
        if not self.number:
            raise TargetTooLong(f"The request line exceeds the limit of {room} bytes ({option}).")
        if option == "max_line_size":
            raise FieldsTooLarge(f"A field line exceeds the limit of {room} bytes (max_line_size).")
        raise FieldsTooLarge(f"The headers exceed the limit of {limits.max_header_size} bytes (max_header_size).")


def check_lines(raw: bytes, limits: Options) -> None:
    """Raise ClientError for the first error in a whole head, if there is one."""
    partial = PartialHead(limits)
    partial.buffer += raw + b"\r\n"
    partial.check()


def check_request_line(line: str) -> None:
    """Raise for a request line that breaks RFC 9112 3."""
    parts = line.split(" ")
    if len(parts) != len(("method", "target", "version")):
        raise ClientError("The request line must be METHOD TARGET VERSION, separated by single spaces (RFC 9112 3).")
    method, target, version = parts
    if not re.fullmatch(f"{TOKEN}+", method):
        raise ClientError(f"{method!r} is not a method (RFC 9110 9.1).")
    if not re.fullmatch(VERSION, version):
        raise ClientError(f"{version[:40]!r} is not an HTTP version (RFC 9112 2.3).")
    if version not in {"HTTP/1.0", "HTTP/1.1"}:
        raise VersionNotSupported(f"This server speaks HTTP/1.1 and HTTP/1.0, not {version}.")
    if not re.fullmatch(f"{TARGET}+", target):
        raise ClientError("The target has a fragment, or a character that must be percent-encoded (RFC 9112 3.2).")


def check_field(line: str) -> None:
    """Raise for a field line that breaks RFC 9112 5."""
    name, colon, _ = line.partition(":")
    if line[:1] in {" ", "\t"}:
        raise ClientError("A field line begins with white space: folded lines are refused (RFC 9112 5.2).")
    if not colon:
        raise ClientError(f"The field line {line[:40]!r} has no colon (RFC 9112 5).")
    if name != name.rstrip(" \t"):
        raise ClientError(f"There is white space before the colon of {name.strip()[:40]!r} (RFC 9112 5.1).")
    if not re.fullmatch(f"{TOKEN}+", name):
        raise ClientError(f"{name[:40]!r} is not a field name (RFC 9110 5.1).")
