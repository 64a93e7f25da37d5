"""The adapter between the tests and `microwsgi.wire`: no other module of tests/wire and tests/fuzz imports that package.

The tests give bytes and look at plain values. When the API of `microwsgi.wire` changes, only this module changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Protocol

from microwsgi.options import Options
from microwsgi.wire import body as body_module
from microwsgi.wire import proxy_protocol as proxy_module
from microwsgi.wire import request as request_module
from microwsgi.wire import response as response_module
from microwsgi.wire import syntax as syntax_module

LIMITS = Options()
CHUNKED = None
"""The `length` of a body in chunks, in what `parse` returns and `decoder` takes."""
EXTENSION_LIMIT = body_module.EXTENSIONS
"""Bytes of chunk extensions that a body may have beyond its own length."""
NAME_LIMIT = request_module.MAX_KNOWN_NAMES
"""Field names that a name table remembers at most."""


class HeadReader:
    """A request head that arrives in pieces."""

    def __init__(self, options: Options = LIMITS) -> None:
        self.partial = request_module.PartialHead(options)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the bytes before the empty line, and those behind it; None until it has come.

        Raise ClientError as soon as the head cannot become valid.
        """
        return self.partial.feed(data)


def parse(head: bytes, options: Options = LIMITS) -> dict[str, Any]:
    """Parse the bytes before the empty line of a request head; raise ClientError if they are not valid.

    - method, target, version: as sent; path: the target in origin form, with its query
    - fields: the fields with the keys of an environ; lines: all field lines as sent, [name, value]
    - length: of the body in bytes, or CHUNKED; expects: whether the client waits for 100 (Continue)
    - persistent: whether the connection stays open after the response, as far as the request says
    """
    parsed = request_module.parse_head(head, options)
    length = request_module.body_length(parsed, options.max_body_size)
    return {
        "method": parsed.method,
        "target": parsed.target,
        "path": request_module.origin_form(parsed.target),
        "version": parsed.version,
        "fields": parsed.fields,
        "lines": [list(pair) for pair in parsed.field_lines()],
        "length": CHUNKED if length == request_module.CHUNKED else length,
        "expects": request_module.expects_continue(parsed),
        "persistent": request_module.is_persistent(parsed),
    }


def parse_proxy_header(data: bytes) -> tuple[int, tuple[str, str] | None] | None:
    """Return the length of a PROXY protocol header and the client's address and port, if it has them.

    Return None if the header is not complete. Raise ClientError if the data does not begin with a valid one.
    """
    return proxy_module.parse_proxy_header(data)


def valid_host(host: str) -> bool:
    """Return whether a Host field may have this value."""
    return syntax_module.valid_host(host)


def host_cache_limit() -> int | None:
    """Return how many hosts are remembered at most; None if there is no limit."""
    return syntax_module.valid_host.cache_info().maxsize


def request_names() -> MutableMapping[str, str]:
    """Return a new name table of requests: from a field's name to its environ key."""
    return request_module.FieldKeys()


def response_names() -> MutableMapping[str, str]:
    """Return a new name table of responses, which checks a field's name."""
    return response_module.FieldNames()


class Decoder(Protocol):
    """A decoder of a request body: `feed` takes received bytes and returns content."""

    unused_data: bytes
    """The bytes that were fed behind the end of the body."""
    remaining: int
    """The bytes still to come of the body, or of the current chunk."""

    @property
    def trailers(self) -> Sequence[tuple[str, str]]:
        """The trailer fields."""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""

    @property
    def failed(self) -> bool:
        """Whether the body was invalid: what follows cannot be read."""

    def feed(self, data: bytes) -> bytes:
        """Return the content in these bytes; raise ClientError if they are not valid."""


def decoder(length: int | None, options: Options = LIMITS) -> Decoder:
    """Return the decoder for a body of this length, or CHUNKED."""
    return body_module.new_decoder(request_module.CHUNKED if length is CHUNKED else length, options)


def raw_input(decoder: Decoder, receive: Callable[[memoryview], int], received: bytes = b"") -> io.RawIOBase:
    """Return the raw file of a body: first `received`, which is decoded content, then what `receive` puts into a buffer."""
    return body_module.BodyReader(decoder, receive, received)  # type: ignore[arg-type]  # one of ours, by its protocol


def response(status: Any, headers: Any) -> dict[str, Any]:
    """Check a status and headers as start_response does; raise ApplicationError if PEP 3333 forbids them.

    - line, fields: the text of the status line and of the field lines; code: the number
    - bodiless: whether the response has no content; length: the Content-Length or None
    - date, server: whether the application gave these fields
    """
    head = response_module.response_head(status, headers)
    return {
        "line": head.status_and_fields.decode("latin-1").removesuffix(head.field_lines),
        "fields": head.field_lines,
        "code": head.code,
        "bodiless": head.bodiless,
        "length": head.length,
        "date": bool(head.given & 1),
        "server": bool(head.given & 2),
    }


class Clock:
    """The Date and Server fields of responses."""

    def __init__(self) -> None:
        self.clock = response_module.DateFields()

    def fields(self, *, date: bool = True, server: bool = True) -> bytes:
        """Return the field lines that the server adds; the same object until the second ends."""
        both, only_server, only_date, none = self.clock.current_lines()
        return (both if server else only_date) if date else (only_server if server else none)


response_head = response_module.response_head


def refusal(error: Any, date: str, *, bodiless: bool = False) -> bytes:
    """Return the whole response to a refused request."""
    return response_module.refusal(error, date.encode(), bodiless=bodiless)


early_hints = response_module.early_hints
