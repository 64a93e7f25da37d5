"""Applications that take their time: `/quick` none, `/sleep/MS` waits, `/spin/MS` burns processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

BODY = b"done\n"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    kind, _, milliseconds = environ["PATH_INFO"][1:].partition("/")
    if kind == "sleep":
        time.sleep(float(milliseconds) / 1000)
    elif kind == "spin":
        # The thread's own processor time: a neighbour that takes the lock makes this longer on the wall, not cheaper.
        end = time.thread_time() + float(milliseconds) / 1000
        while time.thread_time() < end:
            pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
