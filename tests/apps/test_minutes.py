"""Pages and metrics minute by minute while the work behind them is suspended or dead. Time is a clock of the test's own.

A process that is really suspended, by SIGSTOP, is in tests/apps/test_probe.py and test_netmon.py.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps.kernel import links
from apps.probing.outcome import Outcome, Reason
from apps.probing.rounds import Round
from microwsgi.testing import Client
from tests.apps.probing.loading import loaded
from tests.tables import Rows

CONFIG = 'interval = 10\nhistory = ""\n[[target]]\nname = "far"\nmodule = "icmp"\ntarget = "192.0.2.1"\n'
OK = Outcome(Reason.OK, 0.02, received=True, address="192.0.2.1")
LOST = Outcome(Reason.NO_ANSWER, address="192.0.2.1")


class Clock:
    """What time.time() and time.monotonic() return; it stands still between two steps."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.begin = time.time() // 60 * 60
        # For this thread only: threads of other tests' applications would set timers by this clock.
        here, wall, monotonic = threading.get_ident(), time.time, time.monotonic
        patch.setattr(time, "time", lambda: self.now if threading.get_ident() == here else wall())
        patch.setattr(time, "monotonic", lambda: self.now if threading.get_ident() == here else monotonic())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    with monkeypatch.context() as patch:
        yield Clock(patch)


@pytest.fixture
def netmon(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application without its thread: the test calls `sampler.look`."""
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    monkeypatch.delitem(sys.modules, "apps.netmon", raising=False)
    module: Any = import_module("apps.netmon")
    monkeypatch.setattr(module.sampler.counting, "read", dict)  # another program may lose segments meanwhile
    yield module
    module.sampler.stop()


def replace_interfaces(
    netmon: Any, interfaces: Callable[[object], list[links.Interface]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the interfaces for this application's sampler only: another one's thread may run in this process."""
    real = links.interfaces
    own = netmon.sampler.route
    monkeypatch.setattr(links, "interfaces", lambda route: interfaces(route) if route is own else real(route))


def metric(client: Client, name: str) -> float | None:
    """The value of a metric, None if it is not there."""
    families = text_string_to_metric_families(client.get("/metrics").expect().text)
    return next((sample.value for each in families for sample in each.samples if sample.name == name), None)


def state(client: Client, path: str) -> tuple[str, str]:
    """Class and text of the first sentence of a page."""
    found = re.search(r'<p class="summary (\w+)" role="status">(.*?)</p>', client.get(path).expect().text)
    assert found
    return found[1], found[2]


PROBES = [
    # second, is a round over, its outcome; state on the page, words on the page, probe_success, probe_age_seconds
    (10, OK, "ok", "The only target is ok", 1.0, 0.0),
    (20, OK, "ok", "The only target is ok", 1.0, 0.0),
    (24, None, "ok", "The only target is ok", 1.0, 4.0),
    (
        60,
        None,
        "unknown",
        "1 of 1 has no data: no new round, the prober is stopped or overloaded; before that ok.",
        None,
        40.0,
    ),  # resumed after 40 s, no round yet
    (61, OK, "ok", "The only target is ok", 1.0, 0.0),
    (71, LOST, "failing", "far has been failing since", 0.0, 0.0),
    (120, None, "unknown", "1 of 1 has no data", None, 49.0),  # the prober is dead, and another process has the page
    (180, None, "unknown", "before that failing, no answer.", None, 109.0),
    (600, None, "unknown", "1 of 1 has no data", None, 529.0),
    (601, LOST, "failing", "far has been failing since", 0.0, 0.0),
    (611, OK, "ok", "The only target is ok", 1.0, 0.0),
]


def test_probes_are_unknown_while_none_is_made(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspension of 40 s and an outage of the prober of nine minutes: never an old value as a new one."""
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    with loaded("apps.probe", CONFIG, tmp_path) as module:
        client = Client(module.app)
        with Rows() as rows:
            for second, outcome, name, words, success, age in PROBES:
                clock.now = clock.begin + second
                if outcome:
                    module.prober.history.add("far", clock.now, Round.of(clock.now, [outcome] * 10)._asdict())
                    module.prober.history.flush(clock.now)
                with rows(second):
                    assert state(client, "/part/all")[0] == name
                    assert words in state(client, "/part/all")[1]
                    assert metric(client, "probe_success") == success
                    assert metric(client, "probe_age_seconds") == age
                    assert (metric(client, "probe_duration_seconds") is None) == (success is None or outcome is LOST)
        at = [time.strftime("%T", time.localtime(clock.begin + second)) for second in (30, 61)]
        chart = client.get("/part/target/far").expect().text
        assert f"<title>no data {at[0]} to {at[1]}</title>" in chart, "the suspension is a gap"
        assert len(re.findall("<title>no data", chart)) == 2


def test_the_worst_comes_first(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing before degraded, then the share of failed probes, then the latest; in the summary as in the table."""
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    lost = {"well": 0, "one lost": 1, "half lost": 5, "all lost": 10, "half lost, later": 5}
    target = '[[target]]\nname = "{}"\nmodule = "icmp"\ntarget = "192.0.2.1"\n'
    config = 'history = ""\n' + "".join(map(target.format, lost))
    with loaded("apps.probe", config, tmp_path) as module:
        for name, count in lost.items():
            clock.now += 1
            found = Round.of(clock.now, [OK] * (10 - count) + [LOST] * count)
            module.prober.history.add(name, clock.now, found._asdict())
        module.prober.history.flush(clock.now)
        shown = Client(module.app).get("/part/all").expect().text
        pages = {
            name: Client(module.app).get(f"/part/target/{name}").expect().text for name in ("all lost", "one lost")
        }
    assert [Reason.NO_ANSWER.meaning in page for page in pages.values()] == [True, False], (
        "one that answers is not down"
    )
    worst = ["all lost", "half lost, later", "half lost", "one lost"]
    assert re.findall(r"<br>([^<]*?) has been", shown) == worst
    assert re.findall(r'<a href="target/[^"]*">([^<]*)', shown) == [*worst, "well"]


def test_rejections_are_no_packet_loss_of_a_period(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host limits its ICMP messages: eight of ten rejected probes have no answer, which is not packet loss."""
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    rejected = Outcome(Reason.PROHIBITED, 0.9, received=True, sender="192.0.2.1")
    with loaded("apps.probe", CONFIG, tmp_path) as module:
        for outcomes in ([OK] * 9 + [LOST], [rejected] * 2 + [LOST] * 8, [LOST] * 10):
            clock.now += 10
            module.prober.history.add("far", clock.now, Round.of(clock.now, outcomes)._asdict())
        clock.now += 1
        module.prober.history.flush(clock.now)
        shown = Client(module.app).get("/part/target/far").expect().text
        table = Client(module.app).get("/part/all").expect().text
    figures = dict(re.findall("<dt>([^<]*)</dt><dd>([^<]*)</dd>", shown))
    assert (figures["packet loss"], figures["failed"], figures["slowest"]) == (
        "10.0%",
        "70.0%, 21 of 30 probes",
        "20 ms",
    )
    assert figures["administratively prohibited (ICMP from 192.0.2.1)"] == "2 probes"
    assert "<h2>The last 10 min</h2>" in shown
    cells = dict(re.findall(r'data-label="(failed|packet loss|median)">([^<]*)', table))
    assert cells == {"failed": "100%", "packet loss": "-", "median": "-"}
    assert "failing since" in shown
    assert "2 of 20 administratively prohibited (ICMP from 192.0.2.1), 18 of 20 no answer; rejections after" in shown
    assert Reason.PROHIBITED.meaning in shown


def test_summary_table_and_charts_are_of_one_reading(
    clock: Clock, netmon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interface that drops packets comes first, with its chart, and the same number everywhere; a reading waits."""
    drops = [-3]

    def interfaces(route: object) -> list[links.Interface]:
        drops[0] += 3
        busy = [
            links.Interface(n, f"busy{n}", "up", 1500, "", links.Traffic(int(clock.now) * 9, *[0] * 7))
            for n in (1, 2, 3)
        ]
        return [*busy, links.Interface(4, "bad", "up", 1500, "", links.Traffic(0, 0, 0, drops[0], *[0] * 4))]

    replace_interfaces(netmon, interfaces, monkeypatch)
    netmon.sampler.read()
    drops[0] = 0
    netmon.sampler.read()
    original, reader = netmon.summary, threading.Thread(target=netmon.sampler.tick)

    def summary() -> str:
        reader.start()
        reader.join(0.2)  # what is tested is that it waits
        return str(original())

    monkeypatch.setattr(netmon, "summary", summary)
    text = Client(netmon.app).get("/part/interfaces").expect().text
    reader.join()
    assert drops == [6], "the reader has read after the drawing"
    assert "bad: packets dropped: 3," in text
    assert re.findall(r'data-label="drops in total">(\d+)<', text)[0] == "3"
    assert re.findall(r"<figcaption>(\w+), bits", text) == ["bad", "busy1"]


def test_netmon_after_a_suspension(clock: Clock, netmon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last second before the suspension is not shown as the present; afterwards there is a gap, and no peak."""
    sampler = netmon.sampler
    octets = [0]

    def interfaces(route: object) -> list[links.Interface]:
        return [links.Interface(1, "eth0", "up", 1500, "", links.Traffic(octets[0], *[0] * 7))]

    replace_interfaces(netmon, interfaces, monkeypatch)
    client = Client(netmon.app)

    def look(second: int, rate: int) -> None:
        octets[0] += rate * int(clock.begin + second - clock.now)
        clock.now = clock.begin + second
        sampler.read()

    for second in range(60):
        look(second, 1000)
    assert state(client, "/part/interfaces")[0] == "ok"
    assert "8 kbit/s" in client.get("/part/interfaces").text
    octets[0] += 1000 * 40
    clock.now = clock.begin + 99  # a page of another process, or the first one after SIGCONT
    assert state(client, "/part/interfaces") == ("unknown", "No figures for 40 s.")
    assert "8 kbit/s" not in client.get("/part/interfaces").text.partition("<figure>")[0]
    look(100, 1000)
    look(101, 1000)
    assert state(client, "/part/interfaces")[0] == "ok"
    assert metric(client, "netmon_age_seconds") == 0.0
    assert {round(rates[0]) for _, rates in sampler.points("eth0", clock.begin, clock.now)} == {1000}, "no peak"
    assert "<title>no data" in client.get("/part/interface/eth0").text


def test_problems_of_interfaces_have_a_beginning_and_an_end(
    clock: Clock, netmon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drops since when, and as many as there were; a minute without one ends the problem. Names may have braces."""
    sampler = netmon.sampler
    drops = [0]

    def interfaces(route: object) -> list[links.Interface]:
        return [links.Interface(1, "a{0}", "up", 1500, "", links.Traffic(0, 0, 0, drops[0], 0, 0, 0, 0))]

    replace_interfaces(netmon, interfaces, monkeypatch)
    client, seen = Client(netmon.app), {}
    for second in range(200):
        clock.now = clock.begin + second
        drops[0] += 2 if second in {10, 60} else 0
        sampler.read()
        if second in {5, 12, 65, 119, 125}:
            seen[second] = state(client, "/part/interfaces")
    began = time.strftime("%T", time.localtime(clock.begin + 10))
    assert "dropped" not in seen[5][1]  # the machine may have other problems
    assert seen[12] == ("degraded", f"a{{0}}: packets dropped: 2, since {began} (for 2 s).")
    assert seen[65] == ("degraded", f"a{{0}}: packets dropped: 4, since {began} (for 55 s).")
    assert seen[119][0] == "degraded"
    assert "dropped" not in seen[125][1]
