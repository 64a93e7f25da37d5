"""The conversations: wire cases, generated messages, and recorded conversations, each cut in several ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.comparison.application import BIG, HEADERS, RETURNED, STATUSES
from tests.comparison.client import Step
from tests.comparison.corpus import corpus
from tests.wire.cases import cases

LIMITS = {"max_line_size": 200, "max_header_size": 600, "max_header_count": 8, "max_body_size": 400}
"""Small enough for generated messages to reach them; as in tests/fuzz."""
HASTY = {"header_timeout": 0.2, "keep_alive_timeout": 0.2, "body_timeout": 0.2, "send_timeout": 0.2}
"""For clients that stall: they wait until their time is over."""
GENERATED = 1200
SECURE_PART = 8
"""Of the wire cases and the generated messages, one in so many is sent over TLS, too."""
SHORT = 400
"""Octets up to which a message is also sent octet by octet."""
RECEIVED = 16 * 1024
"""Octets that the server receives at once."""
PROBE = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request after the others: if the connection was kept, it is answered."""


class Conversation(NamedTuple):
    """The steps of one client, and the server that they are for."""

    name: str
    variant: str
    server: str
    steps: list[Step]

    @property
    def whole(self) -> bool:
        """Whether the server receives each message in one piece.

        If not, the time at which the pieces arrive decides how much of a bad message an error quotes, and whether the last
        of them arrive behind the end of the connection, which is a reset.
        """
        return self.variant in {"whole", "probed"}


def servers() -> dict[str, dict[str, Any]]:
    """Each server's name, kind and options."""
    found: dict[str, dict[str, Any]] = {
        "default": {"kind": "wsgi", "options": {}},
        "limits": {"kind": "wsgi", "options": LIMITS},
        "hasty": {"kind": "wsgi", "options": HASTY},
        "tls": {"kind": "tls", "options": {}},
        "plain": {"kind": "plain", "options": {}},
        "adapter": {"kind": "adapter", "options": {}},
    }
    for case in (*cases("accepted"), *cases("refused")):
        if case.options:
            found[server_of(case.options)] = {"kind": "wsgi", "options": case.options}
    return found


def server_of(options: dict[str, Any]) -> str:
    """The name of the server with these options."""
    return ",".join(f"{name}={value}" for name, value in sorted(options.items())) or "default"


def ended(steps: list[Step]) -> list[Step]:
    """The steps, and the client's half-close if they do not end the connection themselves."""
    return steps if steps and steps[-1].do in {"shut", "reset", "close"} else [*steps, Step("shut")]


def pieces(data: bytes, random: Random) -> list[Step]:
    """The data sent in two to five pieces."""
    cuts = sorted({random.randrange(1, len(data)) for _ in range(random.randrange(1, 5))}) if len(data) > 1 else []
    return [Step("send", data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def variants(name: str, server: str, steps: list[Step], random: Random, ways: Sequence[str]) -> Iterator[Conversation]:
    """The conversation with each of its sends whole, octet by octet, and cut at random places; with a probe behind it."""
    for way in ways:
        sent: list[Step] = []
        for step in steps:
            if step.do != "send":
                sent.append(step)
            elif way == "paced" and len(step.data) <= SHORT:
                sent.append(Step("paced", step.data))
            elif way.startswith("cut"):
                sent += pieces(step.data, random)
            else:
                sent.append(step)
        if way == "probed":  # in one piece, so that the server sees it before it closes the connection
            sent = [*sent[:-1], Step("send", sent[-1].data + PROBE)]
        yield Conversation(name, way, server, ended(sent))


def depends_on_time(data: bytes) -> bool:
    """Whether the response depends on how much has come when the server looks.

    A 100 is sent unless the body is there when the head is read; TLS is recognised by its first three octets.
    """
    return b"100-" in data or data.startswith(b"\x16\x03")


def wire_cases(random: Random) -> Iterator[Conversation]:
    """Each wire case."""
    for number, case in enumerate((*cases("accepted"), *cases("refused"))):
        steps = [Step("send", case.data)]
        ways = ["whole", "probed"]
        if not depends_on_time(case.data):
            ways += ["cut 1", "cut 2", "paced"] if len(case.data) <= SHORT else ["cut 1", "cut 2"]
        yield from variants(f"case {case.name}", server_of(case.options), steps, random, ways)
        if not case.options and number % SECURE_PART == 0:
            yield from variants(f"case {case.name}", "tls", steps, random, ("probed", "cut"))
        if not case.options and number % SECURE_PART == 1:
            yield from variants(f"case {case.name}", "adapter", steps, random, ("probed", "cut"))


def generated(random: Random, seed: int) -> Iterator[Conversation]:
    """Each generated message, half of them for the server with small limits."""
    for number, data in enumerate(corpus(seed, GENERATED)):
        server = ("default", "limits")[number % 2]
        name, steps = f"generated {seed}/{number}", [Step("send", data)]
        ways = ("whole", "probed") if depends_on_time(data) else ("whole", "probed", "cut")
        yield from variants(name, server, steps, random, ways)
        if number % SECURE_PART == 0:
            yield from variants(name, "tls", steps, random, ways[-1:])


def request(target: str = "/", *lines: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """A request."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: a", *lines, "", ""]).encode("latin-1") + body


def sized(target: str, body: bytes, *lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    """A request with Content-Length."""
    return request(target, f"Content-Length: {len(body)}", *lines, method=method, version=version, body=body)


def chunked(target: str, *chunks: bytes, lines: tuple[str, ...] = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """A request with chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
    return request(target, "Transfer-Encoding: chunked", *lines, method="POST", body=body)


def send(data: bytes) -> Step:
    return Step("send", data)


def wait(data: bytes) -> Step:
    return Step("wait", data)


CLOSE = "Connection: close"
KEEP = "Connection: keep-alive"
EXPECT = "Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def single() -> Iterator[tuple[str, bytes]]:
    """Requests, each by itself: as they are written, HEAD, HTTP/1.0 with and without keep-alive, close."""
    targets = [
        "/",
        "/a%20b?c=d",
        "/late",
        "/twice",
        "/never",
        "/never?kind=iter",
        "/exc_info",
        "/exc_info?sent=1",
        "/hints",
    ]
    targets += ["/hints?late=1", "/ignore"]
    targets += [f"/headers?n={n}" for n in range(len(HEADERS))]
    targets += [f"/status?n={n}" for n in range(len(STATUSES))]
    targets += [f"/returned?n={n}" for n in range(len(RETURNED))]
    kinds = ("list", "tuple", "generator", "closing", "write", "both", "file")
    targets += [
        f"/respond?status={status}&kind={kind}&chunks={chunks}{length}"
        for status in (200, 204, 205, 304, 404)
        for kind in kinds
        for chunks, length in (("one,two", ""), ("one,two", "&length=6"))
    ]
    targets += [f"/respond?kind={kind}&chunks=one,two&length={n}" for kind in kinds for n in (0, 1, 3, 4, 5, 7, 100)]
    targets += [f"/respond?kind={kind}&chunks={chunks}" for kind in kinds for chunks in ("", ",", ",,a,,")]
    targets += [f"/respond?kind={kind}&connection=close" for kind in kinds]
    targets += [f"/respond?kind={kind}&size=70000&times=3" for kind in kinds]
    targets += [f"/file?at={at}&length={n}" for at in (0, BIG - 10, BIG - 100_000) for n in (0, 5, 10, 65_536, 65_537)]
    targets += [
        f"/file?at={at}{rest}" for at in (BIG - 10, BIG - 100_000, BIG, BIG + 10) for rest in ("", "&closing=1")
    ]
    for what in ("", "&what=exit", "&what=interrupt"):
        targets += [
            f"/fail?when={when}{what}" for when in ("call", "start", "write", "close", "failed+and+close", "next")
        ]
        targets += [f"/fail?when=next&after={n}{what}{length}" for n in (1, 3) for length in ("", "&length=1")]
    for target in targets:
        yield f"GET {target}", request(target)
        yield f"HEAD {target}", request(target, method="HEAD")
        yield f"GET {target} 1.0", request(target, version="1.0")
        yield f"GET {target} 1.0 keep-alive", request(target, KEEP, version="1.0")
        yield f"GET {target} close", request(target, CLOSE)


def with_bodies() -> Iterator[tuple[str, bytes]]:
    """Requests with bodies, each by itself."""
    sizes = (0, 1, 100, 16_384, 16_385, 65_536, 300_000)
    for size in sizes:
        content = bytes(index % 251 for index in range(size))
        for path in (
            "/",
            "/ignore",
            "/part?n=10",
            "/lines",
            "/blocks",
            "/swallow",
            "/trailers",
            "/respond?read=1&kind=closing",
        ):
            yield f"{path} length {size}", sized(path, content)
            yield f"{path} length {size} 1.0", sized(path, content, version="1.0")
            yield f"{path} length {size} 1.0 keep-alive", sized(path, content, KEEP, version="1.0")
            yield f"{path} chunked {size}", chunked(path, content) if content else chunked(path)
            yield f"{path} chunks {size}", chunked(path, *(content[n : n + 7001] for n in range(0, size, 7001)))
            yield f"{path} cut short {size}", sized(path, content)[: -max(size // 2, 1)]
            yield f"{path} chunked cut short {size}", chunked(path, content or b"x")[:-4]
            yield f"{path} close {size}", sized(path, content, CLOSE)
    for path in ("/", "/ignore", "/part?n=1", "/swallow", "/trailers", "/blocks"):
        for size in (10, 20_000):
            content = b"x" * size
            yield f"{path} trailers {size}", chunked(path, content, end=b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
            yield f"{path} bad trailer {size}", chunked(path, content, end=b"0\r\nX A: 1\r\n\r\n")
            yield f"{path} bad chunk {size}", chunked(path, content, end=b"zz\r\n\r\n")
            yield f"{path} bad end of chunk {size}", chunked(path, content, end=b"5\r\nhelloX\r\n")
        yield f"{path} fail", sized(f"/fail?when=call&path={path[1:5]}", b"x" * 100_000)
    yield "too large", request("/", f"Content-Length: {1 << 40}", method="POST")
    yield "too large and expected", request("/", f"Content-Length: {1 << 40}", EXPECT, method="POST")


def dialogues() -> Iterator[tuple[str, list[Step]]]:
    """Conversations in which the client waits for the server, or does not read, or leaves."""
    for path in ("/", "/ignore", "/part?n=2", "/swallow", "/fail?when=call", "/fail?when=start", "/blocks", "/hints"):
        for size in (5, 100_000):
            head = request(path, f"Content-Length: {size}", EXPECT, method="POST")
            # An application that answers without reading sends no 100: the end of its head ends the wait.
            yield f"expect {path} {size}", [send(head), wait(b"\r\n\r\n"), send(b"x" * size)]
            yield f"expect at once {path} {size}", [send(head + b"x" * size)]
            yield f"expect and leave {path} {size}", [send(head), wait(b"\r\n\r\n"), Step("shut")]
        chunks = request(path, "Transfer-Encoding: chunked", EXPECT, method="POST")
        yield f"expect chunks {path}", [send(chunks), wait(b"\r\n\r\n"), send(b"5\r\nhello\r\n0\r\n\r\n")]
        yield f"expect 1.0 {path}", [send(sized(path, b"hello", EXPECT, version="1.0"))]
    yield "expectation fails", [send(sized("/", b"hello", "Expect: 200-ok")), send(PROBE)]
    mixture = [
        *(
            request("/1"),
            sized("/2", b"hello"),
            chunked("/3", b"hello"),
            request("/4", method="HEAD"),
            request("/late"),
        ),
        *(sized("/ignore", b"x" * 1000), chunked("/ignore", b"x" * 1000), request("/respond?kind=generator")),
        *(
            request("/respond?status=304"),
            request("/respond?status=204"),
            request("/file?at=6280000"),
            request("/hints"),
        ),
        *(
            request("/suspend"),
            request("/fail?when=call"),
            sized("/blocks", b"x" * 20_000),
            request("/respond?kind=write"),
        ),
        *(
            request("/suspend?by=time"),
            request("/exc_info"),
            sized("/trailers", b"x"),
            request("/respond?kind=closing"),
        ),
    ]
    yield "pipelined mixture", [send(b"".join(mixture)), send(request("/mark")), wait(b'/mark"')]
    yield (
        "one after the other",
        [
            step
            for number, part in enumerate(mixture)
            for step in (send(part + request(f"/mark{number}")), wait(b'/mark%d"' % number))
        ],
    )
    yield "pipelined 40", [send(b"".join(request(f"/{number}") for number in range(40)))]
    yield "pipelined 100 with bodies", [send(b"".join(sized(f"/{number}", b"x" * number) for number in range(100)))]
    yield "pipelined behind close", [send(request("/1", CLOSE) + request("/2"))]
    yield "pipelined behind 1.0", [send(request("/1", version="1.0") + request("/2"))]
    yield "pipelined behind 1.0 keep-alive", [send(request("/1", KEEP, version="1.0") * 3 + request("/2"))]
    yield "pipelined behind a failure", [send(request("/fail?when=call") + request("/2"))]
    yield "pipelined behind a failure after the head", [send(request("/fail?when=next&after=1") + request("/2"))]
    yield "pipelined behind a refusal", [send(b"GET / HTTP/3.0\r\n\r\n" + request("/2"))]
    yield "pipelined refusal", [send(request("/1") + b"GET / HTTP/3.0\r\n\r\n" + request("/2"))]
    yield "pipelined behind an unread body", [send(sized("/ignore", b"x" * 200_000) + request("/2"))]
    yield "pipelined behind a long unread body", [send(sized("/ignore", b"x" * 2_000_000) + request("/2"))]
    yield "pipelined behind early reading", [send(sized("/part?n=1", b"x" * 100_000) + request("/2"))]
    yield (
        "pipelined behind a suspension",
        [send(request("/suspend") + request("/2") + sized("/3", b"x" * 20_000)), wait(b'/3"')],
    )
    yield (
        "pipelined behind an unread trailer",
        [send(chunked("/ignore", b"x", end=b"0\r\nA: b\r\n\r\n") + request("/2"))],
    )
    yield (
        "second upload",
        [step for number in range(4) for step in (send(sized(f"/{number}", b"x" * 50_000)), wait(b"wsgi.version"))],
    )
    yield (
        "second upload in pieces",
        [
            *(send(sized("/a", b"x" * 50_000)), wait(b"wsgi.version"), send(sized("/b", b"x" * 50_000)[:1000])),
            *(send(sized("/b", b"x" * 50_000)[1000:]), wait(b"wsgi.version")),
        ],
    )
    yield (
        "bytes behind a long response",
        [
            *(Step("hold"), send(request("/respond?kind=generator&size=100000&times=30") + request("/2"))),
            *(send(request("/3")), Step("read")),
        ],
    )
    for target in ("/file", f"/respond?size={BIG}&times=1", f"/respond?kind=write&size={BIG // 10}&times=10"):
        held = [Step("hold"), send(request(target)), Step("read"), wait(b"\r\n\r\n"), send(request("/after"))]
        yield f"slow reader {target}", held
        yield f"two long responses {target}", [send(request(target) * 2)]
        for leave in ("reset", "close"):
            # Nothing is read but the head: what the server can't send is more than what the kernel takes.
            yield f"{leave} {target}", [send(request(target)), wait(b"\r\n\r\n"), Step(leave)]
    for leave in ("reset", "close", "shut"):
        yield f"{leave} at a suspension", [send(request("/suspend?ever=1")), wait(b"word 2"), Step(leave)]
        yield f"{leave} in a body", [send(sized("/blocks", b"x" * 100_000)[:90_000]), Step(leave)]
        yield f"{leave} at once", [Step(leave)]
        yield f"{leave} in a head", [send(b"GET / HTTP/1.1\r\nHost:"), Step(leave)]
        yield f"{leave} between requests", [send(request("/")), wait(b"wsgi.version"), Step(leave)]
    for rest in ("", "by=time", "n=0", "length=100", "length=6&n=0", "fail=1", "length=9&n=0"):
        for way, data in {
            "GET": request(f"/suspend?{rest}"),
            "HEAD": request(f"/suspend?{rest}", method="HEAD"),
            "GET 1.0": request(f"/suspend?{rest}", version="1.0"),
            "GET 1.0 keep-alive": request(f"/suspend?{rest}", KEEP, version="1.0"),
            "GET close": request(f"/suspend?{rest}", CLOSE),
        }.items():
            # A half-close would end the suspended response.
            yield f"{way} /suspend?{rest}", [send(data + request("/mark", CLOSE)), wait(b'/mark"')]
    yield (
        "upgrade",
        [
            *(send(request("/upgrade", "Upgrade: reverse", "Connection: Upgrade") + b"ahead\n"), wait(b"daeha\n")),
            *(send(b"hello\nworld\n"), wait(b"olleh\ndlrow\n"), send(b"\n")),
        ],
    )
    yield (
        "upgrade in pieces",
        [send(request("/upgrade", "Upgrade: reverse", "Connection: Upgrade")), send(b"a\nbc\n\n")],
    )
    yield "empty lines between", [send(b"\r\n" + request("/1") + b"\r\n" + request("/2"))]
    yield "TLS to a plain port", [send(bytes.fromhex("16030100c8010000c40303") + b"x" * 194)]
    yield "empty", []


def stalled() -> Iterator[tuple[str, list[Step]]]:
    """Clients that stall until a time limit is over; they wait for the end without closing their side."""
    upload = sized("/", b"x" * 100_000)
    for name, data in {
        "nothing": b"",
        "part of a head": b"GET / HTTP/1.1\r\nHost",
        "a request": request("/"),
        "part of a small body": sized("/", b"x" * 10)[:-3],
        "part of a long body": upload[:60_000],
        "part of a long body, caught": sized("/swallow", b"x" * 100_000)[:60_000],
        "part of chunks": chunked("/", b"x" * 10)[:-5],
        "part of an unread body": sized("/ignore", b"x" * 100_000)[:60_000],
        "a request and a part": request("/1") + b"GET /2 HT",
        "a continue that is not answered": request("/", "Content-Length: 5", EXPECT, method="POST"),
        "a refusal": b"GET / HTTP/3.0\r\n\r\n",
    }.items():
        yield f"stalled after {name}", [Step("send", data), Step("wait", b"never")]


def plain() -> Iterator[tuple[str, bytes]]:
    """For a handler class without WSGI."""
    yield "GET", request("/x")
    yield "HEAD", request("/x", method="HEAD")
    yield "POST", sized("/x", b"hello")
    yield "several", request("/1") + sized("/2", b"hello") + request("/3")
    yield "close", request("/1", CLOSE) + request("/2")
    yield "1.0", request("/1", version="1.0")
    yield "unknown method", request("/1", method="PUT")
    yield "failure", request("/1", method="FAIL")
    yield "refused", b"GET / HTTP/3.0\r\n\r\n"
    yield "long body", sized("/x", b"x" * 200_000) + request("/2")


def recorded(random: Random) -> Iterator[Conversation]:
    """The recorded conversations."""
    for number, (name, data) in enumerate((*single(), *with_bodies())):
        steps = [Step("send", data)]
        # In pieces, time decides whether the fault of a long body is seen before the application is called.
        faulty = len(data) > RECEIVED and (" bad " in name or "cut short" in name)
        ways: tuple[str, ...] = ("whole", "probed") if faulty else ("whole", "probed", "cut")
        yield from variants(name, "default", steps, random, ways)
        if number % 3 == 0:
            yield from variants(name, "tls", steps, random, ("probed",))
        if number % 3 == 1 and "/suspend" not in name:
            yield from variants(name, "adapter", steps, random, ("probed",))
    for name, steps in dialogues():
        ways = ("whole", "paced", "cut 1", "cut 2")
        if name.startswith(("expect at once", "TLS")) or "long response" in name or "slow reader" in name:
            ways = ways[:1]  # time decides in pieces; or it is megabytes
        yield from variants(name, "default", steps, random, ways)
        if not name.startswith(("upgrade", "TLS")):
            yield from variants(name, "tls", steps, random, ways[:1] + ways[3:])
    for name, steps in stalled():
        yield Conversation(name, "whole", "hasty", steps)
    for name, data in plain():
        yield from variants(f"plain {name}", "plain", [Step("send", data)], random, ("whole", "probed", "cut"))


def conversations(seed: int) -> list[Conversation]:
    """All conversations, the same for the same seed."""
    random = Random(f"conversations {seed}")
    return [*recorded(random), *wire_cases(random), *generated(random, seed)]
