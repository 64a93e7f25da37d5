"""Each system call of the log writer and of the pid file fails at each place: no record is lost untold, no lock stays."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from microwsgi.daemon.pidfile import PidFile, holder
from microwsgi.errors import ServiceError
from microwsgi.process.system import System
from microwsgi.server import log_writer
from microwsgi.server.log import AccessLog
from microwsgi.server.log_writer import Destination, LogSystem, LogWriter
from tests.faults.running import wait_until

RECORDS = 60
LOG_FAULTS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EAGAIN, errno.ENOBUFS),
    "status": (errno.EIO, errno.ENOMEM),
    "takes_more": (errno.ENOMEM, errno.EINVAL),
    "lock": (errno.ENOLCK, errno.EIO, errno.EAGAIN, errno.ENOMEM),
    "unlock": (errno.ENOLCK, errno.EIO),
}
PID_FAULTS = {
    "open_own": (errno.EROFS, errno.EMFILE, errno.ENOSPC),
    "lock": (errno.ENOLCK, errno.EINTR),
    "status": (errno.EIO, errno.ENOMEM),
    "status_of_path": (errno.EIO, errno.EACCES),
    "write_at_start": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "truncate": (errno.EIO, errno.EFBIG),
    "remove": (errno.EACCES, errno.EROFS, errno.EIO),
}


class Fault:
    """A method of a system whose calls from the `first` on fail, `count` of them, or all until `over` is set."""

    def __init__(self, system: object, name: str, number: int, first: int = 1, count: int = 0) -> None:
        self.call: Callable[..., object] = getattr(system, name)
        self.number, self.first, self.last = number, first, first + count - 1 if count else 0
        self.calls = self.failed = 0
        self.over = False
        setattr(system, name, self)

    def __call__(self, *arguments: object, **named: object) -> object:
        self.calls += 1
        if not self.over and self.calls >= self.first and (not self.last or self.calls <= self.last):
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))
        return self.call(*arguments, **named)


@contextmanager
def opened(kind: str, path: Path) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A descriptor to write to, and what gives the bytes that have come."""
    if kind == "file":
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        yield descriptor, path.read_bytes
        os.close(descriptor)
        return
    reader, writer = os.pipe()
    received = bytearray()

    def read() -> None:
        while data := os.read(reader, 65536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    yield writer, lambda: bytes(received)
    os.close(writer)
    thread.join()
    os.close(reader)


def written(kind: str, path: Path, name: str, number: int, first: int, count: int) -> str:
    """Log while a call fails; what is wrong with what is written, "" if nothing is."""
    system = LogSystem()
    fault = Fault(system, name, number, first, count)
    expected = [f"record {each} {'x' * each}" for each in range(RECORDS)]
    with opened(kind, path) as (descriptor, received):
        destination = Destination(SimpleNamespace(fileno=lambda: descriptor), system)
        writer = LogWriter(destination)
        writer.start()
        try:
            for each, text in enumerate(expected):
                destination.add(f"{text}\n")
                if writer.idle:
                    writer.wake()
                if not each % 10:  # several writes, and not one of all
                    calls = fault.calls
                    wait_until(lambda calls=calls: fault.calls > calls and not destination.records, 0.1)  # type: ignore[misc]
            fault.over = True
            if not wait_until(lambda: received().count(b"\n") >= RECORDS, 5.0):
                lines = len(received().splitlines())
                return f"after the fault {lines} of {RECORDS} records are written"
        finally:
            writer.stop()
        if received().decode().splitlines() != expected:
            return "the records are not whole, in order, each once"
        if not fault.failed:
            return f"{name} was called {fault.calls} times, and never failed"
    return ""


def test_no_record_is_lost_or_torn_whichever_call_of_the_log_writer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, at its first, second and third call; and again and again."""
    monkeypatch.setattr(log_writer, "RETRY", 0.005)
    monkeypatch.setattr(log_writer, "GATHER", 0.001)
    rows = [
        (kind, tmp_path / f"{kind}-{name}-{number}-{first}-{count}", name, number, first, count)
        for kind in ("file", "pipe")
        for name, numbers in LOG_FAULTS.items()
        for number in numbers
        for first, count in ((1, 1), (2, 1), (3, 1), (1, 0))
        if (kind, name) != ("file", "takes_more")  # a file takes any number of bytes
    ]
    with ThreadPoolExecutor(8) as pool:  # they mostly wait
        results = pool.map(written, *zip(*rows, strict=True))
    faults = [f"{row[1].name}: {problem}" for row, problem in zip(rows, results, strict=True) if problem]
    assert not faults, "\n".join(faults)


def test_the_thread_of_the_log_goes_on_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "RETRY", 0.005)
    attempts: Counter[str] = Counter()
    real = log_writer.Batch.of

    def of(texts: list[str], codec: str) -> log_writer.Batch:
        attempts["of"] += 1
        if attempts["of"] == 1:
            raise MemoryError
        return real(texts, codec)

    monkeypatch.setattr(log_writer.Batch, "of", of)
    with opened("file", tmp_path / "log") as (descriptor, received):
        destination = Destination(SimpleNamespace(fileno=lambda: descriptor))
        writer = LogWriter(destination)
        writer.start()
        try:
            for text in ("one\n", "two\n"):
                destination.add(text)
                writer.wake()
                assert wait_until(lambda text=text: received().count(b"\n") == attempts["of"] > 0)  # type: ignore[misc]
        finally:
            writer.stop()
        assert received() == b"... 1 record is missing here: the system has no memory.\ntwo\n"


@pytest.mark.parametrize("call", ["open", "dup2"])
def test_a_log_file_that_can_not_be_opened_again_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log = AccessLog(str(tmp_path / "log"))
    (tmp_path / "log").rename(tmp_path / "old")
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as context:
        fault = Fault(SimpleNamespace(call=getattr(os, call)), "call", errno.EMFILE)
        context.setattr(os, call, fault)
        with pytest.raises(OSError, match="Too many open files"):
            log.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    log.destination.add("still here\n")
    log.reopen()
    log.destination.add("and there\n")
    log.close()
    assert (tmp_path / "old").read_text() + (tmp_path / "log").read_text() == "still here\nand there\n"


def pid_file(folder: Path, name: str, number: int, when: str) -> str:
    """Take and give back a pid file while a call fails; what is wrong then, "" if nothing is."""
    path = folder / "x.pid"
    system = System()
    fault = Fault(system, name, number)
    fault.over = when != "lock"
    before = len(os.listdir("/proc/self/fd"))
    mine = PidFile(str(path), system)
    try:
        mine.lock()
        if when == "lock" and fault.calls:
            return "it is taken"
    except ServiceError as error:
        if when != "lock" or os.strerror(number) not in str(error):
            return f"{error}"
    fault.over = when != "release"
    mine.release()
    fault.over = True
    if len(os.listdir("/proc/self/fd")) != before:
        return "a descriptor is left"
    if path.exists() and holder(str(path)):
        return "it is locked"
    again = PidFile(str(path), system)
    again.lock()
    problem = "" if path.read_text() == f"{os.getpid()}\n" else f"it has {path.read_text()!r}"
    again.release()
    return problem or ("it is not removed" if path.exists() else "")


def test_a_pid_file_is_taken_or_refused_and_never_stays_locked_whichever_call_fails(tmp_path: Path) -> None:
    faults = []
    for name, numbers in PID_FAULTS.items():
        for number in numbers:
            for when in ("lock", "release"):
                folder = tmp_path / f"{name}-{number}-{when}"
                folder.mkdir()
                if problem := pid_file(folder, name, number, when):
                    faults.append(f"{name} fails with {errno.errorcode[number]} at the {when}: {problem}")
    assert not faults, "\n".join(faults)


def test_a_pid_that_is_written_in_part_is_no_pid_file(tmp_path: Path) -> None:
    system = System()
    system.write_at_start = lambda descriptor, data: os.pwrite(descriptor, data[:1], 0)  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="No space left on device"):
        PidFile(str(tmp_path / "x.pid"), system).lock()
    assert not (tmp_path / "x.pid").exists()
