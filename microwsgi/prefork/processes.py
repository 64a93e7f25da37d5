"""How a parent's child comes to be: forked where that is safe, else spawned; and how it ends.

`microwsgi.prefork.supervisor` starts children here, and waits for their ends. A forked one has all that the parent has
imported; a spawned one begins from nothing but the sockets.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module

from microwsgi.prefork.channel import Channel
from microwsgi.prefork.worker import Worker
from microwsgi.server.handoff import Handoff

POOLS = 0.5
"""Seconds that pools of threads and processes have to end with their process."""
PR_SET_PDEATHSIG = 1
"""prctl(2): which signal a process gets when its parent dies."""


class Parent:
    """What a process must know of its parent to become its child."""

    listeners: list[socket.socket]
    handoff: Handoff | None
    on_signal: dict[int, Callable[[], object]]

    @property
    def trouble(self) -> str:
        """Why the application can't be imported, if a process has ended in the attempt."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what only a parent has."""
        raise NotImplementedError


class Process:
    """A forked process, with those methods of subprocess.Popen that are needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended, a signal as a negative number; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


Started = Process | subprocess.Popen[bytes]


def nothing(*_: object) -> None:
    """A signal's handler, where the signal's number is read elsewhere, or the signal means nothing."""


def manner(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def reap(known: dict[int, Started]) -> None:
    """Forget all processes that have ended, as process 1 must; these, by their pids, keep what they ended with."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        if ended.si_pid in known:
            known[ended.si_pid].poll()
        else:
            os.waitpid(ended.si_pid, os.WNOHANG)


def fork(parent: Parent, ours: socket.socket, theirs: socket.socket, live: Callable[[Worker], object]) -> Started:
    """A child that has all that the parent has imported, and whose life is `live`."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # else the child would write it, too
    signal.pthread_sigmask(signal.SIG_BLOCK, parent.on_signal)  # the child must not answer one as its parent would
    pid = os.fork()
    if not pid:
        ours.close()
        run_to_end(partial(be_child, parent, theirs, live))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, parent.on_signal)
    return Process(pid)


def be_child(parent: Parent, theirs: socket.socket, live: Callable[[Worker], object]) -> None:
    """Forget what only a parent has, and live."""
    atexit._clear()  # noqa: SLF001 - as multiprocessing does: what the parent wants done at its end is not for its child
    signal.set_wakeup_fd(-1)
    for number in parent.on_signal:
        signal.signal(number, signal.SIG_DFL)
    be_steered()
    follow_parent()
    parent.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, parent.on_signal)
    live(Worker(Channel(theirs), parent.handoff, parent.trouble))


def run_to_end(live: Callable[[], object]) -> None:
    """Call this, and end the process, without waiting for threads that the application has left."""
    code = 1
    try:
        live()
        end_pools()
        atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter would, but it is not to wait for those threads
        code = 0
    except BaseException:  # noqa: BLE001 - nothing of a parent's may run on in its child
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        os._exit(code)


def end_pools() -> None:
    """Have pools of concurrent.futures end, as the interpreter would: else multiprocessing waits for their processes for ever.

    A pool that is at work is not waited for long: threads that the application has left do not keep the process.
    """
    ends = [*reversed(getattr(threading, "_threading_atexits", ()))]  # there is no public name for them
    ending = threading.Thread(target=lambda: [end() for end in ends], name="microwsgi-pools", daemon=True)
    ending.start()
    ending.join(POOLS)


def fork_is_safe() -> bool:
    """Whether a child may go on after a fork: not beside threads, whose locks it would inherit, nor among Apple's libraries."""
    return hasattr(os, "fork") and sys.platform != "darwin" and threading.active_count() == 1


def spawn(parent: Parent, _: socket.socket, theirs: socket.socket, call: str, what: object) -> Started:
    """A child that begins from nothing: `call`, a function as module:name, gets a Worker, the listeners and `what`, as JSON."""
    handoff = parent.handoff
    shared = [theirs, *parent.listeners, *([handoff.receiver, handoff.sender] if handoff else [])]
    numbers = [each.fileno() for each in shared]
    message = json.dumps([sys.path, sys.argv, call, numbers, len(parent.listeners), parent.trouble, what])
    return subprocess.Popen([sys.executable, "-c", SPAWNED, message], pass_fds=numbers)  # noqa: S603 - this Python


SPAWNED = """\
import json, sys
path, argv, *rest = json.loads(sys.argv[1])
sys.path[:], sys.argv[:] = path, argv
from microwsgi.prefork.processes import spawned
spawned(*rest)
"""


def spawned(call: str, numbers: list[int], count: int, trouble: str, what: object) -> None:
    """The other side of `spawn`."""
    be_steered()
    follow_parent()
    theirs, *shared = (socket.socket(fileno=number) for number in numbers)
    worker = Worker(Channel(theirs), Handoff(*shared[count:]) if shared[count:] else None, trouble)
    module, _, name = call.partition(":")
    run_to_end(partial(getattr(import_module(module), name), worker, shared[:count], what))


def be_steered() -> None:
    """Not mind what a terminal tells all of its processes: the parent says what it means."""
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), nothing)


def follow_parent() -> None:
    """Get TERM when the parent is killed: who imports the application does not listen to the channel.

    Linux alone does that; elsewhere an import is finished first. Later TERM has a process finish what it runs, as that end of
    the channel does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
