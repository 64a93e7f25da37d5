"""The reload rows, with few saves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks import reload
from benchmarks.processes import Unavailable

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package


def test_a_save_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "SAVES", 2)
    figures = reload.measure_reload("microwsgi", sys.executable, "")
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"] < reload.LIMIT


def test_an_idle_reloader_is_measured_with_additional_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "QUIET_TIME", 0.0)
    monkeypatch.setattr(reload, "OBSERVED_TIME", 0.1)
    assert reload.idling(10)("microwsgi", sys.executable, "")["core_percent"] >= 0


def is_change_noticed(folder: Path, port: int) -> bool:
    """Save repeatedly, and return whether new code answers."""
    for value in range(1, 200):
        reload.save(folder, 5, value)
        if reload.fetch(port) not in ("0", ""):
            return True
        time.sleep(0.05)
    return False


def test_flask_is_measured_with_both_of_werkzeugs_reloaders() -> None:
    pytest.importorskip("watchdog.observers")
    pytest.importorskip("flask")
    for name, reloader in ((reload.STAT, "stat"), (reload.WATCHDOG, "watchdog")):
        with reload.reloading(name, sys.executable) as (process, folder, port):
            process.output.seek(0)
            assert f"Restarting with {reloader}" in process.output.read().decode()
            if name == reload.WATCHDOG:  # one version of watchdog notices no changes; others need a moment
                assert is_change_noticed(folder, port)


def test_a_server_that_does_not_reload_is_left_out() -> None:
    with pytest.raises(Unavailable, match="does not reload"):
        reload.measure_reload("bare", sys.executable, "")
