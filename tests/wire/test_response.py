"""microwsgi/wire/response.py: what an application may say, and what leaves in its place when it must not."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from microwsgi.errors import ApplicationError, ClientError, VersionNotSupported
from microwsgi.wire import response as module
from microwsgi.wire.response import Clock, FieldNames, early_hints, refusal, response_head


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "404 Nöt Found", "999 \t", "200 ", "599 a\xa0b"])
def test_a_status_is_three_digits_a_space_and_a_reason(status: str) -> None:
    line, _, code, *_ = response_head(status, [])
    assert line == f"HTTP/1.1 {status}\r\n"
    assert code == int(status[:3])


@pytest.mark.parametrize(
    "status",
    ["", "200", "OK", "20 OK", "2000 OK", "200OK", "099 a", "000 a", "200 OK\r\nX: y", "200 OK\n", "200 a\0", "200 \x7f",
     "200 \u20ac", " 200 OK", "+20 a", "²00 a", b"200 OK", 200, None, ["200 OK"], ("200", "OK")],
)  # fmt: skip
def test_any_other_status_is_an_application_error_that_names_the_rule(status: Any) -> None:
    with pytest.raises(ApplicationError, match="PEP 3333"):
        response_head(status, [])


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "199 a"])
def test_an_interim_status_is_no_response(status: str) -> None:
    with pytest.raises(ApplicationError, match="interim"):
        response_head(status, [])


@pytest.mark.parametrize(
    ("status", "bodiless"), [("200 OK", False), ("204 No Content", True), ("304 Not Modified", True)]
)
def test_204_and_304_have_no_body(status: str, bodiless: bool) -> None:
    assert response_head(status, [])[3] is bodiless


def test_fields_leave_as_they_were_given() -> None:
    headers = [("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-b", "\xe9\t "), ("X-C", "")]
    assert (
        response_head("200 OK", headers)[1]
        == "X-A: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nx-b: \xe9\t \r\nX-C: \r\n"
    )


@pytest.mark.parametrize(
    "headers",
    [
        (("X-A", "b"),),
        {"X-A": "b"},
        None,
        iter([("X-A", "b")]),
        ["X-A: b"],
        [("X-A",)],
        [("X-A", "b"), "X-C: d"],
        [("X-A", "b", "c")],
        [(b"X-A", "b")],
        [("X-A", b"b")],
        [("X-A", 5)],
        [("X-A", None)],
        [(None, "b")],
        [5],
        [(["X-A"], "b")],
        [("X-A", "\u20ac")],
        [("X-A", "a\r\nX-B: c")],
        [("X-A", "a\nX-B: c")],
        [("X-A", "a\rX-B: c")],
        [("X-A", "a\r\n b")],
        [("X-A", "a\0")],
        [("X-A", "a\x1b[2J")],
        [("X-A", "a\x7f")],
        [("X-A\r\nX-B", "c")],
        [("X A", "b")],
        [("X-A:", "b")],
        [("X-\xc4", "b")],
        [("", "b")],
        [("X-A\0", "b")],
    ],
)
def test_any_other_headers_are_an_application_error_that_names_the_rule(headers: Any) -> None:
    with pytest.raises(ApplicationError, match="PEP 3333"):
        response_head("200 OK", headers)


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "UPGRADE",
        "transfer-encoding",
    ],
)
def test_hop_by_hop_fields_are_the_servers(name: str) -> None:
    with pytest.raises(ApplicationError, match="hop-by-hop"):
        response_head("200 OK", [(name, "close")])


def test_content_length_is_noted() -> None:
    assert response_head("200 OK", [])[4] is None
    assert response_head("200 OK", [("content-LENGTH", "05")])[4] == 5


@pytest.mark.parametrize("value", ["", "x", "+5", "-5", "1_0", "5, 5", " 5", "\u0665", "\xb2", "5\r\n"])
def test_content_length_is_digits(value: str) -> None:
    with pytest.raises(ApplicationError, match="Content-Length"):
        response_head("200 OK", [("Content-Length", value)])


def test_content_length_is_given_once() -> None:
    for other in ("5", "6"):
        with pytest.raises(ApplicationError, match="Content-Length"):
            response_head("200 OK", [("Content-Length", "5"), ("Content-Length", other)])


@pytest.mark.parametrize(("status", "lines"), [("204 No", ""), ("205 Reset", "Content-Length: 0\r\n")])
def test_a_length_where_there_is_no_content_is_left_out(status: str, lines: str) -> None:
    """RFC 9110 8.6 and 15.3.6; it is checked all the same."""
    assert response_head(status, [("Content-Length", "5"), ("X-A", "b")])[1] == f"{lines}X-A: b\r\n"
    with pytest.raises(ApplicationError, match="Content-Length"):
        response_head(status, [("Content-Length", "five")])


def test_an_endless_content_length_is_not_taken_for_another_fault() -> None:
    """int() of Python raises ValueError beyond 4,300 digits."""
    with pytest.raises(ApplicationError, match="Content-Length"):
        response_head("200 OK", [("Content-Length", "1" * 5000)])


def test_date_and_server_of_the_application_are_noted() -> None:
    assert [response_head("200 OK", headers)[5] for headers in ([], [("DATE", "x")], [("server", "x")])] == [0, 1, 2]
    assert response_head("200 OK", [("Server", "x"), ("Date", "y")])[5] == 3


def test_the_clock_gives_what_the_application_did_not() -> None:
    clock = Clock()
    both, server, date, none = clock.tick()
    assert (both, none) == (date + server, "")
    assert server == "Server: microwsgi\r\n"
    assert date.startswith("Date: ")
    assert date.endswith(" GMT\r\n")
    assert abs(parsedate_to_datetime(date[6:-2]).timestamp() - time.time()) < 5


def test_the_clock_makes_its_fields_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [784111777.9]
    monkeypatch.setattr(time, "time", lambda: moment[0])
    clock = Clock()
    first = clock.tick()
    assert first[2] == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"  # RFC 9110 5.6.7's own example
    assert clock.tick() is first
    moment[0] += 0.2
    assert clock.tick()[2] == "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"


def test_an_application_that_invents_names_does_not_fill_the_memory() -> None:
    names = FieldNames()
    for number in range(2 * module.KNOWN_NAMES):
        assert names[f"X-{number}"] == ""
    assert len(names) == module.KNOWN_NAMES


def test_a_refusal_says_why_and_closes() -> None:
    raw = refusal(VersionNotSupported("Not HTTP/2.0 \u2013 sorry."), "Date: x\r\n")
    head, _, content = raw.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 505 HTTP Version Not Supported",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(content),
        b"Date: x",
        b"Connection: close",
    ]
    assert content == "505 HTTP Version Not Supported\n\nNot HTTP/2.0 \u2013 sorry.\n".encode()


def test_a_refusal_of_head_has_no_content() -> None:
    raw = refusal(ClientError("no"), "", bodiless=True)
    assert raw.endswith(b"\r\n\r\n")
    assert b"Content-Length: 20\r\n" in raw


def test_early_hints() -> None:
    assert (
        early_hints([("Link", "</a>; rel=preload")]) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    )
    with pytest.raises(ApplicationError):
        early_hints([("Link", "a\r\nb")])
