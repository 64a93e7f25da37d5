"""Which thread does what: one leads, the others run requests that wait, or rest.

The thread that *leads* polls, receives what has come, and runs the requests that are whole by itself, one after the other:
in CPython two threads that can run cost more than one. When an application waits, the lead passes to another thread, since
threads are for waiting, not for working. `microwsgi.server.server` says what polling is.

    ServingThread.run       the whole loop of a thread: this frame, then `handle_one_request`, then the application
      Lead.next_ready         the next handler that wants a thread; who has the lead polls for it

What makes this safe with no more than an uncontended lock on a request's way:

- The lead is a lock. Who holds it may poll, and touch connections that nobody owns.
- While the leader runs a request itself, the lead lies free; nobody else wants it. The watch gives it away when the request
  takes too long. Its thread finds it taken, then, and goes in line.
- A thread needs one of `threads` slots to run requests. There is one thread more than slots, so that one can always lead.
- Deques are the queues: one `popleft` gets an item, and no two the same.

The leader works by phases: it receives for all that have come, runs all that are whole, then sends all responses, since the
kernel's part of sending evicts ours from the processor's caches. A response never waits for a request that has been seen to
take long, nor, when one surprises, longer than the watch takes to find another leader.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from time import monotonic

from microwsgi.server.connection import Connection

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # macOS and Windows don't count what one thread does
    RUSAGE_THREAD = None  # type: ignore[assignment, misc]

WATCH = 0.005
"""Seconds after which a request that the leader runs itself costs it the lead."""
WATCHES = 100
"""Looks of the watch that find nothing before it sleeps until the next request."""
GLANCE = 0.001
"""Seconds in which a thread that works can be told from one that waits."""
LAST = 5.0
"""Seconds to wait for a thread that only has to notice that it is to end; they pass on a machine that stands still."""
SUSPICIOUS = 0.0003
"""Seconds of a request after which it is worth a system call to learn whether it worked or waited."""
SAMPLED = 0.05
"""Seconds for which, after a suspicious request, the processor time of requests is taken too."""
WAITING, WAITING_LONG = 0.1, 5.0
"""Seconds for which the lead is handed over before each request once one has waited; doubled while they go on waiting."""


class ServingThread(threading.Thread):
    """A thread that leads or runs requests: nothing else stands between the system and `handle_one_request`."""

    def __init__(self, crew: Lead, number: int, *, leads: bool) -> None:
        super().__init__(name=f"microwsgi-{number}", daemon=True)
        self.crew = crew
        self.leads = leads  # holds the lead
        self.inline = False  # has left the lead lying free, to run a request
        self.slot = False
        self.handler: Connection | None = None
        self.started = 0.0
        self.usage: Usage | None = None  # of this thread when the request started, if it is sampled
        self.taken_away = 0  # how often the processor was, when a request was judged last
        self.requests = 0
        self.call = threading.Lock()  # released by who has something for this thread to do
        self.call.acquire()

    def run(self) -> None:
        """Run requests until the server ends."""
        crew = self.crew
        try:
            while (handler := crew.next_ready(self)) is not None:
                handler.handle_one_request()
        finally:
            crew.leave(self)


class Lead:
    """The threads of a server, the line of handlers that are ready for one, and the lead."""

    def prepare(self, threads: int) -> None:
        """Make all of it anew: after a fork locks and threads of the parent are worth nothing."""
        self.finished = False  # the threads are to end
        self.threads: list[ServingThread] = []
        self.most_threads = threads + 1
        self.slots = deque([True] * threads)
        self.idle: deque[ServingThread] = deque()
        self.ready: deque[Connection] = deque()
        self.answered: deque[Connection] = deque()
        self.lead = threading.Lock()
        self.lead.acquire()  # the first thread is made with it
        self.alarm = threading.Lock()  # released to make the watch look
        self.alarm.acquire()
        self.watch_sleeps = False
        self.inline_since = 0.0
        self.inline_thread: ServingThread | None = None
        self.sampled_until = 0.0
        self.waits_until = 0.0
        self.waiting = WAITING
        self.full = False

    # --- A thread's turn --------------------------------------------------------------------------------------------

    def next_ready(self, thread: ServingThread) -> Connection | None:
        """Settle the handler that this thread ran, and find it the next one; None when the server has ended."""
        now = monotonic()
        handler = thread.handler
        if handler is not None:
            thread.handler = None
            if thread.inline:  # pick the lead up again, if it still lies there
                thread.inline = False
                thread.leads = self.lead.acquire(False)  # a keyword would cost as much as the lock
            if now - thread.started > SUSPICIOUS:
                self.judge(thread, now)
            if thread.leads and handler.answer is not None and now > self.sampled_until:
                self.answered.append(handler)
            else:
                self.settle(handler, thread.leads)
        while not self.finished:
            if self.ready and (thread.slot or self.take_slot(thread)):
                try:
                    handler = thread.handler = self.ready.popleft()
                except IndexError:
                    continue
                thread.started = now
                thread.requests += handler.chunks is None  # else its response goes on
                if thread.leads:
                    self.leave_lead(thread, now)
                else:
                    thread.usage = None
                return handler
            if thread.leads or self.lead.acquire(False):
                thread.leads = True
                self.poll()
            else:
                self.wait_in_line(thread)
            now = monotonic()
        return None

    def leave_lead(self, thread: ServingThread, now: float) -> None:
        """Decide who leads while this thread runs its handler: nobody, until the watch minds; or another, at once."""
        thread.leads = False
        waits = now < self.waits_until or (thread.handler is not None and thread.handler.long_body)
        if waits and self.hand_over():
            thread.usage = thread_usage()
            return
        thread.inline = True
        thread.usage = thread_usage() if now < self.sampled_until else None
        self.inline_since = now
        self.inline_thread = thread
        self.lead.release()
        if self.watch_sleeps:
            self.sound_alarm()

    def judge(self, thread: ServingThread, now: float) -> None:
        """After a long request: if it waited rather than worked, those that follow won't hold up the lead."""
        usage = thread_usage()
        taken_away, thread.taken_away = usage[2] - thread.taken_away, usage[2]
        if thread.usage is not None:
            if waited(thread.usage, usage, now - thread.started):
                self.expect_waiting(now)
        elif not taken_away:  # on a busy machine most long requests only had no processor
            self.sampled_until = now + SAMPLED

    def expect_waiting(self, now: float) -> None:
        """Hand the lead over before each request for a while: for longer if the last while is hardly over.

        Those that follow are judged as well. As long as they wait, the while goes on, and no leader has to try one.
        """
        if now <= self.waits_until:
            self.waits_until = max(self.waits_until, now + WAITING)
        else:
            self.waiting = min(self.waiting * 2, WAITING_LONG) if now < self.waits_until + self.waiting else WAITING
            self.waits_until = now + self.waiting

    # --- Passing the lead -------------------------------------------------------------------------------------------

    def hand_over(self) -> bool:
        """Give the lead, which the caller holds, to a thread that rests, or to a new one; False if there is none."""
        try:
            other = self.idle.pop()
        except IndexError:
            return self.add_thread()
        other.leads = True
        other.call.release()
        return True

    def add_thread(self) -> bool:
        """Start a thread that has the lead."""
        if len(self.threads) >= self.most_threads:
            return False
        thread = ServingThread(self, len(self.threads) + 1, leads=True)
        self.threads.append(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            self.threads.remove(thread)
            return False  # the system gives us no more: the request is run inline, as if it were quick
        return True

    def take_slot(self, thread: ServingThread) -> bool:
        """Whether this thread may run requests."""
        try:
            thread.slot = self.slots.pop()
        except IndexError:
            if not self.full:
                self.full = True
                self.log_error(f"All {self.most_threads - 1} threads are busy; requests wait in line (--threads).")
        return thread.slot

    def wait_in_line(self, thread: ServingThread) -> None:
        """Rest until there is something to do."""
        if thread.slot:
            thread.slot = False
            self.slots.append(True)
        self.idle.append(thread)
        if (self.ready and self.slots) or not self.lead.locked() or self.finished:
            # Put in line, or let go, before this thread could be found here: it must look again.
            try:
                self.idle.remove(thread)
            except ValueError:
                pass  # somebody has called already
            else:
                return
        thread.call.acquire()

    def call_one(self) -> None:
        """Have a thread that rests look whether there is something to do."""
        try:
            self.idle.pop().call.release()
        except IndexError:
            pass

    def leave(self, thread: ServingThread) -> None:
        """A thread ends: with the server, or by an error that nobody foresaw; then the others go on without it."""
        if thread.slot:
            self.slots.append(True)
        if not self.finished:
            self.threads.remove(thread)
            if thread.leads and not self.hand_over():
                self.lead.release()
                self.call_one()

    # --- The watch --------------------------------------------------------------------------------------------------

    def watch_once(self) -> None:
        """Take the lead from a thread whose request takes long, and give it to one that can poll."""
        now, thread = monotonic(), self.inline_thread
        if now - self.inline_since > WATCH and self.lead.acquire(blocking=False):
            if not self.hand_over():
                self.lead.release()
                self.call_one()  # one may have come back meanwhile, and have found the lead taken
            elif thread is not None and rests(thread):
                # The next leader would run the next request that waits itself, and be found out as late.
                self.expect_waiting(now)

    def watch_until_alarm(self) -> None:
        """Watch while requests come, sleep while none do; return when the alarm has another reason than a request."""
        seen, looks = self.inline_since, 0
        while True:
            if self.alarm.acquire(timeout=WATCH):
                return
            self.watch_once()
            looks = looks + 1 if self.inline_since == seen and self.lead.locked() else 0
            seen = self.inline_since
            if looks >= WATCHES:
                self.watch_sleeps = True
                if self.lead.locked():  # else a request began meanwhile, and its thread did not see that nobody watches
                    self.alarm.acquire()
                    self.watch_sleeps = False
                    return
                self.watch_sleeps = False

    def sound_alarm(self) -> None:
        """Make the watch look; safe in a signal's handler, where a lock that is held may be our own."""
        try:
            self.alarm.release()
        except RuntimeError:
            pass  # it is ringing

    def end_threads(self, seconds: float) -> None:
        """Have all threads end; wait for those that run nothing, and so many seconds for the others."""
        self.finished = True
        end = monotonic() + seconds
        self.interrupt_poll()
        while self.idle:
            self.idle.pop().call.release()
        for thread in self.threads:
            thread.join(LAST if thread.handler is None else max(end - monotonic(), 0.0))

    # --- What polling and settling are, in microwsgi.server.server ------------------------------------------------------

    def poll(self) -> None:
        """Put handlers that want a thread into `ready`; waits for the first."""
        raise NotImplementedError

    def interrupt_poll(self) -> None:
        """Make `poll` return."""
        raise NotImplementedError

    def settle(self, handler: Connection, leads: bool) -> None:  # noqa: FBT001 - on every request's way
        """See what a handler needs after its turn; `leads`: nobody else polls meanwhile."""
        raise NotImplementedError

    def log_error(self, text: str) -> None:
        """Write a line where errors go."""
        raise NotImplementedError


def rests(thread: ServingThread) -> bool:
    """Whether a thread uses no processor just now: it waits, then, and does not work."""
    if thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return True
    try:
        clock = time.pthread_getcpuclockid(thread.ident)
        before = time.clock_gettime(clock)
        time.sleep(GLANCE)
        return time.clock_gettime(clock) - before < GLANCE / 2
    except OSError:
        return False  # it has ended


Usage = tuple[float, int, int]
"""Of a thread: its processor seconds, how often it gave the processor up, and how often that was taken away."""


def thread_usage() -> Usage:
    """What the calling thread has used so far."""
    if RUSAGE_THREAD is None:
        return time.thread_time(), int(monotonic() * 1e6), 0  # as if it gave the processor up all the time
    usage = getrusage(RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime, usage.ru_nvcsw, usage.ru_nivcsw


def waited(before: Usage, after: Usage, seconds: float) -> bool:
    """Whether a thread gave the processor up by itself for most of this time; on a busy machine it is taken away, too."""
    return after[0] - before[0] < seconds / 2 and after[1] - before[1] > after[2] - before[2]
