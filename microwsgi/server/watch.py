"""What changed on disk: by inotify where the system has it, else by looking again and again. The content decides, not the time.

`microwsgi.server.supervisor` says which files matter (`want`), and asks when something may have happened (`look`). A file that
was touched, or written with what it had before, has not changed; one that was replaced by an older one has.

Folders are watched rather than files: editors save by renaming, and a watch of a file would stay with the old one.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from glob import glob, has_magic
from hashlib import blake2b

LARGEST = 16 * 1024 * 1024
"""Bytes up to which a file's content is compared; larger ones have changed when their time or size has."""
GONE = b""
"""The digest of a file that isn't there."""
SETTLE = 0.05
"""Seconds until a file that isn't there is believed to be gone: many editors move the old one away first."""
WRITING = 1.0
"""Seconds until what somebody is writing is taken as it is."""
ABSENT = 0.5
"""Seconds between looks whether a folder has come back."""
NEVER = float("inf")


def digest(data: bytes) -> bytes:
    """What tells one content from another."""
    return blake2b(data, digest_size=16).digest()


def digest_of(path: str) -> bytes:
    """The digest of a file as it is; GONE if there is none."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            large = status.st_size > LARGEST
            return digest(f"{status.st_size} {status.st_mtime_ns}".encode() if large else file.read())
    except OSError:
        return GONE


class Watch:
    """The files that matter, and what they held when they were looked at last. All paths are absolute.

    `include` has patterns of files that matter beside those that are imported, as glob has them, relative to `folder`. What
    matches `exclude`, with its path, its name or the name of a folder above it, does not matter.
    """

    def __init__(
        self, folder: str, include: Iterable[str] = (), exclude: Iterable[str] = (), *, polling: bool = False
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.include = [os.path.join(self.folder, pattern) for pattern in include]
        self.exclude = list(exclude)
        self.known: dict[str, bytes] = {}  # what each file held
        self.included: set[str] = set()  # those of `known` that match `include`
        self.targets: dict[str, str] = {}  # where a file that is a link really is, to the link
        self.listed: dict[str, set[str]] = {}  # each watched folder, and what could be imported from it
        self.absent: set[str] = set()  # folders that were watched, and are not there
        self.unsure: set[str] = set()  # files that may have changed before their folder was watched
        self.pending: dict[str, tuple[bytes, float]] = {}  # what a file seems to hold, and since when
        self.next_look = NEVER
        self.notifier: Inotify | Polling = Polling(self)
        if sys.platform == "linux" and not polling:
            try:
                self.notifier = Inotify(self)
            except OSError:
                pass  # too many users of it; a container that has none
        self.want({}, [self.folder])
        self.search()

    def fileno(self) -> int:
        """For selectors; -1 if there is nothing to wait for but time."""
        return self.notifier.fileno()

    def close(self) -> None:
        """Give the descriptor back."""
        self.notifier.close()

    # --- What matters -----------------------------------------------------------------------------------------------

    def want(self, files: Iterable[str], folders: Iterable[str]) -> None:
        """Watch these files, those of `include`, and for new ones these folders."""
        wanted = {path for path in files if not self.excluded(path)}
        for path in self.known.keys() - wanted - self.included:
            del self.known[path]
        self.watch_folders(folders)
        self.also(wanted)

    def also(self, files: Iterable[str]) -> None:
        """Watch these files beside the others."""
        new = {path for path in files if path not in self.known and not self.excluded(path)}
        self.watch_folders(set(map(os.path.dirname, new)))
        for path in new:
            self.add(path)

    def add(self, path: str) -> None:
        """Watch a file; its folder is watched already, so that nothing is missed."""
        real = os.path.realpath(path)
        if real != path:
            self.targets[real] = path
            self.watch_folders({os.path.dirname(real)})
        self.notifier.add_file(path)
        self.known[path] = digest_of(path)

    def differing(self, files: dict[str, bytes]) -> list[str]:
        """Those of the watched files that do not hold what somebody has read in them."""
        return [path for path, content in files.items() if self.known.get(path, content) != content]

    def watch_folders(self, folders: Iterable[str]) -> None:
        """Watch folders, those that are there."""
        for folder in folders:
            if folder not in self.listed and not self.excluded(folder):
                if os.path.isdir(folder) and self.notifier.add(folder):
                    self.listed[folder] = importable(folder)
                    self.absent.discard(folder)
                    self.unsure |= {path for path in self.known if os.path.dirname(path) == folder}
                else:
                    self.absent.add(folder)

    def excluded(self, path: str) -> bool:
        """Whether a path does not matter."""
        if not self.exclude:
            return False
        relative = os.path.relpath(path, self.folder)
        names = [relative, *relative.split(os.sep)]
        return any(fnmatch(name, pattern) for pattern in self.exclude for name in names)

    def search(self) -> list[str]:
        """Find the files of `include`, and watch the folders where more may come; those that were not there before."""
        for pattern in self.include:
            place = os.path.dirname(pattern)
            found = glob(os.path.join(place, ""), recursive=True) if has_magic(place) else [place]
            self.watch_folders({os.path.normpath(path) for path in found if os.path.isdir(path)})
        files = {path for pattern in self.include for path in glob(pattern, recursive=True) if os.path.isfile(path)}
        new = {path for path in files - self.included if not self.excluded(path)}
        self.included |= new
        came = sorted(new - self.known.keys())
        for path in came:
            self.add(path)
        return came

    # --- What changed -----------------------------------------------------------------------------------------------

    def look(self) -> list[str]:
        """The files that have changed since the last look, have come, or have gone."""
        now = time.monotonic()
        paths, folders = self.notifier.read()
        came = [path for folder in folders for path in self.look_into(folder)]
        if self.include and folders:
            came += self.search()
        self.watch_folders(list(self.absent))
        paths |= {self.targets[path] for path in paths & self.targets.keys()} | self.pending.keys() | self.unsure
        self.unsure.clear()
        changed = [path for path in paths & self.known.keys() if self.changed(path, now)]
        waits = [since + self.patience(path, content) for path, (content, since) in self.pending.items()]
        waits += [now + ABSENT] if self.absent else []
        self.next_look = min([*waits, self.notifier.next_read(now)])
        return sorted({*came, *changed})

    def changed(self, path: str, now: float) -> bool:
        """Whether a file holds something else than it did, and does so long enough."""
        content = digest_of(path)
        if content == self.known[path]:
            self.pending.pop(path, None)
            return False
        before, since = self.pending.get(path, (content, now))
        if before != content:
            since = now
        if now - since < self.patience(path, content):
            self.pending[path] = content, since
            return False
        self.pending.pop(path, None)
        self.known[path] = content
        self.notifier.add_file(path)
        return True

    def patience(self, path: str, content: bytes) -> float:
        """Seconds until a file is believed to hold this."""
        if self.notifier.written(path):
            return WRITING
        return self.notifier.quiet if content else SETTLE

    def look_into(self, folder: str) -> list[str]:
        """Python files that have come to a folder, or with a new folder."""
        if folder not in self.listed:
            return []
        if not os.path.isdir(folder):
            self.forget(folder)
            return []
        now = importable(folder)
        before, self.listed[folder] = self.listed[folder], now
        came = [os.path.join(folder, name) for name in now - before]
        if any(name.endswith(".py") for name in now):
            came += [path for each in came if os.path.isdir(each) for path in self.enter(each)]
        return [path for path in came if path.endswith(".py") and path not in self.known and not self.excluded(path)]

    def enter(self, folder: str) -> list[str]:
        """Watch a new folder, and say what came with it."""
        self.watch_folders([folder])
        if folder in self.listed:
            self.listed[folder] = set()
        return self.look_into(folder)

    def forget(self, folder: str) -> None:
        """A folder is not there any more, nor are those in it; they may come back."""
        for each in [each for each in self.listed if f"{each}{os.sep}".startswith(f"{folder}{os.sep}")]:
            del self.listed[each]
            self.notifier.remove(each)
            self.absent.add(each)


def importable(folder: str) -> set[str]:
    """Names of what could be imported from a folder: Python files, and folders that could be packages."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if entry.name.endswith(".py")
                or (entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir())
            }
    except OSError:
        return set()


# --- Without help from the system ---------------------------------------------------------------------------------------


class Polling:
    """Looks at the time, size and number of each file and folder, again and again."""

    quiet = 0.02
    """Seconds that a file must stay as it is: it may be half written."""
    PAUSE = 0.25
    """Seconds between two looks, if these are quick."""
    SHARE = 150
    """One part in so many of the time is what looks may take; with thousands of files there are fewer of them."""
    RECENT = 2 * 10**9
    """Nanoseconds in which a file may change without another time: some file systems count no finer."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seen: dict[str, tuple[int, ...]] = {}
        self.took = 0.0

    def fileno(self) -> int:
        """There is nothing to wait for."""
        return -1

    def close(self) -> None:
        """There is nothing to give back."""

    def add(self, folder: str) -> bool:
        """All that is known is looked at."""
        return bool(folder)

    def add_file(self, path: str) -> None:
        """All that is known is looked at."""

    def written(self, path: str) -> bool:
        """Nobody can tell: `quiet` must do."""
        return not path

    def remove(self, folder: str) -> None:
        """It is not looked at any more."""

    def read(self) -> tuple[set[str], set[str]]:
        """Files and folders that may have changed."""
        start = time.monotonic()
        files = {path for path in self.watch.known if self.differs(path)}
        folders = {path for path in self.watch.listed if self.differs(path)}
        self.took = time.monotonic() - start
        return files, folders

    def differs(self, path: str) -> bool:
        """Whether a path looks different from the last time, or may since it was changed just then."""
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

    def next_read(self, now: float) -> float:
        """When to look again."""
        return now + max(self.PAUSE, self.took * self.SHARE)


# --- inotify (Linux) ----------------------------------------------------------------------------------------------------

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
ONLYDIR, IS_FOLDER = 0x01000000, 0x40000000
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE
LOST = DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED
EVENT = struct.Struct("iIII")
"""inotify(7): watch, mask, cookie, length of the name that follows."""


class Inotify:
    """The kernel says what happens in folders, and who begins to write to a file. Raises OSError if there is none to be had."""

    quiet = 0.0
    """The end of writing is what is told, so a file is whole."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.system = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self.names: dict[int, set[str]] = {}  # of each watch: several names may lead to one folder
        self.writing: set[str] = set()
        self.files: set[str] = set()  # what may have changed, and has not been asked for yet
        self.folders: set[str] = set()

    def call(self, name: str, *arguments: object) -> int:
        """A function of the C library. Raises OSError."""
        result: int = getattr(self.system, name)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def fileno(self) -> int:
        """Readable when something has happened."""
        return self.descriptor

    def close(self) -> None:
        """End all watches."""
        os.close(self.descriptor)

    def add(self, folder: str) -> bool:
        """Have a folder watched; False if that can't be."""
        return self.add_watch(folder, CLOSE_WRITE | NAMES | DELETE_SELF | MOVE_SELF | ONLYDIR)

    def add_file(self, path: str) -> None:
        """Be told when somebody writes to a file; for a whole folder that would be each line of a log in it."""
        self.add_watch(path, MODIFY | CLOSE_WRITE)

    def add_watch(self, path: str, mask: int) -> bool:
        """Have something watched."""
        try:
            number = self.call("inotify_add_watch", self.descriptor, os.fsencode(path), mask)
        except OSError:
            return False
        self.names.setdefault(number, set()).add(path)
        return True

    def remove(self, folder: str) -> None:
        """End a folder's watch, which would stay with a folder that was moved."""
        for number in [number for number, names in self.names.items() if folder in names]:
            self.names.pop(number)
            self.system.inotify_rm_watch(self.descriptor, number)

    def read(self) -> tuple[set[str], set[str]]:
        """Files and folders that may have changed."""
        self.catch_up()
        found = self.files, self.folders
        self.files, self.folders = set(), set()
        return found

    def written(self, path: str) -> bool:
        """Whether somebody has begun to write a file, and has not closed it; what was read of it may be a half."""
        self.catch_up()
        return path in self.writing

    def catch_up(self) -> None:
        """Read all events that are there."""
        while data := self.events():
            position = 0
            while position < len(data):
                number, mask, _, length = EVENT.unpack_from(data, position)
                position += EVENT.size + length
                name = os.fsdecode(data[position - length : position].rstrip(b"\0"))
                self.happened(number, mask, name)

    def events(self) -> bytes:
        """Some events as they are."""
        try:
            return os.read(self.descriptor, 65536)
        except BlockingIOError:
            return b""

    def happened(self, number: int, mask: int, name: str) -> None:
        """One event: what it may mean."""
        places = self.names.get(number, set())
        if mask & OVERFLOW:
            self.files |= self.watch.known.keys()
            self.folders |= self.watch.listed.keys()
            self.writing.clear()
        elif mask & LOST:
            self.names.pop(number, None)
            for place in list(places & self.watch.listed.keys()):
                self.watch.forget(place)
                self.files |= self.watch.known.keys()
        elif mask & MODIFY:
            self.writing |= places
        elif not name:
            self.writing -= places
            self.files |= places
        else:
            self.named(mask, places, {os.path.join(folder, name) for folder in places})

    def named(self, mask: int, folders: set[str], paths: set[str]) -> None:
        """Something happened to a name in a folder."""
        if mask & CREATE and not mask & IS_FOLDER and not any(map(linked, paths)):
            self.writing |= paths  # it is whole when it is closed
            return
        self.writing -= paths
        self.files |= paths
        relevant = mask & IS_FOLDER or self.watch.include or any(path.endswith(".py") for path in paths)
        if relevant and (mask & NAMES or not paths <= self.watch.known.keys()):
            self.folders |= folders

    def next_read(self, now: float) -> float:
        """At once if something happened meanwhile, else not before something happens."""
        return now if self.files or self.folders else NEVER


def linked(path: str) -> bool:
    """Whether a path is a link, hard or soft."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_nlink > 1 or os.path.islink(path)
