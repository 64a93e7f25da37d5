"""microwsgi/wire/body.py: decoders that are fed bytes, and the file that an application reads."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from microwsgi.errors import ClientError, Disconnected, FieldsTooLarge
from microwsgi.options import Options
from microwsgi.wire.body import EXTENSIONS, Body, ChunkedDecoder, Decoder, LengthDecoder, decoder
from microwsgi.wire.head import CHUNKED

LIMITS = Options()


def sending(*pieces: bytes) -> Callable[[memoryview], int]:
    """A client that sends these pieces, and then leaves."""
    left = list(pieces)

    def receive(view: memoryview) -> int:
        if not left:
            return 0
        piece = left.pop(0)
        if len(piece) > len(view):
            left.insert(0, piece[len(view) :])
        count = min(len(piece), len(view))
        view[:count] = piece[:count]
        return count

    return receive


def test_the_decoder_is_the_one_for_the_framing() -> None:
    assert isinstance(decoder(CHUNKED, LIMITS), ChunkedDecoder)
    assert isinstance(decoder(5, LIMITS), LengthDecoder)
    assert decoder(0, LIMITS).done


def test_what_follows_a_body_of_known_length_is_the_rest() -> None:
    body = LengthDecoder(5)
    assert (body.feed(b"hel"), body.rest, body.done) == (b"hel", b"", False)
    assert (body.feed(b"loGET /"), body.rest, body.done) == (b"lo", b"GET /", True)
    assert body.trailers == []


def test_what_follows_the_last_chunk_is_the_rest() -> None:
    body = ChunkedDecoder(LIMITS)
    assert (body.feed(b"5\r\nhel"), body.remaining, body.done) == (b"hel", 2, False)
    assert (body.feed(b"lo\r\n0\r\nA:b\r\n\r\nGET /"), body.rest, body.done) == (b"lo", b"GET /", True)
    assert body.trailers == [("A", "b")]


def test_a_decoder_that_failed_says_so() -> None:
    """Nobody may take what follows bytes that were not understood for a request."""
    body = ChunkedDecoder(LIMITS)
    assert not body.failed
    with pytest.raises(ClientError):
        body.feed(b"x\r\n")
    assert body.failed
    assert not body.done
    with pytest.raises(ClientError, match="behind a part that is not valid"):
        body.feed(b"0\r\n\r\n")
    assert not LengthDecoder(3).failed


def test_the_extensions_of_a_body_are_limited_in_their_sum() -> None:
    chunk = b"1;a=" + b"b" * 1020 + b"\r\nx\r\n"
    body = ChunkedDecoder(LIMITS)
    body.feed(chunk * 16)
    with pytest.raises(ClientError, match=f"more than {EXTENSIONS} bytes"):
        body.feed(chunk)


def test_extensions_that_come_with_as_much_data_are_not_limited() -> None:
    """A signature with each chunk of a long upload is no attack."""
    chunk = b"80;a=" + b"b" * 100 + b"\r\n" + b"x" * 128 + b"\r\n"
    body = ChunkedDecoder(LIMITS)
    for _ in range(1000):
        body.feed(chunk)
    assert body.extensions > 6 * EXTENSIONS


def test_chunks_are_refused_as_soon_as_they_can_not_become_valid() -> None:
    """Nobody waits for the end of a line that has none."""
    for data in (b"5\r\nhelloX", b"5\r\nhello\n", b"5\n", b"\0", b"5;a=" + b"b" * 9000, b"0\r\nA: " + b"b" * 9000):
        with pytest.raises(ClientError):
            ChunkedDecoder(LIMITS).feed(data)
    for data in (b"5\r\nhello\r", b"5\r", b"5;a=" + b"b" * 8000, b"0\r\nA: b\r"):
        assert not ChunkedDecoder(LIMITS).feed(data).strip(b"hello")


def test_trailers_are_limited_like_fields() -> None:
    body = ChunkedDecoder(Options(field_count=2))
    body.feed(b"0\r\nA: 1\r\nB: 2\r\n")
    with pytest.raises(FieldsTooLarge):
        body.feed(b"C: 3\r\n")
    body = ChunkedDecoder(Options(head_size=10))
    with pytest.raises(FieldsTooLarge):
        body.feed(b"0\r\nA: 123\r\nB: 456\r\n")


def test_reading_ends_where_the_body_ends() -> None:
    for framed, wire in ((LengthDecoder(5), b"hello"), (ChunkedDecoder(LIMITS), b"5\r\nhello\r\n0\r\n\r\n")):
        body = io.BufferedReader(Body(framed, sending(wire), b""))
        assert body.read() == b"hello"
        assert body.read() == b""
        assert body.readline() == b""


def test_what_was_received_with_the_head_comes_first() -> None:
    framed = LengthDecoder(10)
    body = io.BufferedReader(Body(framed, sending(b"world"), framed.feed(b"hello")))
    assert body.readable()
    assert body.read(3) == b"hel"
    assert body.read(100) == b"loworld"


def test_a_body_is_never_read_beyond_its_end() -> None:
    """What is behind it belongs to the next request."""
    framed = LengthDecoder(5)
    body = io.BufferedReader(Body(framed, sending(b"hello", b"GET / HTTP/1.1"), b""))
    assert body.read() == b"hello"
    assert framed.rest == b""
    chunks = ChunkedDecoder(LIMITS)
    body = io.BufferedReader(Body(chunks, sending(b"5\r\nhello\r\n0\r\n\r\nGET /"), b""))
    assert body.read() == b"hello"
    assert chunks.rest == b"GET /"


@pytest.mark.parametrize("framed", [LengthDecoder(6), ChunkedDecoder(LIMITS)], ids=["length", "chunks"])
def test_a_client_that_leaves_is_an_error_and_no_end(framed: Decoder) -> None:
    sent = b"5\r\nhello" if isinstance(framed, ChunkedDecoder) else b"hello"
    body = io.BufferedReader(Body(framed, sending(sent), b""))
    with pytest.raises(Disconnected):
        body.read()
    with pytest.raises(ConnectionError):  # what applications know from sockets
        body.read()


def test_bad_chunks_are_an_error_where_the_application_reads() -> None:
    body = io.BufferedReader(Body(ChunkedDecoder(LIMITS), sending(b"5\r\nhello\r\n0x5\r\n"), b""))
    with pytest.raises(ClientError):
        body.read()


def test_lines_are_found_over_chunks() -> None:
    wire = b"3\r\none\r\n6\r\n\ntwo\nt\r\n4\r\nhree\r\n0\r\n\r\n"
    body = io.BufferedReader(Body(ChunkedDecoder(LIMITS), sending(*(bytes([octet]) for octet in wire)), b""))
    assert list(body) == [b"one\n", b"two\n", b"three"]


def test_a_large_chunk_goes_straight_into_the_readers_buffer() -> None:
    """No copy through a decoder: the receiving function gets the very buffer that the application gave."""
    framed = ChunkedDecoder(LIMITS)
    framed.feed(b"ffff\r\n")
    seen = []

    def receive(view: memoryview) -> int:
        seen.append(len(view))
        return len(view)

    body = Body(framed, receive, b"")
    assert body.readinto(bytearray(60_000)) == 60_000
    assert body.readinto(bytearray(60_000)) == 0xFFFF - 60_000
    assert seen == [60_000, 0xFFFF - 60_000]
    assert framed.remaining == 0


def test_a_buffer_of_no_bytes_is_filled_at_once() -> None:
    framed = LengthDecoder(5)
    assert Body(framed, sending(b"hello"), framed.feed(b"h")).readinto(bytearray(0)) == 0
