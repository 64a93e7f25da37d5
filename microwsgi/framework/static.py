"""A folder's files, and nothing else: safe paths, precompressed siblings, index files, listings.

No path is put together: each name is opened in the folder that was opened before it, and by default none that is a symbolic
link. So there is no time between a check and a use, and nothing above the folder can be named.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EPERM
from html import escape
from urllib.parse import quote

from webob import Response
from webob.exc import HTTPForbidden, HTTPNotFound

from microwsgi.errors import RouteError
from microwsgi.framework.files import FileResponse
from microwsgi.framework.request import Request
from microwsgi.framework.views import redirect

CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Content codings, and what ends the name of the sibling that has it."""
WEIGHTS = re.compile(r"([^\s,;]+)[ \t]*(?:;[ \t]*q=([01](?:\.\d{0,3})?))?[ \t]*(?:,|$)", re.IGNORECASE)
ABSENT = {ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, ENXIO}
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe is opened at once, and then refused
ICONS = {True: "&#x1F4C1;", False: "&#x1F4C4;"}
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif }}
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere }}
a {{ text-decoration: none }} a:hover {{ text-decoration: underline }}
table {{ border-collapse: collapse; width: 100% }} tr:hover {{ background: #8881 }}
th, td {{ padding: .3rem .5rem; text-align: left; border-bottom: 1px solid #8883; overflow-wrap: anywhere }}
th {{ font-weight: 400; font-size: .85rem; opacity: .7 }}
th ~ th, td ~ td {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal }}
</style>
<h1>{title}</h1>
<table>
<tr><th>Name<th>Size<th>Modified, UTC
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
        folder: str,
        *,
        index: str = "index.html",
        listing: bool = False,
        symlinks: bool = False,
        hidden: bool = True,
        max_age: int | None = None,
    ) -> None:
        self.folder = os.path.abspath(folder)
        if not os.path.isdir(self.folder):
            raise RouteError(f"there is no folder {self.folder} with static files.")
        self.index = index
        self.listing = listing
        self.symlinks = symlinks
        self.hidden = hidden
        self.max_age = max_age
        self.flags = READ if symlinks else READ | os.O_NOFOLLOW

    def __call__(self, request: Request, path: str = "") -> Response:
        *folders, name = path.split("/")
        try:
            self.refuse_others(folders, name)
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

    def allowed(self, name: str) -> bool:
        """Whether a name may be asked for: one that can't lead elsewhere, and is not hidden."""
        return name not in {"", ".", ".."} and not (self.hidden and name.startswith(".") and name != ".well-known")

    def refuse_others(self, folders: list[str], name: str) -> None:
        """Raises FileNotFoundError unless all the names may be asked for; an empty one at the end is the folder itself."""
        if not all(map(self.allowed, [*folders, name] if name else folders)):
            raise FileNotFoundError(ENOENT, "")

    @contextmanager
    def opened(self, folders: list[str]) -> Iterator[int]:
        """A descriptor of a folder below ours."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in folders:
                below = os.open(name, self.flags | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def file(self, folder: int, name: str, request: Request) -> Response:
        """A file, or its sibling with the content coding that suits the client best; of a folder, where that is."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
        if stat.S_ISDIR(found.st_mode):
            query = f"?{request.query_string}" if request.query_string else ""
            return redirect(f"./{quote(name)}/{query}", 308)  # relative: what a proxy puts before it stays
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(ENOENT, "")
        siblings = dict(self.siblings(folder, name, found))
        coding = preferred(request.environ.get("HTTP_ACCEPT_ENCODING", ""), siblings)
        file = os.open(name + CODINGS.get(coding, ""), self.flags, dir_fd=folder)
        response = FileResponse(name, file=file, max_age=self.max_age, coding=coding)
        if siblings:
            response.headers["Vary"] = "Accept-Encoding"
        return response

    def siblings(self, folder: int, name: str, found: os.stat_result) -> Iterator[tuple[str, int]]:
        """The codings in which a file is there, not older than itself, and their sizes."""
        for coding, end in CODINGS.items():
            try:
                sibling = os.stat(name + end, dir_fd=folder, follow_symlinks=self.symlinks)
            except OSError:
                continue
            if stat.S_ISREG(sibling.st_mode) and sibling.st_mtime >= found.st_mtime:
                yield coding, sibling.st_size

    def page(self, folder: int, request: Request, *, below: bool) -> Response:
        """A folder's index file, or the page of what is in it."""
        try:
            return self.file(folder, self.index, request)
        except FileNotFoundError:
            if not self.listing:
                raise
        entries = []
        for name in os.listdir(folder):
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=self.symlinks)
                name.encode()
            except (OSError, ValueError):  # gone already, or a name that no URL has
                continue
            is_folder = stat.S_ISDIR(found.st_mode)
            if self.allowed(name) and (is_folder or stat.S_ISREG(found.st_mode)):
                entries.append((not is_folder, name.casefold(), name, found))
        rows = [row(name, found, is_folder=not is_file) for is_file, _, name, found in sorted(entries)]
        if below:
            rows.insert(0, '<tr><td><a href="../">..</a><td><td>\n')
        title = escape(f"{request.script_name}{request.path_info}")
        count = f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"
        return Response(PAGE.format(title=title, rows="".join(rows), count=count), cache_control="no-cache")


def row(name: str, found: os.stat_result, *, is_folder: bool) -> str:
    """A line of the page. `./` before the name, since one may look like a URL's scheme."""
    end = "/" if is_folder else ""
    time = datetime.fromtimestamp(found.st_mtime, UTC)
    return (
        f'<tr><td>{ICONS[is_folder]} <a href="./{quote(name)}{end}">{escape(name)}{end}</a>'
        f"<td>{'' if is_folder else human(found.st_size)}<td>{time:%Y-%m-%d %H:%M}\n"
    )


def human(size: float) -> str:
    """A size as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:  # noqa: PLR2004 - three digits at most
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def preferred(field: str, siblings: dict[str, int]) -> str:
    """The coding that a client likes best, of several the shortest; "" for none (RFC 9110 12.5.3)."""
    weights = {name.lower(): float(weight or 1) for name, weight in WEIGHTS.findall(field)}
    least = weights.get("identity", 0.001)
    liked = [(weights.get(coding, weights.get("*", 0.0)), -size, coding) for coding, size in siblings.items()]
    weight, _, coding = max(liked, default=(0.0, 0, ""))
    return coding if weight >= least and weight > 0 else ""
