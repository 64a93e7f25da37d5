"""`breakpoint()` while a server runs: one prompt at a time, and nobody's time runs out while a person thinks.

Python calls `Prompt` for each breakpoint. A request that finds the prompt taken waits for its turn; the server's time limits
stand still until the last prompt is left. `microwsgi.debugger` is pdb itself, with a beginning and an end.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module

from microwsgi.server.server import WSGIServer


@contextmanager
def one_prompt(
    server: WSGIServer, take: Callable[[], object] = bool, leave: Callable[[], object] = bool
) -> Iterator[None]:
    """Have breakpoints ask here while the server runs, unless somebody has chosen another debugger (PEP 553).

    Of several processes at one terminal, each calls `take` before it uses that, which waits for its turn, and `leave` after.
    """
    chosen = os.environ.get("PYTHONBREAKPOINT", "") not in {"", "pdb.set_trace"}
    if chosen or sys.breakpointhook is not sys.__breakpointhook__:
        yield
        return
    prompt = Prompt(server, take, leave)
    sys.breakpointhook = prompt
    try:
        yield
    finally:
        sys.breakpointhook = sys.__breakpointhook__
        prompt.abandon()


class Prompt:
    """The debugger's prompt of a server: who has it, and who waits for it."""

    def __init__(
        self, server: WSGIServer, take: Callable[[], object] = bool, leave: Callable[[], object] = bool
    ) -> None:
        self.server = server
        self.take_terminal = take
        self.leave_terminal = leave
        self.turn = threading.Lock()
        self.owner = 0  # the thread that has the prompt
        self.pause: AbstractContextManager[None] | None = None
        self.terminal: list[object] | None = None
        self.own = threading.local()  # a debugger for each thread: where it steps is its own business

    def __call__(self, *, header: str = "") -> None:
        """`breakpoint()`: wait for the prompt, and have the caller's frame traced. Tracing begins with the last call."""
        try:
            debugger = self.own.debugger
        except AttributeError:
            # pdb takes 40 ms to import, and most servers never need it.
            debugger = self.own.debugger = import_module("microwsgi.debugger").Debugger(self)
        self.take()
        if header:
            debugger.message(header)
        debugger.set_trace(sys._getframe(1))  # noqa: SLF001 - what pdb itself does

    def take(self) -> None:
        """Get the prompt, unless this thread has it, and stop the clocks."""
        if self.owner == threading.get_ident():
            return
        self.turn.acquire()
        self.take_terminal()
        self.owner = threading.get_ident()
        self.pause = self.server.limits_paused()
        self.pause.__enter__()
        self.terminal = terminal_attributes()

    def leave(self) -> None:
        """Let the next have the prompt, and the clocks run again."""
        if self.owner == threading.get_ident() and self.pause is not None:
            self.owner = 0
            self.terminal = None
            self.pause.__exit__(None, None, None)
            self.leave_terminal()
            self.turn.release()

    def abandon(self) -> None:
        """The server has ended: if somebody is still at the prompt, give the terminal back as it was, with its echo."""
        if self.terminal is not None:
            set_terminal_attributes(self.terminal)


def terminal_attributes() -> list[object] | None:
    """What the terminal was set to before the line editor sets it for itself; None without a terminal."""
    try:
        termios = import_module("termios")  # which Windows lacks
        return termios.tcgetattr(sys.stdin.fileno())  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - termios.error, and every kind of stdin that is no terminal
        return None


def set_terminal_attributes(attributes: list[object]) -> None:
    """Set the terminal to what it was."""
    termios = import_module("termios")
    termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, attributes)
