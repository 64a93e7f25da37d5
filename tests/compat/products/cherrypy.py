"""CherryPy as a WSGI application: forms, sessions, streams, static files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described

PACKAGES = ["cherrypy"]
DIFFERENCES = {"sessions on workers": "The sessions are in the memory of one process."}


def application(folder: Path) -> Any:
    import cherrypy

    folder.joinpath("served").write_bytes(content(300_000))

    class Root:
        @cherrypy.expose
        def form(self, a: str, file: Any) -> str:
            return f"{a} {described(file.file.read())}"

        @cherrypy.expose
        def count(self) -> str:
            cherrypy.session["count"] = cherrypy.session.get("count", 0) + 1
            return str(cherrypy.session["count"])

        @cherrypy.expose
        def stream(self) -> Any:
            return (f"{number}\n" * 100 for number in range(300))

        @cherrypy.expose
        def file(self) -> Any:
            return cherrypy.lib.static.serve_file(str(folder / "served"), content_type="application/octet-stream")

        stream._cp_config = {"response.stream": True}  # type: ignore[attr-defined, unused-ignore]

    cherrypy.config.update({"environment": "embedded", "log.screen": False})
    return cherrypy.Application(Root(), "/", {"/": {"tools.sessions.on": True}})


def check_form(site: Site) -> Any:
    return site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("a", content(900_000))})


def check_sessions(site: Site) -> Any:
    return [site.seen("/count") for _ in range(3)]


def check_stream_and_file(site: Site) -> Any:
    return [site.seen("/stream"), site.seen("/file"), site.seen("/file", headers={"Range": "bytes=5-9"})]


def check_errors(site: Site) -> Any:
    return [site.ask(path).status_code for path in ("/missing", "/form", "/form?a=1&b=2")]
