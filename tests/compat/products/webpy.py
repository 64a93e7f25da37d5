"""web.py: URLs, forms, upload, cookies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described

PACKAGES = ["web.py"]


def application(folder: Path) -> Any:
    import web

    class Page:
        def GET(self, name: str) -> str:
            web.setcookie("a", "b")
            return f"{name} {web.input(x='-').x} {web.cookies().get('a')}"

        def POST(self, name: str) -> str:
            return described(web.data())

    class Stream:
        def GET(self) -> Any:
            for number in range(300):
                yield f"{number}\n" * 100

    return web.application(("/stream", Stream, "/(.*)", Page), {}, autoreload=False).wsgifunc()


def check_pages(site: Site) -> Any:
    return [site.seen("/ä/b?x=1"), site.seen("/c"), site.seen("/stream"), site.seen("/stream", "DELETE")]


def check_body(site: Site) -> Any:
    return site.seen("/a", "POST", data=content(900_000))
