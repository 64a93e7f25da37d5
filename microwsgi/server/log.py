"""The access log: a line for each request, in one of four formats.

`microwsgi.server.exchange` calls an `AccessLog` when a request is over. The line is formatted at once, because a thread that
formats lines would compete for the GIL with the thread that serves; `microwsgi.server.log_writer` writes it.
"""

from __future__ import annotations

import io
import os
import sys
import time

from microwsgi.server.context import ServerContext
from microwsgi.server.exchange import Exchange
from microwsgi.server.log_writer import ERROR, INFO, MAX_UNCOUNTED, Destination, LogWriter
from microwsgi.support import lazy
from microwsgi.support.typenames import Any

STATUS_COLORS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}
DIM = "2"
CODES = ("-", *map(str, range(1, 1000)))
"""The text of each status, "-" without one. A lookup, since formatting a number costs 0.6 % of a request."""


class AccessLog:
    """The access log: a record for each finished request, written to a stream, a file or a logger of the module logging.

    `log_format` is line (for people), common or combined (for programs that read Apache's; combined has the microseconds at
    its end), or json; auto is line on a terminal and combined elsewhere. Raises OSError if the file can't be opened.
    """

    def __init__(self, target: io.TextIOBase | str | object, log_format: str = "auto", *, color: bool = False) -> None:
        self.path = target if isinstance(target, str) else ""
        self.stream: object = AppendedFile(target) if isinstance(target, str) else target
        if log_format == "auto":
            log_format = "line" if getattr(self.stream, "isatty", bool)() else "combined"
        self.line = getattr(self, f"{log_format}_line")
        self.color = color
        self.second = 0
        self.until = -1.0
        self.stamp = self.local_time = ""
        # If the error records go to the same place, the reason of a refusal is in this line, and not in a second one.
        self.has_reason = log_format != "common" and not self.path
        self.destination = Destination(self.stream)
        self.records = self.destination.records
        self.writer = LogWriter(self.destination)

    def __call__(self, exchange: Exchange, seconds: float) -> None:
        """Queue a line for a request that took `seconds`."""
        if exchange.context.date.until != self.until:  # where no head was just made, the exchange has updated the date
            self.update_time_texts(exchange.context.date.until)
        records = self.records
        if len(records) < MAX_UNCOUNTED:  # Destination.add, without a call
            records.append(self.line(exchange, seconds))
        else:
            self.destination.add(self.line(exchange, seconds), INFO)
        if self.writer.idle:
            self.writer.wake()

    def attach(self, writer: LogWriter, errors: Destination) -> None:
        """Make the log thread of a server write the records. With the error records in the same file, share their queue."""
        self.writer = writer
        if same_file(self.stream, errors.target):
            self.records = errors.records
            self.destination = errors
        writer.add(self.destination)

    def update_time_texts(self, until: float) -> None:
        """Format the time again, since the Date field has changed: once a second at most."""
        self.second = int(time.time())
        now = time.localtime(self.second)
        # strftime would translate the month.
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * now.tm_mon - 3 : 3 * now.tm_mon]
        self.stamp = time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", now)
        self.local_time = time.strftime("%H:%M:%S", now)
        self.until = until  # last: another thread that sees this value uses the new texts

    # --- Lines --------------------------------------------------------------------------------------------------------

    def line_line(self, exchange: Exchange, seconds: float) -> str:
        """Return a line for people: `06:12:03  127.0.0.1  GET /users?page=2  200  345 B  1.3 ms`."""
        head = exchange.head
        what = f"{head.method} {head.target}" if head.method else escaped(head.line)
        status = f"{exchange.status or '---'}{'!' if exchange.reason else ''}"
        clock = self.local_time
        if self.color:
            status = f"\033[{STATUS_COLORS.get(exchange.status // 100, '31')}m{status}\033[0m"
            clock = f"\033[{DIM}m{clock}\033[0m"
        reason = f"  {escaped(exchange.reason)}" if exchange.reason else ""
        client, size = exchange.client[0] or "unix", bytes_text(exchange.size)
        return f"{clock}  {client}  {what}  {status}  {size}  {time_text(seconds)}{reason}\n"

    def common_line(self, exchange: Exchange, seconds: float) -> str:  # `seconds`: not in this format
        """Return a line in Apache's common log format."""
        client, line = exchange.client[0] or "-", quoted(exchange.head.line)
        return f'{client} - - [{self.stamp}] "{line}" {exchange.status or "-"} {exchange.size or "-"}\n'

    def combined_line(self, exchange: Exchange, seconds: float) -> str:
        """Return a line in Apache's combined log format, with the microseconds and the reason of a refusal at its end."""
        head = exchange.head
        # Log injection: the parser refuses control characters except the tab, but a quotation mark could end a quoted text.
        # One test of the whole head shows for most requests that nothing needs quoting. The test uses numbers, since
        # `b'"' in raw` raises and catches an exception within CPython. A head that could not be parsed has a reason.
        raw = head.raw
        if 34 in raw or 92 in raw or 9 in raw or not raw.isascii() or exchange.reason:  # quote, backslash, tab
            return self.quoted_line(exchange, seconds)
        fields = head.fields  # threads may share it, and its `get` locks it where there is no global interpreter lock
        referer = agent = "-"
        if "HTTP_REFERER" in fields:
            referer = fields["HTTP_REFERER"]
        if "HTTP_USER_AGENT" in fields:
            agent = fields["HTTP_USER_AGENT"]
        return (
            f'{exchange.client[0] or "-"} - - [{self.stamp}] "{head.method} {head.target} {head.version}" '
            f'{CODES[exchange.status]} {exchange.size} "{referer}" "{agent}" '
            f"{int(seconds * 1e6)}\n"
        )

    def quoted_line(self, exchange: Exchange, seconds: float) -> str:
        """Return the line of `combined_line` with all texts quoted."""
        head, field = exchange.head, exchange.head.fields.get
        referer, agent = quoted(field("HTTP_REFERER", "")), quoted(field("HTTP_USER_AGENT", ""))
        reason = f' "{quoted(exchange.reason)}"' if exchange.reason and self.has_reason else ""
        return (
            f'{exchange.client[0] or "-"} - - [{self.stamp}] "{quoted(head.line)}" {CODES[exchange.status]} '
            f'{exchange.size} "{referer}" "{agent}" {int(seconds * 1e6)}{reason}\n'
        )

    def json_line(self, exchange: Exchange, seconds: float) -> str:
        """Return a line with one JSON object."""
        head = exchange.head
        what = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.second)),
            "client": exchange.client[0],
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
        return lazy.json.dumps(what) + "\n"

    # --- The file -----------------------------------------------------------------------------------------------------

    def reopen(self) -> None:
        """Open the file again, after logrotate has moved it for example; the old one stays if that fails. Raises OSError."""
        if isinstance(self.stream, AppendedFile):
            self.stream.reopen()

    def close(self) -> None:
        """Write the remaining records, and close the file. Raises OSError with the number of records that were not written."""
        self.writer.stop()
        if self.writer.idle:
            self.writer.wake()
        count, why = self.destination.unwritten(), self.destination.unwritten_reason()
        if isinstance(self.stream, AppendedFile):
            self.stream.close()
        if count:
            raise OSError(0, f"{count} {'record was' if count == 1 else 'records were'} not written: {why}")


class AppendedFile:
    """A file that is opened for appending and written by its descriptor. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = open_at_end(path)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return os.isatty(self.descriptor)

    def reopen(self) -> None:
        """Open the path again. The number of the descriptor stays: the thread that writes uses the old file or the new one."""
        new = open_at_end(self.path)
        try:
            os.dup2(new, self.descriptor, inheritable=False)
        finally:
            os.close(new)

    def close(self) -> None:
        """Close the file."""
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)


def open_at_end(path: str) -> int:
    """Open a file for appending. It never becomes the controlling terminal. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOCTTY", 0)
    return os.open(path, flags, 0o666)  # reduced by the umask, as by `open`


def same_file(one: Any, other: Any) -> bool:
    """Return whether two streams have descriptors of the same file."""
    try:
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.path.samestat(first, second)


# --- The module logging -----------------------------------------------------------------------------------------------


def use_loggers(context: ServerContext) -> None:
    """Log to the loggers `microwsgi.access` and `microwsgi.error` if they have handlers, unless the context has `errors`.

    The command line gives streams, so that its log does not depend on how an application configures the module logging.
    """
    if context.errors is None:
        context.log_errors_to(logger_with_handlers("microwsgi.error", ERROR))
        logger = logger_with_handlers("microwsgi.access", INFO)
        if context.access_log is None and logger is not None:
            context.log_access_to(AccessLog(logger))


def logger_with_handlers(name: str, level: int) -> object:
    """Return the logger if it has a handler and is enabled for this level; else None."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None  # not imported: there are no handlers
    logger = logging.getLogger(name)
    return logger if logger.hasHandlers() and logger.isEnabledFor(level) else None


# --- Texts ------------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Return the text with control characters escaped, since a terminal would interpret them."""
    return text if text.isprintable() else ascii(text)[1:-1]


def quoted(text: str) -> str:
    """Return the text for use between quotes: printable ASCII, escaped as Apache does."""
    return ascii(text)[1:-1].replace("\\'", "'").replace('"', '\\"') if text else "-"


def bytes_text(size: int) -> str:
    """Return a size such as 345 B, 3.4 KB or 12 MB."""
    if size < 1000:  # three digits are easy to read
        return f"{size} B"
    count = float(size)
    for unit in ("KB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{count:.0f} GB"


def time_text(seconds: float) -> str:
    """Return a duration such as 85 µs, 1.3 ms or 2.1 s."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
