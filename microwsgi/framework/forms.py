"""Parse forms (RFC 7578), and write bodies to memory or disk, with limits.

WebOb's parser, the standard library's former `cgi` module, accepts a truncated form as complete, and writes it to disk twice.
This parser reads block by block, and has only one block in memory.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol
from urllib.parse import parse_qsl

from webob.exc import HTTPBadRequest, HTTPRequestEntityTooLarge
from webob.multidict import MultiDict

BLOCK = 64 * 1024
"""Bytes that are read at a time. A file of a form up to this size stays in memory."""
HEAD = 8 * 1024
"""The limit for the fields at the beginning of a part."""
DISPOSITION = re.compile(r"\r\ncontent-disposition:[ \t]*form-data[ \t]*((?:;[^\r\n]*)?)", re.IGNORECASE)
TYPE = re.compile(r"\r\ncontent-type:[ \t]*([^\r\n]*)", re.IGNORECASE)
ENCODED = re.compile(r"\r\ncontent-transfer-encoding:[ \t]*(?!7bit|8bit|binary)", re.IGNORECASE)
DISPOSITION_PARAMETER = re.compile(r';[ \t]*(name|filename)=(?:"((?:\\"|[^"])*)"|([^";\s]+))', re.IGNORECASE)
BOUNDARY = re.compile(r";[ \t]*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))", re.IGNORECASE)


class Readable(Protocol):
    """A file to read a body from."""

    def read(self, size: int, /) -> bytes: ...


class Part:
    """A part of a form that is still being received. Read it before you ask for the next part."""

    def __init__(self, head: str, blocks: Iterator[bytes]) -> None:
        disposition = DISPOSITION.search(head)
        names = (
            {key.lower(): quoted or bare for key, quoted, bare in DISPOSITION_PARAMETER.findall(disposition[1])}
            if disposition
            else {}
        )
        if "name" not in names:
            raise HTTPBadRequest("A part of the form has no name.")
        if ENCODED.search(head):
            raise HTTPBadRequest("A part of the form is encoded (RFC 7578 4.7).")
        self.name = unquoted(names["name"])
        filename = names.get("filename")
        self.filename = None if filename is None else re.split(r"[/\\]", unquoted(filename))[-1]
        """The client's name of the file without folders; None for a field. Never use it as a path."""
        kind = TYPE.search(head)
        self.type = kind[1] if kind else "text/plain"
        self.blocks = blocks

    def read(self, limit: int) -> bytes:
        """Return the content. Raises HTTPRequestEntityTooLarge beyond `limit` bytes."""
        return b"".join(limited(self.blocks, limit, f"{self.name} in the form"))

    def save(self, path: str, limit: int) -> int:
        """Write the content to a file, which exists only once it is complete. Return its size.

        Raises HTTPRequestEntityTooLarge beyond `limit` bytes.
        """
        return save(limited(self.blocks, limit, f"{self.name} in the form"), path)


class Upload:
    """A received file of a form: in memory if it is short, else in a temporary file."""

    def __init__(self, part: Part, limit: int) -> None:
        self.name, self.filename, self.type = part.name, part.filename or "", part.type
        self.file: IO[bytes] = SpooledTemporaryFile(BLOCK)  # closed in `__del__`
        for block in limited(part.blocks, limit, f"{part.name} in the form"):
            self.file.write(block)
        self.size = self.file.tell()
        self.file.seek(0)

    def __del__(self) -> None:
        """Close the file, when the request is deleted: no other code closes it."""
        self.file.close()

    def save(self, path: str) -> int:
        """Write the content to a file, which exists only once it is complete. Return its size."""
        self.file.seek(0)
        return save(iter(lambda: self.file.read(BLOCK), b""), path)


class Multipart:
    """The parts of a multipart body in their order (RFC 2046 5.1.1)."""

    def __init__(self, file: Readable, content_type: str) -> None:
        found = BOUNDARY.search(content_type)
        if not found:
            raise HTTPBadRequest("The form's Content-Type has no boundary.")
        self.file = file
        self.delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
        self.buffer = b"\r\n"  # the first delimiter may be at the very beginning

    def __iter__(self) -> Iterator[Part]:
        blocks = self.until(self.delimiter)
        while True:
            for _ in blocks:  # skip the preamble, or the unread rest of a part
                pass
            while len(self.buffer) < len("--") and (more := self.file.read(BLOCK)):
                self.buffer += more
            if self.buffer.startswith(b"--"):
                return
            if b"".join(self.until(b"\r\n")).strip(b" \t"):
                raise HTTPBadRequest("The form has its boundary within a line.")
            self.buffer = b"\r\n" + self.buffer
            head = b"".join(limited(self.until(b"\r\n\r\n"), HEAD, "The beginning of a part of the form"))
            blocks = self.until(self.delimiter)
            yield Part(text(head, "A part of the form"), blocks)

    def until(self, mark: bytes) -> Iterator[bytes]:
        """Yield the bytes before a mark, and skip the mark."""
        while (end := self.buffer.find(mark)) < 0:
            whole = len(self.buffer) - len(mark) + 1  # the last bytes may be the beginning of the mark
            if whole > 0:
                block, self.buffer = self.buffer[:whole], self.buffer[whole:]
                yield block
            more = self.file.read(BLOCK)
            if not more:
                raise HTTPBadRequest("The form ends before its last boundary.")
            self.buffer += more
        block, self.buffer = self.buffer[:end], self.buffer[end + len(mark) :]
        yield block


def multipart(file: Readable, content_type: str, *, fields: int, text_size: int, file_size: int) -> MultiDict[str, Any]:
    """Parse a form. All text fields together have at most `text_size` bytes, each file at most `file_size`."""
    values: MultiDict[str, Any] = MultiDict()
    for number, part in enumerate(Multipart(file, content_type)):
        if number >= fields:
            raise HTTPRequestEntityTooLarge(f"The form has more than {fields} fields.")
        if part.filename is None:
            content = part.read(text_size)
            text_size -= len(content)
            values.add(part.name, text(content, f"{part.name} in the form"))
        elif part.filename:  # "": the user chose no file
            values.add(part.name, Upload(part, file_size))
    return values


def urlencoded(body: bytes, *, fields: int) -> MultiDict[str, Any]:
    """Parse an urlencoded form."""
    try:
        pairs = parse_qsl(
            text(body, "The form"), keep_blank_values=True, errors="strict", max_num_fields=fields, separator="&"
        )
    except UnicodeDecodeError as error:
        raise HTTPBadRequest(f"The form is not UTF-8: {error}.") from error
    except ValueError as error:
        raise HTTPRequestEntityTooLarge(f"The form has more than {fields} fields.") from error
    return MultiDict(pairs)


def limited(blocks: Iterable[bytes], limit: int, what: str) -> Iterator[bytes]:
    """Yield the blocks. Raises HTTPRequestEntityTooLarge if they have more than `limit` bytes together."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise HTTPRequestEntityTooLarge(f"{what} is larger than {limit} bytes.")
        yield block


def save(blocks: Iterable[bytes], path: str, length: int | None = None) -> int:
    """Write blocks to a file, which exists only once it is complete. Return its size.

    Raises HTTPBadRequest if `length` is given and the blocks have another length.
    """
    unfinished = f"{path}.{secrets.token_hex(4)}.part"
    with open(unfinished, "xb") as file:
        try:
            file.writelines(blocks)
            size = file.tell()
            check_size(size, length)
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    return size


def check_size(size: int, length: int | None) -> None:
    """Raise HTTPBadRequest if a body does not have the announced length."""
    if length is not None and size != length:
        raise HTTPBadRequest(f"The body ended after {size} of {length} bytes.")


def text(data: bytes, what: str) -> str:
    """Decode UTF-8. Raises HTTPBadRequest."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise HTTPBadRequest(f"{what} is not UTF-8: {error.reason} at byte {error.start}.") from error


def unquoted(name: str) -> str:
    """Decode a name as browsers encode it (HTML, multipart form data): they percent-encode three characters and no others."""
    return name.replace('\\"', '"').replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
