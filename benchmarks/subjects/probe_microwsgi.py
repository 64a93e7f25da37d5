"""The probe as a view of microwsgi's `App`."""

from __future__ import annotations

import sys

from benchmarks.subjects.probe import answer
from microwsgi import App, Request, Response

app = App()


@app.get("/{name}")
def view(request: Request) -> Response:
    return Response(
        answer(request.path_info, request.query_string, sys._getframe()).encode(), content_type="application/json"
    )
