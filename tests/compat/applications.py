"""Applications of frameworks that read bodies and sockets in their own ways.

Each is made by a function, since its package may be missing.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any


def django() -> Any:
    """Django reads CONTENT_LENGTH bytes for `request.body`."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{len(request.body)} {sha256(request.body).hexdigest()}")

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=(path("", view),),
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="of the tests",  # noqa: S106
            DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        )
        import django as package

        package.setup()
    return WSGIHandler()


def falcon() -> Any:
    """Falcon wraps `wsgi.input` by CONTENT_LENGTH for `bounded_stream`."""
    import falcon as package

    class Resource:
        def on_post(self, request: Any, response: Any) -> None:
            body = request.bounded_stream.read()
            response.text = f"{len(body)} {sha256(body).hexdigest()}"

    application: Any = package.App()
    application.add_route("/", Resource())
    return application


def starlette() -> Any:
    """An ASGI application through a2wsgi."""
    from a2wsgi import ASGIMiddleware
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def view(request: Request) -> PlainTextResponse:
        body = await request.body()
        return PlainTextResponse(f"{len(body)} {sha256(body).hexdigest()}")

    return ASGIMiddleware(Starlette(routes=[Route("/", view, methods=["POST"])]))


def radicale(folder: Path) -> Any:
    """A CalDAV server: PUT of an event."""
    from radicale.app import Application
    from radicale.config import load

    configuration = load()
    values = {
        "storage": {"filesystem_folder": str(folder)},
        "auth": {"type": "none"},
        "rights": {"type": "authenticated"},
    }
    configuration.update({**values, "rights": {"type": "owner_only"}}, "the tests", privileged=True)
    return Application(configuration)


def dulwich(folder: Path) -> Any:
    """Git over HTTP: it undoes the chunked coding itself if HTTP_TRANSFER_ENCODING is there."""
    from dulwich.repo import Repo
    from dulwich.server import DictBackend
    from dulwich.web import make_wsgi_chain

    repository = Repo.init_bare(str(folder), mkdir=True)
    return make_wsgi_chain(DictBackend({"/repository.git": repository}))


def flask_sock() -> Any:
    """A WebSocket that echoes, on simple-websocket."""
    from flask import Flask
    from flask_sock import Sock

    application = Flask(__name__)
    application.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 50_000_000}

    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    Sock(application).route("/echo")(echo)
    return application


def flask_socketio() -> Any:
    """Socket.IO over engineio, on simple-websocket."""
    from flask import Flask
    from flask_socketio import SocketIO

    application = Flask(__name__)
    server = SocketIO(application, async_mode="threading", cors_allowed_origins="*", max_http_buffer_size=50_000_000)
    server.on_event("echo", lambda data: data)
    return application
