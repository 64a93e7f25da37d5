"""pdb for a request: its session begins with the prompt and ends with `continue`, `quit` or the end of the view.

`microwsgi.prompt` imports this when the first breakpoint is reached.
"""

from __future__ import annotations

import bdb
import pdb  # noqa: T100 - the one place where it is meant
from itertools import takewhile
from types import FrameType

from microwsgi.errors import Abandoned
from microwsgi.prompt import Prompt

SERVER = ("microwsgi.server.", "threading")
"""Modules of the frames from the thread's first to the application."""


class Debugger(pdb.Pdb):
    """A thread's pdb; quitting it ends the request, and nothing else."""

    def __init__(self, prompt: Prompt) -> None:
        super().__init__(nosigint=True)  # Ctrl-C is the server's: only the main thread could have it
        self.one_prompt = prompt
        self.outside: list[FrameType] = []

    def interaction(self, frame: FrameType | None, *rest: object) -> None:
        """Ask for commands; but not in the frames that called the application: with the view the session ends."""
        if frame in self.outside:
            self.set_continue()
            return
        self.one_prompt.take()
        self.outside = list(server_frames(frame))
        super().interaction(frame, *rest)  # type: ignore[arg-type]  # it differs between versions of Python

    def set_continue(self) -> None:
        """`continue`: the prompt is the next one's."""
        super().set_continue()
        self.end()

    def set_quit(self) -> None:
        """`quit`, or the end of input."""
        super().set_quit()
        self.end()

    def end(self) -> None:
        """The session is over, though not the tracing if breakpoints were set."""
        self.outside = []
        self.one_prompt.leave()

    def trace_dispatch(self, frame: FrameType, event: str, arg: object) -> object:  # type: ignore[override]
        """bdb's; with its BdbQuit in a request, the server could only tell of a failure."""
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            if any(server_frames(frame)):
                raise Abandoned("ended at the debugger's prompt") from None
            raise


def server_frames(frame: FrameType | None) -> takewhile[FrameType]:
    """The frames between the thread's beginning and the application's first, outermost first."""
    chain = []
    while frame is not None:
        chain.append(frame)
        frame = frame.f_back
    return takewhile(lambda each: each.f_globals.get("__name__", "").startswith(SERVER), reversed(chain))
