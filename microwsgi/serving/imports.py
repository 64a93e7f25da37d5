"""Imports under a reloader: never from a stale .pyc, and reported to the parent, which watches the files.

Python considers a .pyc fresh if its source has the same size and modification time, in whole seconds: of two saves within one
second, the second may never be noticed. So the user's own modules are always compiled from their source, and no .pyc is read or
written for them. This costs no time: the parent compiles in idle time the files that a child has imported, and the next child
finds the code in memory.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType

from microwsgi.prefork.watch import GONE, digest, digest_of
from microwsgi.serving.diagnosis import STANDARD, library

SHARED = {"microwsgi", "webob"}
"""Packages that a parent imports for its children, in addition to the standard library."""
NOT_SHARED = {"antigravity", "this", "__main__"}
"""Modules that a parent does not import: the first opens a browser, the second prints a poem, the third is the program."""


class CodeCache:
    """Code objects of files, each with the digest of its source."""

    def __init__(self) -> None:
        self.codes: dict[str, tuple[bytes, CodeType]] = {}

    def get(self, path: str, source: bytes) -> CodeType | None:
        """Return the code of a file, if `source` is the digest of its source."""
        known, code = self.codes.get(path, (b"", None))
        return code if known == source else None

    def prepare(self, path: str, source: bytes) -> None:
        """Compile a file, unless it is already compiled or its source now has another digest."""
        if not path.endswith(".py") or self.get(path, source) is not None:
            return
        try:
            with open(path, "rb") as file:
                data = file.read()
            if digest(data) == source:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the child has shown the warnings
                    self.codes[path] = source, SourceFileLoader("", path).source_to_code(data, path)
        except (OSError, SyntaxError, ValueError):
            pass  # a child that imports the file will report the error


class Imports:
    """Records the user's modules that this process imports."""

    def __init__(self, codes: CodeCache) -> None:
        self.codes = codes
        self.read: dict[str, bytes] = {}  # files that were read, with their digests
        self.on_read: Callable[[dict[str, bytes]], object] | None = None
        self.before = set(sys.modules)
        self.libraries = Libraries()
        try:
            self.place = os.getcwd()
        except OSError:  # the folder was removed, for example when a release was replaced: relative paths are useless
            self.place = os.sep
        """The folder to which entries of sys.path are relative, since an application may change the working folder."""

    def install(self, on_read: Callable[[dict[str, bytes]], object]) -> None:
        """Replace the loader of source files, for the rest of the process's life.

        `on_read` is called with each file that is read, and its digest, unless its code is known already.
        """
        self.on_read = on_read
        # Processes that the application starts must not write .pyc files either: these could be stale after the next save.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        original = SourceFileLoader.get_code

        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            path = loader.get_filename(fullname)
            return original(loader, fullname) if self.libraries.has(path) else self.code(loader, path)

        # Replace the method of the class, instead of adding a finder: editable installs, plug-ins and import hooks of other
        # packages create such loaders, too.
        SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]  # hides the inherited one
        sys.path_importer_cache.clear()  # a listing of the parent may lack a file of the same clock tick

    def code(self, loader: SourceFileLoader, path: str) -> CodeType:
        """Return the code of a file's current content. A loader with its own `source_to_code` compiles the file itself."""
        try:
            data = loader.get_data(path)
        except OSError:
            self.read[path] = GONE  # so that it is watched until it can be read
            raise
        source = self.read[path] = digest(data)
        code = self.codes.get(path, source)
        if code is None and self.on_read is not None:
            self.on_read({path: source})
        if code is None or type(loader).source_to_code is not SourceFileLoader.source_to_code:
            code = loader.source_to_code(data, path)
        return code

    def names(self) -> list[str]:
        """Return the names of the modules that were imported since this object was created, in order."""
        return [name for name, module in list(sys.modules.items()) if name not in self.before and module is not None]

    def files(self) -> dict[str, bytes]:
        """Return the user's files that have been imported, or could not be, with their digests."""
        paths = {file_of(sys.modules[name]) for name in self.names()}
        texts = {os.path.join(self.place, path) for path in paths if isinstance(path, str) and os.path.basename(path)}
        loaded = {path for path in texts if not self.libraries.has(path) and "<" not in path}
        return {path: self.read.get(path) or digest_or_gone(path) for path in loaded | self.read.keys()}

    def folders(self) -> list[str]:
        """Return the folders from which the user's modules may be imported."""
        packages = [path for name in self.names() for path in folders_of(name)]
        places = [os.path.join(self.place, path) for path in sys.path]
        return [
            path
            for path in {*map(os.path.normpath, places), *packages}
            if os.path.isdir(path) and not self.libraries.has(os.path.join(path, ""))
        ]

    def modules(self) -> list[str]:
        """Return the modules that a parent may import for its children, in order."""
        return [name for name in self.names() if shared(name)]

    def report(self) -> dict[str, object]:
        """Return the report for the parent: files, folders, and modules that it may import for the next child."""
        if self.on_read is None:
            return {"modules": self.modules()}
        return {"files": self.files(), "folders": self.folders(), "modules": self.modules()}


class Libraries:
    """Decides which files belong to libraries, which the user does not edit.

    A package that is linked into site-packages (`flit install --symlink`, hupper's issue 60) is the user's: its real path
    counts. The real path of each folder is determined only once.
    """

    def __init__(self) -> None:
        self.folders: dict[str, bool] = {}

    def has(self, path: str) -> bool:
        """Return whether a file belongs to a library."""
        if not library(path):
            return False
        folder, name = os.path.split(path)
        if folder not in self.folders:
            self.folders[folder] = library(os.path.join(os.path.realpath(folder), ""))
        if self.folders[folder] and name and os.path.islink(path):
            return library(os.path.realpath(path))
        return self.folders[folder]


def digest_or_gone(path: str) -> bytes:
    """Return the digest of a file; GONE if it can't be read."""
    try:
        return digest_of(path)
    except OSError:
        return GONE


def file_of(module: ModuleType) -> object:
    """Return the file of a module; for a module in a zip file, the zip file."""
    loader = getattr(vars(module).get("__spec__"), "loader", None)
    return getattr(loader, "archive", None) or vars(module).get("__file__")


def folders_of(name: str) -> list[str]:
    """Return the folders of a package."""
    try:
        return [os.path.abspath(path) for path in vars(sys.modules[name]).get("__path__", ())]
    except (KeyError, TypeError):  # no longer imported, or not a real package
        return []


def shared(name: str) -> bool:
    """Return whether a module belongs to the standard library, or to the packages that all children need."""
    top = name.partition(".")[0]
    if name in NOT_SHARED or not (top in SHARED or top in sys.stdlib_module_names):
        return False
    origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None) or ""
    return origin in {"built-in", "frozen"} or (library(origin) and (top in SHARED or origin.startswith(STANDARD)))
