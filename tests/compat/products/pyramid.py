"""Pyramid: views, forms, sessions, a static view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["pyramid"]
CORE = True


def application(folder: Path) -> Any:
    from pyramid.config import Configurator
    from pyramid.response import Response
    from pyramid.session import SignedCookieSessionFactory

    static = folder / "static"
    static.mkdir(exist_ok=True)
    if not (static / "a.bin").exists():
        (static / "a.bin").write_bytes(content(300_000))

    def form(request: Any) -> Any:
        return {"a": request.POST["a"], "file": described(request.POST["file"].file.read())}

    def count(request: Any) -> Any:
        request.session["count"] = request.session.get("count", 0) + 1
        return request.session["count"]

    with Configurator(session_factory=SignedCookieSessionFactory("of the tests")) as config:
        for view, renderer in ((form, "json"), (count, "json")):
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__, renderer=renderer)
        config.add_route("body", "/body/{name}")
        config.add_view(lambda request: Response(f"{request.matchdict} {described(request.body)}"), route_name="body")
        config.add_static_view("static", str(static))
        return config.make_wsgi_app()


def check_form(site: Site) -> Any:
    return site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("a", content(3_000_000))})


def check_session(site: Site) -> Any:
    return [site.seen("/count") for _ in range(3)]


def check_bodies(site: Site) -> Any:
    return [site.seen("/body/ä%2Fb", "POST", data=data) for data in (content(300_000), pieces(content(300_000)))]


def check_static(site: Site) -> Any:
    return [
        site.seen("/static/a.bin"),
        site.seen("/static/a.bin", headers={"Range": "bytes=1-5"}),
        site.seen("/static/%2e%2e/x"),
    ]
