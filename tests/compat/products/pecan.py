"""Pecan: object dispatch, JSON, forms, on WebOb, as microwsgi is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["pecan"]


def application(folder: Path) -> Any:
    import pecan

    class Root:
        @pecan.expose("json")
        def index(self, **fields: str) -> Any:
            return fields

        @pecan.expose(content_type="text/plain")
        def body(self) -> Any:
            pecan.response.text = described(pecan.request.body)
            return pecan.response

    return pecan.make_app(Root(), debug=False)


def check_pages(site: Site) -> Any:
    return [site.seen("/?a=ä"), site.seen("/", "POST", data={"a": "b"}), site.seen("/missing", fields=())[0]]


def check_bodies(site: Site) -> Any:
    return [site.seen("/body", "POST", data=data) for data in (content(900_000), pieces(content(300_000)))]
