"""The log: serving threads only queue records; one more thread, which may block on a disk, writes them.

    Destination   the queue of one stream or file, with a limit; counts lost records; writes
    LogWriter     the thread that writes the records of its destinations
    ErrorStream   `wsgi.errors`: a text stream whose lines become records

A record is accepted when it is in the queue. An accepted record is written, or counted as lost; the count, with the reason, is
written at the place where the records would have been.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import select
import stat
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum

from microwsgi.support.typenames import UNSET, Any, NoReturn

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

INFO, WARNING, ERROR = 20, 30, 40
"""The levels of the module logging, which takes too long to import for a server that does not use it."""
LEVELS = {"info": INFO, "warning": WARNING, "error": ERROR}
GATHER = 0.02
"""Seconds for which records are collected, so that a busy server writes at most 50 times a second."""
RETRY = 0.1
"""Seconds until the next attempt to write to a full disk, or to a pipe or a terminal that no process reads."""
MAX_UNCOUNTED = 2000
"""The number of queued records above which sizes are counted. More are queued within GATHER only if writing is blocked."""
MAX_QUEUE_SIZE = 32 * 1024 * 1024
"""The maximum number of characters of the counted records in one queue."""
RECORD_SIZE = 64
"""The approximate overhead of a record in bytes."""
ATOMIC = 4096
"""Bytes of one write to a pipe that the kernel never mixes with the bytes of another process (PIPE_BUF of pipe(7))."""
FILE_WRITE = 256 * 1024
"""Bytes of one write to a regular file."""
STOP_TIME = 1.0
"""Seconds without progress after which a stopping server gives up writing; twice that is the limit in total."""
UNREAD = "the log was not read"
BUSY = "another process was in the middle of a long record"
TEMPORARY_ERRORS = {UNREAD, BUSY}
"""Errors that end when another process reads or unlocks."""
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal, or a program that reads lines, may interpret; except the line feed and the tab."""

Record = str | tuple[int, str, BaseException | None]
"""The text of a record with its line feed; or its level, its text and the exception that it is about."""

# Bound at import, before an application can replace them (gevent does). Windows has no poll and no register_at_fork.
_write, _fstat, _fork_hook = os.write, os.fstat, getattr(os, "register_at_fork", None)
_poll: Callable[[], select.poll] = getattr(select, "poll", UNSET)
_exit = os._exit


class LogSystem:
    """The system calls of a destination, in one object, so that a test can make each call fail.

    Each method raises OSError as the call itself does.
    """

    def write(self, descriptor: int, data: bytes) -> int:
        """Write bytes; return the number that the system has taken."""
        return _write(descriptor, data)

    def status(self, descriptor: int) -> os.stat_result:
        """Return the status of an open file."""
        return _fstat(descriptor)

    def takes_more(self, descriptor: int, seconds: float = 0.0) -> bool:
        """Return whether a write would not block, after waiting up to `seconds` for that.

        For a broken stream the result is True, and the write then raises OSError.
        """
        poll = _poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def lock(self, descriptor: int) -> None:
        """Lock a file for this process; raise BlockingIOError or PermissionError if another has it."""
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(self, descriptor: int) -> None:
        """Release that lock."""
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


SYSTEM = LogSystem()


class Notice(bytes):
    """A record about missing records."""

    missing: int

    @classmethod
    def of(cls, missing: int, why: str) -> Notice:
        """Return the record about `missing` records, with the reason."""
        verb = "record is" if missing == 1 else "records are"
        self = cls(f"... {missing} {verb} missing here: {why}.\n".encode("ascii", "backslashreplace"))
        self.missing = missing
        return self

    def record(self) -> Record:
        """Return the record for a stream or logger of the program."""
        return WARNING, self.decode(), None


class Batch(bytes):
    """Records for a regular file, which are encoded and written at once: one by one they would cost 0.5 µs more each."""

    texts: list[str]
    codec: str
    missing: int

    @classmethod
    def of(cls, texts: list[str], codec: str) -> Batch:
        """Return the bytes of these records."""
        self = cls("".join(texts).encode(codec, "backslashreplace"))
        self.texts, self.codec, self.missing = texts, codec, len(texts)
        return self

    def pieces(self) -> list[bytes]:
        """Return the bytes of each record."""
        return [text.encode(self.codec, "backslashreplace") for text in self.texts]


class Destination:
    """A queue of records for a text stream, a descriptor or a logger, and the writes to it.

    `target` is a text stream, a logger of the module logging, or None for the value of `sys.stderr` when a record is written. A
    stream without a buffer of its own, and the interpreter's standard streams, are written by their descriptors: os.write
    returns the number of bytes that it has taken, so no record is repeated or half lost.
    """

    def __init__(self, target: object = None, system: LogSystem = SYSTEM) -> None:
        self.target = target
        self.system = system
        self.records: deque[Record] = deque()  # appended to by any thread, and taken from under `lock`
        self.lock = threading.RLock()  # protects the next three; held only briefly, never during a write
        self.size = 0  # of the records that are counted
        self.lost = 0  # the number of lost records since the queue was last taken; all of them follow the queued ones
        self.why_lost = ""
        # Taken before `lock`, by the thread that writes; protects the attributes below. It is reentrant, and `writing` is set
        # while it is held: so a signal handler of the application that logs during a write leaves its record to that write.
        self.output = threading.RLock()
        self.writing = False
        self.waiting: deque[bytes] = deque()  # records that were taken from the queue for a descriptor
        # A part of the first record in `waiting` was written: other processes are locked out until the rest is written.
        self.partly_written = False
        self.write_error = ""  # why the last write took nothing
        self.failed = 0  # the number of records for which the stream or logger has raised an exception
        self.why_failed = ""
        self.successful_writes = 0

    def add(self, text: str, level: int = ERROR, error: BaseException | None = None) -> None:
        """Queue a record, or count it as lost if the queue is full."""
        record: Record = text
        if hasattr(self.target, "makeRecord"):
            record = level, text, error
        if len(self.records) < MAX_UNCOUNTED and len(text) < FILE_WRITE:
            self.records.append(record)
        else:
            self.add_counted(record, len(text))

    def add_counted(self, record: Record, size: int) -> None:
        """Queue a record if there is room for one of this size, or count it as lost."""
        with self.lock:
            if self.lost or self.size + size + RECORD_SIZE > MAX_QUEUE_SIZE:
                self.why_lost = self.why_lost or self.write_error or "they arrived too fast"
                self.lost += 1
            else:
                self.size += size + RECORD_SIZE
                self.records.append(record)

    def take(self) -> tuple[list[Record], Notice | None]:
        """Return all queued records, and a notice if records after them were lost."""
        with self.lock:
            take = self.records.popleft
            taken = [take() for _ in range(len(self.records))]
            notice = Notice.of(self.lost, self.why_lost) if self.lost else None
            self.size = self.lost = 0
            self.why_lost = ""
        return taken, notice

    def unwritten(self) -> int:
        """Return the number of records that were not written."""
        return (
            sum(getattr(record, "missing", 1) for record in self.waiting) + len(self.records) + self.lost + self.failed
        )

    def unwritten_reason(self) -> str:
        """Return the reason why records were not written."""
        return self.write_error or self.why_lost or self.why_failed

    def clear(self) -> None:
        """Reset everything in a forked child: records and locks belong to the parent."""
        self.records.clear()
        self.waiting.clear()
        self.lock, self.output = threading.RLock(), threading.RLock()
        self.size = self.lost = self.failed = 0
        self.writing = self.partly_written = False

    def descriptor(self) -> int | None:
        """Return the descriptor to write to, if there is one."""
        return descriptor_of(sys.stderr if self.target is None else self.target)

    def wait_for_reader(self) -> None:
        """Wait until a write would not block, for RETRY at most."""
        descriptor = self.descriptor()
        try:
            if descriptor is not None:
                self.system.takes_more(descriptor, RETRY)
        except (OSError, ValueError, TypeError):  # as in `takes_more`
            time.sleep(RETRY)
        time.sleep(GATHER / 20)  # also where poll() returns at once

    # --- Writing ------------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Write queued records until the target takes no more; return whether anything was written."""
        with self.output:
            if self.writing:
                return False
            self.writing = True
            before = self.successful_writes
            try:
                while self.write_once():
                    if not self.records:
                        break
            finally:
                self.writing = False
            return self.successful_writes != before

    def write_once(self) -> bool:
        """Write the records that are queued now; return whether all of them were written."""
        target = sys.stderr if self.target is None else self.target
        descriptor = self.descriptor()
        if self.waiting:
            return self.write_waiting(-1 if descriptor is None else descriptor)
        records, notice = self.take()
        if not records and notice is None:
            return True
        if descriptor is None:
            self.emit_all(records, notice, target)
            return True
        codec = getattr(target, "codec", None) or getattr(target, "encoding", None) or "utf-8"
        try:
            # As `text_of` does, without a call for each record.
            batch = Batch.of([record if isinstance(record, str) else record[1] for record in records], codec)
            self.waiting += [batch] if self.is_file(descriptor) else batch.pieces()
        except MemoryError:
            self.waiting.append(Notice.of(len(records), "the system has no memory"))
        if notice is not None:
            self.waiting.append(notice)
        return self.write_waiting(descriptor)

    def emit_all(self, records: list[Record], notice: Notice | None, target: Any) -> None:
        """Pass records to a stream or a logger of the program; None drops them."""
        if records and self.failed and self.emit(Notice.of(self.failed, self.why_failed).record(), target):
            self.failed, self.why_failed = 0, ""
        for record in records:
            if not self.emit(record, target):
                self.failed += 1
        if notice is not None and not self.emit(notice.record(), target):
            self.failed += notice.missing

    def emit(self, record: Record, target: Any) -> bool:
        """Write one record; return False if the stream or the logger has raised an exception."""
        try:
            if hasattr(target, "makeRecord"):
                level, text, error = (INFO, record, None) if isinstance(record, str) else record
                target.log(level, "%s", text.rstrip("\n"), exc_info=error)
            elif target is not None:
                target.write(text_of(record))
                target.flush()
        except Exception as error:  # an object of the program may raise anything
            self.why_failed = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return False
        self.successful_writes += 1
        return True

    def write_waiting(self, descriptor: int) -> bool:
        """Write to a descriptor without waiting for a reader; return whether all records were written."""
        at_once = self.is_file(descriptor)
        if not self.partly_written and not self.acquire_file_lock(descriptor):
            self.write_error = BUSY
            return False
        try:
            while self.waiting:
                if not at_once and not self.takes_more(descriptor):
                    self.write_error = UNREAD
                    return False
                self.advance(self.system.write(descriptor, self.chunk(FILE_WRITE if at_once else ATOMIC)))
            self.write_error = ""
        except BlockingIOError:  # another process has made the file non-blocking for all that share it
            self.write_error = UNREAD
        except OSError as error:
            self.write_error = error.strerror or str(error)
        finally:
            if not self.partly_written:
                self.release_file_lock(descriptor)
        return not self.waiting

    def is_file(self, descriptor: int) -> bool:
        """Return whether a descriptor is that of a regular file, which takes any number of bytes at once."""
        try:
            return stat.S_ISREG(self.system.status(descriptor).st_mode)
        except OSError:
            return False

    def takes_more(self, descriptor: int, seconds: float = 0.0) -> bool:
        """Return whether a write would not block, after waiting up to `seconds` for that. Raises OSError."""
        try:
            return self.system.takes_more(descriptor, seconds)
        except (ValueError, TypeError):  # a closed stream, for which the write will fail; or Windows, which has no poll
            return True

    def acquire_file_lock(self, descriptor: int) -> bool:
        """Lock the file, so that a record of several writes stays whole; return False if another process has the lock.

        A POSIX lock belongs to the process, so it also works between workers that have inherited the descriptor. Files that
        can't be locked are written without a lock.
        """
        if HAS_LOCKS:
            try:
                self.system.lock(descriptor)
            except BlockingIOError:
                return False
            except OSError:
                pass
        return True

    def release_file_lock(self, descriptor: int) -> None:
        """Unlock the file. If that fails, the next write unlocks it."""
        if HAS_LOCKS:
            try:
                self.system.unlock(descriptor)
            except OSError:
                pass

    def chunk(self, limit: int) -> bytes:
        """Return the bytes to write next: as many whole records as fit into `limit` bytes, or a part of a longer record."""
        first = self.waiting[0]
        if isinstance(first, Batch):
            return first
        if self.partly_written or len(first) > limit:
            return first[:limit]
        size, chunk = 0, []
        for record in self.waiting:
            size += len(record)
            if size > limit:
                break
            chunk.append(record)
        return b"".join(chunk)

    def advance(self, count: int) -> None:
        """Remove the written bytes from `waiting`."""
        self.successful_writes += 1
        while count and self.waiting:
            record = self.waiting.popleft()
            if len(record) > count:
                if isinstance(record, Batch):
                    self.waiting.extendleft(reversed(record.pieces()))
                    continue
                self.waiting.appendleft(record[count:])
                self.partly_written = True
                return
            count -= len(record)
            self.partly_written = False


class Mode(Enum):
    """How a LogWriter writes."""

    DIRECT = 0
    """No loop runs: each record is written by the thread that logs it, before the call returns."""
    THREAD = 1
    """The log's thread writes. If the thread could not be started, records wait for the next attempt."""
    STOPPING = 2
    """The thread writes the remaining records, and ends."""
    STUCK = 3
    """The thread did not end, since a write blocks. Records are queued, or counted as lost."""


class LogWriter:
    """A thread that writes the records of some destinations.

    The thread is started with the server's loop, in the process that serves: a thread does not survive a fork. A record that is
    queued wakes the thread if it is idle. This wake-up is not lost: a producer appends the record before it reads `idle`, and
    the thread sets `idle` before it checks whether the queues are empty. At least one of the two sees the other's change.
    """

    def __init__(self, *destinations: Destination) -> None:
        self.destinations = list(dict.fromkeys(destinations))
        self.mode = Mode.DIRECT
        self.idle = True  # a thread that queues a record has to call `wake`
        self.thread: threading.Thread | None = None
        self.retry_at = 0.0  # when to try again to start the thread
        self.stopped_at = 0.0
        self.call = threading.Lock()  # released when there is something to write
        self.call.acquire()
        self.starting = threading.Lock()  # protects `thread` while it is started; tried, and never waited for
        _writers.add(self)
        if _fork_hook is not None and not _registered:
            _registered.append(True)
            _fork_hook(after_in_child=_clear_all)

    def add(self, destination: Destination) -> None:
        """Write the records of another destination, too."""
        if destination not in self.destinations:
            self.destinations.append(destination)

    def start(self) -> None:
        """Begin to write in a thread."""
        self.mode = Mode.THREAD  # a thread that was stuck continues, if it can
        # A program may exit without stopping its server, and by os._exit, which calls no function of atexit.
        atexit.register(self.stop)
        if os._exit is _exit:
            os._exit = exit_with_log  # restored by `stop`
        self.start_thread()

    def start_thread(self) -> None:
        """Start the thread. If the system can't, the first record after RETRY seconds tries again."""
        if not self.starting.acquire(blocking=False):
            return
        try:
            alive = self.thread is not None and self.thread.is_alive()
            if not alive and time.monotonic() >= self.retry_at:
                thread = threading.Thread(target=self.run, name="microwsgi-log", daemon=True)
                try:
                    thread.start()
                    self.thread = thread
                except RuntimeError:
                    self.retry_at = time.monotonic() + RETRY
        finally:
            self.starting.release()

    def stop(self) -> None:
        """Write the remaining records, and end the thread. From then on each thread writes its own records."""
        if self.mode is Mode.DIRECT or self.mode is Mode.STUCK:
            return  # STOPPING does not return: a signal may have interrupted the first call
        atexit.unregister(self.stop)
        self.stopped_at = time.monotonic()
        self.mode = Mode.STOPPING
        if (thread := self.thread) is not None:  # a second call may remove it
            self.idle = True
            self.wake()
            thread.join(3 * STOP_TIME)
            if thread.is_alive():
                self.mode = Mode.STUCK
                self.idle = False
                return
        self.thread = None
        self.mode = Mode.DIRECT
        self.idle = True
        self.write()
        if os._exit is exit_with_log and not any(writer.mode is Mode.THREAD for writer in [*_writers]):
            os._exit = _exit

    def wake(self) -> None:
        """Make the thread write the queued records. Without a thread, this call writes them, and takes the lock `output`."""
        if self.mode is Mode.DIRECT:
            self.write()
            return
        if self.thread is None:
            self.start_thread()
        if self.thread is not None:
            self.idle = False
        # Also without a thread: a signal handler may have interrupted its start, and it may be idle already.
        try:
            self.call.release()
        except RuntimeError:
            pass  # another thread has released it

    def run(self) -> None:
        """Write records until `stop`; then wait for the reader of a pipe as long as it reads."""
        wrote_at = time.monotonic()
        while True:
            try:
                wrote = self.write()
            except MemoryError:
                wrote = False  # the thread continues: the records that it could not take are in the queue
                time.sleep(RETRY)
            unwritten = any(destination.waiting for destination in self.destinations)
            if self.mode is not Mode.THREAD:
                now = time.monotonic()
                wrote_at = now if wrote else wrote_at
                if (
                    not unwritten
                    or self.cannot_continue()
                    or now > min(wrote_at, self.stopped_at + STOP_TIME) + STOP_TIME
                ):
                    break
                time.sleep(GATHER)
            elif unwritten:
                self.idle = False
                self.pause()
            elif wrote:
                self.idle = False
                time.sleep(GATHER)
            else:
                self.idle = True
                if not any(destination.records for destination in self.destinations):
                    self.call.acquire()
                self.idle = False
        if self.mode is Mode.STUCK:  # `stop` has not waited for this
            self.thread = None
            self.mode = Mode.DIRECT
            self.idle = True

    def pause(self) -> None:
        """Wait before the next attempt to write: for a reader, or for some time."""
        troubled = [each for each in self.destinations if each.waiting]
        unread = next((each for each in troubled if each.write_error == UNREAD), None)
        if unread is not None:
            unread.wait_for_reader()
        else:
            time.sleep(GATHER if any(each.write_error == BUSY for each in troubled) else RETRY)

    def cannot_continue(self) -> bool:
        """Return whether waiting is useless: no record waits for a reader, but the disk is full or a file is closed."""
        return all(
            destination.write_error not in TEMPORARY_ERRORS for destination in self.destinations if destination.waiting
        )

    def flush(self, seconds: float = STOP_TIME) -> None:
        """Wait until all records logged so far are written, for at most `seconds`."""
        end = time.monotonic() + seconds
        while any(each.records or each.waiting or each.writing for each in self.destinations):
            if time.monotonic() > end:
                return
            time.sleep(GATHER / 20)

    def write(self) -> bool:
        """Write the records of all destinations; return whether any record was written."""
        return sum(destination.write() for destination in self.destinations) > 0

    def clear(self) -> None:
        """Reset everything in a forked child, which has no thread, and must not write records of the parent."""
        self.mode = Mode.DIRECT
        self.idle = True
        self.thread = None
        self.call, self.starting = threading.Lock(), threading.Lock()
        self.call.acquire()
        for destination in self.destinations:
            destination.clear()


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()
_registered: list[bool] = []
"""`os.register_at_fork` can't be undone, so one function is registered for all writers, once."""


def _clear_all() -> None:
    """Reset all writers in a forked child."""
    for writer in [*_writers]:
        writer.clear()


def exit_with_log(status: int) -> NoReturn:
    """Write the records that the logs of this process have accepted, then end it: `os._exit` while a thread writes a log.

    Otherwise an application that writes a reason to `wsgi.errors`, then calls `os._exit`, would lose that record.
    """
    try:
        for writer in [*_writers]:
            writer.stop()
    finally:
        _exit(status)


class ErrorStream(io.TextIOBase):
    """`wsgi.errors`. Whole lines are queued; an incomplete line waits, for each thread, for its end or for `flush`.

    `print` writes a text and its line feed in two calls, so the lines of several threads would otherwise be mixed.
    """

    def __init__(self, writer: LogWriter, destination: Destination) -> None:
        self.writer = writer
        self.destination = destination
        self.partial = threading.local()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Queue the lines of a text, with control characters escaped."""
        lines, feed, rest = (getattr(self.partial, "unfinished", "") + text).rpartition("\n")
        self.partial.unfinished = rest
        if feed:
            self.queue(f"{lines}\n")
        return len(text)

    def flush(self) -> None:
        """Queue an incomplete line. Queued records are written without a call of this method."""
        rest = getattr(self.partial, "unfinished", "")
        if rest:
            self.partial.unfinished = ""
            self.queue(rest)

    def queue(self, text: str) -> None:
        """Queue a record."""
        self.destination.add(printable(text))
        if self.writer.idle:
            self.writer.wake()


def printable(text: str) -> str:
    """Escape control characters, but leave line feeds and tabs."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text) if CONTROLS.search(text) else text


def one_line(text: str) -> str:
    """Escape control characters, line feeds too."""
    return printable(text).replace("\n", "\\n")


def text_of(record: Record) -> str:
    """Return the text of a record."""
    return record if isinstance(record, str) else record[1]


def descriptor_of(stream: Any) -> int | None:
    """Return the descriptor of a stream without a Python buffer, or of one of the interpreter's streams; else None."""
    if stream is None or (hasattr(stream, "buffer") and stream is not sys.__stderr__ and stream is not sys.__stdout__):
        return None
    try:
        descriptor: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor
