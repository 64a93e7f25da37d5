"""Request bodies: decoders that are fed bytes, and the file that an application reads."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from microwsgi.errors import ClientError, Disconnected, FieldsTooLarge
from microwsgi.options import Options
from tests.tables import Rows
from tests.wire.subject import CHUNKED, EXTENSION_LIMIT, decoder, raw_input


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
    assert decoder(CHUNKED).feed(b"1\r\na\r\n") == b"a"
    assert decoder(5).feed(b"1\r\na\r\n") == b"1\r\na\r"
    assert decoder(0).done
    assert not decoder(CHUNKED).done


def test_what_follows_a_body_of_known_length_is_the_rest() -> None:
    body = decoder(5)
    assert (body.feed(b"hel"), body.unused_data, body.done) == (b"hel", b"", False)
    assert (body.feed(b"loGET /"), body.unused_data, body.done) == (b"lo", b"GET /", True)
    assert not body.trailers


def test_what_follows_the_last_chunk_is_the_rest() -> None:
    body = decoder(CHUNKED)
    assert (body.feed(b"5\r\nhel"), body.remaining, body.done) == (b"hel", 2, False)
    assert (body.feed(b"lo\r\n0\r\nA:b\r\n\r\nGET /"), body.unused_data, body.done) == (b"lo", b"GET /", True)
    assert body.trailers == [("A", "b")]


def test_a_decoder_that_failed_says_so() -> None:
    """Nobody may take what follows bytes that were not understood for a request."""
    body = decoder(CHUNKED)
    assert not body.failed
    with pytest.raises(ClientError):
        body.feed(b"x\r\n")
    assert body.failed
    assert not body.done
    with pytest.raises(ClientError, match="can't be read further"):
        body.feed(b"0\r\n\r\n")
    assert not decoder(3).failed


def test_the_extensions_of_a_body_are_limited_in_their_sum() -> None:
    chunk = b"1;a=" + b"b" * 1020 + b"\r\nx\r\n"
    body = decoder(CHUNKED)
    body.feed(chunk * 16)
    with pytest.raises(ClientError, match=f"more than {EXTENSION_LIMIT} bytes"):
        body.feed(chunk)


def test_extensions_that_come_with_as_much_data_are_not_limited() -> None:
    """A signature with each chunk of a long upload is no attack."""
    chunk = b"80;a=" + b"b" * 100 + b"\r\n" + b"x" * 128 + b"\r\n"
    body = decoder(CHUNKED)
    for _ in range(1000):
        body.feed(chunk)
    assert 1000 * chunk.index(b"\r") > 6 * EXTENSION_LIMIT


def test_chunks_are_refused_as_soon_as_they_can_not_become_valid() -> None:
    """Nobody waits for the end of a line that has none."""
    with Rows() as rows:
        for data in (b"5\r\nhelloX", b"5\r\nhello\n", b"5\n", b"\0", b"5;a=" + b"b" * 9000, b"0\r\nA: " + b"b" * 9000):
            with rows("refused", data[:20]), pytest.raises(ClientError):
                decoder(CHUNKED).feed(data)
        for data in (b"5\r\nhello\r", b"5\r", b"5;a=" + b"b" * 8000, b"0\r\nA: b\r"):
            with rows("not yet refused", data[:20]):
                assert not decoder(CHUNKED).feed(data).strip(b"hello")


def test_trailers_are_limited_like_fields() -> None:
    body = decoder(CHUNKED, Options(max_header_count=2))
    body.feed(b"0\r\nA: 1\r\nB: 2\r\n")
    with pytest.raises(FieldsTooLarge):
        body.feed(b"C: 3\r\n")
    body = decoder(CHUNKED, Options(max_header_size=10))
    with pytest.raises(FieldsTooLarge):
        body.feed(b"0\r\nA: 123\r\nB: 456\r\n")


def test_reading_ends_where_the_body_ends() -> None:
    for framed, wire in ((decoder(5), b"hello"), (decoder(CHUNKED), b"5\r\nhello\r\n0\r\n\r\n")):
        body = io.BufferedReader(raw_input(framed, sending(wire)))
        assert body.read() == b"hello"
        assert body.read() == b""
        assert body.readline() == b""


def test_what_was_received_with_the_head_comes_first() -> None:
    framed = decoder(10)
    body = io.BufferedReader(raw_input(framed, sending(b"world"), framed.feed(b"hello")))
    assert body.readable()
    assert body.read(3) == b"hel"
    assert body.read(100) == b"loworld"


def test_a_body_is_never_read_beyond_its_end() -> None:
    """What is behind it belongs to the next request."""
    framed = decoder(5)
    body = io.BufferedReader(raw_input(framed, sending(b"hello", b"GET / HTTP/1.1")))
    assert body.read() == b"hello"
    assert framed.unused_data == b""
    chunks = decoder(CHUNKED)
    body = io.BufferedReader(raw_input(chunks, sending(b"5\r\nhello\r\n0\r\n\r\nGET /")))
    assert body.read() == b"hello"
    assert chunks.unused_data == b"GET /"


def test_a_client_that_leaves_is_an_error_and_no_end() -> None:
    with Rows() as rows:
        for length, sent in ((6, b"hello"), (CHUNKED, b"5\r\nhello")):
            with rows("length", length):
                body = io.BufferedReader(raw_input(decoder(length), sending(sent)))
                with pytest.raises(Disconnected):
                    body.read()
                with pytest.raises(ConnectionError):  # what applications know from sockets
                    body.read()


def test_bad_chunks_are_an_error_where_the_application_reads() -> None:
    body = io.BufferedReader(raw_input(decoder(CHUNKED), sending(b"5\r\nhello\r\n0x5\r\n")))
    with pytest.raises(ClientError):
        body.read()


def test_lines_are_found_over_chunks() -> None:
    wire = b"3\r\none\r\n6\r\n\ntwo\nt\r\n4\r\nhree\r\n0\r\n\r\n"
    body = io.BufferedReader(raw_input(decoder(CHUNKED), sending(*(bytes([octet]) for octet in wire))))
    assert list(body) == [b"one\n", b"two\n", b"three"]


def test_a_large_chunk_goes_straight_into_the_readers_buffer() -> None:
    """No copy through a decoder: the receiving function gets the very buffer that the application gave."""
    framed = decoder(CHUNKED)
    framed.feed(b"ffff\r\n")
    seen = []

    def receive(view: memoryview) -> int:
        seen.append(len(view))
        return len(view)

    body = raw_input(framed, receive)
    assert body.readinto(bytearray(60_000)) == 60_000
    assert body.readinto(bytearray(60_000)) == 0xFFFF - 60_000
    assert seen == [60_000, 0xFFFF - 60_000]
    assert framed.remaining == 0


def test_a_buffer_of_no_bytes_is_filled_at_once() -> None:
    framed = decoder(5)
    assert raw_input(framed, sending(b"hello"), framed.feed(b"h")).readinto(bytearray(0)) == 0
