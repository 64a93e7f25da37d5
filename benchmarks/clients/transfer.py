"""One large transfer: `python -m benchmarks.clients.transfer PORT download PATH | length|chunked PATH BYTES`.

The program prints the seconds from the first byte of the request to the last byte of the response, and the bytes
transferred; those of a chunked download include the chunk framing.
"""

from __future__ import annotations

import json
import socket
import sys
import time

PIECE = 256 * 1024  # bytes per call of recv: large enough to make the client's own cost small
CHUNK = 64 * 1024  # bytes of one chunk of a chunked upload


def download(connection: socket.socket, path: str) -> int:
    """Read a response to its end, and return the number of bytes after the head."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    buffer, tail = memoryview(bytearray(PIECE)), b""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("the response ended in its head")
        head += received
    head, _, rest = head.partition(b"\r\n\r\n")
    if not head[9:].startswith(b"200"):
        raise ConnectionError(f"not a 200: {head[:80]!r}")
    lower = head.lower()
    count, tail = len(rest), rest[-8:]
    if b"\r\ncontent-length:" in lower:
        length = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while count < length and (size := connection.recv_into(buffer)):
            count += size
        if count != length:
            raise ConnectionError(f"received {count} of {length} bytes")
        return count
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        size = connection.recv_into(buffer)
        if not size:
            raise ConnectionError("the chunked body ended without its last chunk")
        count += size
        tail = (tail + bytes(buffer[max(0, size - 8) : size]))[-8:]
    return count


def upload(connection: socket.socket, path: str, length: int, *, chunked: bool) -> int:
    """Send a body with Content-Length or in chunks, and read the response. Return the size of the body."""
    piece = b"x" * CHUNK
    pieces, rest = divmod(length, CHUNK)
    if rest:
        raise ValueError(f"not a multiple of {CHUNK} bytes: {length}")
    framed = b"%x\r\n%b\r\n" % (CHUNK, piece) if chunked else piece
    end = b"0\r\n\r\n" if chunked else b""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    wire = pieces * len(framed) + len(end)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{framing}\r\nX-Wire-Bytes: {wire}\r\n\r\n".encode()
    )
    for _ in range(pieces):
        connection.sendall(framed)
    connection.sendall(end)
    response = b""
    while data := connection.recv(65536):
        response += data
    if not response.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"not a 200: {response[:80]!r}")
    return length


if __name__ == "__main__":
    port, mode, path, *rest = sys.argv[1:]
    with socket.create_connection(("127.0.0.1", int(port)), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        if mode == "download":
            count = download(connection, path)
        else:
            count = upload(connection, path, int(rest[0]), chunked=mode == "chunked")
        print(json.dumps({"seconds": time.perf_counter() - begun, "bytes": count}))
