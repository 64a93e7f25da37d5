"""The threads: the Leader/Followers pattern (Schmidt and others, Pattern-Oriented Software Architecture, volume 2).

The *leader* polls, and receives the bytes that have arrived. Then it releases the lead, and runs the complete requests
itself, in turn: in CPython two runnable threads contend for the GIL, and are slower than one. When a request blocks, another
thread is promoted to leader.

    PoolThread.run          the loop of a thread; it calls `handle_one_request`, which calls the application
      next_task               return the next connection that needs a thread; the leader polls until there is one

**The leader lock.** The thread that holds it is the leader: it may poll, and touch connections that no thread runs.

**Running inline.** Before the leader runs a request, it releases the leader lock without waking a follower. Followers sleep
on their own `wakeup`, and do not wait for this lock. If the request exceeds INLINE_LIMIT seconds, the watchdog, in the thread
of `serve_forever`, takes the lock and promotes a follower. The thread that ran the request then becomes a follower.

**Blocking requests.** After a request was observed to wait rather than compute, the leader promotes a follower *before* it
runs the next requests. Voluntary context switches of the thread distinguish waiting from computing: by processor time alone,
a request that computes on a busy machine would look like one that waits.

**Run permits.** A thread needs one of `threads` permits to run requests; the pools of a server share them. A pool may have one
more thread than there are permits, so that one can always lead.

**Batches.** The leader receives from all ready connections, runs all complete requests, then sends all responses, since each
send evicts the interpreter from the processor's caches. While slow requests are sampled, each response is sent at once: the
next request may block. The first request that blocks delays its batch until the watchdog has promoted a follower, which polls.

Deques are the queues: `append` and `popleft` are atomic, and no item is taken twice.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from time import monotonic

from microwsgi.server.connections import Connection
from microwsgi.server.permits import RunPermits

try:
    from resource import RUSAGE_THREAD, getrusage

    COUNTS_SWITCHES = True
except ImportError:  # macOS and Windows do not account for single threads
    COUNTS_SWITCHES = False

INLINE_LIMIT = 0.005
"""Seconds after which a request that the leader runs inline makes another thread the leader."""
IDLE_CHECKS = 100
"""After this many consecutive checks without a new request, the watchdog sleeps until the next request."""
USAGE_SAMPLE = 0.001
"""Seconds for which a thread's processor time is observed, to distinguish computing from waiting."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for an idle thread, which only has to see that the pool ends."""
SLOW_REQUEST = 0.0003
"""After a request that took more seconds than this, a system call measures whether the request computed or waited."""
SAMPLING_TIME = 0.05
"""Seconds for which, after a slow request, the processor time of each request is measured."""
BLOCKING_TIME, MAX_BLOCKING_TIME = 0.1, 5.0
"""Seconds for which a follower is promoted before each request, after a request has waited; doubled up to the maximum."""


class Usage:
    """The processor time of the calling thread so far, and how often it gave the processor up, or was preempted."""

    __slots__ = ("preemptions", "seconds", "voluntary_switches")

    def __init__(self) -> None:
        if not COUNTS_SWITCHES:
            self.seconds: float = time.thread_time()
            self.voluntary_switches: int = int(monotonic() * 1e6)  # as if the thread gave the processor up all the time
            self.preemptions: int = 0
        else:
            usage = getrusage(RUSAGE_THREAD)
            self.seconds = usage.ru_utime + usage.ru_stime
            self.voluntary_switches = usage.ru_nvcsw
            self.preemptions = usage.ru_nivcsw


class PoolThread(threading.Thread):
    """A thread of the pool. Its `run` calls `handle_one_request` directly, to keep the stack short.

    Only the thread itself sets its attributes, except `is_leader` and `wakeup`, which others set while the thread sleeps.
    """

    def __init__(self, pool: LeaderFollowers, number: int) -> None:
        super().__init__(name=f"{pool.name}-{number}", daemon=True)
        self.pool = pool
        self.is_leader = True  # a thread is started to lead
        self.runs_inline = False  # it released the leader lock to run a request
        self.has_permit = False
        self.task: Connection | None = None
        self.started = 0.0
        self.usage: Usage | None = None  # at the start of the request; None if the request is not sampled
        self.preemptions = 0  # of the thread, when a request was last classified
        self.wakeup = threading.Lock()  # released to wake the thread
        self.wakeup.acquire()

    def run(self) -> None:
        """Run requests until the server ends."""
        pool = self.pool
        try:
            while (connection := pool.next_task(self)) is not None:
                connection.handle_one_request()
        finally:
            pool.leave(self)


class LeaderFollowers:
    """The threads of a server and their queue of connections.

    The leader calls `poll`, which fills `ready`; `interrupt` makes `poll` return. The thread that ran a connection calls
    `finish` with it; or, if the thread leads and the response is complete, appends it to `unsent`, for the next `poll`.
    """

    def __init__(
        self,
        permits: RunPermits,
        ready: deque[Connection],
        unsent: deque[Connection],
        poll: Callable[[], object],
        finish: Callable[..., object],
        interrupt: Callable[[], object],
        name: str,
    ) -> None:
        self.ready = ready
        self.unsent = unsent
        self.poll = poll
        self.finish = finish
        self.interrupt = interrupt
        self.name = name
        self.finished = False  # the threads are to end
        self.threads: list[PoolThread] = []
        self.max_threads = permits.count + 1
        self.permits = permits
        self.starved = permits.starved
        self.number = permits.join(self.wake_one, interrupt)
        self.idle: deque[PoolThread] = deque()
        self.leader_lock = threading.Lock()
        self.leader_lock.acquire()  # for the first thread
        self.threads_lock = threading.Lock()  # protects `threads`; held while a thread is started
        # About the thread that runs inline, for the watchdog. A stale value only costs one unnecessary check.
        self.inline_since = 0.0
        self.inline_thread: PoolThread | None = None
        self.watchdog_wakeup = threading.Lock()  # released to wake the watchdog
        self.watchdog_wakeup.acquire()
        self.watchdog_sleeps = False
        # Written by each thread that has classified a request. A lost update is harmless: the next request writes again.
        self.sampling_until = 0.0
        self.blocking_until = 0.0
        self.blocking_time = BLOCKING_TIME

    def start(self) -> None:
        """Start the first thread, which leads. Raises RuntimeError if the system can't create one."""
        if not self.add_thread():
            raise RuntimeError("The server can't start: the system can't start another thread.")

    # --- A thread's turn ----------------------------------------------------------------------------------------------

    def next_task(self, thread: PoolThread) -> Connection | None:
        """Finish the connection that this thread ran, or leave that to `poll_once`. Return the next one.

        None means that the server has ended.
        """
        now = monotonic()
        task = thread.task
        if task is not None:
            thread.task = None
            if thread.runs_inline:  # take the lock back, unless another thread has it
                thread.runs_inline = False
                thread.is_leader = self.leader_lock.acquire(False)  # a keyword would cost as much as the lock
            if now - thread.started > SLOW_REQUEST:
                self.classify(thread, now)
            exchange = task.exchange
            if (
                thread.is_leader
                and exchange is not None
                and exchange.response_bytes is not None
                and now > self.sampling_until  # else the next request may block: send now
            ):
                self.unsent.append(task)
            else:
                self.finish(task, thread.is_leader)
        while not self.finished:
            if self.starved and self.permits.wanted(self.number, needed=bool(self.ready)):
                self.release_permit(thread)  # for a pool that has requests and no permit
            if self.ready and (thread.has_permit or self.acquire_permit(thread)):
                try:
                    task = thread.task = self.ready.popleft()
                except IndexError:
                    continue
                thread.started = now
                if not thread.is_leader:
                    thread.usage = None
                    return task
                # Promote a follower if this request may block; else release the leader lock, so that the watchdog can.
                thread.is_leader = False
                if (now < self.blocking_until or task.waits_for_client) and self.promote_new_leader():
                    thread.usage = Usage()
                    return task
                thread.runs_inline = True
                thread.usage = Usage() if now < self.sampling_until else None
                self.inline_since = now
                self.inline_thread = thread
                self.leader_lock.release()
                if self.watchdog_sleeps:
                    self.notify_watchdog()
                return task
            if thread.is_leader or self.leader_lock.acquire(False):
                thread.is_leader = True
                self.poll()
            else:
                self.wait_for_work(thread)
            now = monotonic()
        return None

    def classify(self, thread: PoolThread, now: float) -> None:
        """After a slow request: if it waited rather than computed, have followers promoted before the next requests."""
        usage = Usage()
        preemptions, thread.preemptions = usage.preemptions - thread.preemptions, usage.preemptions
        if thread.usage is not None:
            if has_waited(thread.usage, usage, now - thread.started):
                self.assume_blocking(now)
        elif not preemptions:  # a preempted request was slow because the machine is busy
            self.sampling_until = now + SAMPLING_TIME

    def assume_blocking(self, now: float) -> None:
        """Promote a follower before each request for a while: for longer if the last such time ended recently.

        The requests that follow are classified, too. As long as they wait, this time is extended, and none is run inline.
        """
        if now <= self.blocking_until:
            self.blocking_until = max(self.blocking_until, now + BLOCKING_TIME)
        else:
            recent = now < self.blocking_until + self.blocking_time
            self.blocking_time = min(self.blocking_time * 2, MAX_BLOCKING_TIME) if recent else BLOCKING_TIME
            self.blocking_until = now + self.blocking_time

    # --- Leadership ---------------------------------------------------------------------------------------------------

    def promote_new_leader(self) -> bool:
        """Give the leader lock, which the caller holds, to an idle thread, or to a new one; return False if there is none."""
        try:
            follower = self.idle.pop()
        except IndexError:
            return self.add_thread()
        follower.is_leader = True
        follower.wakeup.release()
        return True

    def add_thread(self) -> bool:
        """Start a thread that leads; return False if there are enough, or the system can't create one."""
        with self.threads_lock:
            if len(self.threads) >= self.max_threads or self.finished:
                return False
            thread = PoolThread(self, len(self.threads) + 1)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                return False  # the request is run inline, as if it were quick
            self.threads.append(thread)
            return True

    def acquire_permit(self, thread: PoolThread) -> bool:
        """Take a run permit if one is free; return whether this thread has one."""
        thread.has_permit = self.permits.acquire(self.number)
        return thread.has_permit

    def release_permit(self, thread: PoolThread) -> None:
        """Give the permit of this thread back, if it has one."""
        if thread.has_permit:
            thread.has_permit = False
            self.permits.release()

    def wait_for_work(self, thread: PoolThread) -> None:
        """Sleep until there is something to do.

        A wake-up can't be lost: this thread first adds itself to `idle`, then checks the queue. A thread that has work first
        fills the queue, then checks `idle`. At least one of the two threads sees the change of the other.
        """
        self.release_permit(thread)
        self.idle.append(thread)
        if (self.ready and self.permits.available(self.number)) or not self.leader_lock.locked() or self.finished:
            try:
                self.idle.remove(thread)
            except ValueError:
                pass  # another thread has taken it out and is about to wake it
            else:
                return
        thread.wakeup.acquire()

    def wake_one(self) -> None:
        """Wake an idle thread, which then looks for work."""
        try:
            self.idle.pop().wakeup.release()
        except IndexError:
            pass

    def leave(self, thread: PoolThread) -> None:
        """Clean up after a thread that ends: with the server, or by an unexpected error."""
        self.release_permit(thread)
        if not self.finished:
            with self.threads_lock:
                self.threads.remove(thread)
            if not thread.is_leader:
                self.wake_one()  # another thread may wait for the permit
            elif not self.promote_new_leader():
                self.leader_lock.release()
                self.wake_one()

    # --- The watchdog -------------------------------------------------------------------------------------------------

    def watchdog_check(self) -> None:
        """Promote a follower if the request that runs inline takes long."""
        now, thread = monotonic(), self.inline_thread
        if now - self.inline_since > INLINE_LIMIT and self.leader_lock.acquire(False):
            if not self.promote_new_leader():
                self.leader_lock.release()
                self.wake_one()  # a thread may have found the lock taken by this check
            elif thread is not None and is_blocked(thread):
                # Otherwise the next leader would also run a waiting request inline until the watchdog's next check.
                self.assume_blocking(now)

    def run_watchdog(self, seconds: float | None = None) -> None:
        """Check while requests arrive, and sleep while none do; return after `notify_watchdog`, or after `seconds`."""
        end = None if seconds is None else monotonic() + seconds
        seen, checks = self.inline_since, 0
        while True:
            if self.watchdog_wakeup.acquire(timeout=INLINE_LIMIT):
                return
            if end is not None and monotonic() >= end:
                return
            self.watchdog_check()
            checks = checks + 1 if self.inline_since == seen and self.leader_lock.locked() else 0
            seen = self.inline_since
            if checks >= IDLE_CHECKS:
                self.watchdog_sleeps = True
                # If the lock is free, a request has started, and its thread may not have seen `watchdog_sleeps`.
                if self.leader_lock.locked():
                    self.watchdog_wakeup.acquire(timeout=-1 if end is None else max(end - monotonic(), 0.0))
                    self.watchdog_sleeps = False
                    return
                self.watchdog_sleeps = False

    def notify_watchdog(self) -> None:
        """Wake the watchdog. Allowed in signal handlers: releasing a lock never blocks."""
        try:
            self.watchdog_wakeup.release()
        except RuntimeError:
            pass  # it was released already

    def end(self, seconds: float) -> None:
        """End all threads; wait for the idle ones, and `seconds` for those that run a request."""
        with self.threads_lock:
            self.finished = True
            threads = list(self.threads)
        self.notify_watchdog()
        end = monotonic() + seconds
        self.interrupt()
        while True:
            try:
                self.idle.pop().wakeup.release()
            except IndexError:
                break
        for thread in threads:
            thread.join(JOIN_TIMEOUT if thread.task is None else max(end - monotonic(), 0.0))


def is_blocked(thread: PoolThread) -> bool:
    """Return whether a thread uses little processor time at this moment, and so waits, possibly for the GIL."""
    if thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return True  # unknown on macOS and Windows: assume that it waits
    try:
        clock = time.pthread_getcpuclockid(thread.ident)
        before = time.clock_gettime(clock)
        time.sleep(USAGE_SAMPLE)
        return time.clock_gettime(clock) - before < USAGE_SAMPLE / 2
    except OSError:
        return False  # it has ended


def has_waited(before: Usage, after: Usage, seconds: float) -> bool:
    """Return whether a thread mostly waited in this time: little processor time, more voluntary switches than preemptions."""
    computed, switches = after.seconds - before.seconds, after.voluntary_switches - before.voluntary_switches
    return computed < seconds / 2 and switches > after.preemptions - before.preemptions
