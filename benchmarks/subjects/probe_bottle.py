"""The probe as a Bottle view, on Bottle's default server: `python probe_bottle.py PORT`."""

from __future__ import annotations

import sys

from bottle import get, request, response, run

from benchmarks.subjects.probe import respond


def view(name: str) -> str:
    response.content_type = "application/json"
    return respond(request.path, request.query_string, sys._getframe())


get("/<name>")(view)

if __name__ == "__main__":
    run(host="127.0.0.1", port=int(sys.argv[1]), quiet=True)
