"""Response heads: what an application may give, and what the server sends in its place when it must not."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from microwsgi.errors import ApplicationError, ClientError, VersionNotSupported
from tests.tables import Rows
from tests.wire.subject import NAME_LIMIT, Clock, early_hints, refusal, response, response_head, response_names


def test_a_status_is_three_digits_a_space_and_a_reason() -> None:
    with Rows() as rows:
        for status in ("200 OK", "204 No Content", "404 Nöt Found", "999 \t", "200 ", "599 a\xa0b"):
            with rows(status):
                head = response(status, [])
                assert head["line"] == f"HTTP/1.1 {status}\r\n"
                assert head["code"] == int(status[:3])


def test_any_other_status_is_an_application_error_that_names_the_rule() -> None:
    table: list[Any] = [
        "", "200", "OK", "20 OK", "2000 OK", "200OK", "099 a", "000 a", "200 OK\r\nX: y", "200 OK\n", "200 a\0", "200 \x7f",
        "200 \u20ac", " 200 OK", "+20 a", "²00 a", b"200 OK", 200, None, ["200 OK"], ("200", "OK"),
    ]  # fmt: skip
    with Rows() as rows:
        for status in table:
            with rows(repr(status)), pytest.raises(ApplicationError, match="PEP 3333"):
                response(status, [])


def test_an_interim_status_is_no_response() -> None:
    with Rows() as rows:
        for status in ("100 Continue", "101 Switching Protocols", "103 Early Hints", "199 a"):
            with rows(status), pytest.raises(ApplicationError, match="interim"):
                response(status, [])


def test_204_and_304_have_no_body() -> None:
    with Rows() as rows:
        for status, bodiless in (("200 OK", False), ("204 No Content", True), ("304 Not Modified", True)):
            with rows(status):
                assert response(status, [])["bodiless"] is bodiless


def test_fields_leave_as_they_were_given() -> None:
    headers = [("X-A", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-b", "\xe9\t "), ("X-C", "")]
    assert (
        response("200 OK", headers)["fields"]
        == "X-A: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nx-b: \xe9\t \r\nX-C: \r\n"
    )


def test_any_other_headers_are_an_application_error_that_names_the_rule() -> None:
    table: list[Any] = [
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
    ]
    with Rows() as rows:
        for headers in table:
            with rows(repr(headers)), pytest.raises(ApplicationError, match="PEP 3333"):
                response("200 OK", headers)


def test_hop_by_hop_fields_are_the_servers() -> None:
    names = "Connection keep-alive Proxy-Connection TE Trailer Transfer-Encoding UPGRADE transfer-encoding"
    with Rows() as rows:
        for name in names.split():
            with rows(name), pytest.raises(ApplicationError, match="hop-by-hop"):
                response("200 OK", [(name, "close")])


def test_content_length_is_noted() -> None:
    assert response("200 OK", [])["length"] is None
    assert response("200 OK", [("content-LENGTH", "05")])["length"] == 5


def test_content_length_is_digits() -> None:
    with Rows() as rows:
        for value in ("", "x", "+5", "-5", "1_0", "5, 5", " 5", "\u0665", "\xb2", "5\r\n"):
            with rows(repr(value)), pytest.raises(ApplicationError, match="Content-Length"):
                response("200 OK", [("Content-Length", value)])


def test_content_length_is_given_once() -> None:
    for other in ("5", "6"):
        with pytest.raises(ApplicationError, match=f"Content-Length must be given once, not 5 and then {other}"):
            response("200 OK", [("Content-Length", "5"), ("Content-Length", other)])


def test_a_head_with_a_cookie_is_not_remembered() -> None:
    with Rows() as rows:
        for name, remembered in (("X-Any", True), ("Set-Cookie", False), ("set-cookie", False), ("SET-COOKIE", False)):
            with rows(name):
                heads = [response_head("200 OK", [(name, "test=1")]) for _ in range(2)]
                assert (heads[0] is heads[1]) == remembered


def test_a_length_where_there_is_no_content_is_left_out() -> None:
    """RFC 9110 8.6 and 15.3.6; it is checked all the same."""
    with Rows() as rows:
        for status, lines in (("204 No", ""), ("205 Reset", "Content-Length: 0\r\n")):
            with rows(status):
                assert response(status, [("Content-Length", "5"), ("X-A", "b")])["fields"] == f"{lines}X-A: b\r\n"
                with pytest.raises(ApplicationError, match="Content-Length"):
                    response(status, [("Content-Length", "five")])


def test_an_endless_content_length_is_not_taken_for_another_fault() -> None:
    """int() of Python raises ValueError beyond 4,300 digits."""
    with pytest.raises(ApplicationError, match="Content-Length"):
        response("200 OK", [("Content-Length", "1" * 5000)])


def test_date_and_server_of_the_application_are_noted() -> None:
    with Rows() as rows:
        for headers, date, server in (
            ([], False, False),
            ([("DATE", "x")], True, False),
            ([("server", "x")], False, True),
            ([("Server", "x"), ("Date", "y")], True, True),
        ):
            with rows(headers):
                head = response("200 OK", headers)
                assert (head["date"], head["server"]) == (date, server)


def test_the_clock_gives_what_the_application_did_not() -> None:
    clock = Clock()
    date, server = clock.fields(server=False), clock.fields(date=False)
    assert clock.fields() == date + server
    assert clock.fields(date=False, server=False) == b""
    assert server == b"Server: microwsgi\r\n"
    assert date.startswith(b"Date: ")
    assert date.endswith(b" GMT\r\n")
    assert abs(parsedate_to_datetime(date[6:-2].decode()).timestamp() - time.time()) < 5


def test_the_clock_makes_its_fields_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [784111777.9]
    monkeypatch.setattr(time, "time", lambda: moment[0])
    clock = Clock()
    first = clock.fields(server=False)
    assert first == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"  # RFC 9110 5.6.7's own example
    assert clock.fields(server=False) is first
    moment[0] += 0.2
    assert clock.fields(server=False) == b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"


def test_an_application_that_invents_names_does_not_fill_the_memory() -> None:
    names = response_names()
    for number in range(2 * NAME_LIMIT):
        assert names[f"X-{number}"] == ""
    assert len(names) == NAME_LIMIT


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
