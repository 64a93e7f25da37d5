"""A file as a response: conditional requests (RFC 9110 13), ranges (14), and `wsgi.file_wrapper`."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate, parsedate
from time import time
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Response

BLOCK = 256 * 1024
"""Bytes that are read at a time if the server does not use the file descriptor."""
MAX_RANGES = 64
"""RFC 9110 17.15: many small ranges cost the server more than the client. Beyond this number the whole file is sent."""
TYPES = {
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""Types that browsers check strictly, or that Python 3.11 does not know. The system's table is not used for them."""
NOT_MODIFIED = dict.fromkeys(
    ("Content-Type", "Content-Length", "Content-Encoding", "Content-Disposition", "Accept-Ranges", "Last-Modified"), ""
)
"""Fields of a response with content, left out of a 304 (RFC 9110 15.4.5: an ETag makes Last-Modified unnecessary)."""
REFUSED = {**NOT_MODIFIED, "Content-Type": "text/plain; charset=utf-8", "Content-Length": "0"}

TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
TAGS = re.compile(rf"[\t ,]*{TAG}(?:[\t ]*,[\t ,]*{TAG})*[\t ,]*")
DATE = re.compile(
    r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}",
    re.ASCII,
)
"""The date formats of RFC 9110 5.6.7: the preferred one, and two obsolete ones that must be accepted."""
RANGE = r"(?:\d{1,18}-(?:\d{1,18})?|-\d{1,18})"
RANGES = re.compile(rf"bytes=[\t ,]*({RANGE}(?:[\t ]*,[\t ,]*{RANGE})*)[\t ,]*", re.ASCII | re.IGNORECASE)

Answer = tuple[str, dict[str, str], Iterable[bytes] | None]
"""A status, the changed fields ("" removes a field), and the body, if any."""


class FileResponse(Response):
    """A file as a response, with conditional requests and ranges. Raises OSError if the file can't be opened.

    With `download`, the browser saves the file, under its own name or the given one. `max_age` is the time in seconds for which
    the browser may use it without asking; without it, the browser asks each time and gets a 304. `coding` is the content coding
    of the stored file, and `name` then the name without its extension. `opener` is that of open().
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        download: bool | str = False,
        max_age: int | None = None,
        coding: str = "",
        opener: Callable[[str, int], int] | None = None,
    ) -> None:
        name = os.fspath(name)
        self.opened = open(name, "rb", buffering=0, opener=opener)  # closed when it has been sent
        stat = os.fstat(self.opened.fileno())
        self.size = stat.st_size
        self.modified = int(min(stat.st_mtime, time()))  # never later than Date (RFC 9110 8.8.2.1)
        self.tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}{coding and "-" + coding}"'
        headers = [
            ("Content-Type", content_type(name)),
            ("Content-Length", str(self.size)),
            ("Last-Modified", formatdate(self.modified, usegmt=True)),
            ("ETag", self.tag),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "no-cache" if max_age is None else f"max-age={max_age}"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if coding:
            headers.append(("Content-Encoding", coding))
        if download:
            saved_as = download if isinstance(download, str) else os.path.basename(name)
            headers.append(("Content-Disposition", attachment(saved_as)))
        super().__init__(headerlist=headers, app_iter=Slice(self.opened, 0, self.size))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, whole = environ["REQUEST_METHOD"], self.app_iter
        # RFC 9110 13.2.1: conditions apply to a 200. An `after` hook may have replaced the body.
        if method not in {"GET", "HEAD"} or self.status != "200 OK" or not isinstance(whole, Slice):
            return super().__call__(environ, start_response)
        status, changes, body = self.answer(environ, whole)
        fields = [pair for pair in self.headerlist if pair[0] not in changes]
        start_response(status, fields + [pair for pair in changes.items() if pair[1]])
        if body is None or method == "HEAD":
            self.opened.close()
            return []
        # uWSGI's wrapper would send the whole file, whatever its position.
        if (
            isinstance(body, Slice)
            and "wsgi.file_wrapper" in environ
            and (body is whole or "uwsgi.version" not in environ)
        ):
            body = environ["wsgi.file_wrapper"](body, BLOCK)
        return body

    def answer(self, environ: WSGIEnvironment, whole: Slice) -> Answer:
        """Return the response to GET or HEAD: the file, ranges of it, a 304, 412 or 416."""
        if status := precondition(environ, self.tag, self.modified):
            return status, REFUSED if status.startswith("412") else NOT_MODIFIED, None
        wanted = None
        if environ["REQUEST_METHOD"] == "GET" and current(environ.get("HTTP_IF_RANGE"), self.tag, self.modified):
            wanted = ranges(environ.get("HTTP_RANGE", ""), self.size)
        if wanted is None:
            return self.status, {}, whole
        if not wanted:
            return "416 Range Not Satisfiable", {**REFUSED, "Content-Range": f"bytes */{self.size}"}, None
        if len(wanted) == 1:
            begin, end = wanted[0]
            part: Slice | Parts = Slice(self.opened, begin, end - begin)
            changes = {"Content-Range": f"bytes {begin}-{end - 1}/{self.size}", "Content-Length": str(end - begin)}
        else:
            part = Parts(self.opened, wanted, self.headers["Content-Type"], self.size)
            changes = {"Content-Type": part.type, "Content-Length": str(part.length)}
        return "206 Partial Content", changes, part


class Slice:
    """A part of a file with the interface of a file, for servers that use the descriptor and for those that read."""

    is_plain_file = True
    """Tells our server that the content is that of the descriptor, from the position `tell()`."""

    def __init__(self, file: io.FileIO, begin: int, length: int) -> None:
        self.file = file
        self.left = length
        file.seek(begin)

    @property
    def name(self) -> object:
        """The name of the file, for messages."""
        return self.file.name

    def fileno(self) -> int:
        return self.file.fileno()

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left if size < 0 else min(size, self.left)) or b""
        self.left -= len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(BLOCK), b"")

    def close(self) -> None:
        self.file.close()


class Parts:
    """Several ranges as one body: multipart/byteranges (RFC 9110 14.6)."""

    def __init__(self, file: io.FileIO, wanted: list[tuple[int, int]], kind: str, size: int) -> None:
        boundary = secrets.token_hex(16)
        self.file = file
        self.wanted = wanted
        self.type = f"multipart/byteranges; boundary={boundary}"
        self.heads = [
            f"\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {begin}-{end - 1}/{size}\r\n\r\n".encode()
            for begin, end in wanted
        ]
        self.last = f"\r\n--{boundary}--\r\n".encode()
        self.length = sum(map(len, self.heads)) + sum(end - begin for begin, end in wanted) + len(self.last)

    def __iter__(self) -> Iterator[bytes]:
        for head, (begin, end) in zip(self.heads, self.wanted, strict=True):
            yield head
            yield from Slice(self.file, begin, end - begin)
        yield self.last

    def close(self) -> None:
        self.file.close()


def precondition(environ: WSGIEnvironment, tag: str, modified: int) -> str:
    """Evaluate the conditions of a GET in the order of RFC 9110 13.2.2. Return the status of a 412 or 304, else ""."""
    if "HTTP_IF_MATCH" in environ:
        if not matches(environ["HTTP_IF_MATCH"], tag, weak=False):
            return "412 Precondition Failed"
    elif (since := http_date(environ.get("HTTP_IF_UNMODIFIED_SINCE"))) is not None and modified > since:
        return "412 Precondition Failed"
    if "HTTP_IF_NONE_MATCH" in environ:
        if matches(environ["HTTP_IF_NONE_MATCH"], tag, weak=True):
            return "304 Not Modified"
    elif (since := http_date(environ.get("HTTP_IF_MODIFIED_SINCE"))) is not None and modified <= since:
        return "304 Not Modified"
    return ""


def matches(field: str, tag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags, or *, contains the tag, by weak or strong comparison (RFC 9110 8.8.3.2)."""
    if field.strip(" \t") == "*":
        return True
    tags = re.findall(TAG, field) if TAGS.fullmatch(field) else []
    return tag in tags or (weak and f"W/{tag}" in tags)


def current(field: str | None, tag: str, modified: int) -> bool:
    """Return whether If-Range allows a range (RFC 9110 13.1.5).

    A date allows it only if that second is over: within it, the file could change again.
    """
    return field is None or field == tag or (http_date(field) == modified and modified + 1 <= time())


def http_date(field: str | None) -> int | None:
    """Return seconds since 1970; None for an invalid date, which is to be ignored."""
    parts = parsedate(field) if field is not None and DATE.fullmatch(field) else None
    try:
        return int(datetime(*parts[:6], tzinfo=UTC).timestamp()) if parts else None
    except ValueError:
        return None


def ranges(field: str, size: int) -> list[tuple[int, int]] | None:
    """Return the satisfiable ranges as (begin, end), possibly none; None if the whole file is to be sent (RFC 9110 14.2)."""
    found = RANGES.fullmatch(field)
    if not found or not size:
        return None
    wanted = []
    for spec in re.findall(RANGE, found[1]):
        first, _, last = spec.partition("-")
        if first and last and int(last) < int(first):
            return None
        begin = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if begin < end:
            wanted.append((begin, end))
    if len(wanted) > MAX_RANGES or sum(end - begin for begin, end in wanted) > size:
        return None
    return wanted


def content_type(name: str) -> str:
    """Return the media type by the extension; text is UTF-8. A compressed file has the type of its compression."""
    end = os.path.splitext(name)[1].lower()
    kind, coding = (TYPES[end], None) if end in TYPES else mimetypes.guess_type(name, strict=False)
    if coding is not None or kind is None:
        return "application/gzip" if coding == "gzip" else "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def attachment(name: str) -> str:
    """Return Content-Disposition for a file to be saved (RFC 6266 4.3), for any characters in its name."""
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    more = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return f'attachment; filename="{plain}"{more}'
