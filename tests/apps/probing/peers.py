"""Peers of probes that misbehave, and a name server: in threads of the test's own process."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Behaviour = Callable[[socket.socket, threading.Event], None]


class Peer:
    """A TCP server on a free port of an address; each connection runs in a thread until the behaviour or the `with` ends."""

    def __init__(
        self, behaviour: Behaviour, context: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.behaviour, self.context = behaviour, context
        self.server = socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self.port: int = self.server.getsockname()[1]
        self.ended = threading.Event()
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.spawn(self.accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for thread in self.threads:
            thread.join()

    def spawn(self, function: Callable[..., None], *values: object) -> None:
        self.threads.append(threading.Thread(target=function, args=values))
        self.threads[-1].start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.spawn(self.serve, self.server.accept()[0])

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            if self.context is None:
                self.behaviour(connection, self.ended)
            else:
                with self.context.wrap_socket(connection, server_side=True) as secure:
                    self.behaviour(secure, self.ended)


def says(data: bytes) -> Behaviour:
    """Read a request, answer these bytes and close."""

    def behaviour(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    return behaviour


def drips(data: bytes, pause: float) -> Behaviour:
    """Read a request and answer these bytes again and again, one piece in each pause."""

    def behaviour(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        while not ended.wait(pause):
            connection.sendall(data)

    return behaviour


def silent(connection: socket.socket, ended: threading.Event) -> None:
    """Accept and say nothing."""
    ended.wait()


@contextlib.contextmanager
def name_server(answers: dict[tuple[str, str], list[str] | str | None], address: str, port: int = 53) -> Iterator[None]:
    """A name server: addresses for (name, type), or a response code; None is silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))

        def serve() -> None:
            while True:
                data, client = server.recvfrom(4096)
                if not data:
                    return
                query = dns.message.from_wire(data)
                question = query.question[0]
                name, kind = question.name.to_text().rstrip("."), dns.rdatatype.to_text(question.rdtype)
                answer = answers.get((name, kind), "NXDOMAIN")
                if answer is None:
                    continue
                response = dns.message.make_response(query, recursion_available=True)
                if isinstance(answer, str):
                    response.set_rcode(dns.rcode.from_text(answer))
                elif answer:
                    response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *answer))
                server.sendto(response.to_wire(want_shuffle=False), client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(b"", (address, port))
            thread.join()
