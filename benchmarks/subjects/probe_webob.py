"""The probe as a view of WebOb's `wsgify`."""

from __future__ import annotations

import sys

from webob import Request, Response
from webob.dec import wsgify

from benchmarks.subjects.probe import respond


def view(request: Request) -> Response:
    return Response(
        respond(request.path_info, request.query_string, sys._getframe()).encode(), content_type="application/json"
    )


app = wsgify(view)
