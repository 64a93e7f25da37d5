"""The probe as a Flask view."""

from __future__ import annotations

import sys

from flask import Flask, Response, request

from benchmarks.subjects.probe import respond

app = Flask(__name__)


@app.get("/<name>")
def view(name: str) -> Response:
    return Response(respond(request.path, request.query_string.decode(), sys._getframe()), mimetype="application/json")
