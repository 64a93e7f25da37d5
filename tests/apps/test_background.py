"""Background work of the examples starts and stops."""

from __future__ import annotations

import asyncio
import threading

import pytest

from apps import background
from apps.background import Background
from tests.running import LIMIT


def test_a_stop_does_not_wait_for_the_timers_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE", 3600.0)
    began = threading.Event()

    async def work() -> None:
        began.set()
        await asyncio.sleep(3600)

    working = Background("waits", work)
    working.start()
    assert began.wait(LIMIT)
    stop = threading.Thread(target=working.stop, daemon=True)
    stop.start()
    stop.join(LIMIT)
    assert not stop.is_alive()
    working.start()
    assert working.thread is not None
    assert not working.thread.is_alive(), "it is over for good"
