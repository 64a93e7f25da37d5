"""The smallest App: `microwsgi serve apps.hello:app`, then http://127.0.0.1:8000/hello/world."""

from __future__ import annotations

from microwsgi import App, Request, html

app = App()


PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Hello</title>
<style>:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}</style>
{content}
"""


@app.get("/")
def index(request: Request) -> str:
    """Return a link to the other view, wherever this App is mounted."""
    return html(PAGE, content=html('<a href="{url}">Say hello</a>', url=request.url_for("hello", name="world")))


@app.get("/hello/{name}")
def hello(request: Request, name: str) -> str:
    """Return HTML. `html` escapes the name, which comes from outside."""
    return html(PAGE, content=html("<h1>Hello, {name}!</h1>", name=name))
