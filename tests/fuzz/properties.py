"""What must hold for any bytes at all; each function takes some, and raises when it does not."""

from __future__ import annotations

from microwsgi.errors import ClientError
from microwsgi.options import Options
from tests.server.exchange import Recorder, parse, serve_pieces
from tests.wire.cases import cases
from tests.wire.exchange import read
from tests.wire.subject import CHUNKED, decoder

MISDIRECTED = 421
SMALL = {"max_line_size": 200, "max_header_size": 600, "max_header_count": 8, "max_body_size": 400}
LIMITS = Options.from_mapping(SMALL)
"""Small enough for a fuzzer to reach them."""

FOUND = (b"GET httpS://em HTTP/1.1\r\nHost:e.cm\r\n\r\nGET / HTTP/1.1\r\nHost:a\r\n\r\n",)
"""What a fuzzer has found, and what is no wire case: the parser takes it, and only a server knows that it is not for it."""


def seeds(kind: str) -> list[bytes]:
    """What a fuzzer begins with: the wire cases, or the bodies of those with chunks."""
    data = [case.data for folder in ("accepted", "refused") for case in cases(folder) if len(case.data) < 1000]
    if kind == "chunks":
        return [case.partition(b"\r\n\r\n")[2] for case in data if b"chunked\r\n\r\n" in case]
    return [*data, *FOUND]


def cut(data: bytes) -> list[bytes]:
    """The data in three pieces, at places that depend on the data."""
    first, second = sorted((sum(data[:50]) % (len(data) + 1), sum(data[-50:]) % (len(data) + 1)))
    return [piece for piece in (data[:first], data[first:second], data[second:]) if piece]


def head(data: bytes) -> None:
    """Heads and bodies are read the same however the bytes are cut, and nothing but a ClientError stops the reading."""
    for limits in (LIMITS, Options()):
        whole = read([data], limits)
        assert read(cut(data), limits)[:2] == whole[:2]
        assert read([bytes([octet]) for octet in data], limits)[:2] == whole[:2]
        if whole.status is not None:
            assert read([data, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], limits)[:2] == whole[:2]


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes, list[tuple[str, str]], bool]:
    """What a decoder of chunks makes of these pieces."""
    body = decoder(CHUNKED, LIMITS)
    content, rest = b"", b""
    try:
        for piece in pieces:
            if body.done:
                rest += piece
            else:
                content += body.feed(piece)
                rest = body.unused_data if body.done else b""
    except ClientError:
        return content, False, b"", [], True
    return content, body.done, rest, [*body.trailers], False


def chunks(data: bytes) -> None:
    """Chunks are decoded the same however the bytes are cut; what follows them is left alone; sizes are not exceeded."""
    whole = decode([data])
    for pieces in (cut(data), [bytes([octet]) for octet in data]):
        found = decode(pieces)
        assert found[1:] == whole[1:]
        if not whole[4]:  # what was decoded before a fault may be more when it came alone
            assert found[0] == whole[0]
    assert len(whole[0]) <= LIMITS.max_body_size
    if whole[1]:
        assert data.endswith(whole[2])


def handler(data: bytes) -> None:
    """The handler, over a socket, accepts and refuses what the parsers do; each response is whole, and no one fails."""
    expected = read([data], LIMITS)
    accepted, refused = list(expected.requests), expected.status
    for place, request in enumerate(accepted):
        if (
            request["target"].lower().startswith("https:")
        ):  # well formed, and not for a server without TLS: RFC 9110 7.4
            accepted, refused = accepted[:place], MISDIRECTED
            break
    recorder = Recorder()
    answer, log = serve_pieces(cut(data), recorder, **SMALL)
    requests = [request for found in recorder.requests.values() for request in found]
    responses = parse(answer, [request["method"] for request in expected.requests])
    statuses = [response.status for response in responses]
    assert [(request["method"], request["target"], request["body"]) for request in requests] == [
        (request["method"], request["target"], request["body"]) for request in accepted
    ]
    assert statuses[: len(requests)] == [200] * len(requests)
    # A body that is cut short is refused by the handler alone, since only it sees the end.
    assert statuses[len(requests) :] in ([refused], [] if refused is None else None, [400])
    assert all(response.whole for response in responses[: len(requests)])  # a refusal may have been of a HEAD
    assert "Traceback" not in log, log


PROPERTIES = {"head": head, "chunks": chunks, "handler": handler}
