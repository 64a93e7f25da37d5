"""Find changed files by their content, not by their modification time. `microwsgi.prefork.file_events` has the events.

`microwsgi.prefork.supervisor` sets the files to watch (`watch_only`), and calls `check` when there are events. A file that was
touched, or written with the same content, has not changed; one that was replaced by an older version has.

Folders are watched rather than files: editors save by renaming, and a watch of a file would stay with the old file.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from glob import glob, has_magic
from hashlib import blake2b
from itertools import accumulate

from microwsgi.prefork.file_events import Inotify, Polling

MAX_COMPARED = 16 * 1024 * 1024
"""Bytes up to which a file's content is compared; of larger files the modification time and size are compared."""
GONE = b""
"""The digest of a file that isn't there."""
UNKNOWN = b"?"
"""The digest of a file that could not be read because there were no descriptors or no memory."""
SETTLE = 0.05
"""Seconds after which a missing file counts as removed: many editors move the old file away before they write the new one."""
BUSY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR}
"""Errors that say nothing about a file: it may be unchanged."""
BUSY_TIME = 0.5
"""Seconds until a file is read again after such an error."""
MAX_LINKS = 40
"""The kernel's limit for symbolic links on the way to a file (ELOOP): more are a loop."""
IGNORED = (".*", "#*", "*~", "flycheck_*", "*_flymake.py", "*___jb_*___", "*.tmp", "*.orig")
"""Names of temporary files of editors. A file that was imported is watched, whatever its name."""
WRITING = 1.0
"""Seconds without a change after which a file that a program has not closed yet is read as it is."""
ABSENT = 0.5
"""Seconds between two checks whether a removed folder exists again."""


def digest(data: bytes) -> bytes:
    """Return a digest of content."""
    return blake2b(data, digest_size=16).digest()


def digest_of(path: str) -> bytes:
    """Return the digest of a file; GONE if it does not exist. Raises OSError."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            large = status.st_size > MAX_COMPARED
            return digest(f"{status.st_size} {status.st_mtime_ns}".encode() if large else file.read())
    except OSError as error:
        if error.errno in BUSY:
            raise
        return GONE


def links_of(path: str) -> set[str]:
    """Return the symbolic links on the way to a file: its own name, folders above it, and links that these lead through.

    A deployment changes one of them (`current -> releases/2`, Kubernetes' `..data`), and no event occurs in the file's folder.
    """
    found: set[str] = set()
    todo = [path]
    while todo and len(found) < MAX_LINKS:
        for place in accumulate(todo.pop().split(os.sep), lambda above, name: f"{above}{os.sep}{name}"):
            if place not in found and os.path.islink(place):
                found.add(place)
                try:
                    todo.append(os.path.normpath(os.path.join(os.path.dirname(place), os.readlink(place))))
                except OSError:
                    continue  # the link has just been removed
    return found


def ignored(name: str) -> bool:
    """Return whether a name is one of an editor's own files, which are never imported: a lock, a copy, a backup."""
    return any(fnmatch(name, pattern) for pattern in IGNORED)


class Watch:
    """The watched files, and the digests that they had at the last check. All paths are absolute.

    `include` has patterns, in the syntax of glob and relative to `folder`, of files to watch in addition to imported ones. A
    file is not watched if its path, its name or the name of a folder above it matches `exclude`. `on_fallback` is called with
    the reason if inotify is not available and files are polled.
    """

    def __init__(
        self,
        folder: str,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        *,
        polling: bool = False,
        on_fallback: Callable[[str], object] = bool,
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.include = [os.path.join(self.folder, pattern) for pattern in include]
        self.exclude = list(exclude)
        self.known: dict[str, bytes] = {}  # each watched file and its digest
        self.included: set[str] = set()  # those of `known` that match `include`
        self.targets: dict[str, str] = {}  # real path -> the path, through a link, by which it is watched
        self.links: dict[str, set[str]] = {}  # each symbolic link, and the watched files that it leads to
        self.listed: dict[str, set[str]] = {}  # each watched folder, and the names that could be imported from it
        self.absent: set[str] = set()  # folders to watch that do not exist
        self.unsure: set[str] = set()  # files that may have changed before their folder was watched
        self.pending: dict[str, tuple[bytes, float]] = {}  # a file's new digest that may not be final, and since when
        self.notifier: Inotify | Polling = Polling(self.known, self.listed)
        if sys.platform == "linux" and not polling:
            try:
                names = ["*.py", *map(os.path.basename, self.include)]
                self.notifier = Inotify(self.known, self.listed, self.forget, names, on_fallback, self.links)
            except OSError as error:
                # The limit fs.inotify.max_user_instances is reached, or a container has no inotify.
                on_fallback(f"inotify is not available: {error.strerror}")
        self.watch_only({}, [self.folder])
        self.search()
        self.next_check = self.notifier.next_poll(time.monotonic())

    def fileno(self) -> int:
        """Return the descriptor, for selectors; -1 if files are polled."""
        return self.notifier.fileno()

    def close(self) -> None:
        """Close the descriptor."""
        self.notifier.close()

    def describe(self) -> dict[str, object]:
        """Return which files are watched, and why."""
        reasons = {path: "--reload-include" if path in self.included else "imported" for path in self.known}
        how = "polling" if isinstance(self.notifier, Polling) else "inotify"
        return {"how": how, "files": reasons, "folders": sorted(self.listed), "missing folders": sorted(self.absent)}

    # --- The files to watch -----------------------------------------------------------------------------------------

    def watch_only(self, files: Iterable[str], folders: Iterable[str]) -> None:
        """Watch these files, those of `include`, and these folders for new files; no others."""
        wanted = {path for path in files if not self.excluded(path)}
        for path in self.known.keys() - wanted - self.included:
            del self.known[path]
        self.absent &= {*folders, *map(os.path.dirname, wanted)}
        self.watch_folders(folders)
        self.watch_also(wanted)

    def watch_also(self, files: Iterable[str]) -> None:
        """Watch these files in addition to the others."""
        new = {path for path in files if path not in self.known and not self.excluded(path)}
        self.watch_folders(set(map(os.path.dirname, new)))
        for path in new:
            self.add(path)

    def add(self, path: str) -> None:
        """Watch a file whose folder is already watched, so that no change is missed."""
        self.follow_links(path)
        self.notifier.add_file(path)
        try:
            self.known[path] = digest_of(path)
        except OSError:
            self.known[path] = UNKNOWN
            self.unsure.add(path)

    def follow_links(self, path: str) -> None:
        """Watch the folders of the links that lead to a file, and of the file that they lead to."""
        links = links_of(path)
        for link in links:
            self.links.setdefault(link, set()).add(path)
        if links:
            real = os.path.realpath(path)
            self.targets[real] = path
            self.watch_folders({os.path.dirname(real), *map(os.path.dirname, links)})

    def differing(self, files: dict[str, bytes]) -> list[str]:
        """Return the watched files whose content differs from these digests."""
        return [path for path, content in files.items() if self.known.get(path, content) not in {content, UNKNOWN}]

    def watch_folders(self, folders: Iterable[str]) -> None:
        """Watch the folders that exist."""
        for folder in folders:
            if folder not in self.listed and not self.excluded(folder):
                if os.path.isdir(folder) and self.notifier.add(folder):
                    try:
                        self.listed[folder] = importable(folder)
                    except OSError:
                        self.listed[folder] = set()
                    self.absent.discard(folder)
                    self.unsure |= {path for path in self.known if os.path.dirname(path) == folder}
                else:
                    self.absent.add(folder)

    def excluded(self, path: str) -> bool:
        """Return whether a path is excluded."""
        if not self.exclude:
            return False
        names = os.path.relpath(path, self.folder).split(os.sep)
        paths = accumulate(names, os.path.join)
        return any(fnmatch(each, pattern) for each in {*names, *paths} for pattern in self.exclude)

    def search(self) -> list[str]:
        """Find the files of `include`, and watch the folders where more may appear. Return the files that are new."""
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

    # --- Changes ----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Return the files that were changed, added or removed since the last check."""
        now = time.monotonic()
        paths, folders = self.notifier.read()
        came = [path for folder in folders for path in self.find_new(folder)]
        if self.include and folders:
            came += self.search()
        self.watch_folders(list(self.absent))
        paths |= {self.targets[path] for path in paths & self.targets.keys()} | self.pending.keys() | self.unsure
        paths |= {file for link in paths & self.links.keys() for file in self.links[link]}
        self.unsure.clear()
        changed = [path for path in paths & self.known.keys() if self.changed(path, now)]
        waits = [since + self.quiet_time(path, content) for path, (content, since) in self.pending.items()]
        waits += [now + ABSENT] if self.absent else []
        waits += [now + BUSY_TIME] if self.unsure else []
        self.next_check = min([*waits, self.notifier.next_poll(now)])
        return sorted({*came, *changed})

    def changed(self, path: str, now: float) -> bool:
        """Return whether the content of a file has changed, and has been stable for `quiet_time`."""
        try:
            content = digest_of(path)
        except OSError:
            self.unsure.add(path)
            return False
        if self.known[path] == UNKNOWN:
            self.known[path] = content  # it could not be read before, so no child has imported it either
        if content == self.known[path]:
            self.pending.pop(path, None)
            return False
        before, since = self.pending.get(path, (content, now))
        if before != content:
            since = now
        if now - since < self.quiet_time(path, content):
            self.pending[path] = content, since
            return False
        self.pending.pop(path, None)
        self.known[path] = content
        self.follow_links(path)  # the links may now lead to another file
        self.notifier.add_file(path)
        return True

    def quiet_time(self, path: str, content: bytes) -> float:
        """Return for how many seconds new content must be stable."""
        if self.notifier.written(path):
            return WRITING
        return self.notifier.quiet if content else SETTLE

    def find_new(self, folder: str) -> list[str]:
        """Return the new Python files of a folder, and of new folders in it."""
        if folder not in self.listed:
            return []
        if not os.path.isdir(folder):
            self.forget(folder)
            return []
        try:
            now = importable(folder)
        except OSError:
            return []  # a temporary error: the next event or check finds them
        before, self.listed[folder] = self.listed[folder], now
        came = [os.path.join(folder, name) for name in now - before]
        if any(name.endswith(".py") for name in now):
            came += [path for each in came if os.path.isdir(each) for path in self.enter(each)]
        return [
            path
            for path in came
            if path.endswith(".py")
            and path not in self.known
            and not ignored(os.path.basename(path))
            and not self.excluded(path)
        ]

    def enter(self, folder: str) -> list[str]:
        """Watch a new folder; return the files in it."""
        self.watch_folders([folder])
        if folder in self.listed:
            self.listed[folder] = set()
        return self.find_new(folder)

    def forget(self, folder: str) -> None:
        """Stop watching a folder that was removed, and the folders in it, until they exist again."""
        for each in [each for each in self.listed if f"{each}{os.sep}".startswith(f"{folder}{os.sep}")]:
            del self.listed[each]
            self.notifier.remove(each)
            self.absent.add(each)


def importable(folder: str) -> set[str]:
    """Return the names in a folder that could be imported: Python files, and folders that could be packages. Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if entry.name.endswith(".py")
                or (entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir())
            }
    except OSError as error:
        if error.errno in BUSY:
            raise
        return set()
