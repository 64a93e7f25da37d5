"""`microwsgi serve FOLDER`: what `python -m http.server` does, with ranges and conditional requests."""

from __future__ import annotations

from microwsgi.framework.app import App


def file_server(folder: str) -> App:
    """Return an application that serves a folder: index.html or a listing, but no hidden files and no symbolic links."""
    app = App()
    app.static("/", folder, listing=True)
    return app
