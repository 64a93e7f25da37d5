"""Probing all the time: a round for each target, again and again, and who listens is told of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from apps.probing.config import Config, Watched
from apps.probing.history import History, Round
from apps.probing.outcome import FAULTY, Outcome
from apps.probing.policy import Refused

AT_ONCE = 8
"""Targets that are probed at the same time."""
SPREAD = 0.8
"""Share of the interval over which the probes of a round are spread: in a burst they would measure each other."""


class Prober:
    """The histories of a configuration's targets, and the thread that goes on with them once it is started."""

    def __init__(self, config: Config, tell: Callable[[Watched, Round], object]) -> None:
        self.config, self.tell = config, tell
        self.histories = {watched.name: History() for watched in config.targets}
        self.guard = threading.Lock()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has. Not with the import: a thread that runs before a fork is not there after it."""
        with self.guard:
            if self.thread is None and self.config.targets:
                self.thread = threading.Thread(target=self.run, name="prober", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End, after the probes that are under way."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()

    def run(self) -> None:
        """Round after round, at even times."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe") as pool:
            due = time.monotonic()
            while not self.stopped.is_set():
                list(pool.map(self.round, self.config.targets))
                due = max(due + self.config.interval, time.monotonic())
                self.stopped.wait(due - time.monotonic())

    def round(self, watched: Watched) -> None:
        """One round of a target."""
        at, outcomes = time.time(), []
        pause = self.config.interval * SPREAD / self.config.probes
        start = time.monotonic()
        for number in range(self.config.probes):
            if self.stopped.wait(max(start + number * pause - time.monotonic(), 0)):
                return
            outcomes.append(self.probe(watched))
            if time.monotonic() - start > self.config.interval:  # where nothing answers each probe takes its whole time
                break
        found = Round.of(at, outcomes)
        self.histories[watched.name].add(found)
        self.tell(watched, found)

    def probe(self, watched: Watched) -> Outcome:
        """One probe; looked up anew, since names move, and judged anew, since they move to wherever somebody likes."""
        try:
            target = watched.resolve(self.config.policy)
        except Refused as error:
            return Outcome(FAULTY, facts={"reason": str(error)})
        return watched.send(target, self.config.timeout)
