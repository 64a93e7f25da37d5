"""What an application does wrong by PEP 3333 is a visible, logged, precise 500, or a broken connection; never a quiet 200."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.server.exchange import TIME, Running
from tests.tables import Rows

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]


class Stage:
    """One server for the whole module, whose application each test replaces."""

    def __init__(self) -> None:
        self.application: Any = None
        self.running = Running(self)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Play the application."""
        return self.application(environ, start_response)  # type: ignore[no-any-return]

    def log(self) -> str:
        """What has been logged so far."""
        return self.running.errors.text.getvalue()


@pytest.fixture(scope="module")
def stages() -> Iterator[Stage]:
    stage = Stage()
    with stage.running:
        yield stage


@pytest.fixture
def stage(stages: Stage) -> Iterator[Stage]:
    stages.running.errors.text.truncate(0)
    stages.running.errors.text.seek(0)
    yield stages
    stages.application = good
    assert stages.running.get().body == b"good", "the server goes on"


def good(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"good"]


def answering(body: Any, *headers: Any, status: Any = "200 OK") -> Any:
    """An application that answers so."""

    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, list(headers))
        return body() if callable(body) else body

    return application


def yielding(*chunks: Any) -> Callable[[], Iterator[Any]]:
    """The body of a generator."""

    def generate() -> Iterator[Any]:
        yield from chunks

    return generate


def never_starting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [b"hello"]


def never_starting_generator(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    yield b"hello"


def never_starting_empty(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return []


def starting_twice(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"hello"]


def writing_without_a_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write("text")  # type: ignore[arg-type]
    return []


class Uncalled:
    """Like a WebOb response that a view forgot to call."""

    app_iter = (b"hello",)


WHILE_NOTHING_HAS_LEFT = {
    "a list of str": (answering(["text"]), "PEP 3333 requires bytes"),
    "a generator of str": (answering(yielding("text")), "PEP 3333 requires bytes"),
    "a list that begins well": (answering([b"bytes", "text"]), "PEP 3333 requires bytes"),
    "a list of int": (answering([1]), "PEP 3333 requires bytes"),
    "a str": (answering("text"), "PEP 3333 requires an iterable of bytes"),
    "bytes": (answering(b"bytes"), "PEP 3333 requires an iterable of bytes"),
    "None": (
        answering(None),
        ") returned None: is a return statement missing? PEP 3333 requires an iterable of bytes",
    ),
    "a number": (answering(5), "PEP 3333 requires an iterable of bytes"),
    "a response that was not called": (answering(Uncalled()), "instead of calling it"),
    "a list that is too long": (answering([b"hello"], ("Content-Length", "4")), "its Content-Length is 4"),
    "a list that is too short": (answering([b"hello"], ("Content-Length", "6")), "its Content-Length is 6"),
    "an empty list that is too short": (answering([], ("Content-Length", "6")), "its Content-Length is 6"),
    "no body where one was promised": (answering(yielding(), ("Content-Length", "6")), "Content-Length"),
    "no start_response": (never_starting, "start_response"),
    "no start_response, nothing returned": (never_starting_empty, "start_response"),
    "no start_response in a generator": (never_starting_generator, "start_response"),
    "two start_response": (starting_twice, "start_response was called a second time"),
    "write of str": (writing_without_a_start, "PEP 3333 requires bytes"),
    "a status of bytes": (answering([b""], status=b"200 OK"), "PEP 3333 requires a str"),
    "a status without a reason": (answering([b""], status="200"), "PEP 3333 requires a str"),
    "a status that is a number": (answering([b""], status=200), "PEP 3333 requires a str"),
    "a status with CR LF": (answering([b""], status="200 OK\r\nX-Evil: 1"), "PEP 3333 requires a str"),
    "a status with LF": (answering([b""], status="200 OK\nX-Evil: 1"), "PEP 3333 requires a str"),
    "a status with NUL": (answering([b""], status="200 O\0K"), "PEP 3333 requires a str"),
    "an interim status": (answering([b""], status="100 Continue"), "interim status"),
    "a field with CR LF": (answering([b""], ("X-A", "b\r\nX-Evil: 1")), "control character"),
    "a field with LF": (answering([b""], ("X-A", "b\nX-Evil: 1")), "control character"),
    "a field with CR": (answering([b""], ("X-A", "b\rX-Evil: 1")), "control character"),
    "a field with NUL": (answering([b""], ("X-A", "b\0")), "control character"),
    "a name with CR LF": (answering([b""], ("X-A\r\nX-Evil", "1")), "not a field name"),
    "a name with a colon": (answering([b""], ("X-A:", "1")), "not a field name"),
    "an empty name": (answering([b""], ("", "1")), "not a field name"),
    "a name of bytes": (answering([b""], (b"X-A", "1")), "not a field name"),
    "a value of bytes": (answering([b""], ("X-A", b"1")), "two str"),
    "a value that is a number": (answering([b""], ("Content-Length", 5)), "two str"),
    "a value beyond latin-1": (answering([b""], ("X-A", "\u20ac")), "latin-1"),
    "Connection": (answering([b""], ("Connection", "close")), "hop-by-hop"),
    "Keep-Alive": (answering([b""], ("keep-alive", "5")), "hop-by-hop"),
    "Transfer-Encoding": (answering([b""], ("Transfer-Encoding", "chunked")), "hop-by-hop"),
    "TE": (answering([b""], ("TE", "trailers")), "hop-by-hop"),
    "Trailer": (answering([b""], ("Trailer", "X-A")), "hop-by-hop"),
    "Upgrade": (answering([b""], ("Upgrade", "h2c")), "hop-by-hop"),
    "a length that is no number": (answering([b""], ("Content-Length", "five")), "Content-Length"),
    "two lengths": (answering([b"hello"], ("Content-Length", "5"), ("Content-Length", "5")), "Content-Length"),
}


@pytest.mark.parametrize("name", WHILE_NOTHING_HAS_LEFT)
def test_while_nothing_has_left_it_is_a_500_and_the_log_names_the_rule(name: str, stage: Stage) -> None:
    stage.application, words = WHILE_NOTHING_HAS_LEFT[name]
    response = stage.running.get("/some/where")
    assert (response.status, response.whole) == (500, True)
    assert response.field("X-Evil") is None
    assert b"hello" not in response.body
    log = stage.running.errors.wait_for(words)
    assert "ApplicationError" in log
    assert "GET /some/where HTTP/1.1" in log


@pytest.mark.parametrize("name", WHILE_NOTHING_HAS_LEFT)
def test_the_connection_can_be_used_on_or_says_that_it_can_not(name: str, stage: Stage) -> None:
    """After a 500 in place of a whole response nothing is lost: the next request has its answer, if it is read."""
    stage.application = WHILE_NOTHING_HAS_LEFT[name][0]
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    responses = stage.running.send(request + request)
    assert {response.status for response in responses} == {500}
    assert len(responses) == 2 or responses[0].field("Connection") == "close"


def fail() -> None:
    raise ZeroDivisionError("the bug")


def failing_halfway(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"hello"
    raise ZeroDivisionError("the bug")


def starting_twice_halfway(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"hello"
    start_response("500 Oh", [])
    yield b"world"


def starting_again_with_exc_info_halfway(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"hello"
    try:
        fail()
    except ZeroDivisionError:
        start_response("500 Oh", [], sys.exc_info())
    yield b"world"


def writing_then_failing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])(b"hello")
    raise ZeroDivisionError("the bug")


AFTER_BYTES_HAVE_LEFT = {
    "an iterable that raises": (failing_halfway, "the bug"),
    "a str halfway": (answering(yielding(b"hello", "world")), "PEP 3333 requires bytes"),
    "two start_response": (starting_twice_halfway, "start_response was called a second time"),
    "start_response with exc_info": (starting_again_with_exc_info_halfway, "the bug"),
    "write, then an exception": (writing_then_failing, "the bug"),
    "too few bytes": (answering(yielding(b"hello"), ("Content-Length", "6")), "shorter than its Content-Length"),
}


@pytest.mark.parametrize("name", AFTER_BYTES_HAVE_LEFT)
def test_once_bytes_have_left_the_connection_breaks_off_and_the_log_says_why(name: str, stage: Stage) -> None:
    """What the client got can't be taken for a whole response, and nothing else is sent on the connection."""
    stage.application, words = AFTER_BYTES_HAVE_LEFT[name]
    request = b"GET /some/where HTTP/1.1\r\nHost: a\r\n\r\n"
    (response,) = stage.running.send(request, request, half_close=False)
    assert response.status == 200
    assert response.body == b"hello"
    assert not response.whole
    log = stage.running.errors.wait_for(words)
    assert "GET /some/where HTTP/1.1" in log


def test_bytes_beyond_content_length_are_never_sent(stage: Stage) -> None:
    stage.application = answering(yielding(b"hello", b"wor", b"ld"), ("Content-Length", "7"))
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    (response,) = stage.running.send(request, request, half_close=False)
    assert response.body == b"hellowo"
    assert "longer than its Content-Length, 7" in stage.running.errors.wait_for("longer than")


def test_exc_info_replaces_what_has_not_left(stage: Stage) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-A", "b")])
        try:
            fail()
        except ZeroDivisionError:
            start_response("503 Later", [("X-C", "d")], sys.exc_info())
        return [b"sorry"]

    stage.application = application
    response = stage.running.get()
    assert (response.status, response.reason, response.body) == (503, "Later", b"sorry")
    assert (response.field("X-A"), response.field("X-C")) == (None, "d")
    assert stage.log() == ""


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit, RecursionError]
)
def test_an_exception_is_a_500_with_the_traceback_in_the_log_only(error: type[BaseException], stage: Stage) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error("the secret")

    stage.application = application
    response = stage.running.get()
    assert response.status == 500
    assert b"secret" not in response.body
    assert b"Traceback" not in response.body
    log = stage.running.errors.wait_for("the secret")
    assert "Traceback" in log
    assert "in application" in log


def test_a_500_to_head_has_no_content(stage: Stage) -> None:
    stage.application = answering(["text"])
    stage.application = never_starting
    request = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    responses = stage.running.send(request + request, methods=["HEAD", "HEAD"])
    assert {response.status for response in responses} == {500}


class Closing:
    """An iterable that counts the calls of its close."""

    def __init__(self, chunks: Iterable[Any], *, error: BaseException | None = None) -> None:
        self.chunks = iter(chunks)
        self.error = error
        self.closed = 0
        self.done = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1
        self.done.set()
        if self.error is not None:
            raise self.error


def raising() -> Iterator[bytes]:
    yield b"hello"
    raise ZeroDivisionError("the bug")


def raising_at_once() -> Iterator[bytes]:
    raise ZeroDivisionError("the bug")
    yield b""


@pytest.mark.parametrize(
    ("chunks", "headers", "method"),
    [
        ([b"hello"], [], "GET"),
        ([b"hello"], [], "HEAD"),
        ([], [], "GET"),
        ([b"hello"] * 3, [("Content-Length", "15")], "GET"),
        ([b"hello"] * 3, [("Content-Length", "10")], "GET"),
        ([b"hello"] * 3, [("Content-Length", "20")], "GET"),
        (["text"], [], "GET"),
        ([b"hello", "text"], [], "GET"),
        (raising(), [], "GET"),
        (raising_at_once(), [], "GET"),
    ],
    ids=[
        "whole",
        "head",
        "empty",
        "length",
        "too long",
        "too short",
        "str",
        "str halfway",
        "raising",
        "raising at once",
    ],
)
@pytest.mark.parametrize(
    "error", [None, ZeroDivisionError("in close"), SystemExit("in close")], ids=["", "close raises", "close exits"]
)
def test_close_is_called_exactly_once_whatever_happens(
    chunks: Iterable[Any], headers: list[tuple[str, str]], method: str, error: BaseException | None, stage: Stage
) -> None:
    iterable = Closing(list(chunks) if isinstance(chunks, list) else raising_like(chunks), error=error)
    stage.application = answering(iterable, *headers)
    stage.running.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode(), methods=[method])
    assert iterable.done.wait(TIME)
    assert iterable.closed == 1
    if error is not None:
        assert "in close" in stage.running.errors.wait_for("in close")


def raising_like(chunks: Any) -> Iterator[bytes]:
    """A new generator of the same function: one that has raised is spent."""
    return raising() if chunks.__name__ == "raising" else raising_at_once()


def test_a_response_is_whole_though_its_close_raises(stage: Stage) -> None:
    for headers in ([], [("Content-Length", "5")]):
        stage.application = answering(Closing([b"hello"], error=ZeroDivisionError("in close")), *headers)
        response = stage.running.get()
        assert (response.status, response.body, response.whole) == (200, b"hello", True)


def test_close_is_called_once_when_the_client_vanishes(stage: Stage) -> None:
    block = b"x" * (1 << 20)
    iterable = Closing([block] * 100)
    stage.application = answering(iterable)
    with stage.running.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset instead of an end
    assert iterable.done.wait(TIME)
    assert iterable.closed == 1


def test_close_is_called_when_start_response_fails_within_a_generator(stage: Stage) -> None:
    closed = []

    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("X-A", "\r\n")])
            yield b"hello"
        finally:
            closed.append(1)

    stage.application = application
    assert stage.running.get().status == 500
    assert closed == [1]


def test_an_error_within_a_request_whose_body_was_not_read_leaves_nothing_behind(stage: Stage) -> None:
    stage.application = never_starting
    body = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    responses = stage.running.send(head + body + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [response.status for response in responses] == [500, 500]
    assert "/evil" not in stage.log()


def test_a_500_says_that_the_log_knows_more(stage: Stage) -> None:
    stage.application = never_starting
    response = stage.running.get()
    assert response.field("Content-Type") == "text/plain; charset=utf-8"
    assert b"log" in response.body
    assert response.field("Date")


def test_an_application_may_catch_its_own_error_of_start_response(stage: Stage) -> None:
    """The error is raised in the application's own line, where a framework can make a page of it."""

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response("200 OK", [("X-A", "\r\n")])
        except Exception as error:
            start_response("500 Oh", [("Content-Type", "text/plain")])
            return [type(error).__name__.encode()]
        return [b"hello"]

    stage.application = application
    response = stage.running.get()
    assert (response.status, response.body) == (500, b"ApplicationError")


def test_a_broken_response_of_http_1_0_is_no_whole_one(stage: Stage) -> None:
    """Where the end of the connection is the end of the body, the connection is reset: RFC 9112 8."""
    stage.application = failing_halfway
    with stage.running.connect() as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b""
        try:
            while piece := connection.recv(1000):
                received += piece
        except ConnectionResetError:
            pass
        else:
            pytest.fail("the end of the connection was an orderly one")
    assert b"200 OK" in received
    assert "the bug" in stage.running.errors.wait_for("the bug")


def test_a_page_that_fails_itself_is_told_in_the_log() -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("the bug")

    def page(error: BaseException, environ: Environ, number: str) -> tuple[list[tuple[str, str]], bytes]:
        raise TypeError("the page's bug")

    with Running(application, arguments={"error_page": page}) as running:
        request = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
        responses = running.send(request * 2)
    for response in responses:
        assert (response.status, b"the traceback is in the server's log (id " in response.body) == (500, True)
    assert len(responses) == 2, "the connection is kept"
    assert "the bug" in running.errors.text.getvalue()
    assert "the page's bug" in running.errors.text.getvalue()


def test_the_error_page_gets_the_request_and_the_number_in_the_log() -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("the bug")

    def page(error: BaseException, environ: Environ, number: str) -> tuple[list[tuple[str, str]], bytes]:
        return [("Content-Type", "text/x")], f"{error} {environ['PATH_INFO']} {number}".encode()

    with Running(application, arguments={"error_page": page}) as running:
        (response,) = running.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert response.status == 500
    number = re.search(rb"[0-9a-f]{8}", response.body)
    assert number
    assert number[0].decode() in running.errors.text.getvalue()
    assert response.body == b"the bug /a " + number[0]


def test_an_empty_exc_info_after_the_head_is_an_error_as_any_second_call() -> None:
    seen: list[str] = []

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"x"
        try:
            start_response("500 Oops", [], (None, None, None))
        except Exception as error:  # any
            seen.append(str(error))
        yield b"y"

    with Running(application) as running:
        assert running.get().body == b"xy"
    assert "empty exc_info (PEP 3333)" in seen[0]


def test_a_body_is_checked_alike_in_a_list_a_tuple_a_generator_and_write() -> None:
    """PEP 3333 requires bytes; a subclass is one, and a bytearray or a memoryview is not."""

    class Bytes(bytes):
        __slots__ = ()

    with Rows() as rows:
        for value, status in (
            (b"a", 200),
            (Bytes(b"a"), 200),
            (bytearray(b"a"), 500),
            (memoryview(b"a"), 500),
            ("a", 500),
        ):
            for kind, make in (("list", list), ("tuple", tuple), ("generator", iter), ("write", None)):
                for values in ([value], [value, b""]):

                    def application(environ: Any, start_response: Any, make: Any = make, values: Any = values) -> Any:
                        write = start_response("200 OK", [])
                        if make is not None:
                            return make(values)
                        for each in values:
                            write(each)
                        return []

                    with rows(type(value).__name__, kind, len(values)), Running(application) as running:
                        assert running.get().status == status
