"""A site of static files: pages, a style sheet, a picture, a listing, and a 404 page.

`microwsgi serve apps.site:app`, then a browser.
"""

from __future__ import annotations

from pathlib import Path

from microwsgi import App, FileResponse, Request, Response

FOLDER = Path(__file__).parent / "tea"

app = App()
app.static("/", FOLDER, listing=True)


@app.error(404)
def missing(request: Request, error: Exception) -> Response:
    return FileResponse(FOLDER / "404.html")
