"""Start and reap child processes: forked if that is safe, otherwise spawned.

`microwsgi.prefork.supervisor` starts its children here. A forked child has all modules that the parent has imported; a spawned
one is a new interpreter that inherits only the sockets.
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

from microwsgi.prefork.channel import WorkerChannel
from microwsgi.prefork.worker import Worker, ignored
from microwsgi.process.after_fork import ForkGuard, forget_guards
from microwsgi.process.exiting import EXIT_TIME, exit_within, flush
from microwsgi.process.interpreter import open_standard_descriptors
from microwsgi.process.system import System
from microwsgi.server.balance import Balance
from microwsgi.server.handoff import Handoff

POOL_TIME = 0.5
"""Seconds within which pools of threads and processes have to end at the end of their process."""
PR_SET_PDEATHSIG = 1
"""prctl(2): which signal a process gets when its parent dies."""
_install, _exit, _set_wakeup = signal.signal, os._exit, signal.set_wakeup_fd


class Inheritance:
    """What a child inherits from its parent."""

    def __init__(
        self,
        system: System,
        listeners: list[socket.socket],
        handoff: Handoff | None,
        signals: list[int],
        fatal_error: str,
        is_reload: bool,
        balance: Balance | None,
        close: Callable[[], object],
    ) -> None:
        self.system = system
        self.listeners = listeners
        self.handoff = handoff
        self.signals = signals  # those that the parent handles
        self.fatal_error = fatal_error  # why the application can't be imported, if a process has ended in the attempt
        self.is_reload = is_reload  # older code was loaded before, and there may be compiled files of it
        self.balance = balance  # in memory that only forked children share
        self.close = close  # closes descriptors that only the parent uses


class Process:
    """A forked process, with those methods of subprocess.Popen that are needed."""

    def __init__(self, pid: int, system: System) -> None:
        self.pid = pid
        self.system = system
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, a signal as a negative number; None while the process runs. Raises OSError."""
        if self.returncode is None:
            try:
                pid, status = self.system.wait(self.pid)
            except ChildProcessError:
                self.returncode = 0  # SIGCHLD is ignored in this process, so the kernel keeps no exit status
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process runs. Raises OSError."""
        if self.poll() is None:
            self.system.kill(self.pid, number)


Started = Process | subprocess.Popen[bytes]


def nothing(*_: object) -> None:
    """A signal handler that does nothing: the number is read from the socket of `set_wakeup_fd`, or the signal is ignored."""


def describe_exit(code: int) -> str:
    """Describe how a process ended."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def reap(known: dict[int, Started]) -> None:
    """Reap all processes that have ended, as process 1 must. Those in `known`, by pid, keep their exit codes."""
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


# --- Fork ---------------------------------------------------------------------------------------------------------------


def fork(given: Inheritance, ours: socket.socket, theirs: socket.socket, live: Callable[[Worker], object]) -> Started:
    """Fork a child that runs `live`. Raises OSError."""
    flush()  # else the child would write buffered output, too
    given.system.block_signals(given.signals)  # the child must not handle one as its parent does
    pid = -1
    try:
        pid = given.system.fork()
    finally:
        if pid:
            given.system.unblock_signals(given.signals)
    if not pid:
        ours.close()
        run_to_end(partial(be_child, given, theirs), live)
    return Process(pid, given.system)


def be_child(given: Inheritance, theirs: socket.socket) -> Worker:
    """Discard the state of the parent, in the child."""
    atexit._clear()  # as multiprocessing does: the parent's exit functions must not run in the child
    forget_guards()
    _set_wakeup(-1)
    for number in given.signals:
        _install(number, signal.SIG_DFL)
    ignore_terminal()
    follow_parent()
    given.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, given.signals)
    return Worker(
        WorkerChannel(theirs), given.handoff, given.fatal_error, is_reload=given.is_reload, balance=given.balance
    )


def run_to_end(begin: Callable[[], Worker], live: Callable[[Worker], object]) -> None:
    """Run a child, then end the process without waiting for threads that the application has left."""
    code = 1
    try:
        worker = begin()
        pid = os.getpid()
        with ForkGuard(worker.handlers) as guard:
            guard.add(worker.release)
            worker.guard = guard
            live(worker)
        if os.getpid() == pid:
            worker.send(finished=True)
            exit_within(EXIT_TIME, worker.say)
            end_pools()
            atexit._run_exitfuncs()  # the interpreter would call them, too, but would first wait for those threads
        code = 0
    except BaseException:  # no frame of the parent may continue in the child
        traceback.print_exc()
    finally:
        flush()
        _exit(code)


def end_pools() -> None:
    """End pools of concurrent.futures, as the interpreter would: otherwise multiprocessing waits for their processes forever.

    A pool that is at work is waited for only POOL_TIME: threads that the application has left must not delay the end.
    """
    ends = [*reversed(getattr(threading, "_threading_atexits", ()))]  # there is no public name for these functions
    ending = threading.Thread(target=lambda: [end() for end in ends], name="microwsgi-pools", daemon=True)
    ending.start()
    ending.join(POOL_TIME)


def fork_is_safe() -> bool:
    """Return whether a fork is safe. It is not if there are threads, whose locks the child would inherit, nor on macOS."""
    return hasattr(os, "fork") and sys.platform != "darwin" and threading.active_count() == 1


# --- Spawn --------------------------------------------------------------------------------------------------------------


def spawn(given: Inheritance, _: socket.socket, theirs: socket.socket, call: str, values: object) -> Started:
    """Start a child in a new interpreter. Raises OSError.

    `call`, a function as module:name, is called with a Worker, the listeners and `values`, which are passed as JSON.
    """
    handoff = given.handoff
    shared = [theirs, *given.listeners, *([handoff.receiver, handoff.sender] if handoff else [])]
    numbers = [each.fileno() for each in shared]
    message = [sys.path, sys.argv, call, numbers, len(given.listeners), given.fatal_error, given.is_reload, values]
    return given.system.spawn([sys.executable, "-c", SPAWNED, json.dumps(message)], numbers)


SPAWNED = """\
import json, sys
path, argv, *rest = json.loads(sys.argv[1])
sys.path[:], sys.argv[:] = path, argv
from microwsgi.prefork.processes import spawned
spawned(*rest)
"""


def spawned(call: str, numbers: list[int], count: int, fatal_error: str, is_reload: bool, values: object) -> None:
    """Run a spawned child: the main function of its process."""
    theirs, *shared = (socket.socket(fileno=number) for number in numbers)

    def begin() -> Worker:
        open_standard_descriptors()
        ignore_terminal()
        follow_parent()
        handoff = Handoff(*shared[count:]) if shared[count:] else None
        return Worker(WorkerChannel(theirs), handoff, fatal_error, is_reload=is_reload)

    def live(worker: Worker) -> None:
        module, _, name = call.partition(":")
        getattr(import_module(module), name)(worker, shared[:count], values)

    run_to_end(begin, live)


def ignore_terminal() -> None:
    """Ignore the signals that a terminal sends to all of its processes: the parent sends orders.

    A handler that does nothing, and not SIG_IGN, which programs that the application starts would inherit.
    """
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            _install(getattr(signal, name), ignored)


def follow_parent() -> None:
    """Receive TERM when the parent dies: a process that imports the application does not read the channel.

    Only Linux can send it; elsewhere the child finishes the import first. Once the process serves, TERM and the end of the
    channel have the same effect: it finishes its requests.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
