"""Bottle: forms, upload, cookies, streams, static files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["bottle"]


def application(folder: Path) -> Any:
    import bottle

    app = bottle.Bottle()
    folder.joinpath("served").write_bytes(content(300_000))

    @app.post("/form")
    def form() -> str:
        return f"{bottle.request.forms.a} {described(bottle.request.files.file.file.read())}"

    @app.post("/body")
    def body() -> str:
        return described(bottle.request.body.read())

    @app.get("/count")
    def count() -> str:
        number = int(bottle.request.get_cookie("count", secret="of the tests") or 0) + 1
        bottle.response.set_cookie("count", str(number), secret="of the tests")
        return str(number)

    @app.get("/stream")
    def stream() -> Any:
        for number in range(300):
            yield f"{number}\n" * 100

    @app.get("/file")
    def file() -> Any:
        return bottle.static_file("served", root=str(folder), mimetype="application/octet-stream")

    return app


def check_bodies(site: Site) -> Any:
    return [site.seen("/body", "POST", data=data) for data in (content(5), content(900_000), pieces(content(300_000)))]


def check_form(site: Site) -> Any:
    return site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("a", content(90_000))})


def check_cookies(site: Site) -> Any:
    return [site.seen("/count") for _ in range(3)]


def check_stream_and_file(site: Site) -> Any:
    return [site.seen("/stream"), site.seen("/file"), site.seen("/file", headers={"Range": "bytes=5-9"})]


def check_errors(site: Site) -> Any:
    return [site.seen("/missing"), site.seen("/form"), site.seen("/stream", "HEAD")]
