"""One request and its response: the environ, `start_response`, the application's result, and all rules of PEP 3333.

`microwsgi.server.handler.WSGIRequestHandler.handle_one_request` calls the application and uses an Exchange in this order:

    environ                          the dict for the application
    start_response                   status and headers are checked, and kept
    send_whole                       a list: head and body leave together
    begin, write per chunk, end      any other iterable: the head leaves with the first chunk
    finish                           write the access log, after the response was sent

The thread that runs the connection, or the leader, uses the Exchange; any thread may call `resume`. Each request has an
Exchange of its own, so that no state leaks into the next request on the connection.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import IntEnum
from time import time
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from microwsgi.errors import Abandoned, ApplicationError, ClientError, Disconnected, MisdirectedRequest, TruncatedFile
from microwsgi.server.context import ExceptionInfo, ServerContext
from microwsgi.server.detached import DetachableSocket
from microwsgi.server.environ import Environ
from microwsgi.server.forwarded import TrustedProxies
from microwsgi.server.log_writer import one_line
from microwsgi.server.request_body import RequestBody
from microwsgi.server.transport import FileRange, Transport
from microwsgi.support.source import code_of, source_location
from microwsgi.support.typenames import UNSET, BinaryIO, TypeGuard
from microwsgi.wire.request import RequestHead, origin_form
from microwsgi.wire.response import (
    LAST_CHUNK,
    Framing,
    ResponseHead,
    early_hints,
    encode_chunk,
    encode_head,
    refusal,
    response_head,
)

MAX_JOINED = 64 * 1024
"""Up to this many bytes of a body are copied after the head, so that one system call sends both."""
BYTES = {bytes}
EMPTY: Iterator[bytes] = iter(())
SERVER_ERROR = 500
"""The first status of the class of server errors (RFC 9110 15.6)."""
FAILURE_TEXT = "500 Internal Server Error\n\nThe application failed; the {} is in the server's log{}.\n"


class Phase(IntEnum):
    """The next step of `handle_one_request` for an exchange."""

    CALL = 0
    """Call the application."""
    RECEIVE = 4
    """Receive the body into a file, before the application is called."""
    ITERATE = 1
    """Ask the iterable for the next chunk."""
    CLOSE = 2
    """Call `close` of the iterable: the response was sent, or the exchange was aborted."""
    DONE = 3


# For the code that runs for each request, as in microwsgi.server.state.
CALL, DONE = Phase.CALL, Phase.DONE
NO_BODY, UNTIL_CLOSE = Framing.NO_BODY, Framing.UNTIL_CLOSE


class Exchange:
    """One request, whose head arrived at the time `started`, and its response.

    `base` is the part of the environ that all requests on the connection share.
    """

    iterator: Iterator[bytes]  # from `begin` on
    remaining: int  # bytes of the body that Content-Length still promises, from `make_head` on
    body_start: int  # `sent` of the transport before the first byte of the body, from `make_head` on
    resume_in: float  # the seconds after which a suspended response is resumed at the latest, from `resume` on

    def __init__(
        self, context: ServerContext, transport: Transport, base: Environ, head: RequestHead, started: float
    ) -> None:
        # Slots would be slower: CPython specialises the creation of an object with a dict of up to thirty attributes.
        self.context = context
        self.transport = transport
        self.base = base
        self.client = transport.client  # address and port; with a trusted proxy, those that it reports
        self.head = head
        self.started = started  # 0 once it has been logged
        self.phase = CALL
        self.body: RequestBody = UNSET  # of the request; UNSET if there is none
        self.response: ResponseHead | None = None  # status and headers of the application
        self.response_bytes: bytes | None = None  # a whole response, which the connection sends
        self.iterable: Iterable[bytes] | None = None  # the application's result, until it is closed
        self.framing = NO_BODY  # of the response's body
        self.size = self.status = 0  # bytes of the response's body
        self.head_sent = False  # a part of the response was sent, or is about to be sent
        self.close_connection = False  # the connection ends with this response
        self.aborted = False  # the response will not be completed
        self.detached = False  # the application has taken the socket
        self.suspended = False  # the iterable has nothing to send until it is resumed
        self.resumed = False  # `resume` was called after the response was last suspended
        self.reason = ""  # why the request was refused or the response aborted

    @property
    def requestline(self) -> str:
        """The request line, with control characters escaped."""
        return self.head.line

    def enter_phase(self, phase: Phase) -> None:
        """Set the next step for a thread of the pool."""
        self.phase = phase

    def set_body(self, body: RequestBody) -> None:
        """Set the body of the request."""
        self.body = body

    def apply_forwarded(self, proxies: TrustedProxies) -> None:
        """Replace the client, scheme, host and prefix by the values that a trusted proxy reports."""
        if proxies.trusts(self.client[0]):
            head = self.head
            self.client, self.base, fields = proxies.apply(head.fields, self.client, self.base)
            self.head = RequestHead(head.raw, head.method, head.target, head.version, fields)

    def hide(self, secret: str) -> None:
        """Keep a part of the target out of the logs."""
        head, raw = self.head, self.head.raw.replace(secret.encode(), b"...")
        self.head = RequestHead(raw, head.method, head.target.replace(secret, "..."), head.version, head.fields)

    def address_string(self) -> str:
        """Return the client's address and port, or "unix"."""
        return ":".join(filter(None, self.client)) or "unix"

    # --- The environ and start_response -------------------------------------------------------------------------------

    def environ(self) -> Environ:
        """Return the environ of PEP 3333, and the additional keys of docs/environ.md. Raises ClientError."""
        head = self.head
        fields, target = head.fields, head.target
        if target[0] != "/":
            if self.base["wsgi.url_scheme"] == "http" and target[:6].lower() == "https:":
                raise MisdirectedRequest("An https resource is not served without TLS (RFC 9110 7.4).")
            target = origin_form(target)
        path, _, query = target.partition("?")
        if "%" in path:  # PEP 3333: bytes as latin-1, whatever encoding the client meant
            path = unquote_to_bytes(path).decode("latin-1")
        environ = self.base.copy()
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = path
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = head.version
        environ["REQUEST_URI"] = environ["RAW_URI"] = head.target
        environ |= fields
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client
        environ["wsgi.early_hints"] = self.send_early_hints
        environ["microwsgi.socket"] = self.transport.socket
        if self.context.can_suspend:
            environ["microwsgi.resume"] = self.resume
        if self.body is None:
            environ["wsgi.input"] = io.BytesIO()
        else:
            environ["wsgi.input"] = self.body.open()
            environ["microwsgi.trailers"] = self.body.decoder.trailers
            if self.body.done and "HTTP_TRANSFER_ENCODING" in fields:  # RFC 3875 4.2: the coding is undone
                del environ["HTTP_TRANSFER_ENCODING"]
                environ["CONTENT_LENGTH"] = str(self.body.size)
        if "HTTP_UPGRADE" in fields and head.version == "HTTP/1.1":  # RFC 9110 7.8: ignored in HTTP/1.0
            taken = DetachableSocket(self.detach, self.transport.close)
            environ["microwsgi.socket"] = environ["werkzeug.socket"] = environ["gunicorn.socket"] = taken
        return environ

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExceptionInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Check and store status and headers, which are sent with the first bytes of the body (PEP 3333).

        The Exchange itself is the `write` callable that PEP 3333 asks for: hardly any application uses it, and creating a
        bound method would add 1 % to the cost of each request.
        """
        if exc_info is not None:
            if self.head_sent:
                if isinstance(exc_info[1], BaseException):
                    raise exc_info[1].with_traceback(exc_info[2])
                raise ApplicationError(
                    "start_response was called after the response head was sent, with an empty exc_info (PEP 3333)."
                )
        elif self.response is not None:
            raise ApplicationError("start_response was called a second time, without exc_info (PEP 3333).")
        self.response = response_head(status, headers)
        return self

    def send_early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send a 103 response with these fields at once, but not to an HTTP/1.0 client (RFC 8297 2, RFC 9110 15.2)."""
        hints = early_hints(headers)
        if self.head.version == "HTTP/1.1" and not self.head_sent:
            self.transport.write(hints)

    def resume(self, after: float = 0.0) -> None:
        """Resume the response, from any thread. With `after`: suspend it at the next b"", for at most `after` seconds.

        A suspended response holds no thread. The iterable calls `resume(after)` before it checks whether there is something
        to send. A later call of `resume()` by another thread is not lost: that call sets `resumed` before it notifies the
        leader, and the leader reads `resumed` when it suspends the response. If `resume(after)` was not called, b"" is ignored.
        """
        if after > 0:
            self.resume_in = after
            self.suspended = True
            self.resumed = False
        elif not self.resumed:
            self.resumed = True
            self.context.resume(self)

    def detach(self) -> tuple[socket.socket, bytes]:
        """Return the socket, now blocking, and the bytes that followed the head. Both now belong to the application."""
        self.detached = self.head_sent = self.close_connection = True  # for HTTP, the connection ends
        self.framing = NO_BODY  # the application's result is not sent
        self.status = 101
        return self.transport.detach(), self.transport.take_read_ahead()

    # --- The iterable that the application returns --------------------------------------------------------------------

    def begin(self, iterable: Iterable[bytes]) -> None:
        """Begin to iterate the application's result. A FileWrapper of a file on disk is sent with sendfile."""
        self.iterable = iterable
        self.iterator = EMPTY
        self.phase = Phase.ITERATE
        if self.detached or (isinstance(iterable, FileWrapper) and self.send_file(iterable.filelike)):
            return
        if isinstance(iterable, (str, bytes)) or not hasattr(iterable, "__iter__"):
            raise self.broken_rule(describe_result_error(iterable))
        if isinstance(iterable, tuple) and not self.head_sent:
            self.send_whole(list(iterable))
        else:
            self.iterator = iter(iterable)

    def send_whole(self, chunks: list[bytes]) -> None:
        """Make the response for a body that is completely known. A short one is sent later, by `send_response`."""
        if len(chunks) == 1 and chunks[0].__class__ is bytes:  # the common case
            body = chunks[0]
        elif self.is_long(chunks):
            self.send_blocks(chunks)
            return
        elif set(map(type, chunks)) <= BYTES or all(isinstance(chunk, bytes) for chunk in chunks):
            body = b"".join(chunks)
        else:  # join() would accept a bytearray, which `write` refuses
            raise self.broken_rule(describe_chunk_error(chunks))
        size = len(body)
        data = self.make_head(size)
        self.phase = DONE
        if self.framing is NO_BODY:
            self.response_bytes = data
        elif size != self.remaining:
            self.head_sent = False
            raise self.wrong_length(size)
        else:
            self.size, self.remaining = size, 0
            if size <= MAX_JOINED:
                self.response_bytes = data + body
            else:
                self.transport.write(data + body[:MAX_JOINED])
                self.transport.write(memoryview(body)[MAX_JOINED:])

    def send_response(self) -> None:
        """Send the short response that `send_whole` has made."""
        data, self.response_bytes = self.response_bytes, None
        if data is not None:
            try:
                self.transport.write(data)
            except Disconnected as gone:
                self.abort(str(gone))

    def record_response(self, status: int, size: int, *, sent: bool) -> None:
        """Record a response of a handler class of http.server, which the class has sent in full, in part or not at all."""
        self.context.date.current_lines()  # the class has made its own Date field, and the access log uses the time of ours
        self.status = status
        self.size = size
        self.body_start = self.transport.sent - size  # see `bytes_sent`: the body did not go through the transport
        self.head_sent = sent
        # After a failure, a client must not mistake a partial response for the whole.
        self.framing = Framing.UNTIL_CLOSE if sent else NO_BODY
        self.close_connection = True

    def is_long(self, chunks: list[bytes]) -> bool:
        """Return whether all chunks are bytes, and together too long to be copied into one."""
        return {chunk.__class__ for chunk in chunks} == {bytes} and sum(map(len, chunks)) > MAX_JOINED

    def send_blocks(self, chunks: list[bytes]) -> None:
        """Send a long body that is completely known. Only its short chunks are copied."""
        length = sum(map(len, chunks))
        data = self.make_head(length)
        self.phase = DONE
        if self.framing is NO_BODY:
            self.response_bytes = data
            return
        if length != self.remaining:
            self.head_sent = False
            raise self.wrong_length(length)
        self.size, self.remaining = length, 0
        pieces, size = [data], len(data)
        for chunk in chunks:
            if size and size + len(chunk) > MAX_JOINED:
                self.transport.write(b"".join(pieces))
                pieces, size = [], 0
            if len(chunk) > MAX_JOINED:
                self.transport.write(chunk)
            else:
                pieces.append(chunk)
                size += len(chunk)
        if size:
            self.transport.write(b"".join(pieces))

    def send_file(self, file: object) -> bool:
        """Send a file on disk from its position, up to Content-Length, with sendfile; return False if that is impossible."""
        if self.response is None or self.head_sent or not is_plain(file) or not hasattr(os, "sendfile"):
            return False
        try:
            descriptor, offset = file.fileno(), file.tell()
            available = os.fstat(descriptor).st_size - offset
        except (AttributeError, OSError):
            return False
        count = available if self.response.length is None else min(self.response.length, available)
        if count <= 0 or not self.transport.sends_files:
            return False
        data = self.make_head(count)
        if self.framing is NO_BODY:
            self.transport.write(data)
            return True
        part = FileRange(descriptor, offset, count, str(getattr(file, "name", "")))
        self.size, self.remaining = count, self.remaining - count
        if count <= MAX_JOINED:
            self.head_sent = False  # nothing was sent yet: a file that was truncated gets a 500 response
            while part.count:
                piece = part.read(MAX_JOINED)
                part.skip(len(piece))
                data += piece
            self.head_sent = True
            self.transport.write(data)
        else:
            self.transport.write(data)
            self.transport.write_file(part)
            self.transport.flush()
        return True

    def make_head(self, length: int | None) -> bytes:
        """Return the response head, which the caller sends. `length` is the length of the body, None if unknown."""
        response, context, head = self.response, self.context, self.head
        if response is None:
            raise self.broken_rule("returned, or sent a body, before it called start_response (PEP 3333).")
        self.head_sent = True
        self.status = response.code
        if context.draining or (self.body is not None and not self.body.prepare_for_response()):
            self.close_connection = True
        date = context.date
        more = (date.lines if date.since <= time() < date.until else date.current_lines())[response.given]
        if context.timing is not None:
            more += context.timing(self).encode("latin-1")
        data, self.framing, self.remaining = encode_head(
            response, head.method, head.version, length, self.close_connection, more
        )
        self.body_start = self.transport.sent + len(data)
        if self.framing is UNTIL_CLOSE:
            self.close_connection = True
        return data

    def write(self, chunk: bytes) -> bool:
        """Send a chunk in the framing that the head announced; return False if the loop is to resume the iteration."""
        if not isinstance(chunk, bytes):
            raise self.broken_rule(describe_chunk_error([chunk]))
        if not chunk:
            return not self.suspended
        self.suspended = False
        transport = self.transport
        data = b"" if self.head_sent else self.make_head(None)
        if self.framing is NO_BODY:
            if data:
                transport.write(data)
        elif self.framing is Framing.CHUNKED:
            self.size += len(chunk)
            transport.write(data + encode_chunk(chunk))
        elif self.framing is Framing.UNTIL_CLOSE:
            self.size += len(chunk)
            transport.write(data + chunk)
        elif len(chunk) <= self.remaining:
            self.size += len(chunk)
            self.remaining -= len(chunk)
            transport.write(data + chunk)
        else:
            transport.write(data + chunk[: self.remaining])
            raise self.broken_rule(
                f"sent a body longer than its Content-Length, {self.size + self.remaining} (PEP 3333)."
            )
        if transport.out_buffer is None:
            return True
        permits = self.context.permits
        if not permits.acquire():
            return False  # enough threads wait for clients: the loop waits for this one
        try:
            transport.wait_until_sent()
        finally:
            self.context.release_permit()
        return True

    def __call__(self, chunk: bytes, /) -> None:
        """Send a chunk, and wait until the client has taken it: the `write` callable of PEP 3333."""
        if not self.write(chunk):
            self.transport.wait_until_sent()

    def may_iterate(self) -> bool:
        """Flush the output buffer before the next chunk, or call `close`. Return whether to iterate. Raises OSError."""
        self.suspended = False
        if not self.aborted and self.transport.out_buffer is not None:
            self.transport.flush()
            if self.transport.out_buffer is not None:
                return False
        if self.phase is not Phase.ITERATE:
            self.close_sent_iterable()
            return False
        return True

    def promises_more(self) -> bool:
        """Return whether the client knows from Content-Length that the response is incomplete."""
        return self.framing is Framing.LENGTH and self.remaining > 0

    def end(self) -> None:
        """Complete the response after the last chunk. Close the iterable, unless output is left in the buffer."""
        self.suspended = False
        if not self.detached:
            if not self.head_sent:
                self.send_whole([])
            elif self.framing is Framing.CHUNKED:
                self.transport.write(LAST_CHUNK)
            elif self.framing is Framing.LENGTH and self.remaining:
                raise self.broken_rule(
                    f"sent a body {self.remaining} bytes shorter than its Content-Length (PEP 3333)."
                )
        if self.transport.out_buffer is None:
            self.close_iterable()
        else:
            self.phase = Phase.CLOSE if self.must_close_iterable() else Phase.DONE

    def must_close_iterable(self) -> bool:
        """Return whether `close` of the iterable or of a file must be called. It may block: for a thread of the pool."""
        return hasattr(self.iterable, "close") or (self.body is not None and self.body.file is not None)

    def close_iterable(self) -> None:
        """Call `close` of the iterable exactly once, after success and after errors (PEP 3333)."""
        iterable, self.iterable, self.iterator = self.iterable, None, EMPTY
        self.phase = DONE
        self.context.date.current_lines()  # for the access log, since the head may be old
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
        if self.body is not None:
            self.body.close_file()

    def close_sent_iterable(self) -> None:
        """Call `close` after the response is complete or aborted. An exception is logged, since no response can report it."""
        try:
            self.close_iterable()
        except BaseException as error:  # SystemExit in `close` must not end a thread of the server
            self.context.log_exception(f"{self.log_prefix()} failed in close:", error)

    # --- Errors -------------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End an exchange after an exception of the application, a violation of PEP 3333, or an error of the client."""
        if self.detached:  # the exception belongs to another protocol than HTTP
            with suppress(BaseException):
                self.close_iterable()
            self.phase = DONE
            return
        try:
            if isinstance(error, Disconnected):
                self.abort(str(error))
                self.close_sent_iterable()
            elif isinstance(error, ClientError) and not self.head_sent:
                self.close_iterable()
                self.refuse(error)
            elif isinstance(error, (Abandoned, TruncatedFile)):
                self.reason = str(error)
                self.send_failure_response()
            else:
                number = os.urandom(4).hex()
                self.context.log_exception(f"{self.log_prefix()} failed ({number}):", error)
                self.send_failure_response(error, number)
        except Disconnected as gone:
            self.abort(str(gone))
            self.close_sent_iterable()
        except BaseException as second:  # `close` of the iterable is application code, too
            self.context.log_exception(f"{self.log_prefix()} failed again:", second)
            self.abort_response()

    def send_failure_response(self, error: BaseException | None = None, number: str = "") -> None:
        """Send a 500 response if the head was not sent yet; otherwise abort the response."""
        if self.head_sent or self.detached:
            self.abort_response()
            return
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        body = FAILURE_TEXT.format(*(("traceback", f" (id {number})") if number else ("reason", ""))).encode()
        page = self.context.error_page
        if error is not None and page is not None:
            try:
                headers, body = page(error, self.environ(), number)
            except Exception as second:  # the page shows values of the application, whose `repr` may raise
                self.context.log_exception("The error page failed:", second)
        self.response = response_head("500 Internal Server Error", headers)
        self.suspended = False
        self.send_whole([body])
        self.close_iterable()

    def abort_response(self) -> None:
        """Abort a response that can't be completed. The client notices that, since the announced end is missing."""
        self.context.count_error()
        self.abort(self.reason or "aborted: the application failed")
        self.close_sent_iterable()

    def refuse(self, error: ClientError) -> None:
        """Refuse an invalid request, and end the connection: the bytes after it may not be a request (RFC 9112 6.3)."""
        self.reason = self.context.bodies.first_report(str(error)) if error.log_once else str(error)
        self.status = int(error.status[:3])
        self.close_connection = self.head_sent = True
        self.phase = DONE
        bodiless = self.head.raw.lstrip(b"\r\n").startswith(b"HEAD ")
        data = refusal(error, self.context.date.current_lines()[0], bodiless=bodiless)
        self.size = len(data) - data.index(b"\r\n\r\n") - 4
        self.body_start = self.transport.sent + len(data) - self.size
        self.transport.write(data)

    def abort(self, reason: str) -> None:
        """Abort the response: the client has disconnected, or the server disconnects it. The connection is closed next.

        An empty reason means that nothing has failed: only the access log gets a record. The client gets a reset if it could
        mistake the received part for the whole response, or if output is left in the buffer.
        """
        if not self.aborted:
            self.aborted = True
            self.context.date.current_lines()  # for the access log, since there may be no head
            self.response_bytes = None
            self.size = self.bytes_sent()
            if not self.detached:
                self.reason = reason
                if self.transport.out_buffer is not None or (self.head_sent and self.framing is Framing.UNTIL_CLOSE):
                    self.transport.abort()
        self.phase = Phase.CLOSE if self.must_close_iterable() else Phase.DONE

    def end_connection(self) -> None:
        """Close the connection after this response."""
        self.close_connection = True

    # --- The log ------------------------------------------------------------------------------------------------------

    def ignore(self) -> None:
        """Leave this exchange out of the log, since the bytes that arrived are not an HTTP request."""
        self.started = 0.0

    def bytes_sent(self) -> int:
        """Return the number of body bytes that the kernel has taken: fewer than `size` if the response was aborted."""
        return min(self.size, max(self.transport.sent - self.body_start, 0)) if self.size else 0

    def write_log(self) -> None:
        """Make the records of the access log and the error log, once, at the end of the exchange."""
        context, started = self.context, self.started
        if started:
            access_log = context.access_log
            if access_log is not None:
                # `access_log(...)` would enter `__call__` from C, in a nested evaluation loop; a method call does not.
                access_log.__call__(self, context.clock.now() - started)  # type: ignore[operator]
            if self.reason:
                if not getattr(context.access_log, "has_reason", False):  # else the access log has it
                    context.log_error(f"{self.log_prefix()} {self.status or '-'}: {one_line(self.reason)}")
            elif self.status >= SERVER_ERROR:
                context.count_error()
            self.started = 0.0

    def log_prefix(self) -> str:
        """Return the client's address and the request line: the beginning of an error record."""
        return f'{self.address_string()} "{self.head.line}"'

    def broken_rule(self, fault: str) -> ApplicationError:
        """Return the error for a broken rule. It names the application's file and line, since no traceback shows them."""
        application = self.context.application
        name = getattr(application, "__qualname__", type(application).__qualname__)
        location, code = source_location(application), code_of(application)
        return ApplicationError(f"The application {name} ({location}) {fault}", code)

    def wrong_length(self, length: int) -> ApplicationError:
        """Return the error for a body whose length is not that of its Content-Length."""
        return self.broken_rule(f"returned {length} bytes, and its Content-Length is {self.remaining} (PEP 3333).")


def describe_result_error(result: object) -> str:
    """Describe a return value that is not an iterable of bytes."""
    if hasattr(result, "app_iter"):
        return "returned a response instead of calling it: return response(environ, start_response)."
    if isinstance(result, (str, bytes)):
        return f"returned {type(result).__name__}; PEP 3333 requires an iterable of bytes, for example [body]."
    if result is None:
        return "returned None: is a return statement missing? PEP 3333 requires an iterable of bytes."
    return f"returned {result!r:.60}; PEP 3333 requires an iterable of bytes."


def describe_chunk_error(chunks: Iterable[object]) -> str:
    """Describe the first chunk of a body that is not bytes."""
    chunk = next(chunk for chunk in chunks if not isinstance(chunk, bytes))
    hint = '; write .encode("utf-8")' if isinstance(chunk, str) else ""
    return f"has {type(chunk).__name__} {chunk!r:.60} in its body; PEP 3333 requires bytes{hint}."


def is_plain(file: object) -> TypeGuard[BinaryIO]:
    """Return whether the content of a file is that of its descriptor.

    It is not for gzip.GzipFile and other files that decode, although they have a `fileno`. Another class declares it with
    the attribute `is_plain_file`.
    """
    if file.__class__ in {io.BufferedReader, io.BufferedRandom}:
        file = file.raw
    return file.__class__ is io.FileIO or getattr(file, "is_plain_file", False) is True
