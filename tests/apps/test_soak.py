"""The network examples in a compressed hour with a hundred viewers, and their processor time with none, one and a hundred."""

from __future__ import annotations

import contextlib
import gc
import http.client
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from apps.look import page as look
from apps.probing.outcome import Outcome, Reason
from apps.probing.rounds import Round
from microwsgi.testing import live
from tests.apps.probing.loading import loaded
from tests.running import LIMIT, Running

pytestmark = pytest.mark.soak

VIEWERS, HOUR = 100, 3600
CONFIG = 'interval = 10\nhistory = ""\n' + "".join(
    f'[[target]]\nname = "t{number}"\nmodule = "icmp"\ntarget = "192.0.2.{number}"\n' for number in range(20)
)
PARTS = {
    "apps.probe:app": ("all",),
    "apps.netmon:app": ("interfaces", "counters"),
}
SECONDS = 10
"""For each measurement of processor time."""


class Viewer:
    """An open page: an event stream, and the parts that it fetches with each event, by one connection."""

    def __init__(self, port: int) -> None:
        self.stream = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        self.events = 0

    def receive(self) -> bool:
        """Whether there were events."""
        count = self.stream.recv(65536).count(b'"now"')
        self.events += count
        return bool(count)

    def fetch(self, parts: tuple[str, ...]) -> None:
        for part in parts:
            self.client.request("GET", f"/part/{part}")
            response = self.client.getresponse()
            assert response.status == 200
            assert response.read()

    def close(self) -> None:
        self.stream.close()
        self.client.close()


@contextlib.contextmanager
def viewers(port: int, count: int) -> Iterator[tuple[list[Viewer], selectors.BaseSelector]]:
    with contextlib.ExitStack() as stack:
        found, selector = [Viewer(port) for _ in range(count)], stack.enter_context(selectors.DefaultSelector())
        for each in found:
            stack.callback(each.close)
            selector.register(each.stream, selectors.EVENT_READ, each)
        yield found, selector


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_an_hour_with_a_hundred_event_streams_takes_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 streams, each with an event for ten seconds of a clock that runs faster; in these, 20 targets are probed once.

    The history of some hours is in memory before the first figure is taken: it is bounded, and not what is measured.
    """
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    monkeypatch.setattr(look, "TICK", 0.05)
    clock = [time.time() - 8 * HOUR]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    outcomes = [Outcome(Reason.OK, 0.02, received=True, address="192.0.2.1")] * 10

    with loaded("apps.probe", CONFIG, tmp_path) as module:

        def probe() -> None:
            clock[0] += 10
            for name in module.config.targets:
                module.prober.history.add(name, clock[0], Round.of(clock[0], outcomes)._asdict())
            module.prober.history.flush(clock[0])

        for _ in range(2 * HOUR // 10):
            probe()
        with live(module.app, threads=4) as server, viewers(server.port, VIEWERS) as (pages, selector):

            def watch(seconds: int) -> int:
                """The memory in use after so many seconds of the clock."""
                end, until = time.monotonic() + 20 * LIMIT, clock[0] + seconds
                while clock[0] < until or min(each.events for each in pages) * 10 < clock[0] - begun:
                    assert time.monotonic() < end
                    for key, _ in selector.select(1.0):
                        key.data.receive()
                    while clock[0] - begun < 10 * pages[0].events and clock[0] < until:
                        probe()
                        if clock[0] % 100 < 10:
                            pages[0].fetch(("all", "target/t1?range=24h"))
                return memory()

            begun = clock[0]
            before = watch(HOUR // 3)
            grown = watch(HOUR) - before
            assert min(each.events for each in pages) >= HOUR // 10
    assert grown < 6_000_000, "36,000 events and 7,200 rounds: 140 bytes for each would be more"


def processor_time(running: Running) -> float:
    """Seconds of processor time of a process up to now."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


@pytest.mark.parametrize("application", PARTS)
def test_a_hundred_viewers_cost_far_less_than_a_hundred_times_one(
    application: str, command: Callable[..., Running], tmp_path: Path
) -> None:
    """Nobody looks: next to nothing. One viewer: the sections are drawn. A hundred: they are drawn once for all."""
    (tmp_path / "probe.toml").write_text(CONFIG.replace("192.0.2.", "127.0.0."), encoding="utf-8")
    words = ("serve", application, "--port", "0", "--access-log", "off")
    running = command(*words, PROBE_CONFIG=str(tmp_path / "probe.toml"))
    port = urlsplit(running.url()).port
    assert port

    def cost(count: int) -> float:
        """Share of a processor while so many look."""
        with viewers(port, count) as (_, selector):
            time.sleep(2)  # what a page needs once is not measured: its first drawing, the start
            before, begun = processor_time(running), time.monotonic()
            while (left := begun + SECONDS - time.monotonic()) > 0:
                if not count:
                    time.sleep(left)  # what is measured is a period
                for key, _ in selector.select(min(left, 1.0)):
                    if key.data.receive():
                        key.data.fetch(PARTS[application])
            return (processor_time(running) - before) / (time.monotonic() - begun)

    nobody, one, hundred = cost(0), cost(1), cost(VIEWERS)
    print(f"{application}: nobody {nobody:.2%}, one viewer {one:.2%}, {VIEWERS} viewers {hundred:.2%}")
    tick = 2 / os.sysconf("SC_CLK_TCK") / SECONDS  # what the kernel's clock can't tell
    assert nobody <= one + tick
    assert hundred - nobody < VIEWERS / 4 * (one - nobody + tick)
