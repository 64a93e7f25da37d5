"""The terminal, or the log file that replaces it: the standard streams, and the messages that are written to them.

`Console` has copies of the standard streams that are made before the application is imported. So the server's messages still
arrive if the application changes `sys.stdout`, `sys.stderr` or the descriptors 0 to 2.
"""

from __future__ import annotations

import io
import os
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from microwsgi import __version__
from microwsgi.options import Options
from microwsgi.server.connections import Security
from microwsgi.server.log import escaped
from microwsgi.server.sockets import loopback_only, urls
from microwsgi.support.typenames import UNSET, Any

# Bound at import, before an application can replace it; Windows has no poll.
_poll: Callable[[], select.poll] = getattr(select, "poll", UNSET)
ONLY_HERE = "(only this machine)"
ALL_MACHINES = "(every machine on your network can reach this)"
DIM, BOLD = "2", "1"
MAX_QUEUED = 64 * 1024
"""The maximum number of queued characters, while a terminal or pipe accepts none. Later messages are dropped and counted."""
PIECE = 1000
"""Characters of one write: if poll(2) reports a pipe as writable, 4,096 bytes fit, and a character has at most 4 in UTF-8."""
READER_TIMEOUT = 1000
"""Milliseconds to wait for a file that another process has made non-blocking until it accepts data."""
STILL_SERVED = "The last good version is still being served"
RETRY = 0.1
"""Seconds between two attempts to write queued messages."""


class Console:
    """Copies of this process's standard streams."""

    def __init__(self) -> None:
        self.output = own_copy(sys.stdout)
        self.errors = own_copy(sys.stderr)
        self.queue: deque[str] | None = None
        """Messages to be written; None if writing may block, as in every process except the parent."""
        self.left_out = 0

    @property
    def descriptors(self) -> list[int]:
        """Return the descriptors of the copies, which are redirected with the log."""
        return [stream.fileno() for stream in (self.output, self.errors) if isinstance(stream, OwnCopy)]

    @property
    def is_terminal(self) -> bool:
        """Return whether the output goes to a terminal."""
        return is_terminal(self.errors)

    def say(self, text: str) -> None:
        """Write a line without buffering, also into a pipe."""
        # Text and line feed are one write, because several processes may write at the same time.
        if self.queue is None:
            write(f"{text}\n", self.errors)
        elif sum(map(len, self.queue)) < MAX_QUEUED:
            self.queue.append(f"{text}\n")
            self.write_queued()
        else:
            self.left_out += 1

    def never_block(self) -> None:
        """Queue messages from now on. In the parent, which handles signals, a stopped terminal (Ctrl-S) must not block."""
        if self.queue is None and isinstance(self.errors, OwnCopy):
            self.queue = deque()

    def block_again(self) -> None:
        """Write directly from now on. For a forked worker: messages that the parent has queued, the parent writes."""
        self.queue = None

    def write_queued(self) -> None:
        """Write queued messages until the stream would block."""
        while self.queue and self.takes_more():
            if self.left_out:
                self.queue.append(f"... {self.left_out} messages are missing here, because the output was not read.\n")
                self.left_out = 0
            text = self.queue.popleft()
            write(text[:PIECE], self.errors)
            if text[PIECE:]:
                self.queue.appendleft(text[PIECE:])

    def write_rest(self) -> None:
        """Write queued messages at the end of the process, as long as they are read within READER_TIMEOUT."""
        while self.queue and self.takes_more(READER_TIMEOUT):
            self.write_queued()
        self.queue = None

    def takes_more(self, milliseconds: int = 0) -> bool:
        """Return whether a write would not block. A broken stream accepts everything."""
        if self.errors is None:
            return True
        try:
            poll = _poll()
            poll.register(self.errors.fileno(), select.POLLOUT)
            return bool(poll.poll(milliseconds))
        except (OSError, ValueError, AttributeError):
            return True

    def replace_closed(self) -> None:
        """Replace standard streams that the application has closed by None: at its end Python flushes both."""
        for name in ("stdout", "stderr"):
            if getattr(getattr(sys, name), "closed", False):
                setattr(sys, name, None)

    def close(self) -> None:
        """Close the copies."""
        if self.queue:
            self.write_queued()
        for stream in (self.output, self.errors):
            if isinstance(stream, OwnCopy):
                try:
                    stream.close()
                except OSError:
                    pass  # the disk is full, or the pipe has no reader


class OwnCopy(io.TextIOBase):
    """A text stream on our own descriptor, without a buffer.

    A signal handler may write while the main thread writes. Python's own streams raise RuntimeError then, and the message would
    be lost.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.descriptor = descriptor
        self.codec = encoding

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write all of a text. Raises OSError."""
        data = memoryview(text.encode(self.codec, "backslashreplace"))
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:  # another process has made the file non-blocking for all that share it
                poll = _poll()
                poll.register(self.descriptor, select.POLLOUT)
                if not poll.poll(READER_TIMEOUT):
                    raise
        return len(text)

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            super().close()
            os.close(self.descriptor)


def own_copy(stream: Any) -> io.TextIOBase | None:
    """Return a private stream that writes to the same file; the stream itself if the program has replaced the standard stream.

    A program that has replaced sys.stderr wants to receive the messages.
    """
    if not isinstance(stream, io.TextIOWrapper) or (stream is not sys.__stdout__ and stream is not sys.__stderr__):
        replaced: io.TextIOBase | None = stream
        return replaced
    try:
        return OwnCopy(os.dup(stream.fileno()), stream.encoding)
    except (OSError, ValueError):
        return None


# --- Messages -----------------------------------------------------------------------------------------------------------


def banner(
    name: str,
    listeners: list[socket.socket],
    options: Options,
    tls: Security | None = None,
    *,
    color: bool = False,
    query: str = "",
) -> str:
    """Return the first lines: the application, its addresses, and how to stop the server. `query` is added to the addresses."""
    dim, bold = (DIM, BOLD) if color else ("", "")
    lines = [f"microwsgi {__version__} serving {paint(escaped(name), bold)}"]
    scheme = "http" if tls is None else "https"
    for address, note in places(listeners, scheme):
        link = address if address.startswith("unix:") else address + query
        lines.append(f"  {link:<30}{' ' if query else ''}{paint(note, dim)}".rstrip())
    if tls is not None:
        lines += [f"  {note}" for note in tls.notes()]
    if not loopback_only(listeners):
        lines.append(f"  {paint('This is a development server: do not expose it to strangers.', dim)}")
    more = "Reloads on save. " if options.reload else ""
    more += f"{options.workers} workers. " if options.workers > 1 else ""
    end = f"Process {os.getpid()}, in the background." if options.daemon else "Ctrl-C stops."
    lines.append(f"  {paint(more + end, dim)}")
    return "\n".join(lines)


def places(listeners: list[socket.socket], scheme: str = "http") -> Iterator[tuple[str, str]]:
    """Yield each address, with a note on which machines can reach it."""
    alone = loopback_only(listeners)
    for address in urls(listeners, scheme):
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            option = f"--abstract-unix-socket {path[1:]}" if path.startswith("@") else f"--unix-socket {path}"
            yield address, f"(curl {option} {scheme}://localhost/)"
        elif "//127." in address or "//[::1]" in address or "//localhost" in address:
            yield address, ONLY_HERE if alone else ""
        else:
            yield address, ALL_MACHINES


def farewell(requests: int, errors: int, seconds: float) -> str:
    """Return the last line: the counts."""
    return f"Stopped. {counted(requests, 'request')}, {counted(errors, 'error')}, up {duration(seconds)}."


def counted(number: int, noun: str) -> str:
    """Return a number with a noun: 1 request, 2 requests."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration for people: 12 s, 4 min, 3 h 5 min, 2 days."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return counted(days, "day")
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def colored(when: str, stream: object, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether to use colors, by the option, NO_COLOR, FORCE_COLOR, and the terminal, in this order."""
    if when != "auto":
        return when == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and environ.get("TERM") != "dumb"


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal. A closed standard stream is None, and programs can replace it by any object."""
    try:
        return bool(stream.isatty())
    except Exception:  # None, a closed file, an object without that method
        return False


def paint(text: str, style: str) -> str:
    """Return a text in an ANSI style; unchanged for the style ""."""
    return f"\033[{style}m{text}\033[0m" if style and text else text


def say(text: str, stream: object = None) -> None:
    """Write a line to a stream, or to standard error, without buffering."""
    write(f"{text}\n", sys.stderr if stream is None else stream)


def write(text: str, stream: Any) -> None:
    """Write to a stream without buffering. Errors are ignored."""
    try:
        stream.write(text)
        stream.flush()
    except RuntimeError:  # this is a signal handler that has interrupted a write to the same stream
        write_past_buffer(text, stream)
    except Exception:  # closed, full, or replaced by anything
        return


def write_past_buffer(text: str, stream: Any) -> None:
    """Write to the descriptor of a stream, bypassing its buffer."""
    try:
        os.write(stream.fileno(), text.encode("utf-8", "backslashreplace"))
    except Exception:  # it has none, or is closed or full
        return
