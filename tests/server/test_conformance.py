"""57 rules of RFC 9110 and 9112 over real sockets, the same that docs/conformance.md compares servers by; and some more.

The first 57 tests have the numbers of that table. Wire cases go through every spelling of a rule; here each stands once.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.server import ThreadingHTTPServer
from typing import Any, Self

import pytest

from microwsgi import WSGIRequestHandler
from microwsgi.options import Options
from tests.server.exchange import Response, Running, parse, receive, receive_until
from tests.server.test_entrances import ENTRANCES, serving
from tests.server.test_other_systems import select_poller

StartResponse = Callable[..., Any]

HELLO = b"hello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def application(environ: Any, start_response: StartResponse) -> Iterable[bytes]:
    """What the tests ask for by the path."""
    path = environ["PATH_INFO"]
    if path in {"/ignore", "/forbidden"}:  # without a look at the body
        start_response("200 OK" if path == "/ignore" else "403 Forbidden", [])
        return [HELLO]
    if path in {"/stream", "/length"}:
        start_response("200 OK", [("Content-Length", "5")] * (path == "/length"))
        return (piece for piece in (b"hel", b"lo"))
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    if path == "/stubborn":  # begins to answer, and takes whatever happens to the body after that as its end
        start_response("200 OK", [])(HELLO)
        try:
            environ["wsgi.input"].read()
        except Exception as error:
            return [type(error).__name__.encode()]
        return []
    if re.match("/[0-9]{3}", path):
        start_response(f"{path[1:4]} Status", [("Content-Length", path[5:])] if path[5:] else [])
        return [HELLO]
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    texts = {key: value for key, value in environ.items() if isinstance(value, str)}
    texts["socket"] = "taken over" if "werkzeug.socket" in environ else ""
    return [json.dumps({**texts, "body": body.decode("latin-1")}).encode()]


class Foreign(Running):
    """The application on one of http.server's servers."""

    def __init__(self, entrance: str) -> None:
        self.entrance = entrance
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.address = self.stack.enter_context(serving(self.entrance, application, Options()))
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()


OTHERS = [pytest.param(each, marks=[pytest.mark.slow] * ("Threading" not in each)) for each in ENTRANCES]


@pytest.fixture(scope="module", params=["microwsgi", "microwsgi with select()", *OTHERS])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Every entrance."""
    if request.param in ENTRANCES:
        running: Running = Foreign(request.param)
    else:
        running = Running(application, arguments={"poller": select_poller} if "select" in request.param else None)
    with running:
        yield running


NOT_KEPT = {
    "test_04_garbage_is_refused_at_once": "http.server waits for the end of a line",
    "test_11_a_target_that_is_too_long_is_a_414": "http.server answers the 414 itself beyond 65,536 octets",
    "test_no_100_is_sent_when_the_body_is_here_already": "the body may be in a buffer of the handler's file",
}
"""The tests that `wsgi(app)` in somebody's handler class can't pass; none is a MUST. Its docstring says so."""


@pytest.fixture(autouse=True)
def expect_what_is_not_kept(request: pytest.FixtureRequest) -> None:
    """Expect these failures, and no others: one that passes is a failure, too."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    name = getattr(request.node, "originalname", "")
    if str(parameters.get("server", "")).startswith("wsgi(app)") and name in NOT_KEPT:
        request.applymarker(pytest.mark.xfail(strict=True, reason=NOT_KEPT[name]))


def post(*lines: str, target: str = "/", version: str = "HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([f"POST {target} {version}", "Host: a", *lines, "", ""]).encode("latin-1") + body


def refused(responses: list[Response], status: int = 400) -> bool:
    """One refusal that says why, after which the server closes; and nothing else."""
    (response,) = responses
    sentence = response.body.decode().splitlines()[2]
    assert re.fullmatch(r".+[.?)]", sentence), sentence
    return response.status == status and response.field("Connection") == "close" and response.whole


# --- The 57 -----------------------------------------------------------------------------------------------------------


def test_01_a_leading_empty_line_is_ignored(server: Running) -> None:
    (response,) = server.send(b"\r\n" + GET)
    assert response.status == 200


def test_02_a_bare_cr_in_a_field_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"))


def test_03_whitespace_before_the_first_field_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"))


def test_04_garbage_is_refused_at_once(server: Running) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)  # how TLS begins; it never ends a line
    assert refused(server.send(hello, half_close=False))


def test_05_the_name_of_the_version_is_upper_case(server: Running) -> None:
    assert refused(server.send(b"GET / http/1.1\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize("version", [b"HTTP/1.10", b"HTTP/01.1"])
def test_06_a_version_is_two_digits(version: bytes, server: Running) -> None:
    assert refused(server.send(b"GET / " + version + b"\r\nHost: a\r\n\r\n"))


def test_07_another_version_is_a_505(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505)


def test_08_the_simple_request_of_http_0_9_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET /\r\n", half_close=False))


def test_09_a_space_within_the_target_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"))


def test_10_a_request_line_of_8000_octets_works(server: Running) -> None:
    (response,) = server.send(b"GET /" + b"a" * 7986 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert response.status == 200


def test_11_a_target_that_is_too_long_is_a_414(server: Running) -> None:
    assert refused(server.send(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"), 414)


def test_12_fields_that_are_too_large_are_a_431(server: Running) -> None:
    assert refused(
        server.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 190 + b"\r\n"), 431
    )


def test_13_fields_that_are_too_many_are_a_431(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"), 431)


def test_14_http_1_1_needs_a_host(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\n\r\n"))


def test_15_two_hosts_are_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize("host", [b"a/b", b"user@h", b"a b"])
def test_16_an_invalid_host_is_refused(host: bytes, server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))


def test_17_the_absolute_form_is_accepted(server: Running) -> None:
    response = server.get("http://b:80/c?d")
    environ = json.loads(response.body)
    assert (response.status, environ["PATH_INFO"], environ["QUERY_STRING"]) == (200, "/c", "d")


def test_18_the_authority_of_the_absolute_form_takes_the_place_of_host(server: Running) -> None:
    assert json.loads(server.get("http://b:80/c").body)["HTTP_HOST"] == "b:80"


def test_19_options_of_the_whole_server_is_accepted(server: Running) -> None:
    response = server.get("*", method="OPTIONS")
    environ = json.loads(response.body)
    assert (response.status, environ["PATH_INFO"], environ["REQUEST_URI"]) == (200, "", "*")


def test_20_the_asterisk_is_for_options_only(server: Running) -> None:
    assert refused(server.send(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"))


def test_21_whitespace_before_the_colon_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"))


@pytest.mark.parametrize("name", [b"", b"X(", b"\xe9"])
def test_22_a_field_name_is_a_token(name: bytes, server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": b\r\n\r\n"))


def test_23_a_field_line_has_a_colon(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\ngarbage\r\n\r\n"))


def test_24_a_folded_line_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"))


def test_25_nul_in_a_field_is_refused(server: Running) -> None:
    assert refused(server.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n"))


@pytest.mark.parametrize("length", ["+5", "5x"])
def test_26_a_length_is_digits(length: str, server: Running) -> None:
    assert refused(server.send(post(f"Content-Length: {length}", body=HELLO)))


def test_27_two_differing_lengths_are_refused(server: Running) -> None:
    assert refused(server.send(post("Content-Length: 5", "Content-Length: 6", body=HELLO + b"!")))


def test_28_equal_lengths_are_one(server: Running) -> None:
    (response,) = server.send(post("Content-Length: 5, 5", body=HELLO))
    environ = json.loads(response.body)
    assert (environ["CONTENT_LENGTH"], environ["body"]) == ("5", "hello")


def test_29_both_framing_fields_are_refused(server: Running) -> None:
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    assert refused(server.send(post("Content-Length: 15", "Transfer-Encoding: chunked", body=chunks) + GET))


def test_30_http_1_0_has_no_transfer_coding(server: Running) -> None:
    assert refused(server.send(post("Transfer-Encoding: chunked", version="HTTP/1.0", body=b"0\r\n\r\n") + GET))


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "chunked, chunked"])
def test_31_chunked_is_the_last_coding(coding: str, server: Running) -> None:
    assert refused(server.send(post(f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n") + GET))


def test_32_another_coding_is_a_501(server: Running) -> None:
    assert refused(server.send(post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n") + GET), 501)


def test_33_chunks_are_decoded(server: Running) -> None:
    chunks = b'5;a="b;c"\r\nhello\r\n6 ; d\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n'
    first, second = server.send(post("Transfer-Encoding: chunked", body=chunks) + GET)
    assert json.loads(first.body)["body"] == "hello world"
    assert second.status == 200


@pytest.mark.parametrize("size", [b"0x5", b"+5", b"5_0"])
def test_34_the_size_of_a_chunk_is_digits(size: bytes, server: Running) -> None:
    assert refused(server.send(post("Transfer-Encoding: chunked", body=size + b"\r\nhello\r\n0\r\n\r\n") + GET))


def test_35_a_huge_chunk_overflows_nothing(server: Running) -> None:
    assert refused(server.send(post("Transfer-Encoding: chunked", body=b"f" * 18 + b"\r\nhello\r\n0\r\n\r\n") + GET))
    assert refused(
        server.send(post("Transfer-Encoding: chunked", body=b"f" * 16 + b"\r\nhello\r\n0\r\n\r\n") + GET), 413
    )


def test_36_crlf_follows_the_data_of_a_chunk(server: Running) -> None:
    assert refused(server.send(post("Transfer-Encoding: chunked", body=b"5\r\nhelloX\r\n0\r\n\r\n") + GET))


@pytest.mark.parametrize("size", [6, 100_000])
def test_37_a_body_cut_short_is_no_success(size: int, server: Running) -> None:
    responses = server.send(post(f"Content-Length: {size}", body=HELLO))
    assert [response.status for response in responses if response.status < 400] == []


@pytest.mark.parametrize("size", [5, 100_000, 10_000_000])
def test_38_an_unread_body_is_never_the_next_request(size: int, server: Running) -> None:
    body = GET.replace(b"/", b"/evil") * (size // len(GET) + 1)
    responses = server.send(post(f"Content-Length: {size}", target="/ignore", body=body[:size]) + GET)
    assert responses[0].body == HELLO
    if len(responses) == 2:
        assert json.loads(responses[1].body)["PATH_INFO"] == "/"
    else:
        assert responses[0].field("Connection") == "close"


def test_39_http_1_1_persists(server: Running) -> None:
    first, second = server.send(GET, GET)
    assert (first.status, second.status) == (200, 200)
    assert first.field("Connection") is None


def test_40_nothing_is_processed_after_close(server: Running) -> None:
    responses = server.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    assert len(responses) == 1


def test_41_close_is_announced(server: Running) -> None:
    assert server.get("/").field("Connection") == "close"
    (response,) = server.send(b"GET / HTTP/1.0\r\n\r\n")
    assert response.field("Connection") == "close"


def test_42_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    stream = b"".join(b"GET /%b%d HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * (number % 3), number) for number in range(40))
    paths = [json.loads(response.body)["PATH_INFO"] for response in server.send(stream)]
    assert paths == [f"/{'a' * (number % 3)}{number}" for number in range(40)]


def test_43_http_1_0_gets_no_transfer_coding(server: Running) -> None:
    (response,) = server.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert response.field("Transfer-Encoding") is None
    assert (response.body, response.field("Connection")) == (HELLO, "close")


def test_44_a_body_of_unknown_length_is_chunked(server: Running) -> None:
    response, _ = server.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    assert (response.field("Transfer-Encoding"), response.body, response.whole) == ("chunked", HELLO, True)
    assert response.field("Content-Length") is None


@pytest.mark.parametrize("path", ["/", "/204", "/304", "/404"])
def test_45_responses_have_a_date(path: str, server: Running) -> None:
    date = server.get(path).field("Date")
    assert date is not None
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)
    age = datetime.now(UTC) - parsedate_to_datetime(date)
    assert abs(age.total_seconds()) < 5


def test_46_refusals_have_a_date(server: Running) -> None:
    (response,) = server.send(b"garbage\r\n\r\n")
    assert response.field("Date")


@pytest.mark.parametrize("path", ["/ignore", "/stream", "/length", "/404", "/500"])
def test_47_head_has_no_content(path: str, server: Running) -> None:
    request = f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    responses = server.send(request + request + GET, methods=["HEAD", "HEAD"])
    assert len(responses) == 3
    assert responses[2].status == 200


@pytest.mark.parametrize("path", ["/ignore", "/stream", "/length"])
def test_48_the_length_of_head_is_that_of_get(path: str, server: Running) -> None:
    length = server.get(path, method="HEAD").field("Content-Length")
    assert length in {None, server.get(path).field("Content-Length")}


@pytest.mark.parametrize("path", ["/204", "/204/5", "/204/0"])
def test_49_a_204_has_no_length_and_no_coding(path: str, server: Running) -> None:
    response, following = server.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + GET)
    assert (response.status, following.status) == (204, 200)
    assert response.field("Content-Length") is None
    assert response.field("Transfer-Encoding") is None


@pytest.mark.parametrize("path", ["/304", "/304/5"])
def test_50_a_304_has_no_content(path: str, server: Running) -> None:
    response, following = server.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + GET)
    assert (response.status, following.status) == (304, 200)


def test_51_a_client_that_waits_for_100_gets_it(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("Expect: 100-continue", "Content-Length: 5", "Connection: close"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(HELLO)
        assert b'"body": "hello"' in receive(connection)


def test_52_http_1_0_gets_no_100(server: Running) -> None:
    (response,) = server.send(post("Expect: 100-continue", "Content-Length: 5", version="HTTP/1.0", body=HELLO))
    assert (response.status, response.interim) == (200, [])


def test_53_one_final_response_follows_a_100(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("Expect: 100-continue", "Content-Length: 100000"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x" * 50_000)
        connection.sendall(b"x" * 50_000)
        connection.shutdown(socket.SHUT_WR)
        data = receive(connection)
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert data.count(b"HTTP/1.1 200") == 1
        assert b"100 Continue" not in data


def test_54_an_unknown_method_reaches_the_application(server: Running) -> None:
    assert json.loads(server.get("/", method="BREW").body)["REQUEST_METHOD"] == "BREW"


def test_55_methods_are_case_sensitive(server: Running) -> None:
    assert json.loads(server.get("/", method="get").body)["REQUEST_METHOD"] == "get"


def test_56_an_upgrade_that_nobody_takes_is_ignored(server: Running) -> None:
    lines = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    first, second = server.send(GET.replace(b"\r\n\r\n", lines) + GET)
    assert (first.status, second.status) == (200, 200)


def test_57_names_with_an_underscore_can_not_take_the_place_of_others(server: Running) -> None:
    environ = json.loads(server.get("/", "X-Y: right", "X_Y: wrong", "Content_Length: 5").body)
    assert environ["HTTP_X_Y"] == "right"
    assert "CONTENT_LENGTH" not in environ


# --- And some more ----------------------------------------------------------------------------------------------------


def test_a_refusal_of_head_has_no_content(server: Running) -> None:
    """RFC 9110 9.3.2, also where it is the head that is wrong."""
    for data in (
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"\r\nHEAD / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nX : a\r\n",
    ):
        with server.connect() as connection:
            answer = server.talk(connection, data)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n")


def test_an_https_uri_in_the_clear_is_misdirected(server: Running) -> None:
    """RFC 9110 7.4: a request for an https resource over an unsecured connection MUST be rejected."""
    assert refused(server.send(b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 421)


def test_a_205_has_no_content(server: Running) -> None:
    """RFC 9110 15.3.6."""
    for request in (b"GET /205 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /205/5 HTTP/1.1\r\nHost: a\r\n\r\n"):
        response, following = server.send(request + GET)
        assert (response.status, response.body, following.status) == (205, b"", 200)


def test_early_hints_go_to_http_1_1_only(server: Running) -> None:
    """RFC 9110 15.2: no 1xx to an HTTP/1.0 client."""
    assert server.get("/hints").interim == [103]
    (response,) = server.send(b"GET /hints HTTP/1.0\r\n\r\n")
    assert (response.status, response.interim) == (200, [])


def test_an_upgrade_of_http_1_0_can_not_be_taken(server: Running) -> None:
    """RFC 9110 7.8: a server MUST ignore Upgrade in an HTTP/1.0 request."""
    request = "GET / {}\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    offers = []
    for version in ("HTTP/1.1", "HTTP/1.0"):
        (response,) = server.send(request.format(version).encode())
        offers.append(json.loads(response.body)["socket"])
    assert offers == ["taken over", ""]


def test_a_client_that_waits_for_100_may_get_a_final_response_instead(server: Running) -> None:
    """RFC 9110 10.1.1; without the body the connection can't be used on, since the client may send it or not."""
    (response,) = server.send(post("Expect: 100-continue", "Content-Length: 5", target="/forbidden"), half_close=False)
    assert (response.status, response.interim, response.field("Connection")) == (403, [], "close")


def test_no_100_is_sent_when_the_body_is_here_already(server: Running) -> None:
    """RFC 9110 10.1.1: MAY omit it."""
    (response,) = server.send(post("Expect: 100-continue", "Content-Length: 5", body=HELLO))
    assert (response.status, response.interim) == (200, [])


def test_another_expectation_is_a_417(server: Running) -> None:
    assert refused(server.send(post("Expect: something", "Content-Length: 5", body=HELLO) + GET), 417)
    assert refused(server.send(GET.replace(b"\r\n\r\n", b"\r\nExpect: something\r\n\r\n") + GET), 417)


def test_a_half_closed_connection_still_gets_its_responses(server: Running) -> None:
    """RFC 9112 9.6: the end of what a client sends is no end of its interest."""
    assert len(server.send(GET * 3, half_close=True)) == 3


def test_http_1_0_persists_when_asked_to(server: Running) -> None:
    request = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    first, second = server.send(request + request)
    assert first.field("Connection") == second.field("Connection") == "keep-alive"


def test_a_refusal_reaches_a_client_that_goes_on_sending(server: Running) -> None:
    """RFC 9112 9.6: closed at once, the kernel would reset the connection, and the client might never see why."""
    body = b"x" * 3_000_000
    (response,) = server.send(post(f"Content-Length: {1 << 31}"), body)
    assert response.status == 413


def test_a_body_that_nobody_reads_does_not_keep_the_response_from_the_client(server: Running) -> None:
    size = 20_000_000
    responses = server.send(post(f"Content-Length: {size}", target="/ignore"), b"x" * size)
    assert [response.body for response in responses] == [HELLO]


LARGE = b"%x\r\n%b\r\n" % (40_000, b"x" * 40_000)
"""The beginning of a chunked body."""


def test_bad_chunks_are_a_400_before_the_application_is_called(server: Running) -> None:
    start = post("Transfer-Encoding: chunked", target="/ignore", body=LARGE)
    assert refused(server.send(start, b"what\r\n", b"0\r\n\r\n" + GET))


def test_bad_chunks_behind_a_response_end_the_connection_without_another() -> None:
    """The application did not read the body, and its response has left: a refusal would be taken for the next one."""
    start = post("Transfer-Encoding: chunked", target="/ignore", body=LARGE)
    with Running(application, stream_chunked=True) as server, server.connect() as connection:
        connection.sendall(start)
        data = receive_until(connection, HELLO)
        data += server.talk(connection, b"what\r\n", b"0\r\n\r\n" + GET)
    responses = parse(data)
    assert [response.status for response in responses] == [200]


def test_what_follows_bad_chunks_is_never_a_request() -> None:
    """Not even when the application takes the error for the end of the body, and answers as if nothing had been."""
    with Running(application, stream_chunked=True) as server, server.connect() as connection:
        connection.sendall(post("Transfer-Encoding: chunked", target="/stubborn", body=LARGE + b"what\r\n"))
        data = b""
        while b"ClientError" not in data:
            data += connection.recv(1000)
        data += server.talk(connection, b"0\r\n\r\n" + GET)
    assert data.count(b"HTTP/1.1 ") == 1


def test_trailers_are_never_fields(server: Running) -> None:
    """RFC 9110 6.5.1."""
    chunks = b"0\r\nHost: evil\r\nX-A: evil\r\nContent-Length: 9\r\n\r\n"
    (response,) = server.send(post("X-A: good", "Transfer-Encoding: chunked", body=chunks))
    environ = json.loads(response.body)
    assert (environ["HTTP_HOST"], environ["HTTP_X_A"]) == ("a", "good")
    assert environ["CONTENT_LENGTH"] == "0", "RFC 3875 4.2: of the data, and not the field of the trailer"


def test_an_http_1_0_client_is_answered_as_http_1_1(server: Running) -> None:
    """RFC 9110 2.5: a server sends the highest version that it conforms to, within the major version of the request."""
    (response,) = server.send(b"GET / HTTP/1.0\r\n\r\n")
    assert response.status == 200  # parse has looked at the version


def test_requests_are_read_the_same_under_http_servers_own_servers() -> None:
    """The handler is the same; a smaller sample is enough to see that nothing of http.server's reading is left."""
    with ThreadingHTTPServer(("127.0.0.1", 0), WSGIRequestHandler.of(application)) as plain:
        thread = threading.Thread(target=plain.serve_forever, args=(0.01,))
        thread.start()
        try:
            for data, start in (
                (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
                (GET + GET, b"HTTP/1.1 200 "),
                (b"GET /\r\n\r\n", b"HTTP/1.1 400 "),
            ):
                with socket.create_connection(("127.0.0.1", plain.server_port), 10) as connection:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    assert receive(connection).startswith(start)
        finally:
            plain.shutdown()
            thread.join(10)
