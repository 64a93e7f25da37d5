"""The access log: one line for each request, written by another hand than the one that serves.

`microwsgi.server.handler` calls an `AccessLog` when a request is done with. Its line is made at once, since making lines in
another thread would hold up this one, and is written by a thread that gathers what comes within a few hundredths of a second:
a terminal that is stopped, or a full disk, stops the log and not the server.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque

from microwsgi import later
from microwsgi.server.exchange import Exchange

GATHER = 0.02
"""Seconds in which lines are gathered: no person sees it, and a busy server writes no more than 50 times a second."""
MOST_LINES = 100_000
"""Lines that wait for a terminal or a disk that takes none; those that come then are counted, not kept."""

STATUS_COLORS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}
DIM = "2"


class AccessLog:
    """A log of finished requests, to a stream or to the end of a file.

    `log_format` is line (for people), common or combined (for programs that read Apache's; combined has the microseconds at
    its end), or json; auto is line on a terminal and combined elsewhere. Raises OSError if the file can't be opened.
    """

    def __init__(self, target: io.TextIOBase | str, log_format: str = "auto", *, color: bool = False) -> None:
        self.target = target
        self.stream = open(target, "a", encoding="utf-8") if isinstance(target, str) else target  # noqa: SIM115 - see close
        if log_format == "auto":
            log_format = "line" if self.stream.isatty() else "combined"
        self.line = getattr(self, f"{log_format}_line")
        self.color = color
        self.second = 0
        self.until = -1.0
        self.stamp = self.clock = ""
        self.lines: deque[str] = deque()
        self.lost = 0
        self.writer: threading.Thread | None = None
        self.call = threading.Lock()  # released when there is something to write
        self.call.acquire()
        self.rests = True
        self.closing = False

    def __call__(self, exchange: Exchange, seconds: float) -> None:
        """Have a line written for a request that took so many seconds."""
        if exchange.context.date.until != self.until:
            self.tell_time(exchange.context.date.until)
        if len(self.lines) < MOST_LINES:
            self.lines.append(self.line(exchange, seconds))
        else:
            self.lost += 1
        if self.rests:
            self.wake()

    def tell_time(self, until: float) -> None:
        """Make the texts of the time, once a second: whenever the Date field is another."""
        self.until = until
        self.second = int(time.time())
        now = time.localtime(self.second)
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[
            3 * now.tm_mon - 3 : 3 * now.tm_mon
        ]  # strftime would translate it
        self.stamp = time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", now)
        self.clock = time.strftime("%H:%M:%S", now)

    # --- Lines ------------------------------------------------------------------------------------------------------

    def line_line(self, exchange: Exchange, seconds: float) -> str:
        """For people: `06:12:03  127.0.0.1  GET /users?page=2  200  345 B  1.3 ms`."""
        head = exchange.head
        what = f"{head.method} {head.target}" if head.method else escaped(head.line)
        status = f"{exchange.status or '---'}{'!' if exchange.reason else ''}"
        clock = self.clock
        if self.color:
            status = f"\033[{STATUS_COLORS.get(exchange.status // 100, '31')}m{status}\033[0m"
            clock = f"\033[{DIM}m{clock}\033[0m"
        reason = f"  {escaped(exchange.reason)}" if exchange.reason else ""
        client, size = exchange.transport.client[0] or "unix", bytes_text(exchange.size)
        return f"{clock}  {client}  {what}  {status}  {size}  {time_text(seconds)}{reason}\n"

    def common_line(self, exchange: Exchange, seconds: float) -> str:  # noqa: ARG002 - the format has no place for it
        """Apache's common log format."""
        client, line = exchange.transport.client[0] or "-", quoted(exchange.head.line)
        return f'{client} - - [{self.stamp}] "{line}" {exchange.status or "-"} {exchange.size or "-"}\n'

    def combined_line(self, exchange: Exchange, seconds: float) -> str:
        """Apache's combined log format, and the microseconds."""
        head = exchange.head
        fields = head.fields
        line = f"{head.method} {head.target} {head.version}"
        referer, agent = fields.get("HTTP_REFERER", "-"), fields.get("HTTP_USER_AGENT", "-")
        # The parser lets no control character but the tab through. A quotation mark could end the quotes, and begin a record.
        # One look at the whole head decides for most requests that nothing needs quoting; numbers, since `b'"' in raw` raises
        # and catches an exception within CPython.
        raw = head.raw
        if 34 in raw or 92 in raw or 9 in raw or not raw.isascii() or not head.method:  # noqa: PLR2004 - quote, backslash, tab
            line, referer, agent = quoted(head.line), quoted(referer), quoted(agent)
        client, micros = exchange.transport.client[0] or "-", int(seconds * 1e6)
        return (
            f'{client} - - [{self.stamp}] "{line}" {exchange.status} {exchange.size} "{referer}" "{agent}" {micros}\n'
        )

    def json_line(self, exchange: Exchange, seconds: float) -> str:
        """One JSON object."""
        head = exchange.head
        what = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.second)),
            "client": exchange.transport.client[0],
            "method": head.method,
            "target": head.target,
            "version": head.version,
            "status": exchange.status,
            "bytes": exchange.size,
            "seconds": round(seconds, 6),
            "reason": exchange.reason,
            "referer": head.fields.get("HTTP_REFERER", ""),
            "agent": head.fields.get("HTTP_USER_AGENT", ""),
        }
        return later.json.dumps(what) + "\n"

    # --- Writing ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the writer look."""
        if self.writer is None or not self.writer.is_alive():  # a fork leaves it behind
            self.call = threading.Lock()
            self.writer = threading.Thread(target=self.write, name="microwsgi-log", daemon=True)
            self.rests = False
            self.writer.start()
            return
        self.rests = False
        try:
            self.call.release()
        except RuntimeError:
            pass  # somebody else did

    def write(self) -> None:
        """The writer's whole life: gather, write, rest."""
        while True:
            time.sleep(0 if self.closing else GATHER)
            self.write_lines()
            if self.closing:
                return
            self.rests = True
            if not self.lines:
                self.call.acquire()
            self.rests = False

    def write_lines(self) -> None:
        """Write what has been gathered; what can't be written is lost, and said when something can be again."""
        lines = [self.lines.popleft() for _ in range(len(self.lines))]
        if not lines:
            return
        try:
            if self.lost:
                self.stream.write(f"... {self.lost} requests are missing here: the log was too slow\n")
                self.lost = 0
            self.stream.write("".join(lines))
            self.stream.flush()
        except (OSError, ValueError):
            self.lost += len(lines)

    def reopen(self) -> None:
        """Open the file anew, after something like logrotate has moved it; if that fails the old one stays. Raises OSError."""
        if isinstance(self.target, str):
            old, self.stream = self.stream, open(self.target, "a", encoding="utf-8")  # noqa: SIM115 - see close
            old.close()

    def close(self) -> None:
        """Write what is left, and give the file back."""
        self.closing = True
        if self.writer is not None:
            self.wake()
            self.writer.join(1.0)
        self.write_lines()
        if isinstance(self.target, str):
            self.stream.close()


def escaped(text: str) -> str:
    """Without control characters, which could write on a terminal what they like."""
    return text if text.isprintable() else ascii(text)[1:-1]


def quoted(text: str) -> str:
    """For between quotes: printable ASCII, as Apache escapes."""
    return ascii(text)[1:-1].replace("\\'", "'").replace('"', '\\"') if text else "-"


def bytes_text(size: int) -> str:
    """345 B, 3.4 KB, 12 MB."""
    if size < 1000:  # noqa: PLR2004 - three digits are read at a glance
        return f"{size} B"
    for unit in ("KB", "MB", "GB"):
        size /= 1000  # type: ignore[assignment]
        if size < 1000:  # noqa: PLR2004
            return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"  # noqa: PLR2004
    return f"{size:.0f} GB"


def time_text(seconds: float) -> str:
    """85 µs, 1.3 ms, 2.1 s."""
    if seconds < 0.001:  # noqa: PLR2004
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
