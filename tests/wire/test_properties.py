"""What holds for any bytes, in any pieces: properties of head, body and response, sought by hypothesis."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from microwsgi.errors import ApplicationError, ClientError, Disconnected
from microwsgi.options import Options
from tests.effort import examples
from tests.wire.cases import cases
from tests.wire.exchange import read
from tests.wire.subject import CHUNKED, Decoder, decoder, early_hints, raw_input, refusal, response

settings.register_profile("wire", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
WIRE = settings.get_profile("wire")

TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
tokens = strategies.text(TCHAR, min_size=1, max_size=12)
values = strategies.text(
    [chr(code) for code in range(256) if code == 9 or (code >= 32 and code != 127)], max_size=20
).map(lambda value: value.strip(" \t"))
framing_names = {"host", "content-length", "transfer-encoding", "connection", "expect"}
fields = strategies.tuples(tokens, values).filter(lambda pair: pair[0].lower() not in framing_names)
targets = strategies.text(strategies.sampled_from([chr(code) for code in range(33, 127) if chr(code) != "#"])).map(
    "/".__add__
)
extensions = strategies.sampled_from(["", ";a", ";a=b", ' ; a = "b;\\"c"', ";a;b=c"])
blanks = strategies.text(" \t", max_size=3)


@strategies.composite
def messages(draw: strategies.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A legal request's bytes, and what is to be read from them."""
    method = draw(tokens.filter(lambda method: method != "CONNECT"))
    target = draw(targets)
    lines = [("Host", "example.com"), *draw(strategies.lists(fields, max_size=5))]
    body, trailers = draw(strategies.binary(max_size=60)), []
    kind = draw(strategies.sampled_from(["none", "length", "chunks"]))
    content = b""
    if kind == "none":
        body = b""
    elif kind == "length":
        lines.append(("Content-Length", str(len(body))))
        content = body
    else:
        lines.append(("Transfer-Encoding", "chunked"))
        trailers = draw(strategies.lists(fields, max_size=3))
        rest = body
        while rest:
            size = draw(strategies.integers(1, len(rest)))
            content += f"{size:x}{draw(extensions)}\r\n".encode() + rest[:size] + b"\r\n"
            rest = rest[size:]
        content += f"0{draw(extensions)}\r\n".encode()
        content += "".join(f"{name}:{value}\r\n" for name, value in trailers).encode("latin-1") + b"\r\n"
    lines = draw(strategies.permutations(lines))
    head = f"{method} {target} HTTP/1.1\r\n"
    for name, value in lines:
        head += f"{name}:{draw(blanks)}{value}{draw(blanks)}\r\n"
    return head.encode("latin-1") + b"\r\n" + content, {
        "method": method,
        "target": target,
        "version": "HTTP/1.1",
        "fields": [list(pair) for pair in lines],
        "body": body.decode("latin-1"),
        "trailers": [list(pair) for pair in trailers],
        "persistent": True,
    }


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces; an empty one is no event of a socket."""
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


places = strategies.lists(strategies.integers(0, 10_000), max_size=8)


@given(stream=strategies.lists(messages(), min_size=1, max_size=4), places=places)
@settings(WIRE, max_examples=examples(150))
def test_legal_requests_are_read_as_they_were_written(
    stream: list[tuple[bytes, dict[str, Any]]], places: list[int]
) -> None:
    data = b"".join(message for message, _ in stream)
    outcome = read(cut(data, places))
    assert outcome.requests == [expected for _, expected in stream]
    assert (outcome.status, outcome.unread) == (None, b"")


ALL = [case.data for case in cases("accepted") + cases("refused") if len(case.data) < 500]


@strategies.composite
def damaged(draw: strategies.DrawFn) -> bytes:
    """A wire case with some octets replaced, left out or put in, perhaps with another behind it."""
    data = bytearray(draw(strategies.sampled_from(ALL)))
    for _ in range(draw(strategies.integers(0, 4))):
        place = draw(strategies.integers(0, len(data)))
        piece = draw(
            strategies.sampled_from(
                [b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\xff", b'"']
            )
        )
        data[place : place + draw(strategies.integers(0, 3))] = piece
    return bytes(data) + draw(strategies.sampled_from([b"", *ALL]))


SMALL = Options(max_line_size=60, max_header_size=150, max_header_count=3, max_body_size=20)


@given(
    data=damaged() | strategies.binary(max_size=200), places=places, limits=strategies.sampled_from([Options(), SMALL])
)
@settings(WIRE, max_examples=examples(1500))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2, [1], SMALL)
def test_the_outcome_of_any_bytes_does_not_depend_on_how_they_were_cut(
    data: bytes, places: list[int], limits: Options
) -> None:
    whole = read([data], limits)
    assert read(cut(data, places), limits)[:2] == whole[:2]
    assert read([bytes([octet]) for octet in data], limits)[:2] == whole[:2]


@given(data=damaged())
@settings(WIRE, max_examples=examples(500))
def test_no_refused_bytes_are_accepted_when_more_follows(data: bytes) -> None:
    outcome = read([data])
    if outcome.status is not None:
        longer = read([data + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
        assert longer[:2] == outcome[:2]


class BodyReads(RuleBasedStateMachine):
    """`wsgi.input`, read in any way from a client that sends in any pieces, gives what a file of the body would give."""

    @initialize(
        content=strategies.binary(max_size=3000).map(lambda content: content.replace(b"\xff", b"\n")),
        chunked=strategies.booleans(),
        sizes=strategies.lists(strategies.integers(1, 700), min_size=1, max_size=9),
        pieces=strategies.lists(strategies.integers(1, 900), min_size=1, max_size=9),
        ahead=strategies.integers(0, 500),
    )
    def send(self, content: bytes, chunked: bool, sizes: list[int], pieces: list[int], ahead: int) -> None:
        self.model = io.BytesIO(content)
        self.decoder: Decoder
        if chunked:
            self.decoder = decoder(CHUNKED)
            wire, start = b"", 0
            while start < len(content):
                size = sizes[start % len(sizes)]
                wire += b"%x;a=b\r\n%b\r\n" % (len(content[start : start + size]), content[start : start + size])
                start += size
            wire += b"0\r\nX-A: b\r\n\r\n"
        else:
            self.decoder, wire = decoder(len(content)), content
        self.wire = io.BytesIO(wire + b"NEXT")
        self.pieces = pieces
        self.chunked = chunked
        received = self.decoder.feed(self.wire.read(min(ahead, len(wire))))
        self.input = io.BufferedReader(raw_input(self.decoder, self.receive, received), 100)

    def receive(self, view: memoryview) -> int:
        size = self.pieces[self.wire.tell() % len(self.pieces)]
        data = self.wire.read(min(size, len(view)))
        assert data, "read beyond what was sent"
        view[: len(data)] = data
        return len(data)

    @rule(size=strategies.integers(0, 1500))
    def read(self, size: int) -> None:
        assert self.input.read(size) == self.model.read(size)

    @rule(size=strategies.integers(1, 1500))
    def readinto(self, size: int) -> None:
        ours, theirs = bytearray(size), bytearray(size)
        assert self.input.readinto(ours) == self.model.readinto(theirs)
        assert ours == theirs

    @rule(size=strategies.integers(1, 300))
    def read1(self, size: int) -> None:
        data = self.input.read1(size)
        assert data == self.model.read(len(data))
        assert data or not self.model.read(1)

    @rule(size=strategies.integers(-1, 200))
    def readline(self, size: int) -> None:
        assert self.input.readline(size) == self.model.readline(size)

    @rule(hint=strategies.integers(0, 500))
    def readlines(self, hint: int) -> None:
        assert self.input.readlines(hint) == self.model.readlines(hint)

    @rule()
    def iterate_once(self) -> None:
        assert next(self.input, b"") == next(self.model, b"")

    @precondition(lambda self: self.model.tell() == len(self.model.getvalue()))
    @rule()
    def end(self) -> None:
        assert self.input.read() == b""
        assert self.decoder.done
        assert (self.decoder.unused_data + self.wire.read()) == b"NEXT"
        self.wire.seek(0, io.SEEK_END)
        self.decoder.unused_data = b"NEXT"
        assert [*self.decoder.trailers] == ([("X-A", "b")] if self.chunked else [])

    @rule()
    def read_all(self) -> None:
        assert self.input.read() == self.model.read()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.input.readable()


TestBodyReads = BodyReads.TestCase
TestBodyReads.settings = settings(WIRE, max_examples=examples(150), stateful_step_count=12)


@given(content=strategies.binary(max_size=300), kept=strategies.integers(0, 400), chunked=strategies.booleans())
@settings(WIRE, max_examples=examples(200))
def test_a_body_cut_short_is_never_taken_for_a_whole_one(content: bytes, kept: int, chunked: bool) -> None:
    if chunked:
        wire = (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:90], content[90:]) if part)
            + b"0\r\n\r\n"
        )
        framed = decoder(CHUNKED)
    else:
        wire, framed = content, decoder(len(content))
    if kept >= len(wire):
        return
    sent = io.BytesIO(wire[:kept])
    body = io.BufferedReader(raw_input(framed, sent.readinto))
    with pytest.raises(Disconnected):
        body.read()


headers = strategies.lists(
    strategies.tuples(tokens | strategies.text(max_size=5), values | strategies.text(max_size=5)), max_size=4
)


@given(
    status=strategies.from_regex(r"[2-5][0-9]{2} [ -~]*", fullmatch=True) | strategies.text(max_size=12),
    headers=headers,
)
@settings(WIRE, max_examples=examples(800))
@example("200 OK", [("X", "a\r\nY: b")])
@example("200 OK\r\nX: y", [])
@example("200 OK", [("X", "a\nb")])
@example("200 OK", [("X\r\nY", "b")])
@example("205 Reset", [("Content-Length", "1")])
@example("204 No", [("Content-Length", "1"), ("X", "a")])
def test_what_passes_the_check_of_a_response_is_one_head_with_these_fields(
    status: str, headers: list[tuple[str, str]]
) -> None:
    """No status and no fields of an application add a line, end the head, or change another field."""
    try:
        head = response(status, headers)
    except ApplicationError:
        return
    raw = f"{head['line']}{head['fields']}\r\n".encode("latin-1")
    first, *others = raw.decode("latin-1").split("\r\n")
    assert raw.endswith(b"\r\n\r\n")
    assert first == f"HTTP/1.1 {status}"
    given_up = {"204": [], "205": ["Content-Length: 0"]}.get(status[:3])  # their length is not the application's
    kept = [pair for pair in headers if given_up is None or pair[0].lower() != "content-length"]
    assert others[:-2] == [*(given_up or []), *(f"{name}: {value}" for name, value in kept)]
    assert not set(raw.replace(b"\r\n", b"")) & {0, 10, 13}


@given(text=strategies.text())
@settings(WIRE, max_examples=examples(200))
def test_a_refusal_is_one_message_whatever_it_quotes(text: str) -> None:
    raw = refusal(ClientError(text), "Date: now\r\n")
    head, _, content = raw.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
    assert lengths == [b"Content-Length: %d" % len(content)]
    assert b"Connection: close" in head.split(b"\r\n")
    assert refusal(ClientError(text), "Date: now\r\n", bodiless=True) == head + b"\r\n\r\n"


@given(headers=headers)
@settings(WIRE, max_examples=examples(200))
def test_early_hints_are_one_interim_response(headers: list[tuple[str, str]]) -> None:
    try:
        raw = early_hints(headers)
    except ApplicationError:
        return
    assert raw.startswith(b"HTTP/1.1 103 ")
    assert raw.index(b"\r\n\r\n") == len(raw) - 4
