"""Request heads, where the wire cases don't look: what is parsed, and the reason that a refusal gives."""

from __future__ import annotations

from typing import Any

import pytest

from microwsgi.errors import ClientError
from microwsgi.options import Options
from tests.tables import Rows
from tests.wire import subject
from tests.wire.cases import cases
from tests.wire.exchange import read
from tests.wire.subject import CHUNKED, NAME_LIMIT, HeadReader, request_names


def parse(*lines: str, **options: Any) -> dict[str, Any]:
    return subject.parse("\r\n".join(lines).encode("latin-1"), Options(**options))


def test_fields_have_the_keys_of_an_environ() -> None:
    head = parse("GET / HTTP/1.1", "Host: a", "Content-Type: b", "content-length: 0", "X-Some-thing:\tc ", "1!: d")
    assert head["fields"] == {
        "HTTP_HOST": "a",
        "CONTENT_TYPE": "b",
        "CONTENT_LENGTH": "0",
        "HTTP_X_SOME_THING": "c",
        "HTTP_1!": "d",
    }


def test_a_repeated_field_is_one_list_in_order_and_cookies_are_joined_by_semicolons() -> None:
    head = parse("GET / HTTP/1.1", "X-A: 1", "Cookie: a=1", "Host: a", "x-a: 2", "cookie: b=2", "X-A:")
    assert head["fields"] == {"HTTP_X_A": "1, 2, ", "HTTP_COOKIE": "a=1; b=2", "HTTP_HOST": "a"}


def test_names_with_an_underscore_are_dropped_whatever_they_come_with() -> None:
    """X_A and X-A would be one key: who sends the first could forge what a proxy sets by the second."""
    head = parse("GET / HTTP/1.1", "Host: a", "X-Forwarded-For: 1", "X_Forwarded_For: 2", "X-Forwarded_For: 3")
    assert head["fields"] == {"HTTP_HOST": "a", "HTTP_X_FORWARDED_FOR": "1"}
    head = parse("GET / HTTP/1.1", "Host: a", "Content_Length: 5", "Transfer_Encoding: chunked")
    assert head["fields"] == {"HTTP_HOST": "a"}


def test_an_absolute_target_takes_the_place_of_host() -> None:
    head = parse("GET http://b:80/c?d HTTP/1.1", "Host: a")
    assert (head["method"], head["target"], head["version"]) == ("GET", "http://b:80/c?d", "HTTP/1.1")
    assert head["fields"] == {"HTTP_HOST": "b:80"}


def test_the_origin_form_of_a_target() -> None:
    table = {
        "/a?b": "/a?b",
        "//a": "//a",
        "*": "",
        "http://a": "/",
        "http://a?b": "/?b",
        "http://a/b/?c": "/b/?c",
        "HTTPS://a//b": "//b",
        "/http://a/b": "/http://a/b",
    }
    with Rows() as rows:
        for target, path in table.items():
            with rows(target):
                assert parse(f"OPTIONS {target} HTTP/1.1", "Host: a")["path"] == path


def test_field_lines_are_all_lines_in_order_as_they_were_sent() -> None:
    head = parse("", "GET / HTTP/1.1", "X_A: 1", "Host:a", "x_a: \t2 ")
    assert head["lines"] == [["X_A", "1"], ["Host", "a"], ["x_a", "2"]]
    assert parse("GET / HTTP/1.0")["lines"] == []


def test_a_client_that_invents_names_does_not_fill_the_memory() -> None:
    keys = request_names()
    for number in range(2 * NAME_LIMIT):
        assert keys[f"X-{number}"] == f"HTTP_X_{number}"
    assert len(keys) == NAME_LIMIT
    assert keys["X-5000"] == "HTTP_X_5000"


def test_a_client_that_invents_names_does_not_slow_down_others() -> None:
    """The map is emptied when it is full, so that the names of other clients are remembered again."""
    keys = request_names()
    for number in range(NAME_LIMIT):
        assert keys[f"X-{number}"] == f"HTTP_X_{number}"
    assert keys["Accept"] == "HTTP_ACCEPT"
    assert list(keys) == ["Accept"]


def test_equal_lengths_become_one_for_the_application() -> None:
    head = parse("POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5", max_body_size=10)
    assert head["length"] == 5
    assert head["fields"] == {"HTTP_HOST": "a", "CONTENT_LENGTH": "5"}


def test_framing() -> None:
    assert parse("POST / HTTP/1.1", "Host: a", max_body_size=10)["length"] == 0
    assert parse("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", max_body_size=10)["length"] == CHUNKED
    assert parse("POST / HTTP/1.0", "Content-Length: 10", max_body_size=10)["length"] == 10


def test_persistence() -> None:
    table: list[tuple[str, str | None, bool]] = [
        ("HTTP/1.1", None, True),
        ("HTTP/1.0", None, False),
        ("HTTP/1.1", "a,\tCLOSE", False),
        ("HTTP/1.0", "Keep-Alive", True),
        ("HTTP/1.0", "keep-alive, close", False),
    ]
    with Rows() as rows:
        for version, connection, persistent in table:
            with rows(version, connection):
                lines = [] if connection is None else [f"Connection: {connection}"]
                assert parse(f"GET / {version}", "Host: a", *lines)["persistent"] is persistent


def test_expect() -> None:
    table: list[tuple[str, str | None, bool]] = [
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "100-Continue", True),
        ("HTTP/1.1", "100-continue, 100-continue", True),
        ("HTTP/1.1", "", False),
        ("HTTP/1.0", "100-continue", False),
        ("HTTP/1.0", "something", False),
    ]
    with Rows() as rows:
        for version, expect, waits in table:
            with rows(version, expect):
                lines = [] if expect is None else [f"Expect: {expect}"]
                assert parse(f"GET / {version}", "Host: a", *lines)["expects"] is waits


def test_hosts_are_remembered_within_bounds() -> None:
    assert subject.valid_host("a")
    assert not subject.valid_host("a b")
    assert subject.host_cache_limit() is not None


def test_each_refusal_gives_a_reason_that_a_person_understands() -> None:
    """One sentence in plain words, printable, of bounded length."""
    with Rows() as rows:
        for case in cases("refused"):
            with rows(case.name):
                reason = read([case.data], Options(**case.options)).reason
                assert reason[0].isupper() or reason[0] in "'\"["
                assert reason.rstrip(")")[-1] != " "
                assert reason.isprintable()
                assert " " in reason
                assert len(reason) < 300


def test_the_reason_names_what_is_wrong() -> None:
    table = [
        (["GET / HTTP/1.1"], "needs a Host field"),
        (["GET / HTTP/1.1", "Host: a", "X : b"], "There is white space before the colon of 'X'"),
        (["GET / HTTP/1.1", "Host: a", "X: b", " c"], "folded lines are refused"),
        (["GET / HTTP/1.1", "Host: a", "what"], "'what' has no colon"),
        (["GET / HTTP/1.1", "Host: a", "X: a\0"], "The field line b'X: a\\x00' contains a control character"),
        (["GET /\n HTTP/1.1", "Host: a"], "The request line contains a bare LF"),
        (["GET /a#b HTTP/1.1", "Host: a"], "fragment"),
        (["GET / HTTP/3.0", "Host: a"], "HTTP/1.1 and HTTP/1.0, not HTTP/3.0"),
        (["G@T / HTTP/1.1", "Host: a"], "'G@T' is not a method"),
        (["GET / http/1.1", "Host: a"], "'http/1.1' is not an HTTP version"),
        (["GET /a b HTTP/1.1", "Host: a"], "separated by single spaces"),
        (["GET a HTTP/1.1", "Host: a"], "'a' is not a target for GET: it must begin with a slash"),
        (["GET / HTTP/1.1", "Host: a/b"], "'a/b' is not a valid value for the Host field"),
        (["GET / HTTP/1.1", "Host: a", *["X: y"] * 100], "There are more than 100 header fields (max_header_count)"),
        (["GET / HTTP/1.1", "Host: a", "X: " + "y" * 9000], "exceeds the limit of 8190 bytes (max_line_size)"),
        (["GET / HTTP/1.1", "Host: a", *["X: " + "y" * 8000] * 9], "exceed the limit of 65536 bytes (max_header_size)"),
        (["", "", "GET / HTTP/1.1"], "more than one empty line"),
    ]
    with Rows() as rows:
        for lines, words in table:
            with rows(words):
                assert words in read([("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")]).reason


def test_a_head_is_refused_as_soon_as_it_can_not_become_valid() -> None:
    """Nobody waits ten seconds for the end of what is no head: a TLS hello, an old client's line, a NUL."""
    refused = [
        b"\x16\x03\x01\x02\x00",
        b"GET /\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n",
        b"GET / HTTP/1.1\nHost",
        b"\0",
    ]
    unfinished = [
        b"G",
        b"\r",
        b"\r\n",
        b"\r\nG",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    ]
    with Rows() as rows:
        for data in refused:
            with rows("refused", data), pytest.raises(ClientError):
                HeadReader().feed(data)
        for data in unfinished:
            with rows("unfinished", data):
                assert HeadReader().feed(data) is None


def test_the_limit_of_the_head_counts_neither_its_end_nor_an_empty_line_before_it() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 50
    with Rows() as rows:
        for before in (b"", b"\r\n"):
            for size, status in ((len(head), None), (len(head) - 1, 431)):
                limits = Options(max_header_size=size)
                data = before + head + b"\r\n\r\n"
                for pieces in ([data], [before + head, b"\r\n\r\n"], [bytes([octet]) for octet in data]):
                    with rows(before, size, len(pieces), "pieces"):
                        assert read(pieces, limits).status == status


def test_the_reason_names_the_limit_that_a_line_exceeds() -> None:
    line = b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n"
    field = b"GET / HTTP/1.1\r\nX: " + b"a" * 2000 + b"\r\n"
    with Rows() as rows:
        for data, status in ((line, 414), (field, 431)):
            for limits, option in (
                (Options(max_line_size=1000), "max_line_size"),
                (Options(max_header_size=1000), "max_header_size"),
            ):
                with rows(status, option):
                    outcome = read([data], limits)
                    assert outcome.status == status
                    assert outcome.reason.endswith(f"the limit of 1000 bytes ({option}).")
