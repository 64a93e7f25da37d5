"""Bare loops: the upper limit for servers in Python. They parse nothing and answer with fixed bytes.

`python -m benchmarks.subjects.bare hello|close|echo|sendfile|recv_into|chunks` listens on a free port.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

from benchmarks.subjects.hello import BODY
from benchmarks.subjects.transfer import CHUNK, CHUNKS, PIECE

# As long as a server's response head, so that the kernel's share is the same.
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: microwsgi\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
)
HELLO = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
GOODBYE = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def hello(listener: socket.socket, *, keep_alive: bool = True) -> None:
    """Answer each readable event with the same bytes, without parsing the request."""
    selector = selectors.DefaultSelector()
    register, unregister, select = selector.register, selector.unregister, selector.select
    register(listener, selectors.EVENT_READ)
    response = HELLO if keep_alive else GOODBYE
    while True:
        for key, _ in select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                register(connection, selectors.EVENT_READ, (connection.recv, connection.send))
                continue
            recv, send = key.data
            try:
                if recv(65536):
                    send(response)
                    if keep_alive:
                        continue
            except ConnectionError:
                pass
            unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr] # only sockets are registered


def close(listener: socket.socket) -> None:
    """Do the same with one request per connection."""
    hello(listener, keep_alive=False)


def echo(listener: socket.socket) -> None:
    """Serve one connection at a time with blocking calls: the lowest possible latency, the share of client and kernel."""
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while connection.recv(65536):
                    connection.send(HELLO)
            except ConnectionError:
                pass


def serve_sequentially(listener: socket.socket, answer: object) -> None:
    """Serve one connection after another: accept, read the head, and call `answer(connection, head)`."""
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
    """Send a file with sendfile."""

    def answer(connection: socket.socket, head: bytes) -> None:
        with open(os.environ["BENCHMARK_FILE"], "rb") as file:
            size = os.fstat(file.fileno()).st_size
            connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size)
            out, source, offset = connection.fileno(), file.fileno(), 0
            while offset < size and (sent := os.sendfile(out, source, offset, size - offset)):
                offset += sent

    serve_sequentially(listener, answer)


def recv_into(listener: socket.socket) -> None:
    """Receive as many bytes as the field X-Wire-Bytes says, into one buffer."""

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
    """Send each chunk with one call of send."""
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
