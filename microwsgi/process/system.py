"""The system calls of the parent process, as one object: a test makes each of them fail at each place.

The functions are taken from their modules when this module is imported, which is before the application is: an application
that replaces `os.fork` or `time.monotonic` does not change what its server does.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from signal import SIG_BLOCK, SIG_UNBLOCK, pthread_sigmask

READ, WRITE = select.POLLIN, select.POLLOUT


class System:
    """The system calls. Each method raises OSError as the call itself does."""

    # --- Processes ----------------------------------------------------------------------------------------------------

    def fork(self) -> int:
        """Make a copy of this process."""
        return _fork()

    def spawn(self, arguments: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start another program that inherits these descriptors."""
        return _popen(arguments, pass_fds=descriptors)

    def wait(self, pid: int) -> tuple[int, int]:
        """Ask how a child has ended, waitpid(2): its pid, or 0 while it runs, and the status."""
        return _waitpid(pid, os.WNOHANG)

    def kill(self, pid: int, number: int) -> None:
        """Send a signal."""
        _kill(pid, number)

    def block_signals(self, numbers: Sequence[int]) -> None:
        """Have these signals wait."""
        pthread_sigmask(SIG_BLOCK, numbers)

    def unblock_signals(self, numbers: Sequence[int]) -> None:
        """Have these signals delivered again."""
        pthread_sigmask(SIG_UNBLOCK, numbers)

    # --- Sockets ------------------------------------------------------------------------------------------------------

    def socketpair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets."""
        return _socketpair()

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection of a listening socket."""
        return listener.accept()[0]

    def receive(self, connection: socket.socket, size: int) -> bytes:
        """Take the bytes that have come."""
        return connection.recv(size)

    def send(self, connection: socket.socket, data: bytes | bytearray | memoryview) -> int:
        """Send bytes: how many the system has taken."""
        return connection.send(data)

    # --- Waiting, and files -------------------------------------------------------------------------------------------

    def poll(self, interests: dict[int, int], seconds: float | None) -> list[tuple[int, int]]:
        """Wait for descriptors; the result has those that are ready, with their events.

        The parent waits for a few descriptors only. poll(2) keeps nothing in the kernel, so that there is nothing to register,
        which could fail, and nothing that a forked child would share.
        """
        poll = _poll()
        for descriptor, events in interests.items():
            poll.register(descriptor, events)
        return poll.poll(None if seconds is None else max(seconds, 0.0) * 1000)

    def open_append(self, path: str) -> int:
        """A descriptor of a file that is written at its end. It never becomes the terminal of this session (O_NOCTTY)."""
        return _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def duplicate(self, descriptor: int, target: int) -> None:
        """Copy a descriptor to another number, dup2(2). Only the standard streams are inherited by other programs."""
        _dup2(descriptor, target, inheritable=target <= 2)  # standard error is the last of them

    def write(self, descriptor: int, data: bytes) -> int:
        """Write bytes, and say how many the system has taken."""
        return _write(descriptor, data)

    def open_own(self, path: str) -> int:
        """A descriptor of a file of this process, which is made if it is not there. A link is not followed."""
        return _open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def lock(self, descriptor: int) -> None:
        """Lock a file for this process, or raise BlockingIOError or PermissionError if another has it."""
        _lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write_at_start(self, descriptor: int, data: bytes) -> int:
        """Write bytes over the first ones of a file, and say how many the system has taken."""
        return _pwrite(descriptor, data, 0)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file off behind so many bytes."""
        _ftruncate(descriptor, size)

    def status(self, descriptor: int) -> os.stat_result:
        """The status of an open file."""
        return _fstat(descriptor)

    def status_of_path(self, path: str) -> os.stat_result:
        """The status of a file or a link."""
        return _lstat(path)

    def remove(self, path: str) -> None:
        """Remove the name of a file."""
        _unlink(path)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""
        return _monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, but not for anything."""
        _sleep(seconds)


_fork = getattr(os, "fork", None) or (lambda: -1)  # Windows has none, and no parent either
_waitpid, _kill, _open, _dup2, _write = os.waitpid, os.kill, os.open, os.dup2, os.write
_pwrite, _ftruncate, _fstat, _lstat, _unlink, _lockf = (
    os.pwrite,
    os.ftruncate,
    os.fstat,
    os.lstat,
    os.unlink,
    fcntl.lockf,
)
_popen, _socketpair, _poll = subprocess.Popen, socket.socketpair, select.poll
_monotonic, _sleep = time.monotonic, time.sleep
