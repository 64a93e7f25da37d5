"""The other way round: microwsgi's App and the examples of apps/ on other servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES: list[str] = []
SERVERS = [
    "serve",
    "gunicorn-sync",
    "gthread",
    "waitress",
    "uwsgi",
    "granian",
    "cheroot",
    "gevent",
    "wsgiref",
    "werkzeug",
    "mod_wsgi",
]
REFERENCE = "serve"
DIFFERENCES = {
    "save_of_a_chunked_body on uwsgi": (
        "uWSGI passes chunked bodies neither as wsgi.input nor with a length, so an App answers 411."
    ),
    "save_of_a_chunked_body on wsgiref": "wsgiref does not decode chunked bodies, so an App answers 411.",
    "static on cheroot": "Cheroot leaves `%2F` in PATH_INFO.",
    "static on mod_wsgi": "Apache itself answers 404 if a path has `%2F`, unless AllowEncodedSlashes is on.",
    "methods on wsgiref": "wsgiref adds `Content-Length: 0` to a 204.",
    "routes on werkzeug": "Werkzeug replaces bytes that are not UTF-8 by U+FFFD before it calls the application.",
}


def application(folder: Path) -> Any:
    from microwsgi import App, Request, Response, abort, html, redirect
    from microwsgi.events import Stream

    static = folder / "static"
    static.mkdir(exist_ok=True)
    for name, size in (("large.bin", 5_000_000), ("small.bin", 1000)):
        if not (static / name).exists():
            (static / f".{name}.{os.getpid()}").write_bytes(content(size))
            (static / f".{name}.{os.getpid()}").rename(static / name)
    os.environ["UPLOAD_FOLDER"] = str(folder / "uploads")
    os.environ["TODO_FILE"] = str(folder / "todo")
    app = App()
    app.static("/static", str(static), listing=True)

    @app.get("/")
    def index(request: Request) -> str:
        return html('<a href="/static/">{files}</a> <a href="/echo/a?q=1">echo</a>', files="files")

    @app.get("/echo/{name}")
    def echo(request: Request, name: str) -> dict[str, Any]:
        return {"name": name, "query": request.query("q", str, ""), "url": request.path_url.partition("/echo")[2]}

    @app.post("/form")
    def form(request: Request) -> list[Any]:
        file = request.form_file("file")
        return [request.form_value("a"), file.filename, described(file.file.read())]

    @app.post("/body")
    def body(request: Request) -> str:
        return described(request.body)

    @app.post("/json")
    def json(request: Request) -> dict[str, Any]:
        return {"a": request.json_value("a", int)}

    @app.put("/save/{name}")
    def save(request: Request, name: str) -> dict[str, Any]:
        return {"size": request.save(str(static / name), limit=1 << 30)}

    @app.get("/stream")
    def stream(request: Request) -> Any:
        return (f"{number}\n" * 100 for number in range(300))

    @app.get("/events")
    def events(request: Request) -> Response:
        found = Stream(request)
        for number in range(3):
            found.send({"number": number}, id=str(number))
        found.end()
        return found.response

    @app.get("/abort/{status:int}")
    def aborted(request: Request, status: int) -> None:
        abort(status, "as asked", key="value")

    @app.get("/redirect")
    def redirected(request: Request) -> Response:
        return redirect("/echo/a")

    @app.get("/fail")
    def fail(request: Request) -> str:
        raise LookupError("as asked")

    from apps.echo import app as echo_app
    from apps.hello import app as hello_app
    from apps.site import app as site_app
    from apps.upload import app as upload_app

    for prefix, mounted in (("hello", hello_app), ("tea", site_app), ("upload", upload_app), ("echo-app", echo_app)):
        app.mount(f"/mounted/{prefix}", mounted)
    return app


def check_routes(site: Site) -> Any:
    paths = ("/", "/echo/ä?q=ü", "/echo/a/", "/missing", "/abort/409", "/redirect", "/echo/%ff")
    return [site.seen(path, allow_redirects=False, fields=("Content-Type", "Location")) for path in paths]


def check_methods(site: Site) -> Any:
    return [
        site.seen("/echo/a", method, fields=("Allow", "Content-Length"))
        for method in ("HEAD", "OPTIONS", "POST", "BREW")
    ]


def check_form_and_json(site: Site) -> Any:
    sent = site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("ü", content(900_000))})
    return [sent, site.seen("/json", "POST", json={"a": 1}), site.seen("/json", "POST", json={"a": "b"})]


def check_bodies(site: Site) -> Any:
    return [site.seen("/body", "POST", data=content(size)) for size in (0, 5, 900_000, 5_000_000)]


def check_save(site: Site) -> Any:
    data = content(5_000_000)
    put = site.seen("/save/saved.bin", "PUT", data=data)
    return [put, (site.folder / "static" / "saved.bin").read_bytes() == data]


def check_save_of_a_chunked_body(site: Site) -> Any:
    """A server that does not decode chunks must not lead to an empty file."""
    path = site.folder / "static" / "kept.bin"
    path.write_bytes(b"kept")
    put = site.ask("/save/kept.bin", "PUT", data=pieces(content(300_000)))
    kept = path.read_bytes()
    assert (put.status_code == 200 and kept == content(300_000)) or (put.status_code >= 400 and kept == b"kept"), (
        put.status_code,
        len(kept),
    )
    return "saved" if put.status_code == 200 else put.status_code


def check_static(site: Site) -> Any:
    fields = ("Content-Range", "Content-Length", "Content-Type")
    tag = site.ask("/static/large.bin", "HEAD").headers["ETag"]
    cases: list[dict[str, str]] = [{}, {"Range": "bytes=5-9"}, {"Range": "bytes=-7"}, {"Range": "bytes=9000000-"}]
    found = [site.seen("/static/large.bin", headers=case, fields=fields) for case in cases]
    again = site.ask("/static/large.bin", headers={"If-None-Match": tag})
    return [*found, again.status_code, site.seen("/static/..%2f..%2fx", fields=()), site.ask("/static/").status_code]


def check_stream(site: Site) -> Any:
    return site.seen("/stream")


def check_events(site: Site) -> Any:
    return site.seen("/events")


def check_error(site: Site) -> Any:
    response = site.ask("/fail", fails=True)
    return [response.status_code, "LookupError" in response.text]


def check_examples(site: Site) -> Any:
    found = [
        site.seen(f"/mounted/{path}")
        for path in ("hello/", "hello/hello/a%3Cb", "tea/", "tea/style.css", "tea/missing")
    ]
    name = f"u{site.port}"
    upload = site.ask("/mounted/upload/", "POST", files={"file": (name, content(300_000))}, allow_redirects=False)
    return [*found, upload.status_code, site.seen(f"/mounted/upload/files/{name}", fields=())]
