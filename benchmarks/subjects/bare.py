"""The limit of the language: loops that parse nothing and do one thing with a socket.

`python -m benchmarks.subjects.bare hello|close|echo|sendfile|recv_into|chunks` listens on a port of the system's choice.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

from benchmarks.subjects.hello import BODY
from benchmarks.subjects.transfer import CHUNK, CHUNKS, PIECE

# As long as what a server sends, so that the kernel's share is the same.
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: microwsgi\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
)
HELLO = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
GOODBYE = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def hello(listener: socket.socket, *, keep_alive: bool = True) -> None:
    """Answer each readable event with the same bytes, unread."""
    selector = selectors.DefaultSelector()
    register, unregister, select = selector.register, selector.unregister, selector.select
    register(listener, selectors.EVENT_READ)
    answer = HELLO if keep_alive else GOODBYE
    while True:
        for key, _ in select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                register(connection, selectors.EVENT_READ, (connection.recv, connection.send))
                continue
            recv, send = key.data
            try:
                if recv(65536):
                    send(answer)
                    if keep_alive:
                        continue
            except ConnectionError:
                pass
            unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr] # what we registered are sockets


def close(listener: socket.socket) -> None:
    """The same with one request a connection."""
    hello(listener, keep_alive=False)


def echo(listener: socket.socket) -> None:
    """One connection at a time, blocking: the least that a response can take, and so the client's own share."""
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while connection.recv(65536):
                    connection.send(HELLO)
            except ConnectionError:
                pass


def serve_sequentially(listener: socket.socket, answer: object) -> None:
    """Accept, read the head, let `answer(connection, head)` move the bytes; the next."""
    while True:
        connection, _ = listener.accept()
        try:
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
            if head:
                answer(connection, head)  # type: ignore[operator]
        except ConnectionError:
            pass
        finally:
            connection.close()


def sendfile(listener: socket.socket) -> None:
    """The file, from the page cache to the socket."""

    def answer(connection: socket.socket, head: bytes) -> None:
        with open(os.environ["BENCHMARK_FILE"], "rb") as file:
            size = os.fstat(file.fileno()).st_size
            connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size)
            out, source, offset = connection.fileno(), file.fileno(), 0
            while offset < size and (sent := os.sendfile(out, source, offset, size - offset)):
                offset += sent

    serve_sequentially(listener, answer)


def recv_into(listener: socket.socket) -> None:
    """As many bytes as the field X-Wire-Bytes says, into one buffer."""

    def answer(connection: socket.socket, head: bytes) -> None:
        head, _, rest = head.partition(b"\r\n\r\n")
        _, _, wire = head.partition(b"X-Wire-Bytes: ")
        left = int(wire.partition(b"\r\n")[0] or 0) - len(rest)
        buffer = bytearray(PIECE)
        while left > 0 and (received := connection.recv_into(buffer)):
            left -= received
        connection.sendall(GOODBYE)

    serve_sequentially(listener, answer)


def chunks(listener: socket.socket) -> None:
    """One send for each chunk."""
    framed = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)

    def answer(connection: socket.socket, head: bytes) -> None:
        send = connection.send
        connection.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(CHUNKS):
            send(framed)
        send(b"0\r\n\r\n")

    serve_sequentially(listener, answer)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    {f.__name__: f for f in (hello, close, echo, sendfile, recv_into, chunks)}[sys.argv[1]](listening)
