"""The system calls of the parent process, as methods of one object, so that tests can make each call fail.

The functions are bound when this module is imported, before the application: if an application replaces `os.fork` or
`time.monotonic`, its server is not affected.
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
        """Fork this process. Return the child's pid; 0 in the child."""
        return _fork()

    def spawn(self, arguments: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start another program that inherits these descriptors."""
        return _popen(arguments, pass_fds=descriptors)

    def wait(self, pid: int) -> tuple[int, int]:
        """Return a child's pid and exit status, as waitpid(2); the pid is 0 while the child runs."""
        return _waitpid(pid, os.WNOHANG)

    def kill(self, pid: int, number: int) -> None:
        """Send a signal."""
        _kill(pid, number)

    def block_signals(self, numbers: Sequence[int]) -> None:
        """Block these signals, which then wait until they are unblocked."""
        pthread_sigmask(SIG_BLOCK, numbers)

    def unblock_signals(self, numbers: Sequence[int]) -> None:
        """Unblock these signals."""
        pthread_sigmask(SIG_UNBLOCK, numbers)

    # --- Sockets ------------------------------------------------------------------------------------------------------

    def socketpair(self) -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets."""
        return _socketpair()

    def accept(self, listener: socket.socket) -> socket.socket:
        """Return the next connection of a listening socket."""
        return listener.accept()[0]

    def receive(self, connection: socket.socket, size: int) -> bytes:
        """Return bytes that have arrived; b"" at the end of file."""
        return connection.recv(size)

    def send(self, connection: socket.socket, data: bytes | bytearray | memoryview) -> int:
        """Send bytes. Return how many the system has accepted."""
        return connection.send(data)

    # --- Waiting, and files -------------------------------------------------------------------------------------------

    def poll(self, interests: dict[int, int], seconds: float | None) -> list[tuple[int, int]]:
        """Wait for descriptors. Return those that are ready, with their events.

        The parent waits for only a few descriptors. Unlike epoll, poll(2) keeps no state in the kernel, which registering could
        fail to change, and which a forked child would share.
        """
        poll = _poll()
        for descriptor, events in interests.items():
            poll.register(descriptor, events)
        return poll.poll(None if seconds is None else max(seconds, 0.0) * 1000)

    def open_append(self, path: str) -> int:
        """Open a file in append mode. Return its descriptor, which never becomes the terminal of this session (O_NOCTTY)."""
        return _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def duplicate(self, descriptor: int, target: int) -> None:
        """Duplicate a descriptor to the number `target`, dup2(2). Only standard streams are inherited by other programs."""
        _dup2(descriptor, target, inheritable=target <= 2)  # standard error is the last of them

    def write(self, descriptor: int, data: bytes) -> int:
        """Write bytes. Return how many the system has accepted."""
        return _write(descriptor, data)

    def open_own(self, path: str) -> int:
        """Open a file of this process, and create it if it does not exist. A symbolic link is not followed."""
        return _open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def lock(self, descriptor: int) -> None:
        """Lock a file for this process. Raises BlockingIOError or PermissionError if another process has locked it."""
        _lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write_at_start(self, descriptor: int, data: bytes) -> int:
        """Write bytes at the beginning of a file. Return how many the system has accepted."""
        return _pwrite(descriptor, data, 0)

    def truncate(self, descriptor: int, size: int) -> None:
        """Truncate a file to this size."""
        _ftruncate(descriptor, size)

    def status(self, descriptor: int) -> os.stat_result:
        """Return the status of an open file."""
        return _fstat(descriptor)

    def status_of_path(self, path: str) -> os.stat_result:
        """Return the status of a file, or of a symbolic link itself."""
        return _lstat(path)

    def remove(self, path: str) -> None:
        """Remove a file, unlink(2)."""
        _unlink(path)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Return the time of the monotonic clock in seconds."""
        return _monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
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
