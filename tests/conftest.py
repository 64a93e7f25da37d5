"""Fixtures of all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests import effort
from tests.programs import REQUIRED
from tests.running import Running, microwsgi


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that tests start be interrupted, even if a script runs the tests in its background, with INT ignored.

    A worker of pytest-xdist gets the required names from the controller: `tests.programs` takes the variable away there.
    """
    effort.quick = "not slow" in config.option.markexpr
    if hasattr(config, "workerinput"):
        REQUIRED[:] = config.workerinput["required"]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of pytest-xdist the required names."""
    node.workerinput["required"] = REQUIRED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, no test finds out in its course that it can't run; marks (an older Python) may say so."""
    report = yield
    if report.skipped and call.when == "call" and "all" in REQUIRED and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"all is required, and this was skipped: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _forget_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test wrote and had imported is forgotten after it: another one's `hello` would be found in its place."""
    before = set(sys.modules)
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if (vars(sys.modules[name]).get("__file__") or "").startswith(folder):
            del sys.modules[name]


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
