"""Serve the files of a folder: safe paths, precompressed files, index files, listings.

Paths are never joined: each name is opened relative to the descriptor of its folder, and by default without following symbolic
links. So there is no race between a check and a use (TOCTOU), and no name leads out of the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EPERM
from html import escape
from urllib.parse import quote

from webob import Response
from webob.exc import HTTPForbidden, HTTPNotFound

from microwsgi.errors import RouteError
from microwsgi.framework.files import FileResponse
from microwsgi.framework.request import Request
from microwsgi.framework.views import redirect

CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz", "identity": ""}
"""Content codings, and the extension of a file in each coding."""
ABSENT = {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, ENXIO}
POSSIBLE = os.open in os.supports_dir_fd
"""Whether a file can be opened relative to a folder's descriptor. On Windows it can't."""
DIRECTORY, NOFOLLOW = (os.O_DIRECTORY, os.O_NOFOLLOW) if POSSIBLE else (0, 0)
# O_NONBLOCK: opening a named pipe must not wait for its other end.
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK if POSSIBLE else 0
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif }}
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem; overflow-wrap: anywhere }}
a {{ text-decoration: none }} a:hover {{ text-decoration: underline }}
table {{ border-collapse: collapse; width: 100% }} tr:hover td {{ background: #8881 }}
th, td {{ padding: .3rem .5rem; text-align: left; border-bottom: 1px solid #8884; overflow-wrap: anywhere }}
th:first-child {{ width: 100% }}
th, p {{ font-weight: 400; font-size: .85rem; opacity: .7 }}
th + th, td + td {{ padding-left: 1.5rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }}
@media (max-width: 32rem) {{ th:last-child, td:last-child {{ display: none }} }}
</style>
<h1>{title}</h1>
<table>
<tr><th>Name<th>Size<th>Modified (UTC)
{rows}</table>
<p>{count}
"""


class Folder:
    """A view that serves the files of a folder.

    `index` is served for a folder that contains it; else, with `listing`, a page of its files. If `symlinks` is true, symbolic
    links are followed, wherever they lead. Names that begin with a dot are served only if `dotfiles` is true, except
    .well-known, which is always served. For `max_age` see FileResponse.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        index: str = "index.html",
        listing: bool = False,
        symlinks: bool = False,
        dotfiles: bool = False,
        max_age: int | None = None,
    ) -> None:
        if not POSSIBLE:
            raise RouteError(
                "static files are not available on this system: it can't open files relative to an open directory."
            )
        self.folder = os.path.abspath(folder)
        if not os.path.isdir(self.folder):
            raise RouteError(f"there is no directory {self.folder} with static files.")
        self.index = index
        self.listing = listing
        self.symlinks = symlinks
        self.dotfiles = dotfiles
        self.max_age = max_age
        self.flags = READ if symlinks else READ | NOFOLLOW

    def __call__(self, request: Request, path: str = "") -> Response:
        *folders, name = path.split("/")
        try:
            with self.opened(folders) as folder:
                return self.file(folder, name, request) if name else self.page(folder, request, below=bool(folders))
        except OSError as error:
            if error.errno in {EACCES, EPERM}:
                raise HTTPForbidden(f"{request.path[:200]} can't be read.") from None
            if error.errno in ABSENT:
                raise HTTPNotFound(f"There is nothing at {request.path[:200]}.") from None
            raise
        except ValueError:  # a NUL, or characters that the file system can't encode
            raise HTTPNotFound("No file has such a name.") from None

    @contextmanager
    def opened(self, folders: list[str]) -> Iterator[int]:
        """Open a folder inside the served one; yield its descriptor."""
        folder = os.open(self.folder, READ | DIRECTORY)
        try:
            for name in folders:
                self.check(name)
                below = os.open(name, self.flags | DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def check(self, name: str) -> None:
        """Raise FileNotFoundError for a name that leads out of the folder, or for a dotfile that is not served."""
        if name in {"", ".", ".."} or (not self.dotfiles and name.startswith(".") and name != ".well-known"):
            raise FileNotFoundError(ENOENT, "not served")

    def file(self, folder: int, name: str, request: Request) -> Response:
        """Return a file, in the content coding that the client prefers; for a folder, a redirect to its path with a slash."""
        self.check(name)
        found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
        if stat.S_ISDIR(found.st_mode):
            query = f"?{request.query_string}" if request.query_string else ""
            return redirect(f"./{quote(name)}/{query}", 308)  # relative: the prefix of a proxy is kept
        sizes = dict(self.siblings(folder, name, found.st_mtime))
        if "identity" not in sizes:
            raise FileNotFoundError(ENOENT, "not a regular file")
        coding = preferred(request.accept_encoding.parsed or [], sizes)

        def opener(_: str, __: int) -> int:
            return os.open(name + CODINGS[coding], self.flags, dir_fd=folder)

        coded = "" if coding == "identity" else coding
        response = FileResponse(name, max_age=self.max_age, coding=coded, opener=opener)
        if len(sizes) > 1:
            response.headers["Vary"] = "Accept-Encoding"
        return response

    def siblings(self, folder: int, name: str, modified: float) -> Iterator[tuple[str, int]]:
        """Return the codings of a file, identity included, and their sizes, without compressed files older than the file."""
        for coding, end in CODINGS.items():
            try:
                found = os.stat(name + end, dir_fd=folder, follow_symlinks=self.symlinks)
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_mtime >= modified:
                yield coding, found.st_size

    def page(self, folder: int, request: Request, *, below: bool) -> Response:
        """Return the index file of a folder, or its listing."""
        try:
            return self.file(folder, self.index, request)
        except FileNotFoundError:
            if not self.listing:
                raise
        entries = sorted(self.entries(folder))
        rows = [row(name, found, is_folder=not is_file) for is_file, _, name, found in entries]
        if below:
            rows.insert(0, '<tr><td><a href="../">../</a><td><td>\n')
        title = escape(f"{request.script_name}{request.path_info}")
        count = f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"
        return Response(PAGE.format(title=title, rows="".join(rows), count=count), cache_control="no-cache")

    def entries(self, folder: int) -> Iterator[tuple[bool, str, str, os.stat_result]]:
        """Yield the files and folders that are served, with sort keys that put folders first, then names."""
        for name in os.listdir(folder):
            try:
                self.check(name)
                name.encode()
                found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
            except (OSError, ValueError):  # not served, deleted meanwhile, or a name that is not UTF-8
                continue
            if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                yield stat.S_ISREG(found.st_mode), name.casefold(), name, found


def row(name: str, found: os.stat_result, *, is_folder: bool) -> str:
    """Return a row of the listing. The link begins with `./`, because a name like `a:b` would look like a URL's scheme."""
    end = "/" if is_folder else ""
    return (
        f'<tr><td><a href="./{quote(name)}{end}">{escape(name)}{end}</a>'
        f"<td>{'' if is_folder else human(found.st_size)}"
        f"<td>{datetime.fromtimestamp(found.st_mtime, UTC):%Y-%m-%d %H:%M}\n"
    )


def human(size: float, units: tuple[str, ...] = ("KiB", "MiB", "GiB", "TiB"), unit: str = "B") -> str:
    """Return a size with at most three digits before the decimal point."""
    if size >= 1000 and units:
        return human(size / 1024, units[1:], units[0])
    return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"


def preferred(accepted: list[tuple[str, float]], sizes: dict[str, int]) -> str:
    """Return the coding that the client prefers, and the smallest if several are equal; identity if it accepts none.

    See RFC 9110 12.5.3.
    """
    weights = {name.lower(): weight for name, weight in accepted}
    others = weights.get("*", 0.0)
    weight, _, coding = max((weights.get(coding, others), -size, coding) for coding, size in sizes.items())
    return coding if weight else "identity"
