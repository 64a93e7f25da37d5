"""Run as a program: take away what Windows lacks, then do what the arguments say. `test_other_systems.py` uses it."""

from __future__ import annotations

import os
import runpy
import select
import signal
import socket
import sys
from functools import partial

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty")
ATTRIBUTES = {
    os: (
        *("fork", "sendfile", "pread", "getuid", "geteuid", "getgid", "getegid"),
        *("register_at_fork", "mkfifo", "setsid", "fchown"),
    ),
    select: ("epoll", "poll", "kqueue"),
    socket: ("AF_UNIX", "SO_PEERCRED", "TCP_USER_TIMEOUT", "send_fds", "recv_fds"),
    signal: (
        *("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGCHLD", "SIGTSTP", "SIGCONT", "SIGWINCH"),
        "pthread_sigmask",
    ),
}


def take_away() -> None:
    """Remove the modules and attributes from this process."""
    import selectors  # with those that are left only
    import subprocess  # noqa: F401 - of the standard library, which looks for them itself
    import tempfile  # noqa: F401

    pair = partial(socket.socketpair, socket.AF_UNIX)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import raises ImportError then
    for module, names in ATTRIBUTES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    socket.socketpair = lambda *_: pair()  # Windows has one of TCP
    for name in ("EpollSelector", "PollSelector", "KqueueSelector", "DevpollSelector"):
        if hasattr(selectors, name):
            delattr(selectors, name)
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[assignment, misc]


if __name__ == "__main__":
    take_away()
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
