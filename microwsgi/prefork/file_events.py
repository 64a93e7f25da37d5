"""Events of files and folders, from inotify or by polling.

An event says that a file or folder may have changed. `microwsgi.prefork.watch` compares the content to find out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable, Collection
from fnmatch import fnmatch

NEVER = float("inf")


class Polling:
    """Compare the modification time, size and inode of each file and folder periodically."""

    quiet = 0.02
    """Seconds that a file must stay unchanged: it may be half written."""
    PAUSE = 0.25
    """Seconds between two polls, if polls are fast."""
    SHARE = 150
    """Polls take at most 1/SHARE of the time, so with thousands of files they are less frequent."""
    RECENT = 2 * 10**9
    """Nanoseconds within which two writes may get the same modification time: some file systems have coarse timestamps."""

    def __init__(self, known: Collection[str], listed: Collection[str]) -> None:
        self.known = known  # the watched files
        self.listed = listed  # their folders
        self.seen: dict[str, tuple[int, ...]] = {}
        self.took = 0.0

    def fileno(self) -> int:
        """Return -1: there is no descriptor to wait for."""
        return -1

    def close(self) -> None:
        """Do nothing: there is no descriptor."""

    def add(self, folder: str) -> bool:
        """Return True: all folders in `listed` are polled."""
        return bool(folder)  # `folder` is never empty

    def add_file(self, path: str) -> None:
        """Do nothing: all files in `known` are polled."""

    def written(self, path: str) -> bool:
        """Return False: polling can't see that a file is open for writing; `quiet` is the only protection."""
        return not path  # `path` is never empty

    def remove(self, folder: str) -> None:
        """Do nothing: folders that are no longer in `listed` are not polled."""

    def read(self) -> tuple[set[str], set[str]]:
        """Return the files and the folders that may have changed."""
        start = time.monotonic()
        files = {path for path in self.known if self.differs(path)}
        folders = {path for path in self.listed if self.differs(path)}
        self.took = time.monotonic() - start
        return files, folders

    def differs(self, path: str) -> bool:
        """Return whether a path's status differs from the last one, or is so recent that the next change may not show in it."""
        try:
            status = os.stat(path)
        except OSError:
            seen: tuple[int, ...] = ()
        else:
            seen = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        recent = bool(seen) and time.time_ns() - max(seen[0], seen[1]) < self.RECENT
        differs = self.seen.get(path) != seen
        self.seen[path] = seen
        return differs or recent

    def next_poll(self, now: float) -> float:
        """Return the time of the next poll."""
        return now + max(self.PAUSE, self.took * self.SHARE)


MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
ONLYDIR, IS_FOLDER = 0x01000000, 0x40000000
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE
LOST = DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED
WATCHES = "the limit fs.inotify.max_user_watches is reached"
EVENT = struct.Struct("iIII")
"""inotify(7): watch, mask, cookie, length of the name that follows."""


class Inotify:
    """Events of inotify(7): names in folders, and the beginning and end of writing. Raises OSError if there is none."""

    quiet = 0.0
    """No wait is needed: the end of writing is an event, and the file is complete then."""

    def __init__(
        self,
        known: Collection[str],
        listed: Collection[str],
        forget: Callable[[str], object],
        names: Collection[str] = ("*.py",),
        on_fallback: Callable[[str], object] = bool,
        links: Collection[str] = (),
    ) -> None:
        self.links = links  # symbolic links that lead to watched files
        self.known = known  # the watched files
        self.listed = listed  # their folders
        self.forget = forget  # called with a folder that was removed
        self.patterns = names  # for names of new files to report
        self.on_fallback = on_fallback  # called with the reason for polling
        self.system = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self.places: dict[int, set[str]] = {}  # watch number -> paths: several paths may lead to one folder
        self.writing: set[str] = set()  # files that a program is writing
        self.files: set[str] = set()  # may have changed, not yet returned by `read`
        self.folders: set[str] = set()
        self.polling: Polling | None = None  # used in addition once inotify can't watch more folders

    def call(self, name: str, *arguments: object) -> int:
        """Call a function of the C library. Raises OSError."""
        result: int = getattr(self.system, name)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def fileno(self) -> int:
        """The descriptor, which is readable when there are events."""
        return self.descriptor

    def close(self) -> None:
        """Close the descriptor, which ends all watches."""
        os.close(self.descriptor)

    def add(self, folder: str) -> bool:
        """Watch a folder. Return False if that fails."""
        watched = self.add_watch(folder, CLOSE_WRITE | ATTRIB | NAMES | DELETE_SELF | MOVE_SELF | ONLYDIR)
        if not watched and ctypes.get_errno() == errno.ENOSPC:
            self.start_polling(WATCHES)
        return watched or self.polling is not None

    def start_polling(self, why: str) -> None:
        """Poll all files and folders too: a limit of inotify is reached, or events were lost."""
        if self.polling is None:
            self.polling = Polling(self.known, self.listed)
            self.on_fallback(why)

    def add_file(self, path: str) -> None:
        """Watch writes to a file. Watching writes in the whole folder would cause an event for each line of a log there."""
        if not self.add_watch(path, MODIFY | CLOSE_WRITE) and ctypes.get_errno() == errno.ENOSPC:
            self.start_polling(WATCHES)

    def add_watch(self, path: str, mask: int) -> bool:
        """Add an inotify watch."""
        try:
            number = self.call("inotify_add_watch", self.descriptor, os.fsencode(path), mask)
        except OSError:
            return False
        self.places.setdefault(number, set()).add(path)
        return True

    def remove(self, folder: str) -> None:
        """Remove a folder's watch, which would follow a folder that is moved."""
        for number, names in list(self.places.items()):
            names.discard(folder)
            if not names:
                del self.places[number]
                self.system.inotify_rm_watch(self.descriptor, number)

    def read(self) -> tuple[set[str], set[str]]:
        """Return the files and the folders that may have changed."""
        self.catch_up()
        files, folders = self.files, self.folders
        self.files, self.folders = set(), set()
        if self.polling is not None:
            polled = self.polling.read()
            return files | polled[0], folders | polled[1]
        return files, folders

    def written(self, path: str) -> bool:
        """Return whether a program has begun to write a file and has not closed it: its content may be incomplete."""
        self.catch_up()
        return path in self.writing

    def catch_up(self) -> None:
        """Read all available events."""
        while data := self.events():
            position = 0
            while position < len(data):
                number, mask, _, length = EVENT.unpack_from(data, position)
                position += EVENT.size + length
                name = os.fsdecode(data[position - length : position].rstrip(b"\0"))
                self.handle_event(number, mask, name)

    def events(self) -> bytes:
        """Return raw events."""
        try:
            return os.read(self.descriptor, 65536)
        except BlockingIOError:
            return b""

    def handle_event(self, number: int, mask: int, name: str) -> None:
        """Handle one event."""
        places = self.places.get(number, set())
        if mask & OVERFLOW:
            self.start_polling("more files changed at once than fs.inotify.max_queued_events")
            self.files |= set(self.known)
            self.folders |= set(self.listed)
            self.writing.clear()
        elif mask & LOST:
            self.places.pop(number, None)
            for place in list(places & set(self.listed)):
                self.forget(place)
                self.files |= set(self.known)
        elif mask & MODIFY:
            self.writing |= places
        elif mask & ATTRIB:
            self.files |= {os.path.join(folder, name) for folder in places}  # it may be readable now
        elif not name:
            self.writing -= places
            self.files |= places
        else:
            self.handle_named_event(mask, places, {os.path.join(folder, name) for folder in places})

    def handle_named_event(self, mask: int, folders: set[str], paths: set[str]) -> None:
        """Handle an event for a name in a folder."""
        if mask & CREATE and not mask & IS_FOLDER and not any(map(linked, paths)):
            self.writing |= paths  # the file is complete when it is closed
            return
        self.writing -= paths
        self.files |= paths
        for link in paths & {*self.listed, *self.links} if mask & NAMES else ():
            self.forget(link)  # the name now leads to another folder, or to none
            self.files |= set(self.known)
        name = os.path.basename(next(iter(paths), ""))
        # A name that is an identifier may be a link to a package.
        relevant = mask & IS_FOLDER or name.isidentifier() or any(fnmatch(name, pattern) for pattern in self.patterns)
        if relevant and (mask & NAMES or not paths <= set(self.known)):
            self.folders |= folders

    def next_poll(self, now: float) -> float:
        """Return now if there are changes to read; else the time of the next poll, NEVER with inotify alone."""
        if self.files or self.folders:
            return now
        return NEVER if self.polling is None else self.polling.next_poll(now)


def linked(path: str) -> bool:
    """Return whether a path is a hard or symbolic link."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_nlink > 1 or os.path.islink(path)
