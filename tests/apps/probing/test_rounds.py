"""apps/probing/rounds.py and apps/history.py: rounds keep their times, conditions are true, and nothing old looks new."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from apps.history import DAY, HOUR, LATE, MERGED, History
from apps.probing.config import Config
from apps.probing.outcome import Outcome, Reason
from apps.probing.rounds import Condition, Prober, Round, merge_data, merged, quantile
from apps.probing.smoke import picture
from tests.apps.probing.peers import Peer, drips, says
from tests.running import LIMIT

OK = Outcome(Reason.OK, 0.02, received=True, address="192.0.2.1")
LOST = Outcome(Reason.NO_ANSWER, address="192.0.2.1")
REFUSED = Outcome(Reason.REFUSED, 0.01, received=True, sender="192.0.2.1")
NO_NAME = Outcome(Reason.NXDOMAIN)
LATE_PAGE = Outcome(Reason.TIMEOUT, received=True)
CONDITIONS = [
    ("well", [OK] * 10, "ok", 0.0, ""),
    ("one lost", [OK] * 9 + [LOST], "degraded", 0.1, "10% packet loss"),
    ("most lost", [OK] * 2 + [LOST] * 8, "degraded", 0.8, "80% packet loss"),
    ("all lost", [LOST] * 10, "failing", 1.0, "no answer"),
    ("refused", [REFUSED] * 10, "failing", 0.0, f"{REFUSED.why}; rejections after 10 ms"),
    ("no name", [NO_NAME] * 10, "failing", None, "name does not exist"),
    ("slow pages", [OK] * 5 + [LATE_PAGE] * 5, "degraded", 0.0, "5 of 10 timeout"),
    (
        "lost and refused",
        [OK] * 5 + [REFUSED] * 3 + [LOST] * 2,
        "degraded",
        0.2,
        "20% packet loss, 3 of 10 connection refused by 192.0.2.1",
    ),
]


@pytest.mark.parametrize(
    ("outcomes", "condition", "loss", "why"), [r[1:] for r in CONDITIONS], ids=[r[0] for r in CONDITIONS]
)
def test_packet_loss_and_failure_are_two_things(
    outcomes: list[Outcome], condition: str, loss: float | None, why: str
) -> None:
    found = Round.of(0.0, outcomes)
    assert found.condition == condition
    assert found.loss == (pytest.approx(loss) if loss is not None else None)
    assert found.why == why
    assert Round(**json.loads(json.dumps(found._asdict()))) == found


def test_a_problem_has_a_beginning_and_an_end() -> None:
    condition = Condition()
    seen = []
    good, lossy, dead = [OK] * 10, [OK] * 9 + [LOST], [LOST] * 10
    for at, outcomes in enumerate([good, lossy, good, good, dead, dead, good, *[good] * 8]):
        condition.add(Round.of(at * 10.0, outcomes))
        seen.append((condition.state.name, condition.state.since))
    assert seen[0] == ("ok", 0.0)
    assert seen[1:4] == [("degraded", 10.0)] * 3, "a loss is not over with one good round"
    assert seen[4:6] == [("failing", 40.0)] * 2
    assert seen[6:] == [("ok", 60.0)] * 9, "an outage is over with the first good round"
    condition.add(Round.of(150.0, lossy))
    for at in range(160, 240, 10):
        condition.add(Round.of(float(at), good))
    assert condition.state[:2] == ("ok", 220.0), "after a minute without a loss"


def test_a_failure_has_the_most_frequent_reason_since_it_began() -> None:
    """Not that of the last round; and what was before the failure is no part of it."""
    gone = Outcome(Reason.NO_NEIGHBOUR)
    unreachable = Outcome(Reason.NET_UNREACHABLE, sender="192.0.2.9")
    condition = Condition()
    for at, outcomes in enumerate([[OK] * 10, [REFUSED] * 9 + [OK], [gone] * 10, [gone] * 10, [LOST] * 10]):
        condition.add(Round.of(at * 10.0, outcomes))
    assert condition.state == ("failing", 20.0, "20 of 30 no ARP or ND reply, 10 of 30 no answer")
    condition.add(Round.of(50.0, [LOST] * 9 + [unreachable]))
    said = "20 of 40 no ARP or ND reply, 1 of 40 network unreachable (ICMP from 192.0.2.9), 19 of 40 no answer"
    assert condition.state.text == said
    for at in range(60, 120, 10):
        condition.add(Round.of(float(at), [LOST] * 9 + [[unreachable, NO_NAME, REFUSED][at % 3]]))
    assert condition.state.text.startswith("3 of 70 "), "of the last minute"
    assert condition.state.text.endswith(", and others"), "with few words"
    condition.add(Round.of(120.0, [OK] * 10))
    assert condition.state == ("ok", 120.0, "")


def test_times_of_rejections_are_known_as_such() -> None:
    assert Round.of(0.0, [REFUSED] * 9 + [LOST]).rejected
    assert not Round.of(0.0, [REFUSED] * 9 + [OK]).rejected
    assert not Round.of(0.0, [LOST] * 10).rejected
    assert not Round.of(0.0, [Outcome(Reason.STATUS, 0.01, received=True)] * 10).rejected


def test_an_outage_is_drawn_without_stripes() -> None:
    """Columns touch each other although rounds without an answer take longer than others; a gap stays a gap."""
    times = [0.0, 2.0, 4.0, 7.5, 11.0, 13.0, 20.0, 22.0]
    chart = picture([Round.of(at, [LOST]) for at in times], 0.0, 24.0, 2.0, "round trips")
    found = re.findall(r'class="lost" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
    edges = [(float(x), round(float(x) + float(width), 1)) for x, width in found]
    assert [after[0] - before[1] > 0.15 for before, after in pairwise(edges)] == [False] * 5 + [True, False]
    assert edges[-1][1] == 720, "up to now, and no further"


def test_a_condition_without_new_rounds_is_unknown() -> None:
    condition = Condition()
    assert condition.shown(10).name == "unknown"
    condition.add(Round.of(time.time(), [OK]))
    assert condition.shown(10).name == "ok"
    condition = Condition()
    condition.add(Round.of(time.time() - 11, [OK]))
    assert condition.shown(10).name == "unknown"


def test_percentiles_are_those_of_the_nearest_rank_over_all_probes() -> None:
    """Of 1, 2, ... 1,000 ms, of few values, and of a day of merged rounds with one slow probe in each period."""
    for count, share, value in (
        (1000, 0.99, 990),
        (100, 0.99, 99),
        (100, 0.9, 90),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (1, 0.99, 1),
    ):
        assert quantile(range(count, 0, -1), share) == value, (count, share)
    assert quantile([], 0.5) is None
    thousand = [OK._replace(seconds=(n * 7 % 1000 + 1) / 1000) for n in range(1000)]
    rounds = [Round.of(float(at), thousand[at * 10 : at * 10 + 10]) for at in range(100)]
    shares = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
    assert [merged(rounds).quantile(share) for share in shares] == [0.001, 0.1, 0.5, 0.9, 0.99, 1.0]
    kept = Round(**merge_data([each._asdict() for each in rounds]))
    assert len(kept.seconds) < 1000
    assert [kept.quantile(share) for share in shares] == pytest.approx([0.001, 0.1, 0.5, 0.9, 0.99, 1.0], abs=0.005)
    period = merge_data([Round.of(0.0, [OK] * 599 + [OK._replace(seconds=0.14)])._asdict()])
    day = merged([Round(**period)] * 288)
    assert (day.quantile(0.99), day.quantile(1.0)) == (0.02, 0.14)


def test_merged_rounds_keep_quantiles() -> None:
    rounds = [
        Round.of(at, [OK._replace(seconds=0.001 * (at * 10 + n)) for n in range(10)] + [LOST]) for at in range(100)
    ]
    found = merged(rounds)
    assert (found.probes, found.received) == (1100, 1000)
    assert found.loss == pytest.approx(1 / 11)
    assert found.quantile(0.5) == pytest.approx(0.5, rel=0.03)
    assert found.quantile(0.0) == 0
    assert found.quantile(1.0) == pytest.approx(0.999)


# --- The history ------------------------------------------------------------------------------------------------------


def filled(history: History, now: float, seconds: float, step: float = 10.0) -> None:
    """A round each `step` seconds, with one flush in five minutes."""
    at = now - seconds
    while at < now:
        history.add("a", at, Round.of(at, [OK] * 9 + [LOST])._asdict())
        at += step
        if at % MERGED < step:
            history.flush(at)
    history.flush(now)


def test_a_day_is_kept_and_its_size_is_bounded() -> None:
    history, now = History("", merge_data), 1_700_000_000.0
    filled(history, now, DAY + 2 * HOUR, 20.0)
    (count,) = history.connection.execute("SELECT count(*) FROM sample").fetchone()
    assert count < (HOUR + MERGED + 2 * LATE) / 20 + DAY / MERGED + 5
    hour, day = history.between("a", now - HOUR, now), history.between("a", now - DAY, now)
    assert len(hour) == HOUR / 20
    assert len(day) == pytest.approx(DAY / MERGED, abs=2)
    assert {round(1 - each.data["received"] / each.data["sent"], 3) for each in day} == {0.1}
    assert max(b.at - a.at for a, b in pairwise(day)) == MERGED, "without a gap up to now"
    history.close()


def test_nothing_is_lost_by_a_restart_and_another_process_sees_it(tmp_path: Path) -> None:
    first, now = History(str(tmp_path / "a.db"), merge_data), time.time()
    second = History(str(tmp_path / "a.db"), merge_data)
    filled(first, now, 100)
    assert len(second.after(0)) == 10
    last = second.after(0)[-1].id
    first.add("b", now, {})
    first.flush(now)
    assert [(each.series, each.data) for each in second.after(last)] == [("b", {})]
    first.close()
    second.close()
    third = History(str(tmp_path / "a.db"), merge_data)
    assert len(third.between("a", now - 200, now)) == 10
    third.close()


def test_a_history_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_bytes(b"this is no database, and is left alone" * 100)
    for path in (tmp_path / "none" / "a.db", tmp_path, tmp_path / "b.db"):
        history = History(str(path), merge_data)
        assert "in memory only" in history.trouble
        history.add("a", time.time(), {})
        history.flush(time.time())
        assert len(history.after(0)) == 1
        history.close()


def test_a_full_disk_loses_nothing_that_fits_in_memory(tmp_path: Path) -> None:
    full = History(str(tmp_path / "c.db"), merge_data)
    full.connection.execute("PRAGMA max_page_count = 8")
    for number in range(3000):
        full.add("a", float(number), {"x": "y" * 50})
    full.flush(0.0)
    assert "can't be written" in full.trouble
    assert len(full.pending) == 3000, "kept for the next try"
    full.connection.execute("PRAGMA max_page_count = 100000")
    full.flush(0.0)
    assert (full.trouble, len(full.pending)) == ("", 0)
    full.close()


# --- The scheduler ----------------------------------------------------------------------------------------------------


def rounds_of(prober: Prober, enough: dict[str, int]) -> dict[str, list[Round]]:
    """The rounds of each target, when there are so many."""
    end = time.monotonic() + 3 * LIMIT
    while True:
        found = {name: prober.rounds(name, time.time() - HOUR, time.time()) for name in enough}
        if all(len(found[name]) >= count for name, count in enough.items()):
            return found
        assert time.monotonic() < end, {name: len(each) for name, each in found.items()}
        time.sleep(0.05)  # between two looks


def config(targets: dict[str, str], **values: object) -> Config:
    entries = [
        {"name": name, "module": target.split()[0], "target": target.split()[1]} for name, target in targets.items()
    ]
    return Config({"interval": 1, "probes": 2, "timeout": 0.5, "history": "", "target": entries, **values})


def test_one_slow_or_broken_target_costs_no_other_a_round() -> None:
    with (
        Peer(drips(b"H", 0.1)) as slow,
        Peer(drips(b"HTTP/1.1 100 C\r\n\r\n", 0.01)) as endless,
        Peer(says(b"")) as quick,
    ):
        targets = {
            "slow": f"http 127.0.0.1:{slow.port}",
            "endless": f"http 127.0.0.1:{endless.port}",
            "faulty": f"http 127.0.0.1:{quick.port}",
            "well": f"tcp 127.0.0.1:{quick.port}",
        }
        checked = config(targets)
        checked.targets["faulty"] = checked.targets["faulty"]._replace(path="/ü")
        prober = Prober(checked)
        prober.background.start()
        found = rounds_of(prober, dict.fromkeys(targets, 4))
        prober.background.stop()
        prober.history.close()
    assert {name: each[-1].condition for name, each in found.items()} == {
        "slow": "failing", "endless": "failing", "faulty": "failing", "well": "ok",
    }  # fmt: skip
    times = [each.at for each in found["well"]]
    assert times[-1] - times[0] == pytest.approx(len(times) - 1, abs=1), (
        "each second; a busy machine may delay one round"
    )


@pytest.mark.slow
def test_three_hundred_targets_keep_their_interval() -> None:
    """150 do not answer at all: each of their probes takes its whole time, longer than the interval."""
    with Peer(drips(b"", 9)) as peer:
        targets = {f"well {n}": f"tcp 127.0.0.1:{peer.port}" for n in range(150)}
        targets |= {f"dead {n}": f"http 127.0.0.1:{peer.port}" for n in range(150)}
        prober = Prober(config(targets, interval=2, probes=1, timeout=3))
        prober.background.start()
        found = rounds_of(prober, {"well 0": 4, "dead 0": 3})
        now = time.time()
        counts = [len(prober.rounds(name, now - HOUR, now)) for name in targets]
        prober.background.stop()
        prober.history.close()
    for name in found:
        times = [each.at for each in found[name]]
        assert times[-1] - times[0] == pytest.approx(2 * (len(times) - 1), abs=1.5), name
    assert min(counts) >= 2, "nobody is left behind"


def test_with_two_processes_one_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --workers 2: both see the rounds; when the one ends the other goes on."""
    path, probing, work = str(tmp_path / "a.db"), list[Prober](), Prober.work

    async def noted(self: Prober) -> None:
        probing.append(self)
        await work(self)

    monkeypatch.setattr(Prober, "work", noted)
    first, second = (Prober(config({"a": "tcp 127.0.0.1:1"}, history=path, probes=1)) for _ in range(2))
    first.background.start()
    rounds_of(first, {"a": 1})
    second.background.start()
    found = rounds_of(second, {"a": 3})["a"]
    assert probing == [first]
    assert len(found) <= found[-1].at - found[0].at + 2, (
        "once a second, not twice; on a busy machine a round may be late"
    )
    first.background.stop()
    rounds_of(second, {"a": len(found) + 2})
    assert probing == [first, second]
    second.background.stop()
    assert second.update() == second.history.after(0)[-1].id
    assert second.conditions["a"].state.name == "failing"
    first.history.close()
    second.history.close()


def test_work_that_fails_starts_again(capfd: pytest.CaptureFixture[str]) -> None:
    prober = Prober(config({"a": "tcp 127.0.0.1:1"}, probes=1))
    broken = iter([True])

    def flush(now: float) -> None:
        if next(broken, False):
            raise RuntimeError("broken")
        History.flush(prober.history, now)

    prober.history.flush = flush  # type: ignore[method-assign]
    prober.background.start()
    assert rounds_of(prober, {"a": 1})
    prober.background.stop()
    prober.history.close()
    assert "RuntimeError: broken" in capfd.readouterr().err
