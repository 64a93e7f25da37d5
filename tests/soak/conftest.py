"""The long tests say what they have measured: a table at the end of `make soak`, which docs/soak.md repeats."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """`figure("threads", "3", "as before: 3")`: what was measured, the value, and its limit."""
    found = request.config.stash.setdefault(FIGURES, [])
    return lambda *row: found.append(row)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, in Markdown."""
    if rows := config.stash.get(FIGURES, []):
        terminalreporter.section("measured")
        for row in [("", "measured", "limit"), ("---", "---", "---"), *rows]:
            terminalreporter.write_line(f"| {' | '.join(row)} |")
