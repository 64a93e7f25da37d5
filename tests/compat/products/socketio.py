"""Flask-SocketIO on simple-websocket, used by python-socketio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described

PACKAGES = ["flask-socketio", "python-socketio[client]"]
CORE = True
DIFFERENCES = {
    "polling on workers": "Socket.IO keeps its sessions in memory: polling needs a single process or sticky sessions."
}


def application(folder: Path) -> Any:
    from flask import Flask
    from flask_socketio import SocketIO

    app = Flask(__name__)
    SocketIO(app, async_mode="threading", cors_allowed_origins="*", max_http_buffer_size=50_000_000).on_event(
        "echo", lambda data: data
    )
    return app


def echoes(site: Site, transport: str, *sizes: int) -> Any:
    import socketio

    client = socketio.Client(http_session=site.session)
    if site.tls:
        import os

        client = socketio.Client(websocket_extra_options={"sslopt": {"ca_certs": os.environ["SSL_CERT_FILE"]}})
        client.eio.http = site.session
    client.connect(site.url, transports=[transport])
    found = [described(client.call("echo", content(size), timeout=60)) for size in sizes]
    client.disconnect()
    return found


def check_websocket(site: Site) -> Any:
    return echoes(site, "websocket", 5, 1_000_000, 20 << 20)


def check_polling(site: Site) -> Any:
    return echoes(site, "polling", 5, 100_000)
