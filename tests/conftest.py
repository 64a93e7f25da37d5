"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.running import Running, microwsgi


@pytest.fixture
def command() -> Iterator[Callable[..., Running]]:
    """`command("serve", "apps.echo:app", "--port", "0", cwd=..., NAME="value")` runs the real command line.

    What still runs at the end of the test is stopped.
    """
    started: list[Running] = []

    def run(*arguments: str, **settings: object) -> Running:
        started.append(Running(microwsgi(*arguments), **settings))  # type: ignore[arg-type]  # cwd, and variables
        return started[-1]

    yield run
    for running in started:
        running.end()
