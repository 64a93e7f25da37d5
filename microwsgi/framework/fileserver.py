"""The application of `microwsgi serve FOLDER`: like `python -m http.server`, with ranges and conditional requests."""

from __future__ import annotations

from microwsgi.framework.app import App


def file_server(folder: str) -> App:
    """Return an application that serves a folder: index.html or a listing, but no dotfiles and no symbolic links."""
    app = App()
    app.static("/", folder, listing=True)
    return app
