"""Say where the import of an application is if it takes long: it may serve by itself, and never return."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from microwsgi import later
from microwsgi.source import relative

SECONDS = 2.0
"""Seconds that an import may take without a word."""
SERVING = {"serve_forever", "handle_request", "run_simple", "serve"}
"""Functions of servers that do not return, or not soon."""


@contextmanager
def report_slow_import() -> Iterator[None]:
    """Meanwhile wait for SECONDS, then write to standard error where this thread is. Costs a thread that sleeps."""
    importing = threading.get_ident()
    timer = threading.Timer(SECONDS, report, (importing,))
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # the system has no thread to give, which others will say
        yield
        return
    try:
        yield
    finally:
        timer.cancel()


def report(importing: int) -> None:
    """Write where a thread is."""
    frame = sys._current_frames().get(importing)  # noqa: SLF001 - the one way to see another thread's stack
    text = describe(frame)
    if text and sys.stderr is not None:
        try:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def describe(frame: FrameType | None) -> str:
    """Return what takes long: the innermost line at the top level of a module."""
    serves = False
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and not code.co_filename.startswith("<"):
            line = later.linecache.getline(code.co_filename, frame.f_lineno).strip()
            where = f"{relative(code.co_filename)}:{frame.f_lineno}: {line}"
            if serves:
                return (
                    f"The import of the application does not return, because it serves by itself, in {where}\n"
                    '  Write  if __name__ == "__main__":  above that line; or start the file with python instead.'
                )
            return f"The import of the application has taken {SECONDS:g} seconds so far. It is at {where}"
        serves = serves or code.co_name in SERVING
        frame = frame.f_back
    return ""
