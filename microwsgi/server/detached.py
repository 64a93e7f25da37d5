"""The connection's socket for an application that uses another protocol than HTTP on it, such as a WebSocket library."""

from __future__ import annotations

import socket
from collections.abc import Callable

from microwsgi.support.typenames import Self, WriteableBuffer


class DetachableSocket:
    """A socket that belongs to the application from its first use on: it blocks, and the server never touches it again.

    It has the methods of the socket, or of the SSLSocket. Bytes that the server has already received come first, with each
    method of receiving: recv, recv_into, recvfrom, recvfrom_into, read (of an SSLSocket) or a file of makefile.
    """

    # `socket.socket.makefile`, which is called with this object, uses these attributes.
    _io_refs = 0
    _closed = False

    def __init__(self, detach: Callable[[], tuple[socket.socket, bytes]], close: Callable[[], object]) -> None:
        self._detach = detach
        self._close = close
        self._socket: socket.socket | None = None
        self._ahead = b""

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the socket."""
        found: object = getattr(self._take_socket(), name)
        return self._read if name == "read" else found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive as socket.recv does."""
        taken = self._take_socket()
        return self._take(size, flags) if self._ahead else taken.recv(size, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive as socket.recv_into does."""
        taken = self._take_socket()
        if not self._ahead:
            return taken.recv_into(buffer, nbytes, flags)
        with memoryview(buffer).cast("B") as view:
            data = self._take(nbytes or len(view), flags)
            view[: len(data)] = data
            return len(data)

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, object]:
        """Receive as socket.recvfrom does; the address of a stream is None."""
        return self.recv(size, flags), None

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, object]:
        """Receive as socket.recvfrom_into does."""
        return self.recv_into(buffer, nbytes, flags), None

    def makefile(self, *arguments: object, **keywords: object) -> object:
        """Return a file as socket.makefile does."""
        self._take_socket()
        return socket.socket.makefile(self, *arguments, **keywords)  # type: ignore[call-overload]  # it needs only the attributes above

    def close(self) -> None:
        """Close the connection when all files of `makefile` are closed, too; with TLS, send the closure alert."""
        self._take_socket()
        self._closed = True
        if not self._io_refs:
            self._close()

    def _decref_socketios(self) -> None:
        """Record that a file of `makefile` was closed."""
        self._io_refs -= 1
        if self._closed:
            self.close()

    def _read(self, size: int = 1024, buffer: WriteableBuffer | None = None) -> int | bytes:
        """Receive as SSLSocket.read does."""
        return self.recv(size) if buffer is None else self.recv_into(buffer, size)

    def _take(self, size: int, flags: int) -> bytes:
        """Return some of the bytes that the server had received."""
        data = self._ahead[:size]
        if not flags & socket.MSG_PEEK:
            self._ahead = self._ahead[size:]
        return data

    def _take_socket(self) -> socket.socket:
        """Return the socket; the first call takes it from the server."""
        if self._socket is None:
            self._socket, self._ahead = self._detach()
        return self._socket
