"""The running server reads every wire case over a socket whole, octet by octet and cut in two: the same outcome."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.exchange import Recorder, Response, Running, parse, receive
from tests.tables import Rows
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


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Running, Recorder]]:
    recorder = Recorder()
    with Running(recorder) as server:
        yield server, recorder


def send(running: tuple[Running, Recorder], case: Case, *pieces: bytes) -> tuple[list[Response], list[dict[str, Any]]]:
    server, recorder = running
    with server.connect() as connection:
        port = str(connection.getsockname()[1])
        recorder.requests.pop(port, None)
        methods = [request["method"] for request in case.requests]
        with contextlib.suppress(OSError):  # the server may have closed the connection already
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        responses = parse(receive(connection), methods)
        return responses, recorder.requests.pop(port, [])


def test_over_a_socket(running: tuple[Running, Recorder]) -> None:
    """Whole; with another request behind it; and octet by octet, each in a packet of its own."""
    with Rows() as rows:
        for case in (case for case in ALL if not case.options):
            with rows(case.name):
                check(case, *send(running, case, case.data))
                check(case, *send(running, case, case.data + NEXT), follow="/next")
                if len(case.data) <= SHORT:
                    check(case, *send(running, case, *(bytes([octet]) for octet in case.data)))


def test_over_a_socket_with_other_limits() -> None:
    with Rows() as rows:
        for case in (case for case in ALL if case.options):
            recorder = Recorder()
            with rows(case.name), Running(recorder, **case.options) as server:
                check(case, *send((server, recorder), case, case.data))
                check(case, *send((server, recorder), case, *(bytes([octet]) for octet in case.data)))


@pytest.mark.parametrize(
    "distance", [pytest.param(1, id="everywhere", marks=pytest.mark.slow), pytest.param(6, id="every sixth octet")]
)
def test_cut_in_two(distance: int, running: tuple[Running, Recorder]) -> None:
    """The server may receive both parts at once; `tests/wire/test_cases.py` is certain to separate them."""
    with Rows() as rows:
        for number, case in enumerate(ALL):
            if len(case.data) <= SHORT and not case.options:
                with rows(case.name):
                    for place in range(1 + number % distance, len(case.data), distance):
                        check(case, *send(running, case, case.data[:place], case.data[place:]))
