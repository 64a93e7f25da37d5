"""An application that takes time: `/sleep/MS` sleeps, `/spin/MS` uses processor time, `/quick` answers at once."""

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
        # The thread's own processor time: other threads that hold the interpreter lock do not reduce this work.
        end = time.thread_time() + float(milliseconds) / 1000
        while time.thread_time() < end:
            pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
