"""pdb for a request: a session begins at the prompt and ends with `continue`, `quit` or the return of the view.

`microwsgi.serving.prompt` imports this module when the first breakpoint is reached, since pdb takes 40 ms to import.
"""

from __future__ import annotations

import bdb
import pdb
from collections.abc import Callable
from itertools import takewhile
from types import FrameType

from microwsgi.errors import Abandoned

SERVER = ("microwsgi.server.", "threading")
"""Modules of the frames between the start of the thread and the application."""


class Debugger(pdb.Pdb):
    """pdb for one thread. Quitting ends the request, not the process.

    `acquire` is called before each prompt and `release` at the end of the session.
    """

    def __init__(self, acquire: Callable[[], object], release: Callable[[], object]) -> None:
        # pdb must not handle SIGINT: it stops the server, and only the main thread can set a handler.
        super().__init__(nosigint=True)
        self.acquire = acquire
        self.release = release
        self.outside: list[FrameType] = []

    def interaction(self, frame: FrameType | None, *rest: object) -> None:
        """Read commands; end the session instead if the frame is one that called the application."""
        if frame in self.outside:
            self.set_continue()
            return
        self.acquire()
        self.outside = list(server_frames(frame))
        super().interaction(frame, *rest)  # type: ignore[arg-type]  # it differs between versions of Python

    def set_continue(self) -> None:
        """Handle the command `continue`."""
        super().set_continue()
        self.end()

    def set_quit(self) -> None:
        """Handle the command `quit`, or the end of input."""
        super().set_quit()
        self.end()

    def end(self) -> None:
        """End the session. Tracing continues if breakpoints are set."""
        self.outside = []
        self.release()

    def trace_dispatch(self, frame: FrameType, event: str, arg: object) -> object:  # type: ignore[override]  # bdb's own type is private
        """Trace as bdb does, but raise Abandoned for BdbQuit in a request, which would be logged as an error."""
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            if any(server_frames(frame)):
                raise Abandoned("ended at the debugger's prompt") from None
            raise


def server_frames(frame: FrameType | None) -> takewhile[FrameType]:
    """Return the frames from the start of the thread to the caller of the application, outermost first."""
    chain = []
    while frame is not None:
        chain.append(frame)
        frame = frame.f_back
    return takewhile(lambda each: each.f_globals.get("__name__", "").startswith(SERVER), reversed(chain))
