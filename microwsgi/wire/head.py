"""A request's head: request line and fields (RFC 9112 2 to 5), and what they say of the body and the connection (6, 9).

`microwsgi.server.handler` gives the bytes before the empty line to `parse_head` and takes the values to
`microwsgi.server.environ`. A head that breaks a rule raises a `ClientError` with the status and the reason. Strict on
purpose: two parsers that read one message in two ways are how requests are smuggled past a proxy.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

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

END = b"\r\n\r\n"
CHUNKED = -1
"""What `framing` answers for a body of chunks: its length is not known before it ends."""

# RFC 9110 5.6.2 and 5.5. The target's characters are RFC 3986's and those that browsers send unescaped beside them
# (" < > [ ] ^ ` { | } \): everything printable but the fragment's "#", which no client may send (RFC 9112 3.2).
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TARGET = r"[!-\"$-~]"
VALUE = r"[\t -~\x80-\xff]"

# The whole head in one pass. Possessive, so a head that does not match fails in one pass too.
HEAD = re.compile(rf"({TOKEN}++) ({TARGET}++) (HTTP/1\.[01])((?:\r\n{TOKEN}++:{VALUE}*+)*+)")
FIELD_LINE = re.compile(rf"({TOKEN}++):({VALUE}*+)")
VERSION = r"HTTP/[0-9]\.[0-9]"
ABSOLUTE = rf"(?i:https?)://([^/?]*+)({TARGET}*+)"
# What can't stand in any line: control characters, and a CR or LF that is not its end (RFC 9112 2.2, RFC 9110 5.5).
CONTROL = re.compile(rb"[\x00-\x08\n-\x1f\x7f]")
# RFC 3986 3.2.2 and 3.2.3; what stands in brackets is judged by `valid_host`.
HOST = re.compile(r"(?:\[([^\]]*+)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]*+)?")
FUTURE_ADDRESS = r"[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+"

LAST_PORT = 65535

KNOWN_NAMES = 1024
"""How many field names are remembered with their keys; a client that invents more only costs itself time."""


class FieldKeys(dict[str, str]):
    """From a field's name to its key, as RFC 3875 4.1.18 spells it: Accept-Language is HTTP_ACCEPT_LANGUAGE.

    The key is "" for a name with an underscore: X_Y and X-Y would be one key, and a client could forge what a proxy sets.
    """

    def __missing__(self, name: str) -> str:
        key = "" if "_" in name else name.upper().replace("-", "_")
        if key and key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        if len(self) < KNOWN_NAMES:
            self[name] = key
        return key


KEYS = FieldKeys()


def parse_head(head: bytes, limits: Options) -> tuple[str, str, str, dict[str, str]]:
    """Method, target, version and the fields by their keys, of the bytes before a head's empty line.

    A repeated field's values are joined (RFC 9110 5.3). Raises a ClientError for all that RFC 9112 calls invalid.
    """
    match = HEAD.fullmatch(head.decode("latin-1"))
    if match is None:
        if head.startswith(b"\r\n"):  # RFC 9112 2.2: one empty line before the request line is forgiven
            return parse_head(head[2:], limits)
        raise first_fault(head + b"\r\n", limits) or ClientError("Two empty lines stand before the request line.")
    method, target, version, section = match.groups()
    lines = section.split("\r\n")
    del lines[0]
    if len(lines) > limits.field_count or len(head) > limits.line_length or len(head) > limits.head_size:
        error = first_fault(head + b"\r\n", limits)
        if error is not None:
            raise error
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[KEYS[name]] = value.strip(" \t")
    if len(fields) < len(lines) or "" in fields:
        fields = combine(lines)
    host = fields.get("HTTP_HOST")
    if host is None:
        if version == "HTTP/1.1":
            raise ClientError("An HTTP/1.1 request needs a Host field (RFC 9112 3.2).")
    elif not valid_host(host):
        raise ClientError(f"{host!r} is not a valid Host (RFC 9112 3.2).")
    if target[0] != "/" or method == "CONNECT":
        check_target(method, target, fields)
    return method, target, version, fields


def field_lines(head: bytes) -> list[tuple[str, str]]:
    """Each field line of a valid head in order, as (name, value)."""
    lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    return [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines[1:])]


def combine(lines: list[str]) -> dict[str, str]:
    """The fields of a head that repeats some or has names that are dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key, value = KEYS[name], value.strip(" \t")
        if not key:
            continue
        if key not in fields:
            fields[key] = value
        elif key == "HTTP_HOST":
            raise ClientError("A request has one Host field, not several (RFC 9112 3.2).")
        else:  # cookies are the exception to the comma: RFC 6265 5.4, RFC 9113 8.2.3
            fields[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
    return fields


def check_target(method: str, target: str, fields: dict[str, str]) -> None:
    """The forms of RFC 9112 3.2 that don't begin with a slash; an absolute form's authority takes Host's place."""
    if method == "CONNECT":
        port = target.rpartition(":")[2]
        if valid_host(target) and re.fullmatch("[0-9]{1,5}", port) and int(port) <= LAST_PORT and port != target:
            raise NotImplementedByServer("CONNECT asks for a tunnel, and this is an origin server.")
        raise ClientError("The target of CONNECT is host:port (RFC 9112 3.2.3).")
    if target == "*" and method == "OPTIONS":
        return
    match = re.fullmatch(ABSOLUTE, target)
    if match is None:
        raise ClientError(f"{target!r} is no target for {method}: it begins with a slash (RFC 9112 3.2).")
    authority = match[1]
    if not authority or not valid_host(authority):
        raise ClientError(f"{authority!r} is not a valid authority (RFC 9110 4.2).")
    fields["HTTP_HOST"] = authority  # RFC 9112 3.2.2: the field must be there, and is ignored


def origin_form(target: str) -> str:
    """The path and query of any target that `parse_head` lets through; "" for the asterisk."""
    match = re.fullmatch(ABSOLUTE, target)
    if match is None:
        return "" if target == "*" else target
    return match[2] if match[2].startswith("/") else f"/{match[2]}"


@lru_cache(maxsize=256)
def valid_host(host: str) -> bool:
    """Whether it is RFC 9110 7.2's uri-host [ ":" port ]; an empty one is (RFC 9112 3.2), a port alone is not."""
    match = HOST.fullmatch(host)
    if match is None or match[1] is None:
        return match is not None and not host.startswith(":")
    if re.fullmatch(FUTURE_ADDRESS, match[1]):
        return True
    try:
        IPv6Address(match[1])
    except ValueError:
        return False
    return "%" not in match[1]  # RFC 9844 took zones out of URIs again


def framing(version: str, fields: dict[str, str], body_size: int) -> int:
    """The body's length in bytes, or CHUNKED, by RFC 9112 6.3; corrects a repeated Content-Length in `fields`.

    Raises ClientError for what RFC 9112 6.1 to 6.3 call faulty, ContentTooLarge above `body_size`.
    """
    codings = fields.get("HTTP_TRANSFER_ENCODING")
    length = fields.get("CONTENT_LENGTH")
    if codings is not None:
        if length is not None:
            raise ClientError("Content-Length and Transfer-Encoding in one request: smuggled? (RFC 9112 6.1)")
        if version != "HTTP/1.1":
            raise ClientError("An HTTP/1.0 request has no Transfer-Encoding (RFC 9112 6.1).")
        *others, last = [coding.strip(" \t").lower() for coding in codings.split(",")]
        if last != "chunked" or "chunked" in others or "" in others:  # ", chunked" is only ever sent by attackers
            raise ClientError("The last transfer coding is chunked, and only the last (RFC 9112 6.3).")
        if others:
            raise NotImplementedByServer(f"This server knows no transfer coding but chunked, not {others[0]!r}.")
        return CHUNKED
    if length is None:
        return 0
    if "," in length:  # RFC 9110 8.6: equal values may count as one
        first, *others = [value.strip(" \t") for value in length.split(",")]
        if any(value != first for value in others):
            raise ClientError("Content-Length is given with two values (RFC 9112 6.3).")
        fields["CONTENT_LENGTH"] = length = first
    if not (length.isascii() and length.isdigit()):
        raise ClientError(f"Content-Length is digits only, not {length!r} (RFC 9110 8.6).")
    digits = length.lstrip("0") or "0"
    if len(digits) > len(str(body_size)) or int(digits) > body_size:
        raise ContentTooLarge(f"The body has {digits[:40]} bytes; the limit (body_size) is {body_size}.")
    return int(digits)


def persistent(version: str, connection: str | None) -> bool:
    """Whether the connection outlives the response, as far as the request says (RFC 9112 9.3)."""
    if connection is None:
        return version == "HTTP/1.1"
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    return "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)


def expects_continue(version: str, expect: str | None) -> bool:
    """Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1); HTTP/1.0 can't ask for it."""
    if expect is None or version != "HTTP/1.1":
        return False
    expectations = {expectation.strip(" \t").lower() for expectation in expect.split(",")} - {""}
    if expectations - {"100-continue"}:
        raise ExpectationFailed(f"This server can't meet the expectation {expect!r}.")
    return bool(expectations)


def check_partial(data: bytes, start: int, limits: Options) -> None:
    """Refuse a head that has not ended yet, as soon as it can't become valid; the bytes before `start` were checked."""
    error = first_fault(data, limits, start)
    if error is not None:
        raise error


def first_fault(data: bytes, limits: Options, checked: int = 0) -> ClientError | None:
    """What is wrong first with a head, as far as it is here; lines that end within the first `checked` bytes are not.

    First in the order of the stream: what is answered must not depend on how the network cut the bytes.
    """
    start = begin = 2 if data.startswith(b"\r\n") else 0  # RFC 9112 2.2 again
    cut = data.rfind(b"\r\n", start, checked)
    if cut >= 0:
        begin = cut + 2
    number = data.count(b"\r\n", start, begin)
    while True:
        end = data.find(b"\r\n", begin)
        line = data[begin:end] if end >= 0 else data[begin:].removesuffix(b"\r")
        room = max(min(limits.line_length, limits.head_size - begin + start), 0)
        error = length_fault(line, number, room, limits)
        if error is None and end >= 0:
            error = field_fault(line.decode("latin-1")) if number else request_line_fault(line.decode("latin-1"))
            if error is None and number > limits.field_count:
                error = FieldsTooLarge(f"The head has more than {number - 1} field lines, the limit (field_count).")
        if error is not None or end < 0:
            return error
        begin, number = end + 2, number + 1


def length_fault(line: bytes, number: int, room: int, limits: Options) -> ClientError | None:
    """Whether a line, ended or not, is longer than its room (414, 431) or has a control character before that (400)."""
    control = CONTROL.search(line)
    if control is not None and control.start() <= room:
        where = f"the field line {line[:40]!r}" if number else "the request line"
        return ClientError(f"A control character, a bare CR or a bare LF stands in {where} (RFC 9112 2.2).")
    if len(line) <= room:
        return None
    if not number:
        return TargetTooLong(f"The request line is longer than {room} bytes, the limit (line_length).")
    if room == limits.line_length:
        return FieldsTooLarge(f"A field line is longer than {room} bytes, the limit (line_length).")
    return FieldsTooLarge(f"The head is longer than {limits.head_size} bytes, the limit (head_size).")


def request_line_fault(line: str) -> ClientError | None:
    """What RFC 9112 3 has against a request line."""
    parts = line.split(" ")
    if len(parts) != len(("method", "target", "version")):
        return ClientError("A request line is a method, a target and a version with one space between (RFC 9112 3).")
    method, target, version = parts
    if not re.fullmatch(f"{TOKEN}+", method):
        return ClientError(f"{method!r} is not a method (RFC 9110 9.1).")
    if not re.fullmatch(VERSION, version):
        return ClientError(f"{version[:40]!r} is not an HTTP version (RFC 9112 2.3).")
    if version not in {"HTTP/1.0", "HTTP/1.1"}:
        return VersionNotSupported(f"This server speaks HTTP/1.1 and HTTP/1.0, not {version}.")
    if not re.fullmatch(f"{TARGET}+", target):
        return ClientError("The target has a fragment, or a character that must be percent-encoded (RFC 9112 3.2).")
    return None


def field_fault(line: str) -> ClientError | None:
    """What RFC 9112 5 has against a field line."""
    name, colon, _ = line.partition(":")
    if line[:1] in {" ", "\t"}:
        return ClientError("A field line begins with white space: folded lines are refused (RFC 9112 5.2).")
    if not colon:
        return ClientError(f"The field line {line[:40]!r} has no colon (RFC 9112 5).")
    if name != name.rstrip(" \t"):
        return ClientError(f"White space stands before the colon of {name.strip()[:40]!r} (RFC 9112 5.1).")
    if not re.fullmatch(f"{TOKEN}+", name):
        return ClientError(f"{name[:40]!r} is not a field name (RFC 9110 5.1).")
    return None
