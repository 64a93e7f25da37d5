"""The probe as a view of an App."""

from __future__ import annotations

import sys

from benchmarks.subjects.probe import respond
from microwsgi import App, Request, Response

app = App()


@app.get("/{name}")
def view(request: Request, name: str) -> Response:
    body = respond(request.path_info, request.query_string, sys._getframe()).encode()
    return Response(body, content_type="application/json")
