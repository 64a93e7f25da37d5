"""microwsgi/wire/head.py, where the wire cases don't look: what it returns, and how it says why it refuses."""

from __future__ import annotations

import pytest

from microwsgi.errors import ClientError
from microwsgi.options import Options
from microwsgi.wire import head as module
from microwsgi.wire.head import (
    CHUNKED,
    FieldKeys,
    check_partial,
    expects_continue,
    field_lines,
    framing,
    origin_form,
    parse_head,
    persistent,
    valid_host,
)
from tests.wire.cases import Case, cases
from tests.wire.exchange import read

LIMITS = Options()


def parse(*lines: str) -> tuple[str, str, str, dict[str, str]]:
    return parse_head("\r\n".join(lines).encode("latin-1"), LIMITS)


def test_fields_have_the_keys_of_an_environ() -> None:
    _, _, _, fields = parse(
        "GET / HTTP/1.1", "Host: a", "Content-Type: b", "content-length: 0", "X-Some-thing:\tc ", "1!: d"
    )
    assert fields == {
        "HTTP_HOST": "a",
        "CONTENT_TYPE": "b",
        "CONTENT_LENGTH": "0",
        "HTTP_X_SOME_THING": "c",
        "HTTP_1!": "d",
    }


def test_a_repeated_field_is_one_list_in_order_and_cookies_are_joined_by_semicolons() -> None:
    _, _, _, fields = parse("GET / HTTP/1.1", "X-A: 1", "Cookie: a=1", "Host: a", "x-a: 2", "cookie: b=2", "X-A:")
    assert fields == {"HTTP_X_A": "1, 2, ", "HTTP_COOKIE": "a=1; b=2", "HTTP_HOST": "a"}


def test_names_with_an_underscore_are_dropped_whatever_they_come_with() -> None:
    """X_A and X-A would be one key: who sends the first could forge what a proxy sets by the second."""
    _, _, _, fields = parse(
        "GET / HTTP/1.1", "Host: a", "X-Forwarded-For: 1", "X_Forwarded_For: 2", "X-Forwarded_For: 3"
    )
    assert fields == {"HTTP_HOST": "a", "HTTP_X_FORWARDED_FOR": "1"}
    _, _, _, fields = parse("GET / HTTP/1.1", "Host: a", "Content_Length: 5", "Transfer_Encoding: chunked")
    assert fields == {"HTTP_HOST": "a"}


def test_an_absolute_target_takes_the_place_of_host() -> None:
    method, target, version, fields = parse("GET http://b:80/c?d HTTP/1.1", "Host: a")
    assert (method, target, version) == ("GET", "http://b:80/c?d", "HTTP/1.1")
    assert fields == {"HTTP_HOST": "b:80"}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b", "/a?b"),
        ("//a", "//a"),
        ("*", ""),
        ("http://a", "/"),
        ("http://a?b", "/?b"),
        ("http://a/b/?c", "/b/?c"),
        ("HTTPS://a//b", "//b"),
        ("/http://a/b", "/http://a/b"),
    ],
)
def test_the_origin_form_of_a_target(target: str, path: str) -> None:
    assert origin_form(target) == path


def test_field_lines_are_all_lines_in_order_as_they_were_sent() -> None:
    assert field_lines(b"\r\nGET / HTTP/1.1\r\nX_A: 1\r\nHost:a\r\nx_a: \t2 ") == [
        ("X_A", "1"),
        ("Host", "a"),
        ("x_a", "2"),
    ]
    assert field_lines(b"GET / HTTP/1.0") == []


def test_a_client_that_invents_names_does_not_fill_the_memory() -> None:
    keys = FieldKeys()
    for number in range(2 * module.KNOWN_NAMES):
        assert keys[f"X-{number}"] == f"HTTP_X_{number}"
    assert len(keys) == module.KNOWN_NAMES
    assert keys["X-5000"] == "HTTP_X_5000"


def test_equal_lengths_become_one_for_the_application() -> None:
    fields = {"CONTENT_LENGTH": "5, 5"}
    assert framing("HTTP/1.1", fields, 10) == 5
    assert fields == {"CONTENT_LENGTH": "5"}


def test_framing() -> None:
    assert framing("HTTP/1.1", {}, 10) == 0
    assert framing("HTTP/1.1", {"HTTP_TRANSFER_ENCODING": "chunked"}, 10) == CHUNKED
    assert framing("HTTP/1.0", {"CONTENT_LENGTH": "10"}, 10) == 10


@pytest.mark.parametrize(
    ("version", "connection", "outlives"),
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.0", None, False),
        ("HTTP/1.1", "a,\tCLOSE", False),
        ("HTTP/1.0", "Keep-Alive", True),
        ("HTTP/1.0", "keep-alive, close", False),
    ],
)
def test_persistence(version: str, connection: str | None, outlives: bool) -> None:
    assert persistent(version, connection) is outlives


@pytest.mark.parametrize(
    ("version", "expect", "waits"),
    [
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "100-Continue", True),
        ("HTTP/1.1", "100-continue, 100-continue", True),
        ("HTTP/1.1", "", False),
        ("HTTP/1.0", "100-continue", False),
        ("HTTP/1.0", "something", False),
    ],
)
def test_expect(version: str, expect: str | None, waits: bool) -> None:
    assert expects_continue(version, expect) is waits


def test_hosts_are_remembered_within_bounds() -> None:
    assert valid_host("a")
    assert not valid_host("a b")
    assert valid_host.cache_info().maxsize is not None


@pytest.mark.parametrize("case", cases("refused"), ids=lambda case: case.name)
def test_each_refusal_gives_a_reason_that_a_person_understands(case: Case) -> None:
    """One sentence in plain words, printable, of bounded length."""
    reason = read([case.data], Options(**case.options)).reason
    assert reason[0].isupper() or reason[0] in "'\"["
    assert reason.rstrip(")")[-1] != " "
    assert reason.isprintable()
    assert " " in reason
    assert len(reason) < 300


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["GET / HTTP/1.1"], "needs a Host field"),
        (["GET / HTTP/1.1", "Host: a", "X : b"], "White space stands before the colon of 'X'"),
        (["GET / HTTP/1.1", "Host: a", "X: b", " c"], "folded lines are refused"),
        (["GET / HTTP/1.1", "Host: a", "what"], "'what' has no colon"),
        (["GET / HTTP/1.1", "Host: a", "X: a\0"], "control character, a bare CR or a bare LF stands in the field line"),
        (["GET /\n HTTP/1.1", "Host: a"], "stands in the request line"),
        (["GET /a#b HTTP/1.1", "Host: a"], "fragment"),
        (["GET / HTTP/3.0", "Host: a"], "HTTP/1.1 and HTTP/1.0, not HTTP/3.0"),
        (["G@T / HTTP/1.1", "Host: a"], "'G@T' is not a method"),
        (["GET / http/1.1", "Host: a"], "'http/1.1' is not an HTTP version"),
        (["GET /a b HTTP/1.1", "Host: a"], "one space between"),
        (["GET a HTTP/1.1", "Host: a"], "'a' is no target for GET"),
        (["GET / HTTP/1.1", "Host: a/b"], "'a/b' is not a valid Host"),
        (["GET / HTTP/1.1", "Host: a", *["X: y"] * 100], "100 field lines, the limit (field_count)"),
        (["GET / HTTP/1.1", "Host: a", "X: " + "y" * 9000], "8190 bytes, the limit (line_length)"),
        (["GET / HTTP/1.1", "Host: a", *["X: " + "y" * 8000] * 9], "65536 bytes, the limit (head_size)"),
        (["", "", "GET / HTTP/1.1"], "Two empty lines"),
    ],
)
def test_the_reason_names_what_is_wrong(lines: list[str], words: str) -> None:
    assert words in read([("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")]).reason


def test_a_head_is_refused_as_soon_as_it_can_not_become_valid() -> None:
    """Nobody waits ten seconds for the end of what is no head: a TLS hello, an old client's line, a NUL."""
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"GET /\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n",
        b"GET / HTTP/1.1\nHost",
        b"\0",
    ):
        with pytest.raises(ClientError):
            check_partial(data, 0, LIMITS)
    for data in (
        b"G",
        b"\r",
        b"\r\n",
        b"\r\nG",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    ):
        check_partial(data, 0, LIMITS)


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_the_limit_of_the_head_counts_neither_its_end_nor_an_empty_line_before_it(before: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 50
    for size, status in ((len(head), None), (len(head) - 1, 431)):
        limits = Options(head_size=size)
        data = before + head + b"\r\n\r\n"
        for pieces in ([data], [before + head, b"\r\n\r\n"], [bytes([octet]) for octet in data]):
            assert read(pieces, limits).status == status
