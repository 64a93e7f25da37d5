"""One conversation over one connection: send, wait for bytes, half-close; receive all that comes."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from time import monotonic
from typing import NamedTuple

LIMIT = 20.0
"""Seconds for a whole conversation; one that needs them has failed, and nothing else depends on time."""
PAUSE = 0.0005
"""Seconds after each octet of a paced conversation, so that most of them are received one by one."""
RECEIVE = 1 << 18
WINDOW = 1 << 18
"""Octets that the kernel keeps for a client that does not read; more it would keep by itself."""
RESET = struct.pack("ii", 1, 0)


class Step(NamedTuple):
    """What the client does next."""

    do: str
    """send; paced (octet by octet); wait (until `data` has come); shut (half-close); reset; close; hold (do not read); read."""
    data: bytes = b""


class Outcome(NamedTuple):
    """What the client saw."""

    data: bytes
    end: str
    """eof, alert (the end of TLS), reset, limit (LIMIT was over), or closed by the client."""


class Plain:
    """A connection over TCP."""

    def __init__(self, port: int, address: str, until: float) -> None:
        self.until = until
        self.received = bytearray()
        self.end = ""
        self.holds = self.was_reset = False
        self.socket = socket.socket()
        self.socket.settimeout(LIMIT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def wait(self, *, write: bool, seconds: float | None = None) -> bool:
        """Receive what has come; wait for that, or until more can be sent. False when the time is over."""
        left = self.until - monotonic()
        if left <= 0:
            self.end = self.end or "limit"
            return False
        reading = [] if self.end or self.holds else [self.socket]
        if not reading and not write:
            return False
        ready, _, _ = select.select(reading, [self.socket] if write else [], [], left if seconds is None else seconds)
        if ready:
            self.receive()
        return True

    def receive(self) -> None:
        """Receive once."""
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.end = "reset"
            return
        self.received += data
        if not data:
            self.end = "reset" if self.was_reset else "eof"

    def push(self, data: bytes) -> int:
        """Send once; how much was taken. Raises OSError."""
        return self.socket.send(data)

    def send(self, data: bytes) -> None:
        """Send all, and receive meanwhile; what cannot be sent any more is left out."""
        view = memoryview(data)
        while view and self.end in {"", "eof", "alert"}:
            try:
                view = view[self.push(bytes(view[:RECEIVE])) :]
            except BlockingIOError:
                if not self.wait(write=True):
                    return
            except OSError as error:
                # The kernel reports a reset once; what came before it can still be received.
                self.was_reset = self.was_reset or isinstance(error, ConnectionResetError)
                return

    def paced(self, data: bytes) -> None:
        """Send octet by octet."""
        for octet in data:
            self.send(bytes([octet]))
            if not self.wait(write=False, seconds=PAUSE):
                return

    def wait_for(self, words: bytes, start: int) -> int:
        """Receive until these words come behind `start`; where they end."""
        seen = start
        while (found := self.received.find(words, seen)) < 0:
            seen = max(len(self.received) - len(words), start)
            if self.end or not self.wait(write=False):
                return len(self.received)
        return found + len(words)

    def shut(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def run(self, steps: list[Step]) -> Outcome:
        """Take the steps, then receive until the server ends the connection."""
        start = 0
        with self.socket:
            for do, data in steps:
                if do == "wait":
                    start = self.wait_for(data, start)
                elif do in {"hold", "read"}:
                    self.holds = do == "hold"
                elif do in {"reset", "close"}:
                    if do == "reset":
                        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return Outcome(bytes(self.received[:start]), "closed by the client")
                elif do == "shut":
                    self.shut()
                else:
                    (self.paced if do == "paced" else self.send)(data)
            while not self.end and self.wait(write=False):
                pass
        return Outcome(bytes(self.received), self.end)


class Secure(Plain):
    """A connection over TLS; shut sends the closure alert and half-closes the socket."""

    def __init__(self, port: int, address: str, until: float, context: ssl.SSLContext) -> None:
        super().__init__(port, address, until)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        while not self.end:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.drain()
                self.wait(write=False)
            except ssl.SSLError:
                self.end = "no handshake"
            else:
                break
        self.drain()

    def drain(self) -> None:
        """Send what OpenSSL has encrypted."""
        Plain.send(self, self.outgoing.read())

    def receive(self) -> None:
        """Receive once, and decrypt all of it."""
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.end = "reset"
            return
        if not data and self.was_reset:
            self.end = "reset"
            return
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        if self.tls.version() is None or not self.tls.cipher():
            self.end = "" if data else "eof"
            return
        try:
            while piece := self.tls.read(RECEIVE):
                self.received += piece
            self.end = "alert"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.end = "alert"
        except ssl.SSLError as error:
            self.end = "eof" if "EOF" in str(error) else f"TLS error {error.reason}"

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        if not data or self.end:
            return
        try:
            self.tls.write(data)
        except ssl.SSLError:
            return
        self.drain()

    def shut(self) -> None:
        """Send the closure alert, and nothing more."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.drain()
        super().shut()


def converse(port: int, address: str, steps: list[Step], context: ssl.SSLContext | None = None) -> Outcome:
    """The outcome of one conversation, from this address on."""
    until = monotonic() + LIMIT
    try:
        connection = Plain(port, address, until) if context is None else Secure(port, address, until, context)
    except OSError as error:
        return Outcome(b"", f"no connection: {error}")
    return connection.run(steps)
