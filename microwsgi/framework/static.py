"""A folder's files, and nothing else: safe paths, precompressed siblings, index files, listings.

No path is put together: each name is opened in the folder that was opened before it, and by default none that is a symbolic
link. So there is no time between a check and a use, and nothing above the folder can be named.
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
"""Content codings, and what ends the name of the sibling that has it."""
ABSENT = {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, ENXIO}
POSSIBLE = os.open in os.supports_dir_fd
"""Whether a name can be opened in an open folder: not on Windows, which has none of the flags below either."""
DIRECTORY, NOFOLLOW = (os.O_DIRECTORY, os.O_NOFOLLOW) if POSSIBLE else (0, 0)
READ = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK if POSSIBLE else 0
)  # who opens a named pipe must not wait for its other end
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
    """A view of a folder's files.

    `index` is served for a folder that has it, else, with `listing`, a page of its files. `symlinks` are followed only if so
    asked, then wherever they lead. Names that begin with a dot are `hidden`, but for .well-known. `max_age`: FileResponse's.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        index: str = "index.html",
        listing: bool = False,
        symlinks: bool = False,
        hidden: bool = True,
        max_age: int | None = None,
    ) -> None:
        if not POSSIBLE:
            raise RouteError("static files need a system that opens a file in an open folder, as Linux and macOS do.")
        self.folder = os.path.abspath(folder)
        if not os.path.isdir(self.folder):
            raise RouteError(f"there is no folder {self.folder} with static files.")
        self.index = index
        self.listing = listing
        self.symlinks = symlinks
        self.hidden = hidden
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
        except ValueError:  # a NUL in it, or what the file system has no characters for
            raise HTTPNotFound("No file has such a name.") from None

    @contextmanager
    def opened(self, folders: list[str]) -> Iterator[int]:
        """A descriptor of a folder below ours."""
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
        """Raises FileNotFoundError for a name that may lead elsewhere, or is hidden."""
        if name in {"", ".", ".."} or (self.hidden and name.startswith(".") and name != ".well-known"):
            raise FileNotFoundError(ENOENT, "not served")

    def file(self, folder: int, name: str, request: Request) -> Response:
        """A file, or its sibling with the content coding that suits the client best; of a folder, where that is."""
        self.check(name)
        found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
        if stat.S_ISDIR(found.st_mode):
            query = f"?{request.query_string}" if request.query_string else ""
            return redirect(f"./{quote(name)}/{query}", 308)  # relative: what a proxy puts before it stays
        sizes = dict(self.siblings(folder, name, found.st_mtime))
        if "identity" not in sizes:
            raise FileNotFoundError(ENOENT, "no regular file")
        coding = preferred(request.accept_encoding.parsed or [], sizes)

        def opener(_: str, __: int) -> int:
            return os.open(name + CODINGS[coding], self.flags, dir_fd=folder)

        coded = "" if coding == "identity" else coding
        response = FileResponse(name, max_age=self.max_age, coding=coded, opener=opener)
        if len(sizes) > 1:
            response.headers["Vary"] = "Accept-Encoding"
        return response

    def siblings(self, folder: int, name: str, modified: float) -> Iterator[tuple[str, int]]:
        """The codings in which a file is there, itself included and none older than that, and their sizes."""
        for coding, end in CODINGS.items():
            try:
                found = os.stat(name + end, dir_fd=folder, follow_symlinks=self.symlinks)
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_mtime >= modified:
                yield coding, found.st_size

    def page(self, folder: int, request: Request, *, below: bool) -> Response:
        """A folder's index file, or the page of what is in it."""
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
        """What may be asked for, to be sorted: folders first, then by name."""
        for name in os.listdir(folder):
            try:
                self.check(name)
                name.encode()
                found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
            except (OSError, ValueError):  # not served, gone already, or a name that no URL has
                continue
            if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                yield stat.S_ISREG(found.st_mode), name.casefold(), name, found


def row(name: str, found: os.stat_result, *, is_folder: bool) -> str:
    """A line of the page. `./` before the name, since one may look like a URL's scheme."""
    end = "/" if is_folder else ""
    return (
        f'<tr><td><a href="./{quote(name)}{end}">{escape(name)}{end}</a>'
        f"<td>{'' if is_folder else human(found.st_size)}"
        f"<td>{datetime.fromtimestamp(found.st_mtime, UTC):%Y-%m-%d %H:%M}\n"
    )


def human(size: float, units: tuple[str, ...] = ("KiB", "MiB", "GiB", "TiB"), unit: str = "B") -> str:
    """A size as people read it: three digits before the point at most."""
    if size >= 1000 and units:  # noqa: PLR2004
        return human(size / 1024, units[1:], units[0])
    return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"


def preferred(accepted: list[tuple[str, float]], sizes: dict[str, int]) -> str:
    """The coding that a client likes best, of several the shortest; identity if it likes none (RFC 9110 12.5.3)."""
    weights = {name.lower(): weight for name, weight in accepted}
    others = weights.get("*", 0.0)
    weight, _, coding = max((weights.get(coding, others), -size, coding) for coding, size in sizes.items())
    return coding if weight else "identity"
