"""A to-do list in SQLite: pages with forms, and a JSON API.

`microwsgi serve apps.todo:app`, then http://127.0.0.1:8000/ or `curl localhost:8000/api/items`. TODO_DATABASE names the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from microwsgi import App, Request, Response, abort, html, redirect
from microwsgi.framework.crosssite import same_site_only

FILE = os.environ.get("TODO_DATABASE", "todo.sqlite")
LONGEST = 200
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>To do</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 32rem; margin: 2rem auto; padding: 0 1rem }} ul {{ padding: 0 }}
li, form {{ display: flex; gap: .5rem; align-items: center }} li {{ border-bottom: 1px solid #8886; padding: .3rem 0 }}
span, input {{ flex: 1; overflow-wrap: anywhere }} input, button {{ font: inherit; padding: .3rem .8rem }}
</style>
<h1>To do</h1>
<form method="post"><input name="what" placeholder="What?" maxlength="200" required autofocus><button>Add</button></form>
<ul>{items}</ul>
"""
ITEM = '<li><span>{what}</span><form method="post" action="{done}"><button>Done</button></form></li>'

app = App()
app.before(same_site_only)


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """Return a connection for one request: SQLite connections belong to a thread. A view's changes are one transaction."""
    connection = sqlite3.connect(FILE)
    connection.row_factory = sqlite3.Row
    try:
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, what TEXT NOT NULL)")
            yield connection
    finally:
        connection.close()


def add(what: str) -> dict[str, Any]:
    """Add an item. Raises 400."""
    if not 0 < len(what) <= LONGEST:
        abort(400, f"What to do has 1 to {LONGEST} characters.")
    with database() as connection:
        number = connection.execute("INSERT INTO items (what) VALUES (?)", (what,)).lastrowid
    return {"id": number, "what": what}


def remove(number: int) -> None:
    """Remove an item. Raises 404."""
    with database() as connection:
        if not connection.execute("DELETE FROM items WHERE id = ?", (number,)).rowcount:
            abort(404, f"There is no item {number}.")


def items() -> list[dict[str, Any]]:
    with database() as connection:
        return [dict(row) for row in connection.execute("SELECT id, what FROM items ORDER BY id")]


@app.get("/")
def page(request: Request) -> str:
    rows = [html(ITEM, what=row["what"], done=request.url_for("done", number=row["id"])) for row in items()]
    return html(PAGE, items=rows)


@app.post("/")
def submitted(request: Request) -> Response:
    add(request.form_value("what"))
    return redirect(request.url_for("page"))


@app.post("/done/{number:int}")
def done(request: Request, number: int) -> Response:
    remove(number)
    return redirect(request.url_for("page"))


@app.get("/api/items")
def listed(request: Request) -> list[dict[str, Any]]:
    return items()


@app.post("/api/items")
def created(request: Request) -> tuple[dict[str, Any], int, dict[str, str]]:
    item = add(request.json_value("what"))
    return item, 201, {"Location": request.url_for("removed", number=item["id"])}


@app.delete("/api/items/{number:int}")
def removed(request: Request, number: int) -> None:
    remove(number)
