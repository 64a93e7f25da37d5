"""Generated messages: mutations of the wire cases, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.wire.cases import cases

LONGEST = 1024
"""Octets of a message, as for the fuzzers."""
WORDS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b";",
        b"=",
        b'"',
        b"\x7f",
        b"\xff",
        b"%",
        b"%00",
    ),
    *(
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET",
        b"HEAD",
        b"POST",
        b"OPTIONS",
        b"CONNECT",
        b"/",
        b"*",
        b"//",
        b"?",
        b"#",
    ),
    *(b"Host: a\r\n", b"Host: b\r\n", b"http://a/", b"https://a/", b"[::1]", b"a:80", b"@"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Expect: 100-continue\r\n",
        b"Expect: x\r\n",
        b"X_Y: z\r\n",
    ),
    *(
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"5;a=b\r\n",
        b"ffffffffffffffff\r\n",
        b"hello",
        b"0",
        b"5",
    ),
    b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
]


def mutated(data: bytes, other: bytes, random: Random) -> bytes:
    """The message after one change."""
    place = random.randrange(len(data) + 1)
    behind = place + random.choice((1, 1, 2, 4, 10))
    word, octet = random.choice(WORDS), bytes([random.randrange(256)])
    lines, others = data.split(b"\r\n"), other.split(b"\r\n")
    line, start = random.randrange(len(lines)), random.randrange(len(others))
    return random.choice(
        (
            data[:place] + data[behind:],
            data[:place] + word + data[place:],
            data[:place] + word + data[behind:],
            data[:place] + octet + data[place + 1 :],
            b"\r\n".join([*lines[: line + 1], *lines[line:]]),
            b"\r\n".join([*lines[:line], others[start], *lines[line:]]),
            b"\r\n".join([*lines[:line], *others[start:]]),
        )
    )


def corpus(seed: int, count: int) -> Iterator[bytes]:
    """So many messages, each of them a wire case with one to four changes."""
    random = Random(f"corpus {seed}")
    seeds = [case.data for kind in ("accepted", "refused") for case in cases(kind) if len(case.data) < LONGEST]
    for _ in range(count):
        data = random.choice(seeds)
        for _ in range(random.choice((1, 1, 2, 4))):
            data = mutated(data, random.choice(seeds), random)
        yield data[:LONGEST]
