"""Table-driven tests: one test checks many rows and reports every row that fails, in one message.

with Rows() as rows:
    for case in cases("refused"):
        with rows(case.name):
            assert read([case.data]).status == case.status
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

REPORTED = 40
"""Failing rows that are reported with their messages; of the others only the names are."""
LINES, COLUMNS = 12, 400
"""The part of a row's message that is reported."""


class Rows:
    """Collect the failures of a table's rows. At its end raise an AssertionError that lists them.

    A table without any row fails too: a loop over an empty list would otherwise prove nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.failures: list[tuple[str, BaseException]] = []

    @contextlib.contextmanager
    def __call__(self, *name: object) -> Iterator[None]:
        """Check one row; an exception within the block is noted as the failure of the row with this name."""
        self.count += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:  # whatever it is, the next rows are checked
            self.failures.append((" ".join(map(str, name)), error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.failures:
            raise AssertionError(self.report()) from error
        if error is None:
            assert self.count, "the table has no rows"

    def report(self) -> str:
        """List each failing row with its exception and the line of the test that raised it."""
        lines = [f"{len(self.failures)} of {self.count} rows failed:"]
        for name, error in self.failures[:REPORTED]:
            place = traceback.extract_tb(error.__traceback__)[1:]
            lines += [f"[{name}] {place[0].filename}:{place[0].lineno}: {place[0].line}" if place else f"[{name}]"]
            text = str(error) or "assertion failed"
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            lines += [f"    {line[:COLUMNS]}" for line in f"{kind}{text}".splitlines()[:LINES]]
        if rest := self.failures[REPORTED:]:
            lines += [f"and {len(rest)} more: {', '.join(name for name, _ in rest)}"]
        return "\n".join(lines)
