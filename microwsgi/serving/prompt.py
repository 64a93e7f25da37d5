"""`breakpoint()` while a server runs: one debugger prompt at a time, and no timeout expires while a prompt is open.

`sys.breakpointhook` is a `Prompt`. A thread that reaches a breakpoint while another one has the prompt waits for it. The
server's timeouts are suspended until the last prompt is closed. `microwsgi.serving.debugger` has the pdb subclass.
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
    """Install a `Prompt` as breakpoint hook while the server runs, unless another debugger was chosen (PEP 553).

    If several processes share a terminal, `take` waits until this process may use it, and `leave` releases it. By default they
    do nothing (`bool`).
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
        prompt.restore_terminal()


class Prompt:
    """The breakpoint hook: a lock that the thread at the debugger prompt holds, and the terminal settings to restore."""

    def __init__(
        self, server: WSGIServer, take: Callable[[], object] = bool, leave: Callable[[], object] = bool
    ) -> None:
        self.server = server
        self.acquire_terminal = take
        self.release_terminal = leave
        self.lock = threading.Lock()
        self.owner = 0  # the identifier of the thread that holds the lock
        self.pause: AbstractContextManager[None] | None = None
        self.terminal: list[object] | None = None
        self.local = threading.local()  # a debugger for each thread, since each has its own stepping state

    def __call__(self, *, header: str = "") -> None:
        """Handle `breakpoint()`: wait for the prompt, then trace the caller's frame. `set_trace` must be the last call."""
        try:
            debugger = self.local.debugger
        except AttributeError:
            # pdb takes 40 ms to import, and most servers never need it.
            debugger = self.local.debugger = import_module("microwsgi.serving.debugger").Debugger(
                self.acquire, self.release
            )
        self.acquire()
        if header:
            debugger.message(header)
        debugger.set_trace(sys._getframe(1))  # as pdb.set_trace does

    def acquire(self) -> None:
        """Acquire the prompt, unless this thread has it already, and suspend the server's timeouts."""
        if self.owner == threading.get_ident():
            return
        self.lock.acquire()
        self.acquire_terminal()
        self.owner = threading.get_ident()
        self.pause = self.server.limits_paused()
        self.pause.__enter__()
        self.terminal = terminal_attributes()

    def release(self) -> None:
        """Release the prompt, if this thread has it, and resume the timeouts."""
        if self.owner == threading.get_ident() and self.pause is not None:
            self.owner = 0
            self.terminal = None
            self.pause.__exit__(None, None, None)
            self.release_terminal()
            self.lock.release()

    def restore_terminal(self) -> None:
        """Restore the terminal settings if the server stops while a prompt is open; the line editor has disabled echo."""
        if self.terminal is not None:
            set_terminal_attributes(self.terminal)


def terminal_attributes() -> list[object] | None:
    """Return the terminal's settings before the line editor changes them; None if stdin is not a terminal."""
    try:
        termios = import_module("termios")  # Windows has none
        attributes: list[object] = termios.tcgetattr(sys.stdin.fileno())
    except Exception:  # termios.error, or a stdin that is not a terminal
        return None
    return attributes


def set_terminal_attributes(attributes: list[object]) -> None:
    """Restore the terminal's settings."""
    termios = import_module("termios")
    termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, attributes)
