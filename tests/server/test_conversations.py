"""Any requests after each other on one connection, answered in any way: each response is what the application said.

What a request leaves behind in its connection (a decoder, a length, a flag) would show in the response to the next one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.server.exchange import TIME, Response, Running, parse

END = b"the end of the probe"
PROBE = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n"


def probe(start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [END]


pieces = strategies.lists(strategies.binary(max_size=30) | strategies.just(70_000).map(b"x".__mul__), max_size=4)


class Conversation(RuleBasedStateMachine):
    """One client, one server, and an application that does what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.application: Callable[[Any, Any], Iterable[bytes]] | None = None
        self.running = Running(self.answer)
        self.running.__enter__()
        self.open = False

    def teardown(self) -> None:
        if self.open:
            self.hang_up()
        self.running.__exit__()

    @precondition(lambda self: not self.open)
    @rule()
    def connect(self) -> None:
        self.client = socket.create_connection(self.running.address, TIME)
        self.open = True

    @precondition(lambda self: self.open)
    @rule()
    def hang_up(self) -> None:
        self.client.close()
        self.running.wait_for_connections(0)
        self.open = False

    def answer(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        assert self.application is not None
        return self.application(environ, start_response)

    def ask(self, head: str, body: bytes, method: str) -> tuple[Response, bool, str]:
        """The response to a request, whether the server has ended the connection, and what it has logged.

        A second request shows where the response ends: it is answered by END, or not at all.
        """
        before = len(self.running.errors.text.getvalue())
        with contextlib.suppress(ConnectionError):
            self.client.sendall(head.encode("latin-1") + body + PROBE)
        data = b""
        while not data.endswith(END):
            try:
                part = self.client.recv(1 << 20)
            except ConnectionResetError:
                part = b""
            if not part:
                break
            data += part
        ended = not data.endswith(END)
        responses = parse(data, [method])
        assert len(responses) == (1 if ended else 2)
        if ended:
            self.hang_up()
        return responses[0], ended, self.running.errors.text.getvalue()[before:]

    @precondition(lambda self: self.open)
    @rule(
        method=strategies.sampled_from(["GET", "HEAD", "POST"]),
        version=strategies.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]),
        connection=strategies.sampled_from(["", "", "keep-alive", "close"]),
        sent=pieces,
        coding=strategies.sampled_from(["none", "length", "chunks"]),
        reads=strategies.booleans(),
        status=strategies.sampled_from(["200 OK", "204 No", "205 Reset", "304 Same", "404 No"]),
        chunks=pieces,
        kind=strategies.sampled_from(["list", "generator", "write"]),
        promise=strategies.sampled_from([None, None, 0, 0, -1, 1]),
    )
    def exchange(
        self,
        method: str,
        version: str,
        connection: str,
        sent: list[bytes],
        coding: str,
        reads: bool,
        status: str,
        chunks: list[bytes],
        kind: str,
        promise: int | None,
    ) -> None:
        content = b"".join(sent)[:10_000]  # what the handler collects before it calls the application
        coding = "length" if coding == "chunks" and version == "HTTP/1.0" else coding
        lines = [f"{method} / {version}", "Host: a"]
        if connection:
            lines.append(f"Connection: {connection}")
        body = b""
        if coding == "length":
            lines.append(f"Content-Length: {len(content)}")
            body = content
        elif coding == "chunks":
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n" % (len(content), content) * bool(content) + b"0\r\n\r\n"
        else:
            content = b""
        size = sum(map(len, chunks))
        length = None if promise is None else max(size + promise, 0)
        found: list[bytes] = []

        def application(environ: Any, start_response: Any) -> Iterable[bytes]:
            if reads:
                found.append(environ["wsgi.input"].read())
            headers = [] if length is None else [("Content-Length", str(length))]
            write = start_response(status, headers)
            if kind == "write":
                for chunk in chunks:
                    write(chunk)
                return []
            return chunks if kind == "list" else iter(chunks)

        self.application = lambda environ, start_response: (
            probe(start_response) if environ["PATH_INFO"] == "/probe" else application(environ, start_response)
        )
        response, ended, complaint = self.ask("\r\n".join([*lines, "", ""]), body, method)

        assert found == [content] * reads
        bodiless = method == "HEAD" or status[:3] in {"204", "205", "304"}
        persists = connection != "close" if version == "HTTP/1.1" else connection == "keep-alive"
        if length is None or length == size or bodiless:
            assert complaint == ""
            assert response.status == int(status[:3])
            assert response.whole
            assert response.body == (b"" if bodiless else b"".join(chunks))
            close_delimited = version == "HTTP/1.0" and length is None and kind != "list" and any(chunks)
            assert ended is (not persists or (close_delimited and not bodiless))
        elif response.status == 500:  # nothing had left
            assert "PEP 3333" in complaint
            assert response.whole
        else:
            assert "PEP 3333" in complaint
            assert ended
            assert response.body == b"".join(chunks)[:length]
        self.check_framing(response, version, method)

    def check_framing(self, response: Response, version: str, method: str) -> None:
        """What RFC 9112 6 says of every response."""
        coding, length = response.field("Transfer-Encoding"), response.field("Content-Length")
        assert coding is None or length is None
        assert coding is None or version == "HTTP/1.1"
        if response.status == 204:
            assert coding is None
            assert length is None
        if method != "HEAD" and response.status != 304 and length is not None:
            assert int(length) >= len(response.body)
        assert response.field("Date")


TestConversations = Conversation.TestCase
TestConversations.settings = settings(max_examples=100, stateful_step_count=12, deadline=None, derandomize=True)
