"""The smallest App: `microwsgi serve apps.hello:app`, then http://127.0.0.1:8000/hello/world."""

from __future__ import annotations

from html import escape

from microwsgi import App, Request

app = App()


@app.get("/")
def index(request: Request) -> str:
    """A link to the other view, wherever this App is mounted."""
    return f'<a href="{request.url_for("hello", name="world")}">Say hello</a>'


@app.get("/hello/{name}")
def hello(request: Request, name: str) -> str:
    """What a view returns as str is HTML: what came from outside is escaped."""
    return f"<h1>Hello, {escape(name)}!</h1>"
