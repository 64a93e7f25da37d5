"""Every wire case to the running server over sockets: whole, with another request behind it, octet by octet, cut in two.

The parsers alone are given each case cut at every place (tests/wire/test_cases.py); `make test-all` does that with the server.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, Self

import pytest

from tests.server.exchange import TIME, Recorder, Response, Running, parse, receive, receive_until
from tests.wire.cases import Case, cases

ALL = cases("accepted") + cases("refused")
NEXT = b"GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n"
SHORT = 400
"""Octets up to which a case is sent octet by octet, and cut at every place."""


def keys(fields: list[list[str]]) -> dict[str, str]:
    """Field lines as RFC 3875 and PEP 3333 put them into an environ."""
    environ: dict[str, str] = {}
    for name, value in fields:
        key = name.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        if "_" not in name:
            separator = "; " if key == "HTTP_COOKIE" else ", "
            environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    return environ


def expected(request: dict[str, Any]) -> dict[str, Any]:
    """What the application has to get for a request of a case."""
    fields = keys(request["fields"])
    if "CONTENT_LENGTH" in fields:  # equal values are one
        fields["CONTENT_LENGTH"] = fields["CONTENT_LENGTH"].split(",")[0].strip()
    if fields.pop("HTTP_TRANSFER_ENCODING", None) is not None:  # RFC 3875 4.2: the coding is undone
        fields["CONTENT_LENGTH"] = str(len(request["body"]))
    if request["target"].lower().startswith("http"):  # RFC 9112 3.2.2
        fields["HTTP_HOST"] = request["target"].split("/")[2].split("?")[0]
    return {key: request[key] for key in ("method", "target", "version", "body", "trailers")} | {"fields": fields}


def check(case: Case, responses: list[Response], requests: list[dict[str, Any]], follow: str | None = None) -> None:
    """The application got what was accepted and nothing else; the client is told of each, and of a refusal, in order."""
    accepted = [expected(request) for request in case.requests]
    targets = [request["target"] for request in requests]
    if follow is not None and case.persistent:
        assert targets.pop() == follow
        assert requests.pop()
        assert responses.pop().status == 200
    assert len(requests) == case.after
    if case.status is None:
        assert requests == accepted
        assert [response.status for response in responses] == [200] * case.after
    else:
        assert [response.status for response in responses] == [200] * case.after + [case.status]
        assert responses[-1].field("Connection") == "close"
        assert responses[-1].field("Date")
        assert responses[-1].whole
    assert all(response.whole for response in responses)


class Server:
    """A running server with the options of some cases, and what its application was given."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.recorder = Recorder()
        self.running = Running(self.recorder, **options)

    def send(self, case: Case, *pieces: bytes) -> tuple[list[Response], list[dict[str, Any]]]:
        """The responses to these pieces, and the requests; each piece is received before the next one is sent."""
        with self.running.connect() as connection:
            port = str(connection.getsockname()[1])
            self.recorder.requests.pop(port, None)
            with contextlib.suppress(OSError):  # it may have refused already
                for number, piece in enumerate(pieces):
                    if number:
                        self.see_what_was_sent()
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
            responses = parse(receive(connection), [request["method"] for request in case.requests])
            return responses, self.recorder.requests.pop(port, [])

    def see_what_was_sent(self) -> None:
        """Wait until the server has looked at what was sent before: events are reported in their order."""
        self.witness.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(self.witness, b"}")

    def __enter__(self) -> Self:
        self.running.__enter__()
        self.witness = socket.create_connection(self.running.address, TIME)
        self.witness.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *exception: object) -> None:
        self.witness.close()
        self.running.__exit__(*exception)


def failures(ways: Callable[[Case], Iterator[tuple[tuple[bytes, ...], str | None]]]) -> list[str]:
    """Send each case in these ways of pieces, with a request behind it or not; the cases and ways that failed."""
    failed = []
    for options in {str(case.options): case.options for case in ALL}.values():
        with Server(options) as server:
            for case in ALL:
                if case.options == options:
                    for pieces, follow in ways(case):
                        try:
                            check(case, *server.send(case, *pieces), follow=follow)
                        except AssertionError as error:
                            failed.append(f"{case.name} in pieces of {[len(piece) for piece in pieces][:9]}: {error}")
    return failed


def halves(case: Case, places: Iterable[int]) -> Iterator[tuple[tuple[bytes, ...], None]]:
    for place in places:
        yield (case.data[:place], case.data[place:]), None


def test_over_a_socket() -> None:
    """Whole, and with another request behind it."""

    def ways(case: Case) -> Iterator[tuple[tuple[bytes, ...], str | None]]:
        yield (case.data,), None
        yield (case.data + NEXT,), "/next"

    assert not failures(ways)


def test_octet_by_octet() -> None:
    """Each in a packet of its own, which the server has received before the next one is sent."""

    def ways(case: Case) -> Iterator[tuple[tuple[bytes, ...], None]]:
        if len(case.data) <= SHORT:
            yield tuple(bytes([octet]) for octet in case.data), None

    assert not failures(ways)


def test_cut_in_two_at_some_places() -> None:
    def ways(case: Case) -> Iterator[tuple[tuple[bytes, ...], None]]:
        random = Random(case.name)
        places = sorted({random.randrange(1, len(case.data)) for _ in range(4)}) if len(case.data) > 1 else []
        yield from halves(case, places)

    assert not failures(ways)


@pytest.mark.slow
def test_cut_in_two_everywhere() -> None:
    def ways(case: Case) -> Iterator[tuple[tuple[bytes, ...], None]]:
        if len(case.data) <= SHORT:
            yield from halves(case, range(1, len(case.data)))

    assert not failures(ways)
