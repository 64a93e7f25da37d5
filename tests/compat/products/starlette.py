"""Starlette, an ASGI framework, through a2wsgi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["starlette", "a2wsgi", "python-multipart"]
CORE = True


def application(folder: Path) -> Any:
    from a2wsgi import ASGIMiddleware
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    async def body(request: Any) -> Any:
        return PlainTextResponse(described(await request.body()))

    async def form(request: Any) -> Any:
        async with request.form() as found:
            return PlainTextResponse(f"{found['a']} {described(await found['file'].read())}")

    async def stream(request: Any) -> Any:
        async def lines() -> Any:
            for number in range(500):
                yield f"{number}\n" * 100

        return StreamingResponse(lines())

    routes = [Route("/body", body, methods=["POST"]), Route("/form", form, methods=["POST"]), Route("/stream", stream)]
    return ASGIMiddleware(Starlette(routes=routes))


def check_bodies(site: Site) -> Any:
    return [site.seen("/body", "POST", data=content(size)) for size in (0, 5, 5_000_000)]


def check_chunked_bodies(site: Site) -> Any:
    return [site.seen("/body", "POST", data=pieces(content(size))) for size in (0, 5, 300_000, 5_000_000)]


def check_form(site: Site) -> Any:
    return site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("a", content(3_000_000))})


def check_stream(site: Site) -> Any:
    return site.seen("/stream")
