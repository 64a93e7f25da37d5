"""Receive files, list them, and serve them: `microwsgi serve apps.upload:app`.

Files are written to UPLOAD_FOLDER while they arrive, and appear there once they are complete. With curl:
`curl -T big.iso localhost:8000/files/` or `curl -F file=@big.iso localhost:8000/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from microwsgi import App, Request, Response, abort, html, redirect
from microwsgi.framework.crosssite import same_site_only

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads")).resolve()
LIMIT = 1 << 30
"""The limit for a file, in bytes."""
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Files</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 40rem; margin: 2rem auto; padding: 0 1rem }} table {{ width: 100%; border-collapse: collapse }}
td {{ border-bottom: 1px solid #8886; padding: .3rem 0; overflow-wrap: anywhere }} td + td {{ text-align: right }}
form {{ margin: 1rem 0 }} input, button {{ font: inherit; max-width: 100% }}
</style>
<h1>Files</h1>
<form method="post" enctype="multipart/form-data"><input type="file" name="file" multiple required> <button>Send</button></form>
<table>{rows}</table>
"""
ROW = '<tr><td><a href="{url}" download>{name}</a><td>{size:,} bytes'

FOLDER.mkdir(parents=True, exist_ok=True)
app = App()
app.before(same_site_only)
app.static("/files", str(FOLDER), name="files")


def place(name: str | None) -> str:
    """Return the path for a new file: in the folder, not hidden, and not existing. Raises 400 and 409."""
    if not name or name.startswith(".") or Path(name).name != name or not name.isprintable():
        abort(400, f"{name!r:.100} is no name for a file.")
    if (FOLDER / name).exists():
        abort(409, f"There is a {name} already.")
    return str(FOLDER / name)


@app.after
def apart(request: Request, response: Response) -> None:
    """Forbid scripts in uploaded files, whatever type they claim."""
    if request.path_info.startswith("/files/"):
        response.headers["Content-Security-Policy"] = "sandbox"
        response.headers["X-Content-Type-Options"] = "nosniff"


@app.get("/")
def page(request: Request) -> str:
    files = sorted(entry for entry in FOLDER.iterdir() if entry.is_file() and served(entry.name))
    rows = [
        html(ROW, url=request.url_for("files", path=file.name), name=file.name, size=file.stat().st_size)
        for file in files
    ]
    return html(PAGE, rows=rows)


def served(name: str) -> bool:
    """Return whether a file is listed: not one that is being received, nor one whose name is not UTF-8."""
    return not name.endswith(".part") and name.isprintable()


@app.post("/")
def form(request: Request) -> Response:
    for part in request.parts():
        if part.filename:
            part.save(place(part.filename), LIMIT)
    return redirect(request.url_for("page"))


@app.put("/files/{name}")
def body(request: Request, name: str) -> tuple[dict[str, object], int]:
    return {"name": name, "size": request.save(place(name), LIMIT)}, 201
