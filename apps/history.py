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
from collections.abc import Callable, Sequence
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
        query = "SELECT max(at) FROM sample WHERE span = ?"
        last, oldest = self.connection.execute(query, (MERGED,)).fetchone()[0], now - HOUR
        begin = (max(last, oldest) if last else oldest) // MERGED * MERGED + MERGED
        while begin + MERGED + LATE <= now:
            query = "SELECT series, data FROM sample WHERE span = 0 AND at >= ? AND at < ? ORDER BY series, at"
            found = self.connection.execute(query, (begin, begin + MERGED)).fetchall()
            merged = [
                (series, MERGED, begin, json.dumps(self.merge([json.loads(data) for _, data in rows])))
                for series, rows in groupby(found, key=lambda row: row[0])
            ]
            self.connection.executemany("INSERT INTO sample (series, span, at, data) VALUES (?, ?, ?, ?)", merged)
            begin += MERGED
        for span, kept in ((0, HOUR + MERGED + LATE), (MERGED, DAY + MERGED)):
            self.connection.execute("DELETE FROM sample WHERE span = ? AND at < ?", (span, now - kept))

    def between(self, series: str, begin: float, end: float) -> list[Sample]:
        """The samples of a period in the order of their times: as they were added, or merged if the period is long."""
        recent = end - begin <= HOUR + 60
        query = (
            "SELECT id, series, at, data FROM sample WHERE series = ? AND span = ? AND at >= ? AND at < ? ORDER BY at"
        )
        merged = [] if recent else self.select(query, series, MERGED, begin, end)
        start = max(begin, merged[-1].at + MERGED if merged else begin)
        fresh = self.select(query, series, 0, start, end)
        if recent:
            return fresh
        # The last minutes are not merged yet.
        periods = groupby(fresh, key=lambda sample: sample.at // MERGED * MERGED)
        groups = [(at, list(group)) for at, group in periods]
        merged += [Sample(g[-1].id, series, at, self.merge([each.data for each in g])) for at, g in groups]
        return merged

    def after(self, last: int, since: float = 0.0) -> list[Sample]:
        """The samples that were added after the one with this id, and are not older than `since`."""
        query = "SELECT id, series, at, data FROM sample WHERE id > ? AND span = 0 AND at >= ? ORDER BY id"
        return self.select(query, last, since)

    def select(self, query: str, *values: object) -> list[Sample]:
        with self.lock:
            rows = self.connection.execute(query, values).fetchall()
        return [Sample(id, series, at, json.loads(data)) for id, series, at, data in rows]  # a sample's own

    def close(self) -> None:
        with self.lock:
            self.connection.close()
