"""A request as values: what apps/inspect.py keeps of each, and how it is taken from the environ."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from wsgiref.types import InputStream

from webob.exc import HTTPException

from apps.kernel import tcpinfo
from microwsgi import Request

FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
BODY = 1 << 16
"""Bytes of a body that are kept."""
TEXT = 4096
"""Characters of any other value: a request's head has some 64 KiB, but of a hundred of them all is kept in memory."""
LONGEST = 1 << 30
"""Bytes of a body that are counted."""
PARAMETER = re.compile(r"(^|[?&])([^=&?]+)=([^&\s]*)")
PAIRS = 200
"""Names and values of a query or a form."""
SECRET = re.compile(r"authorization|cookie|token|secret|passw|api-?_?key|session|signature", re.IGNORECASE)
"""Names of fields and parameters of which only the length is kept: everybody who reaches the pages sees all requests.
INSPECT_SECRETS=1 keeps them."""
SHOW_SECRETS = os.environ.get("INSPECT_SECRETS") == "1"
UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")
"""Fields that CGI gives no HTTP_ (RFC 3875 4.1)."""
numbers = itertools.count(1)


class Seen(NamedTuple):
    """A request as plain values, which keep no reference to the connection."""

    number: int
    time: datetime
    line: str
    version: str
    client: str
    agent: str
    fields: list[tuple[str, str]]
    values: list[tuple[str, str, str]]
    body: bytes
    body_length: int
    tls: dict[str, str]
    connection: dict[str, Any]
    environ: list[tuple[str, str]]

    @property
    def body_text(self) -> str:
        """The body for people: as text, or, where it is none, as bytes."""
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            text = self.body.hex(" ")
        return text + (
            f"\n(and {self.body_length - len(self.body)} bytes)" if self.body_length > len(self.body) else ""
        )

    def as_values(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "time": self.time.isoformat(), "body": self.body_text}


def seen_of(request: Request) -> Seen:
    """Take the details of a request. The whole body is read, and its beginning kept."""
    environ = request.environ
    body, length = read_body(environ["wsgi.input"])
    rows = [(key, secret(field_name(key), hidden(text_of(value)))) for key, value in environ.items()]
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=None)
    values = [("query", name, value) for name, value in query[:PAIRS]]
    values += [("form", name, value) for name, value in form_values(environ, body)] if length <= BODY else []
    if request.content_type == "application/x-www-form-urlencoded":
        body = hidden(body.decode("latin-1")).encode("latin-1")
    return Seen(
        number=next(numbers),
        time=datetime.now(UTC),
        line=f"{request.method} {hidden(environ.get('REQUEST_URI') or environ.get('PATH_INFO', ''))}"[:TEXT],
        version=environ["SERVER_PROTOCOL"],
        client=f"{environ.get('REMOTE_ADDR') or 'a Unix socket'} {environ.get('REMOTE_PORT') or ''}".strip(),
        agent=environ.get("HTTP_USER_AGENT", "")[:TEXT],
        fields=[
            (field_name(key), value) for key, value in rows if key.startswith("HTTP_") or (key in UNPREFIXED and value)
        ],
        values=[(where, name[:TEXT], secret(name, value[:TEXT])) for where, name, value in values],
        body=body,
        body_length=length,
        tls={key: value for key, value in rows if key.startswith(("SSL_", "HTTPS"))},
        connection=connection_of(environ),
        environ=rows,
    )


def read_body(stream: InputStream) -> tuple[bytes, int]:
    """The beginning of a body, and how long it is."""
    kept, length = b"", 0
    while length < LONGEST and (block := stream.read(BODY)):
        kept, length = (kept + block)[:BODY], length + len(block)
    return kept, length


def form_values(environ: dict[str, Any], body: bytes) -> Iterator[tuple[str, str]]:
    """The names and values of a form; of a file, its name and size. Nothing if the body is no form, or a broken one."""
    copy = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    try:
        found = list(copy.form.items()) if copy.content_type in FORMS else []
    except HTTPException:
        return
    for name, value in found[:PAIRS]:
        yield name, value if isinstance(value, str) else f"file {value.filename!r}, {len(value.file.read())} bytes"


def connection_of(environ: dict[str, Any]) -> dict[str, Any]:
    """TCP_INFO. A request to upgrade has a socket that is the application's with the first use: it is left alone."""
    connection = environ.get("microwsgi.socket")
    if connection is None or "HTTP_UPGRADE" in environ or not hasattr(connection, "getsockopt"):
        return {}
    info = tcpinfo.of(connection)
    return info._asdict() if info else {}


def field_name(key: str) -> str:
    """HTTP_USER_AGENT is User-Agent; fields have no case (RFC 9110 5.1), and CGI keeps none."""
    return key.removeprefix("HTTP_").replace("_", "-").title() if key.startswith("HTTP_") or key in UNPREFIXED else key


def secret(name: str, value: str) -> str:
    """The value of a field, or only its length if the name is that of a secret."""
    return f"({len(value)} characters)" if SECRET.search(name) and not SHOW_SECRETS else value


def hidden(text: str) -> str:
    """A query, a target or a urlencoded form without the values of its secrets."""
    return PARAMETER.sub(lambda match: f"{match[1]}{match[2]}={secret(match[2], match[3])}", text)


def text_of(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= TEXT else f"{text[:TEXT]} (and {len(text) - TEXT} characters)"
