"""Responses as they go out: what an application says and returns, as PEP 3333 has it, becomes bytes (RFC 9112 6).

`microwsgi.server.handler` is a Sender: it calls the application with `start_response`, and asks what it returned for chunks.
"""

from __future__ import annotations

import io
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from wsgiref.util import FileWrapper

from microwsgi.errors import ApplicationError
from microwsgi.server.connection import FileSlice
from microwsgi.server.environ import Environ
from microwsgi.server.gateway import Gateway
from microwsgi.server.recipient import Recipient
from microwsgi.wire.response import LAST_CHUNK, ResponseHead, early_hints, response_head

ONE_SEND = 64 * 1024
"""Bytes of a body that are worth copying behind the head, so that both leave in one call."""
NOTHING: Iterator[bytes] = iter(())


class Sender(Recipient):
    """A connection with the response that leaves on it."""

    __slots__ = (
        "bodiless",  # the response has no body, whatever the application returns
        "chunked",  # the body leaves in chunks
        "chunks",  # what is still to be asked for the body
        "head",  # status and fields, from start_response on
        "iterable",  # what the application returned, until it is closed
        "remaining",  # bytes that Content-Length still promises
        "status",
    )

    head: ResponseHead | None
    remaining: int | None
    iterable: Iterable[bytes] | None
    chunks: Iterator[bytes] | None

    def open(self, connection: socket.socket, address: object, gateway: Gateway, base: Environ) -> None:
        """Begin with a socket that does not block."""
        Recipient.open(self, connection, address, gateway, base)
        self.head = self.remaining = self.iterable = self.chunks = None
        self.chunked = self.bodiless = False
        self.status = 0

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: tuple[object, ...] | None = None, /
    ) -> Callable[[bytes], object]:
        """PEP 3333's: check and keep status and headers, which leave with the first bytes of the body."""
        if exc_info is not None:
            if self.head_sent and isinstance(exc_info[1], BaseException):
                raise exc_info[1].with_traceback(exc_info[2])  # type: ignore[arg-type]
        elif self.head is not None:
            raise ApplicationError("start_response was called a second time, without exc_info (PEP 3333).")
        self.head = response_head(status, headers)
        return self.write_now

    def send_early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send a 103 with these fields at once, to a client that can understand it (RFC 8297 2, RFC 9110 15.2)."""
        hints = early_hints(headers)
        if self.request_version == "HTTP/1.1" and not self.head_sent:
            self.send(hints)

    def begin_response(self, iterable: Iterable[bytes]) -> None:
        """Keep what has to be asked for, and closed; a file is sent here."""
        self.iterable = iterable
        self.chunks = NOTHING
        if self.closed or (isinstance(iterable, FileWrapper) and self.send_file(iterable.filelike)):
            return
        if isinstance(iterable, (str, bytes)) or not hasattr(iterable, "__iter__"):
            raise ApplicationError(self.body_fault(iterable))
        if isinstance(iterable, tuple) and not self.head_sent:
            self.send_list(list(iterable))
            self.remaining = 0
        else:
            self.chunks = iter(iterable)

    def send_list(self, chunks: list[bytes]) -> None:
        """Make the whole response of a body of which all is known; `settle` sends it."""
        try:
            body = b"".join(chunks)
        except TypeError as error:
            raise ApplicationError(self.body_fault(chunks)) from error
        data = self.begin(len(body))
        if self.bodiless:
            self.answer = data
        elif len(body) != self.remaining:
            self.head_sent = False
            raise ApplicationError(
                f"Content-Length is {self.remaining}, and the body has {len(body)} bytes (PEP 3333)."
            )
        else:
            self.size = len(body)
            if len(body) <= ONE_SEND:
                self.answer = data + body
            else:
                self.send(data + body[:ONE_SEND])
                self.send(memoryview(body)[ONE_SEND:])

    def send_file(self, file: object) -> bool:
        """Have the kernel send a real file from where it stands, up to Content-Length; False if that can't be done."""
        if self.head is None or self.head_sent or isinstance(file, io.TextIOBase) or not hasattr(os, "sendfile"):
            return False
        try:
            descriptor, offset = file.fileno(), file.tell()  # type: ignore[attr-defined]
            available = os.fstat(descriptor).st_size - offset
        except (AttributeError, OSError):
            return False
        promised = self.head[4]
        count = available if promised is None else min(promised, available)
        if count <= 0 or not isinstance(self.connection, socket.socket):
            return False
        data = self.begin(count)
        if not self.bodiless:
            self.size, self.remaining = count, (self.remaining or count) - count
            if count <= ONE_SEND:
                data, count = data + os.pread(descriptor, count, offset), 0
        self.send(data)
        if count and not self.bodiless:
            self.unsent = self.unsent or deque()
            self.unsent.append(FileSlice(descriptor, offset, count))
            self.send_unsent()
        return True

    def begin(self, length: int | None) -> bytes:
        """The head's bytes, with the framing that fits a body of `length`, None where it isn't known (RFC 9112 6)."""
        if self.head is None:
            raise ApplicationError(
                "The application returned, or sent a body, before it called start_response (PEP 3333)."
            )
        status_line, lines, self.status, bodiless, promised, own = self.head
        self.head_sent = True
        self.bodiless = bodiless or self.command == "HEAD"
        if promised is not None:
            self.remaining = promised
            framed = ""
        elif length is not None:
            self.remaining = length
            # RFC 9110 8.6: HEAD's length is what GET's would be, or is not given; 204 and 304 have none
            framed = f"Content-Length: {length}\r\n" if not self.bodiless or (length and not bodiless) else ""
        elif self.bodiless:
            framed = ""
        elif self.request_version == "HTTP/1.1":
            self.chunked = True
            framed = "Transfer-Encoding: chunked\r\n"
        else:
            self.close_connection = True
            framed = ""
        if self.gateway.stopping or (self.decoder is not None and not self.decoder.done and self.left_unread()):
            self.close_connection = True
        if self.close_connection:
            framed += "Connection: close\r\n"
        elif self.request_version == "HTTP/1.0":
            framed += "Connection: keep-alive\r\n"
        if self.gateway.timing is not None:
            framed += self.gateway.timing(self)
        return f"{status_line}{lines}{self.gateway.date.tick()[own]}{framed}\r\n".encode("latin-1")

    def write(self, chunk: bytes) -> bool:
        """Send a chunk in the coding that the head announced. False: the poller says when to ask the iterable on."""
        if not isinstance(chunk, bytes):
            raise ApplicationError(self.body_fault([chunk]))
        if not chunk:
            return not self.asleep
        self.asleep = False
        data = b"" if self.head_sent else self.begin(None)
        if self.bodiless:
            self.send(data)
        elif self.chunked:
            self.size += len(chunk)
            self.send(b"%b%x\r\n%b\r\n" % (data, len(chunk), chunk))
        elif self.remaining is None or len(chunk) <= self.remaining:
            self.size += len(chunk)
            if self.remaining is not None:
                self.remaining -= len(chunk)
            self.send(data + chunk)
        else:
            self.send(data + chunk[: self.remaining])
            raise ApplicationError(
                f"The body is longer than its Content-Length, {self.size + self.remaining} (PEP 3333)."
            )
        if self.unsent is None:
            return True
        if not self.gateway.hold_for_client():
            return False
        try:
            self.wait_until_sent()
        finally:
            self.gateway.release()
        return True

    def write_now(self, chunk: bytes, /) -> None:
        """The `write` of PEP 3333, for applications that can't return an iterable; waits for a slow reader, always."""
        if not self.write(chunk):
            self.wait_until_sent()

    def end_response(self) -> None:
        """The iterable has ended; a rest that it announced before that does not come."""
        self.asleep = False
        if not self.closed:
            if not self.head_sent:
                self.send_list([])
            elif self.chunked:
                self.send(LAST_CHUNK)
            elif self.remaining and not self.bodiless:
                raise ApplicationError(
                    f"The body is {self.remaining} bytes shorter than its Content-Length (PEP 3333)."
                )
        if self.unsent is None:
            self.close_iterable()
        else:
            self.chunks = None  # a file is closed when it has been sent

    def close_iterable(self) -> None:
        """Call the iterable's close, as PEP 3333 promises: once, whatever happened."""
        iterable, self.iterable, self.chunks = self.iterable, None, None
        if iterable.__class__ is list or iterable is None:
            return
        try:
            iterable.close()  # type: ignore[attr-defined]
        except AttributeError:
            if hasattr(iterable, "close"):
                raise

    def body_fault(self, iterable: object) -> str:
        """What is wrong with what the application, by its name, returned or yielded."""
        application = self.gateway.application
        name = getattr(application, "__qualname__", type(application).__qualname__)
        it = f"{name}, the application,"
        if hasattr(iterable, "app_iter"):
            return f"{it} returned a response instead of calling it: return response(environ, start_response)."
        if isinstance(iterable, (str, bytes)):
            return f"{it} returned {type(iterable).__name__}; PEP 3333 asks for an iterable of bytes: a list of one."
        if iterable is None:
            return f"{it} returned None: is a return missing? PEP 3333 asks for an iterable of bytes."
        if not hasattr(iterable, "__iter__"):
            return f"{it} returned {iterable!r}; PEP 3333 asks for an iterable of bytes."
        chunk = next(chunk for chunk in iterable if not isinstance(chunk, bytes))
        hint = '; write .encode("utf-8")' if isinstance(chunk, str) else ""
        return f"The body of {name}, the application, has {type(chunk).__name__} {chunk!r:.60}; PEP 3333 asks for bytes{hint}."
