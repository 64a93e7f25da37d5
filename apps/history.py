"""A small time series in SQLite, of the standard library: the network examples keep their samples in it across restarts.

A sample is a series' name, a time and a JSON object. Samples stay as they were added for an hour; each complete five minutes of
a series are then merged into one sample, which stays for a day. Readers in other processes see new samples by their ids.

    add         keep a sample for the next write            any thread
    flush       write, merge and delete                     one thread, about once a second: it may wait for the disk
    between     the samples of a series in a period         any thread
    after       the samples that were written since         any thread
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

HOUR, DAY = 3600.0, 86400.0
MERGED = 300
"""Seconds that a merged sample stands for; those of a sample as it was added are 0."""
LATE = 120.0
"""Seconds to wait before a period is merged: a round of probes is added when it is over, with the time of its start."""
PENDING = 10_000
"""Samples that wait for a disk that is full or slow; the oldest are dropped."""
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS sample (
    id INTEGER PRIMARY KEY AUTOINCREMENT, series TEXT NOT NULL, span INTEGER NOT NULL, at REAL NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sample_series ON sample (series, span, at);
CREATE INDEX IF NOT EXISTS sample_age ON sample (span, at);
"""
SELECT = "SELECT id, series, at, data FROM sample"

Data = dict[str, Any]


class Sample(NamedTuple):
    """A sample of a series; `at` is in seconds since 1970."""

    id: int
    series: str
    at: float
    data: Data


class History:
    """The samples in a file, or in memory if `path` is "". `merge` makes one sample's data of several."""

    def __init__(self, path: str, merge: Callable[[Sequence[Data]], Data]) -> None:
        self.path, self.merge = path, merge
        self.trouble = ""
        """The reason why samples are not in the file, for people; "" if they are."""
        self.pending: deque[tuple[str, float, Data]] = deque(maxlen=PENDING)
        self.lock = threading.Lock()  # one connection, used by one thread at a time; protects `pending`, too
        try:
            self.connection = self.connect(path or ":memory:")
        except sqlite3.Error as error:
            self.trouble = f"{path} can't be used: {error}. The history is in memory only."
            self.connection = self.connect(":memory:")

    @staticmethod
    def connect(path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=2.0, check_same_thread=False)
        try:
            connection.executescript(SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def add(self, series: str, at: float, data: Data) -> None:
        with self.lock:
            self.pending.append((series, at, data))

    def flush(self, now: float) -> None:
        """Write the samples that were added, in one transaction. After a failure they wait for the next flush."""
        with self.lock:
            rows = [(series, at, json.dumps(data)) for series, at, data in self.pending]
            try:
                with self.connection:  # a transaction
                    self.connection.executemany("INSERT INTO sample (series, span, at, data) VALUES (?, 0, ?, ?)", rows)
                    self.compact(now)
            except sqlite3.Error as error:
                self.trouble = f"{self.path} can't be written: {error}."
                return
            self.pending.clear()
            if self.trouble.startswith(f"{self.path} can't be written"):
                self.trouble = ""

    def compact(self, now: float) -> None:
        """Merge the periods that are complete, and delete old samples."""
        last = self.connection.execute("SELECT max(at) FROM sample WHERE span = ?", (MERGED,)).fetchone()[0]
        begin, end = max(last or 0.0, now - HOUR) // MERGED * MERGED + MERGED, (now - LATE) // MERGED * MERGED
        if begin < end:
            query = f"{SELECT} WHERE span = 0 AND at >= ? AND at < ? ORDER BY series, at"
            rows = [(each.series, MERGED, each.at, json.dumps(each.data)) for each in self.merged(query, begin, end)]
            self.connection.executemany("INSERT INTO sample (series, span, at, data) VALUES (?, ?, ?, ?)", rows)
        for span, kept in ((0, HOUR + MERGED + LATE), (MERGED, DAY + MERGED)):
            self.connection.execute("DELETE FROM sample WHERE span = ? AND at < ?", (span, now - kept))

    def between(self, series: str, begin: float, end: float) -> list[Sample]:
        """The samples of a period in the order of their times: as they were added, or merged if the period is long."""
        query = f"{SELECT} WHERE series = ? AND span = ? AND at >= ? AND at < ? ORDER BY at"
        with self.lock:
            if end - begin <= HOUR + 60:
                return list(self.select(query, series, 0, begin, end))
            old = list(self.select(query, series, MERGED, begin, end))
            # The last minutes are not merged yet.
            return old + list(self.merged(query, series, 0, old[-1].at + MERGED if old else begin, end))

    def after(self, last: int, since: float = 0.0) -> list[Sample]:
        """The samples that were added after the one with this id, and are not older than `since`."""
        with self.lock:
            return list(self.select(f"{SELECT} WHERE id > ? AND span = 0 AND at >= ? ORDER BY id", last, since))

    def select(self, query: str, *values: object) -> Iterator[Sample]:
        """Called with the lock."""
        for id, series, at, data in self.connection.execute(query, values).fetchall():  # a sample's own id
            yield Sample(id, series, at, json.loads(data))

    def merged(self, query: str, *values: object) -> Iterator[Sample]:
        """One sample for each series and period of those that a query finds. Called with the lock."""
        groups = groupby(self.select(query, *values), key=lambda each: (each.series, each.at // MERGED * MERGED))
        for (series, at), group in groups:
            yield Sample(0, series, at, self.merge([each.data for each in group]))

    def close(self) -> None:
        with self.lock:
            self.connection.close()
