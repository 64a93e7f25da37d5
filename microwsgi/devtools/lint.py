"""Check an application against PEP 3333, with wsgiref.validate and some rules that it lacks.

A `Lint` is WSGI middleware. Each broken rule becomes a `Finding` with the location in the application's code, listed under the
value of the request's X-Check field. `microwsgi.cli.check` sends the requests.

    server -> Lint -> wsgiref.validate -> Lint.inside -> the application
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from wsgiref.validate import validator

from microwsgi.devtools.stack import STDLIB, YOURS, Frame, capture, short_path, traceback_frames
from microwsgi.devtools.tracer import Tracer
from microwsgi.errors import ApplicationError, ClientError

FAULT, NOTE = "fault", "note"
PAIR = 2
BODILESS = {"204", "304"}
Environ = dict[str, Any]


class Finding(NamedTuple):
    """A broken rule; `where` is file:line, or "" if it is unknown. `level`: NOTE for a SHOULD, FAULT for a MUST."""

    level: str
    rule: str
    text: str
    where: str


class Lint:
    """Middleware that checks an application. `findings` has a list for each value of X-Check.

    For each X-Check, `makers` has the location of the function that made the response, and `raisers` that of the last function
    that raised an exception.
    """

    def __init__(self, application: Callable[..., Any], tracer: Tracer) -> None:
        self.application = application
        self.tracer = tracer
        self.makers: dict[str, str] = {}
        self.raisers: dict[str, str] = {}
        self.validated = validator(self.inside)
        self.findings: dict[str, list[Finding]] = {}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Handle a request. Called by the server."""
        number = environ.get("HTTP_X_CHECK", "")
        try:
            iterable = self.validated(environ, start_response)
        except BaseException as error:
            self.record_exception(number, error)
            raise
        return CheckedBody(iterable, lambda error: self.record_exception(number, error))

    def inside(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Call the application. Called by the validator."""
        number = environ.get("HTTP_X_CHECK", "")
        response = ResponseCheck(environ["REQUEST_METHOD"], lambda *finding: self.note(number, Finding(*finding)))
        body = environ["wsgi.input"].input
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input"] = body  # there is no length: it is read to its end
        else:
            environ.pop("wsgi.input_terminated", None)  # most servers can't guarantee it
            environ["wsgi.input"] = CheckedInput(body, int(environ.get("CONTENT_LENGTH") or 0), response.note)

        def begin(status: str, headers: list[tuple[str, str]], *more: object) -> Callable[[bytes], object]:
            try:
                write = start_response(status, response.typed(status, headers), *more)
            except (AssertionError, ApplicationError, IndexError, ValueError) as error:
                self.record_exception(number, error, innermost_location(capture()))
                raise
            response.begin(status, headers)
            return response.counting(write)

        self.tracer.forget()
        try:
            iterable = self.application(environ, begin)
        finally:
            self.record_calls(number)
        if iterable is None or isinstance(iterable, (str, bytes)) or not hasattr(iterable, "__iter__"):
            return iterable  # type: ignore[no-any-return]  # the validator reports the wrong type
        return CheckedBody(iterable, lambda error: self.record_exception(number, error), response)

    def record_calls(self, number: str) -> None:
        """Record the calls of this thread during the request that has just run."""
        thread = threading.get_ident()
        if maker := self.tracer.maker(thread):
            self.makers[number] = innermost_location([maker.function])
        for call in self.tracer.all(thread):
            if call.raised:
                self.raisers[number] = innermost_location([call.function._replace(line=call.raised)])

    def note(self, number: str, finding: Finding) -> None:
        """Add a finding, unless it is known."""
        known = self.findings.setdefault(number, [])
        if not any(finding[:3] == each[:3] for each in known):
            known.append(finding)

    def record_exception(self, number: str, error: BaseException, where: str = "") -> None:
        """Add an exception of the validator or of the application."""
        frames = traceback_frames(error.__traceback__)
        where = where or innermost_location(frames)
        text = str(error).replace("\n", " ")
        if frames[-1:] and frames[-1].module == "wsgiref.validate":
            rule = next(frame.function for frame in reversed(frames) if frame.function != "assert_")
            self.note(number, Finding(FAULT, "PEP 3333", text or f"wsgiref.validate minds, in {rule}", where))
        elif isinstance(error, ApplicationError):
            self.note(number, Finding(FAULT, "PEP 3333", text.replace(" (PEP 3333).", ""), where))
        elif not isinstance(
            error, (ClientError, ConnectionError)
        ):  # these are the client's fault: it disconnects during some requests
            self.note(number, Finding(FAULT, "an exception", f"{type(error).__name__}: {text}".rstrip(": "), where))


class ResponseCheck:
    """Compares the status and headers of start_response with the body."""

    def __init__(self, method: str, note: Callable[..., None]) -> None:
        self.method = method
        self.note = note
        self.status = ""
        self.promised: int | None = None
        self.sent = 0

    def typed(self, status: str, headers: Any) -> Any:  # the validator reports wrong types
        """Return headers that the validator accepts: its rules about Content-Type are not those of PEP 3333."""
        if type(headers) is not list or not all(type(each) is tuple and len(each) == PAIR for each in headers):
            return headers
        bodiless = str(status)[:3] in BODILESS
        others = [(name, value) for name, value in headers if str(name).lower() != "content-type"]
        if bodiless and len(others) < len(headers):
            self.note(
                NOTE,
                "RFC 9110 8.3",
                f"Content-Type in a {status[:3]}, which has no content",
                innermost_location(capture()),
            )
            return others
        if not bodiless and len(others) == len(headers):
            self.note(NOTE, "RFC 9110 8.3", "no Content-Type: the browser has to guess", innermost_location(capture()))
            return [*headers, ("Content-Type", "application/octet-stream")]
        return headers

    def begin(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Record status and headers, which the validator has accepted."""
        self.status = status
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self.promised = int(lengths[0]) if lengths else None  # the server has checked that it is a number

    def counting(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return a `write` that counts the bytes that it passes on."""

        def counted(chunk: bytes) -> object:
            self.count(chunk)
            return write(chunk)

        return counted

    def count(self, chunk: object) -> None:
        """Count a chunk of the body."""
        self.sent += len(chunk) if isinstance(chunk, bytes) else 0
        if chunk and self.status[:3] in BODILESS:
            self.note(FAULT, "RFC 9110 6.4.1", f"{self.status[:3]} has no body, and one was returned", "")

        if self.promised is not None and self.sent > self.promised and self.method != "HEAD":
            self.note(FAULT, "PEP 3333", f"Content-Length is {self.promised}, and the body is longer", "")

    def end(self) -> None:
        """Check the length of the complete body."""
        whole = self.promised is None or self.sent >= self.promised
        if not whole and self.method != "HEAD" and self.status[:3] not in BODILESS:
            self.note(FAULT, "PEP 3333", f"Content-Length is {self.promised}, and the body has {self.sent} bytes", "")


class CheckedBody:
    """An iterable that records exceptions and, if it has a response, counts the yielded bytes."""

    def __init__(
        self,
        iterable: Iterable[bytes],
        failed: Callable[[BaseException], object],
        response: ResponseCheck | None = None,
    ) -> None:
        self.iterable = iterable
        self.record_exception = failed
        self.response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self.iterable:
                if self.response:
                    self.response.count(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self.record_exception(error)
            raise
        if self.response:
            self.response.end()

    def close(self) -> None:
        """Close the application's iterable (PEP 3333)."""
        try:
            if hasattr(self.iterable, "close"):
                self.iterable.close()
        except BaseException as error:
            self.record_exception(error)
            raise


class CheckedInput:
    """A `wsgi.input` that records reads beyond the body: on most servers they would block."""

    def __init__(self, stream: Any, length: int, note: Callable[..., None]) -> None:
        self.stream = stream
        self.left = length
        self.note = note

    def check_size(self, size: int | None) -> None:
        """Check a read; None or a negative size reads to the end."""
        if size is None or size < 0:
            self.record_overread("is read to the end")
        elif size > self.left:
            self.record_overread(f"is asked for {size} bytes where {self.left} are left")

    def record_overread(self, what: str) -> None:
        """Record a read beyond the body."""
        text = f"wsgi.input {what}; other servers may block there forever (read up to CONTENT_LENGTH)"
        self.note(FAULT, "PEP 3333", text, innermost_location(capture()))

    def consume(self, data: bytes) -> bytes:
        """Count the bytes of a read."""
        self.left -= len(data)
        return data

    def read(self, size: int | None = -1) -> bytes:
        self.check_size(size)
        return self.consume(self.stream.read(-1 if size is None else size))

    def readline(self, size: int | None = -1) -> bytes:
        if not self.left:
            self.record_overread("is read by lines after its end")
        return self.consume(self.stream.readline(-1 if size is None else size))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        self.check_size(hint)
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.consume(self.stream.readline()):
            yield line


def innermost_location(frames: list[Frame]) -> str:
    """Return the location of the innermost frame of the user's code, as file:line."""
    mine = [frame for frame in frames if frame.owner == YOURS]
    others = [frame for frame in frames if frame.owner != STDLIB and not frame.module.startswith("microwsgi.")]
    frame = next(reversed(mine or others), None)
    return f"{short_path(frame.file, os.getcwd())}:{frame.line}" if frame else ""
