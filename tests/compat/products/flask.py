"""Flask: sessions, forms, upload, streams, ranges, WebSockets with flask-sock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described, pieces

PACKAGES = ["flask", "flask-sock", "websocket-client"]
CORE = True


def application(folder: Path) -> Any:
    import flask
    from flask_sock import Sock

    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="of the tests", SOCK_SERVER_OPTIONS={"max_message_size": 50_000_000})
    folder.joinpath("served").write_bytes(content(300_000))

    @app.get("/count")
    def count() -> str:
        flask.session["count"] = flask.session.get("count", 0) + 1
        flask.flash(f"visit {flask.session['count']}")
        return f"{flask.session['count']} {flask.get_flashed_messages()}"

    @app.post("/form")
    def form() -> Any:
        upload = flask.request.files["file"]
        return [flask.request.form.to_dict(), upload.filename, described(upload.read())]

    @app.post("/body")
    def body() -> str:
        return described(flask.request.get_data())

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((f"{number}\n" * 1000 for number in range(500)), mimetype="text/plain")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(folder / "served", mimetype="application/octet-stream", conditional=True)

    @app.get("/redirect")
    def redirect() -> Any:
        return flask.redirect("/count")

    @app.route("/options", methods=["OPTIONS", "DELETE", "PATCH", "PUT"])
    def options() -> Any:
        return flask.request.method, 207, {"X-A": "ä".encode().decode("latin-1")}

    @app.get("/echo/<path:name>")
    def echo(name: str) -> Any:
        return [name, flask.request.args.to_dict(flat=False), flask.request.cookies.to_dict()]

    def socket(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    Sock(app).route("/socket")(socket)
    return app


def check_session(site: Site) -> Any:
    return [site.seen("/count") for _ in range(3)]


def check_upload(site: Site) -> Any:
    return site.seen("/form", "POST", data={"a": "ä"}, files={"file": ("ü.bin", content(5_000_000))})


def check_chunked_body(site: Site) -> Any:
    return [site.seen("/body", "POST", data=pieces(content(size))) for size in (0, 5, 300_000, 5_000_000)]


def check_stream(site: Site) -> Any:
    return site.seen("/stream")


def check_ranges(site: Site) -> Any:
    etag = site.ask("/file").headers["ETag"]
    fields = ("Content-Range", "Content-Length")
    cases = [{"Range": "bytes=100-199"}, {"Range": "bytes=-5"}, {"Range": "bytes=900000-"}, {"If-None-Match": etag}]
    return [site.seen("/file", headers=case, fields=fields) for case in cases]


def check_methods(site: Site) -> Any:
    answers = [site.seen("/options", method, fields=("X-A",)) for method in ("OPTIONS", "DELETE", "PATCH", "PUT")]
    return [
        *answers,
        site.seen("/stream", "HEAD"),
        site.seen("/missing"),
        site.seen("/count", "DELETE", fields=("Allow",)),
    ]


def check_redirect(site: Site) -> Any:
    return site.seen("/redirect", allow_redirects=False, fields=("Location",))


def check_url(site: Site) -> Any:
    return site.seen("/echo/ä/%2F/b?x=1&x=%C3%A4", cookies={"k": "v"})


def check_websocket(site: Site) -> Any:
    import os

    import websocket

    options = {"ca_certs": os.environ["SSL_CERT_FILE"]} if site.tls else {}
    client = websocket.create_connection(f"ws{site.url[4:]}/socket", timeout=30, sslopt=options)
    found = []
    for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000, 20 << 20):
        client.send_binary(content(size))
        found.append(described(client.recv()))
    client.close()
    return found
