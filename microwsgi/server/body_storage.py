"""Memory and temporary files for request bodies that are received before the application is called, with totals.

All connections of a server share one BodyStorage, so that many clients together can't use more than the totals, however much
each of them sends. Only bytes that have arrived are counted, never a declared length.
"""

from __future__ import annotations

import errno
import io
import threading

from microwsgi.errors import InsufficientStorage, ServiceUnavailable
from microwsgi.support import lazy

MEMORY = 64 * 1024 * 1024
"""The maximum bytes of all bodies in memory; more is written to temporary files."""
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


class BodyStorage:
    """Counters of the stored bytes. Any thread may call any method."""

    def __init__(self, max_in_files: int, max_in_memory: int = MEMORY) -> None:
        self.max_in_files = max_in_files
        self.max_in_memory = max_in_memory
        self.lock = threading.Lock()  # protects all below; no other lock is taken while it is held
        self.in_memory = 0
        self.in_files = 0
        self.reported: set[str] = set()

    def add_memory(self, count: int) -> bool:
        """Count bytes that are kept in memory; return False, and count nothing, if they exceed the total."""
        with self.lock:
            if self.in_memory + count > self.max_in_memory:
                return False
            self.in_memory += count
            return True

    def add_to_files(self, count: int) -> None:
        """Count bytes that are written to a file. Raises ServiceUnavailable if they exceed the total."""
        with self.lock:
            if self.in_files + count > self.max_in_files:
                raise ServiceUnavailable(
                    f"The bodies of all requests need more than {self.max_in_files} bytes in files (max_temp_files_size)."
                )
            self.in_files += count

    def release(self, in_memory: int, in_files: int) -> None:
        """Subtract the bytes of a body that is no longer needed."""
        with self.lock:
            self.in_memory -= in_memory
            self.in_files -= in_files

    def first_report(self, text: str) -> str:
        """Return the text, or "" if it was reported before and no body was stored since."""
        with self.lock:
            if text in self.reported:
                return ""
            self.reported.add(text)
            return text

    def stored(self) -> None:
        """Record that a body was stored in a file, so that a later failure is logged again."""
        if self.reported:
            with self.lock:
                self.reported.clear()


def open_file() -> io.FileIO:
    """Open a temporary file without a name, which disappears with the process, however that ends.

    The folder is that of the tempfile module: TMPDIR, else /tmp. Raises InsufficientStorage, ServiceUnavailable.
    """
    try:
        # With O_TMPFILE if the system has it; otherwise the file is unlinked at once.
        file: io.FileIO = lazy.tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise storage_error(error) from error
    return file


def storage_error(error: OSError) -> InsufficientStorage | ServiceUnavailable:
    """Return the refusal for an error of the file system."""
    if error.errno in NO_DESCRIPTORS:
        return ServiceUnavailable("The body can't be stored: too many files are open.")
    return InsufficientStorage(f"The body can't be stored in a temporary file: {error.strerror or error}.")
