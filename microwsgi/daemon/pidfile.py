"""A pid file whose lock shows whether the process is alive: the system releases the lock when the process ends.

The number in the file is for people and scripts; this module does not trust it. After a kill -9 or a restart of the machine, or
if another program now has the pid, no process holds the lock. It is a POSIX lock of the process, not of the open file: forked
children do not inherit it, and F_GETLK returns the process that holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from contextlib import suppress

from microwsgi.errors import ServiceError
from microwsgi.process.system import System

LOCK = "hhqqi"
"""struct flock of Linux (fcntl(2)): type, whence, start, length, and the process."""


class PidFile:
    """A pid file of this process."""

    def __init__(self, path: str, system: System) -> None:
        self.path = path
        self.system = system
        self.descriptor = -1

    def lock(self) -> None:
        """Lock the file and write the pid into it. Raises ServiceError if another process has the lock, or writing fails."""
        try:
            self.descriptor = self.locked()
            self.write(f"{os.getpid()}\n".encode())
        except OSError as error:
            self.release()
            raise ServiceError(f"the pid file {self.path} can't be written: {error.strerror}.") from None

    def write(self, number: bytes) -> None:
        """Write the pid, then truncate the file after it, so that a program that reads meanwhile finds no empty file."""
        if self.system.write_at_start(self.descriptor, number) < len(number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.system.truncate(self.descriptor, len(number))

    def locked(self) -> int:
        """Return a descriptor of the locked file at the path."""
        while True:
            descriptor = self.system.open_own(self.path)
            try:
                self.take_lock(descriptor)
                if self.is_at_path(descriptor):  # its last owner may have just removed it
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def take_lock(self, descriptor: int) -> None:
        """Lock the open file. Raises ServiceError if another process has locked it."""
        try:
            self.system.lock(descriptor)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            raise ServiceError(
                f"microwsgi is already running as process {holder(self.path)} (it has locked {self.path}).\n"
                f"  Try:  microwsgi stop --pid-file {self.path}"
            ) from None

    def is_at_path(self, descriptor: int) -> bool:
        """Return whether the file at the path is this open file."""
        try:
            return os.path.samestat(self.system.status(descriptor), self.system.status_of_path(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file. If this user has no permission to remove it, after dropping privileges, empty it.

        If that fails too, the file keeps its number, which has no meaning without the lock.
        """
        if self.descriptor < 0:
            return
        with suppress(OSError):
            try:
                if self.is_at_path(self.descriptor):
                    self.system.remove(self.path)
            except OSError:
                self.system.truncate(self.descriptor, 0)
        os.close(self.descriptor)
        self.descriptor = -1


def holder(path: str) -> int:
    """Return the pid of the process that has locked a pid file; 0 if it is not locked. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        if sys.platform != "linux":
            return number(os.pread(descriptor, 20, 0)) if is_locked(descriptor) else 0
        asked = struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(LOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return 0
        return (
            int(pid) if pid > 0 else number(os.pread(descriptor, 20, 0))
        )  # 0: the process is in another PID namespace
    finally:
        os.close(descriptor)


def is_locked(descriptor: int) -> bool:
    """Return whether another process has the lock, on a system with another struct flock than Linux."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def number(text: bytes) -> int:
    """Return the number in a pid file."""
    return int(text) if text.strip().isdigit() else 0
