"""A form's fields and files (RFC 7578), and other bodies, on their way to memory or disk, never longer than allowed.

WebOb's own reader, the standard library's former `cgi`, takes a form that breaks off for a whole one, and writes it to disk
twice. This one reads blocks, and keeps one of them.
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
"""Bytes that are read at a time; a shorter file of a form stays in memory."""
HEAD = 8 * 1024
"""Bytes of the fields at a part's beginning."""
DISPOSITION = re.compile(r"\r\ncontent-disposition:[ \t]*form-data[ \t]*((?:;[^\r\n]*)?)", re.IGNORECASE)
TYPE = re.compile(r"\r\ncontent-type:[ \t]*([^\r\n]*)", re.IGNORECASE)
ENCODED = re.compile(r"\r\ncontent-transfer-encoding:[ \t]*(?!7bit|8bit|binary)", re.IGNORECASE)
DISPOSITION_PARAMETER = re.compile(r';[ \t]*(name|filename)=(?:"((?:\\"|[^"])*)"|([^";\s]+))', re.IGNORECASE)
BOUNDARY = re.compile(r";[ \t]*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))", re.IGNORECASE)


class Readable(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes: ...


class Part:
    """A part of a form on its way: ask for it before the next one."""

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
        """What the client calls the file, without its folders; None for a field. Not for use as a path."""
        kind = TYPE.search(head)
        self.type = kind[1] if kind else "text/plain"
        self.blocks = blocks

    def read(self, limit: int) -> bytes:
        """All of it. Raises HTTPRequestEntityTooLarge where it is longer than so many bytes."""
        return b"".join(limited(self.blocks, limit, f"{self.name} in the form"))

    def save(self, path: str, limit: int) -> int:
        """Write it to a file, which is there only when all of it is, and answer its size. Raises likewise."""
        return save(limited(self.blocks, limit, f"{self.name} in the form"), path)


class Upload:
    """A file of a form, received: in memory while it is short, in a temporary file beyond that."""

    def __init__(self, part: Part, limit: int) -> None:
        self.name, self.filename, self.type = part.name, part.filename or "", part.type
        self.file: IO[bytes] = SpooledTemporaryFile(BLOCK)  # noqa: SIM115 - it lives as long as the request
        for block in limited(part.blocks, limit, f"{part.name} in the form"):
            self.file.write(block)
        self.size = self.file.tell()
        self.file.seek(0)

    def __del__(self) -> None:
        """The request is over, or the file was too long: nobody else closes it."""
        self.file.close()

    def save(self, path: str) -> int:
        """Write it to a file, which is there only when all of it is, and answer its size."""
        self.file.seek(0)
        return save(iter(lambda: self.file.read(BLOCK), b""), path)


class Multipart:
    """The parts of a body, one after the other (RFC 2046 5.1.1)."""

    def __init__(self, file: Readable, content_type: str) -> None:
        found = BOUNDARY.search(content_type)
        if not found:
            raise HTTPBadRequest("The form's Content-Type has no boundary.")
        self.file = file
        self.delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
        self.buffer = b"\r\n"  # the first delimiter may be the very beginning

    def __iter__(self) -> Iterator[Part]:
        blocks = self.until(self.delimiter)
        while True:
            for _ in blocks:  # the preamble, or what nobody wanted of a part
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
        """What comes before a mark, which is taken too."""
        while (end := self.buffer.find(mark)) < 0:
            whole = len(self.buffer) - len(mark) + 1  # what may be the mark's beginning waits for the rest
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
    """A form's fields, all text_size bytes long at most, and its files, each of file_size bytes at most."""
    values: MultiDict[str, Any] = MultiDict()
    for part in Multipart(file, content_type):
        if len(values) >= fields:
            raise HTTPRequestEntityTooLarge(f"The form has more than {fields} fields.")
        if part.filename is None:
            content = part.read(text_size)
            text_size -= len(content)
            values.add(part.name, text(content, f"{part.name} in the form"))
        elif part.filename:  # "": no file was chosen
            values.add(part.name, Upload(part, file_size))
    return values


def urlencoded(body: bytes, *, fields: int) -> MultiDict[str, Any]:
    """A form's fields."""
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
    """The blocks. Raises HTTPRequestEntityTooLarge when they are longer than so many bytes together."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise HTTPRequestEntityTooLarge(f"{what} has more than {limit} bytes.")
        yield block


def save(blocks: Iterable[bytes], path: str) -> int:
    """Write blocks to a file, which is there only when all of it is, and answer its size."""
    unfinished = f"{path}.{secrets.token_hex(4)}.part"
    with open(unfinished, "xb") as file:
        try:
            file.writelines(blocks)
            size = file.tell()
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    return size


def text(data: bytes, what: str) -> str:
    """UTF-8, or a HTTPBadRequest."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise HTTPBadRequest(f"{what} is not UTF-8: {error.reason} at byte {error.start}.") from error


def unquoted(name: str) -> str:
    """A name as browsers write it (HTML, multipart form data): three characters are percent-encoded, and no others."""
    return name.replace('\\"', '"').replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
