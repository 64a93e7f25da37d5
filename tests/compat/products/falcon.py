"""Falcon: `bounded_stream` and `media`, which rely on CONTENT_LENGTH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["falcon"]
CORE = True


def application(folder: Path) -> Any:
    import falcon

    class Body:
        def on_post(self, request: Any, response: Any) -> None:
            response.text = described(request.bounded_stream.read())

        def on_put(self, request: Any, response: Any) -> None:
            response.media = request.get_media()

        def on_get(self, request: Any, response: Any) -> None:
            response.stream = (b"x" * 10_000 for _ in range(100))

    app: Any = falcon.App()
    app.add_route("/", Body())
    return app


def check_bodies(site: Site) -> Any:
    sizes = (0, 5, 300_000, 5_000_000)
    return [site.seen("/", "POST", data=content(size)) for size in sizes]


def check_chunked_bodies(site: Site) -> Any:
    return [site.seen("/", "POST", data=pieces(content(size))) for size in (0, 5, 300_000, 5_000_000)]


def check_media(site: Site) -> Any:
    bad = {"Content-Type": "application/json"}
    return [site.seen("/", "PUT", json={"ä": [1, None]}), site.seen("/", "PUT", data=b"{", headers=bad)]


def check_stream(site: Site) -> Any:
    return site.seen("/")
