"""What changed on disk: the content decides, not the time. `microwsgi.prefork.file_events` says where to look.

`microwsgi.prefork.supervisor` says which files matter (`want`), and asks when something may have happened (`look`). A file that
was touched, or written with what it had before, has not changed; one that was replaced by an older one has.

Folders are watched rather than files: editors save by renaming, and a watch of a file would stay with the old one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from glob import glob, has_magic
from hashlib import blake2b
from itertools import accumulate

from microwsgi.prefork.file_events import Inotify, Polling

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
    matches `exclude`, with its path, its name or the name of a folder above it, does not matter. `tell` is called with the
    reason if the system does not tell of changes, and looking must do.
    """

    def __init__(
        self,
        folder: str,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        *,
        polling: bool = False,
        tell: Callable[[str], object] = bool,
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
        self.notifier: Inotify | Polling = Polling(self.known, self.listed)
        if sys.platform == "linux" and not polling:
            try:
                names = ["*.py", *map(os.path.basename, self.include)]
                self.notifier = Inotify(self.known, self.listed, self.forget, names, tell)
            except OSError as error:
                tell(f"inotify is not to be had: {error.strerror}")  # fs.inotify.max_user_instances; some containers
        self.want({}, [self.folder])
        self.search()
        self.next_look = self.notifier.next_read(time.monotonic())

    def fileno(self) -> int:
        """For selectors; -1 if there is nothing to wait for but time."""
        return self.notifier.fileno()

    def close(self) -> None:
        """Give the descriptor back."""
        self.notifier.close()

    def describe(self) -> dict[str, object]:
        """What is watched, and why."""
        reasons = {path: "--reload-include" if path in self.included else "imported" for path in self.known}
        how = "looked at" if isinstance(self.notifier, Polling) else "inotify"
        return {"how": how, "files": reasons, "folders": sorted(self.listed), "missing folders": sorted(self.absent)}

    # --- What matters -----------------------------------------------------------------------------------------------

    def want(self, files: Iterable[str], folders: Iterable[str]) -> None:
        """Watch these files, those of `include`, and for new ones these folders."""
        wanted = {path for path in files if not self.excluded(path)}
        for path in self.known.keys() - wanted - self.included:
            del self.known[path]
        self.absent &= {*folders, *map(os.path.dirname, wanted)}
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
        names = os.path.relpath(path, self.folder).split(os.sep)
        paths = accumulate(names, os.path.join)
        return any(fnmatch(each, pattern) for each in {*names, *paths} for pattern in self.exclude)

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
