"""Probes of hosts, continuously or on demand: `PROBE_CONFIG=probe.toml microwsgi serve apps.probe:app`.

Each target is probed in rounds (ICMP, TCP, TLS, HTTP, DNS) from the start of the server. The first page lists the targets, the
worst first; a target's page shows its times as SmokePing does. /metrics is for Prometheus, and /probe?target=HOST&module=tcp is
the same as that of blackbox_exporter, for targets in the networks that the configuration allows.

    prober      rounds in an event loop, in one process     apps/probing/rounds.py, apps/background.py
    history     the rounds, in SQLite                       apps/history.py
    pages       drawn from these, once for all viewers      apps/look/page.py
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from html import escape
from operator import attrgetter, methodcaller
from typing import Any
from urllib.parse import quote, urlencode

from apps.history import DAY, HOUR, MERGED
from apps.look import page as look
from apps.look.chart import milliseconds
from apps.look.metrics import Metric, exposition
from apps.look.page import Column, clock_time, moment
from apps.probing.config import load
from apps.probing.names import Resolver
from apps.probing.outcome import DATES, Outcome, Reason
from apps.probing.policy import Budget
from apps.probing.probes import MODULES, Check, run
from apps.probing.rounds import Prober, Round, State, merged
from apps.probing.smoke import picture, spark
from microwsgi import Request, Response, abort
from microwsgi.framework.crosssite import require_same_site

LINKS = {"Targets": "/", "Metrics": "/metrics"}
ORDER = {"failing": 0, "degraded": 1, "unknown": 2, "ok": 3}
SPARKS, MOST, LATEST = 50, 1000, 5
"""With more targets than SPARKS only those with a problem have a small chart; rows of the table; problems in the summary."""

MEANINGS = (
    '<p class="quiet">Packet loss: the share of packets without any answer, except while the target rejects them. '
    "Failed: the share of probes that did not pass, for whatever reason.</p>"
)
LOSS, FAILED = attrgetter("loss"), attrgetter("failed")
MEDIAN = methodcaller("quantile", 0.5)

config = load(os.environ.get("PROBE_CONFIG", ""))
prober = Prober(config)
budget = Budget(config.per_minute)
site = look.Site(LINKS, prober.background.start)
app = site.app


# --- Pages ------------------------------------------------------------------------------------------------------------


@app.get("/")
def overview(request: Request) -> Response:
    content = site.section(request, "all", "Targets") + look.filter_form(request, "Targets that contain")
    content += look.form("Probe once", "probe", "host:port", "Module", MODULES, "Probe")
    return site.page(request, "Probes", content)


@app.get("/target/{name:path}")
def target(request: Request, name: str) -> Response:
    return site.page(request, name, look.range_links(request) + site.section(request, f"target/{name}", name))


def versions() -> dict[str, str]:
    """A text that changes with each round, and every ten seconds, since the state of a target depends on the time, too."""
    return {"*": f"{prober.update()}.{time.time() // 10:.0f}"}


site.versions = versions


def states() -> dict[str, State]:
    """The state of each target, the worst first, and of those that are equal the latest."""
    prober.update()
    found = {name: prober.conditions[name].shown(prober.stale_after) for name in config.targets}
    bad = {name: minute.bad for name in config.targets if (minute := prober.conditions[name].minute)}
    return dict(sorted(found.items(), key=lambda item: (ORDER[item[1].name], -bad.get(item[0], 0.0), -item[1].since)))


@site.part("all")
def draw_all(request: Request, _: str) -> str:
    found = states()
    worst = next(iter(found.values())).name if found else "unknown"
    newest = max((each.recent[-1].at for each in prober.conditions.values() if each.recent), default=0.0)
    age = f'<p class="quiet">Last round {moment(newest)}</p>' if newest else ""
    table = look.listing(request, "Targets, the worst first; figures of the last minute", COLUMNS, found.items(), MOST)
    return look.summary(worst, *sentences(found)) + age + table


def sentences(found: dict[str, State]) -> list[str]:
    """The number of targets with a problem, and the worst and latest problems."""
    bad = [(name, state) for name, state in found.items() if state.name in {"failing", "degraded"}]
    unknown = [state for state in found.values() if state.name == "unknown"]
    texts = [f"{len(bad)} of {look.counted(len(found), 'target')} {has(bad)} a problem."] if bad else []
    for name, state in bad[:LATEST]:
        texts.append(f"{name} has been {state.name}{look.since(state.since)}: {state.text}.")
    if unknown:
        texts.append(f"{len(unknown)} of {len(found)} {has(unknown)} no data: {unknown[0].text}.")
    texts = texts or ["The only target is ok." if len(found) == 1 else f"All {len(found)} targets are ok."]
    return [*texts, *filter(None, [prober.history.trouble])]


def has(found: list[Any]) -> str:
    return "has" if len(found) == 1 else "have"


def percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{value:.0%}"


def figure(name: str, of: Callable[[Round], float | None]) -> float:
    """Of the last minute; -1 without one. If all was rejected, only the share of failed probes says something of the target."""
    minute = prober.conditions[name].minute
    found = of(minute) if minute and (not minute.rejected or of is FAILED) else None
    return -1 if found is None else found


def small_chart(name: str) -> str:
    if len(config.targets) > SPARKS and prober.conditions[name].state.name == "ok":
        return ""
    now = time.time()
    return spark(prober.rounds(name, now - 600, now), now - 600, now, config.interval)


COLUMNS = (
    Column("state", lambda item: item[1].name, look.state),
    Column("target", lambda item: item[0], lambda name: look.link(f"target/{quote(name, safe='')}", name)),
    Column("last 10 minutes", lambda item: item[0], small_chart),
    Column("since", lambda item: item[1].since, lambda at: look.since(at).removeprefix(" since ") if at else ""),
    Column("reason", lambda item: item[1].text),
    Column("packet loss", lambda item: figure(item[0], LOSS), percent),
    Column("failed", lambda item: figure(item[0], FAILED), percent),
    Column("median", lambda item: figure(item[0], MEDIAN), milliseconds),
    Column("probe", lambda item: " ".join(config.targets[item[0]][:2])),
)


@site.part("target")
def draw_target(request: Request, name: str) -> str:
    if name not in config.targets:
        abort(404, f"There is no target {name}.")
    now, period, condition, check = time.time(), look.range_of(request), prober.conditions[name], config.targets[name]
    state = condition.shown(prober.stale_after)
    rounds = prober.rounds(name, now - period, now)
    text = state.name + (look.since(state.since, day=period > DAY / 2) if state.since else "")
    parts = [look.summary(state.name, f"{text}: {state.text}" if state.text else text)]
    reasons = condition.minute.ordered if condition.minute and state.name in {"degraded", "failing"} else []
    if state.name == "degraded":  # a target that answers most probes is not down, and its route is not broken
        reasons = [each for each in reasons if each != Reason.NO_ANSWER]
    parts += [f"<p>{escape(known.meaning)}</p>" for known in map(Reason.of, reasons[:1]) if known]
    step = config.interval if period <= HOUR else max(MERGED, config.interval)
    parts.append(picture(rounds, now - period, now, step, f"Times of {name}, the last {look.duration(period)}"))
    if rounds:
        parts.append(f"<h2>The last {look.duration(period)}</h2>{look.listed(figures(rounds))}{MEANINGS}")
        last = rounds[-1] if period <= HOUR or not condition.recent else condition.recent[-1]
        found = details(last, probe=f"{check.module} {check.target}")
        parts.append(f"<h2>The last probe</h2><p>{moment(last.at)}</p>{found}")
    if routes := request.environ.get(look.SIBLINGS, {}).get("Routes"):
        path = f"{routes}to?{urlencode({'target': name})}"
        parts.append(f"<p>{look.link(path, 'The route to it')}</p>")
    return "".join(parts)


def figures(rounds: list[Round]) -> dict[str, object]:
    """Of a period. While a target rejects probes, silence is no packet loss, and times are not those of good answers."""
    is_rejected, all_rounds = any(each.rejected for each in rounds), merged(rounds)
    found = merged([each for each in rounds if each.passed or not is_rejected] or rounds)
    jitter = [each.jitter for each in rounds if each.jitter is not None]
    times = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "slowest": 1.0}
    kind = " of the rejections" if found.rejected else ""
    return {
        "packet loss": "-" if found.loss is None or found.rejected else f"{found.loss:.1%}",
        "failed": f"{all_rounds.failed:.1%}, {all_rounds.probes - all_rounds.passed} of {all_rounds.probes} probes",
        **{name + kind: milliseconds(found.quantile(share)) for name, share in times.items()},
        "jitter": milliseconds(sum(jitter) / len(jitter) if jitter else None),
        **{why: look.counted(count, "probe") for why, count in all_rounds.reasons.items()},
    }


def details(last: Round | Outcome, **facts: object) -> str:
    """What a probe has found, as HTML."""
    facts |= {"address": last.address or "-"}
    facts |= {f"{name} time": milliseconds(seconds) for name, seconds in last.phases.items()}
    facts |= {name: clock_time(each, day=True) if name in DATES.values() else each for name, each in last.facts.items()}
    return look.listed({name: value for name, value in facts.items() if value != ""})


# --- Figures for programs ---------------------------------------------------------------------------------------------


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """The state of all targets and the rounds of a period; times in seconds."""
    now, period, found = time.time(), look.range_of(request), {}
    for name, state in states().items():
        rounds, check = prober.rounds(name, now - period, now), config.targets[name]
        found[name] = {"module": check.module, "target": check.target, "state": state.name, "since": state.since,
                       "text": state.text, "age": None, "rounds": len(rounds)}  # fmt: skip
        if rounds:
            all_rounds = merged(rounds)
            found[name] |= all_rounds._asdict() | {"median": all_rounds.quantile(0.5), "loss": all_rounds.loss}
            found[name]["age"] = now - rounds[-1].at
    return found


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """The last round of each target. A target without a new round has its age only: an old value must not look new."""
    return exposition(collect())


def collect() -> Iterator[Metric]:
    for name, state in states().items():
        if not prober.conditions[name].recent:
            continue
        check, last = config.targets[name], prober.conditions[name].recent[-1]
        labels = {"name": name, "module": check.module, "target": check.target}
        yield Metric("probe_last_round_timestamp_seconds", last.at, labels, help="When the last round began")
        yield Metric("probe_age_seconds", time.time() - last.at, labels, help="Seconds since then")
        if state.name == "unknown":
            continue
        found = {
            "success": (float(last.passed == last.probes), "Whether all probes of the round passed"),
            "pass_ratio": (last.passed / last.probes, "Share of the probes that passed"),
            "packet_loss_ratio": (last.loss, "Share of the packets without an answer"),
            "duration_seconds": (last.quantile(0.5), "The median of the round"),
            "duration_max_seconds": (last.quantile(1.0), "The maximum of the round"),
        }
        for metric, (value, text) in found.items():
            if value is not None:
                yield Metric(f"probe_{metric}", value, labels, help=text)
        yield from certificate_metrics(last.facts, labels)


@app.get("/probe")
def probe(request: Request) -> Response:
    """One probe of a target that the configuration allows: a page for a browser, metrics for other clients."""
    require_same_site(request)
    module, text = request.query("module", default="tcp"), request.query("target")
    if module not in MODULES:
        abort(400, f"Unknown module {module}; expected {', '.join(MODULES)}.")
    if not budget.take(request.remote_addr or ""):
        abort(429, f"{budget.per_minute} probes a minute are enough (per_minute in the configuration).")
    if not budget.slots.acquire(timeout=config.timeout):
        abort(503, "Too many probes are under way.")
    try:
        outcome = asyncio.run(run(Check(module, text), config.policy, Resolver(), config.timeout, configured=False))
    finally:
        budget.slots.release()
    if outcome.reason is Reason.NOT_ALLOWED:
        abort(403, str(outcome.facts["error"]))
    if look.prefers(request, "text/html", "text/plain"):
        return site.page(request, f"{module} {text}", shown(outcome), live=False)
    return exposition(blackbox(module, outcome))


def shown(outcome: Outcome) -> str:
    text = f"{outcome.why}. {outcome.reason.meaning}"
    return look.summary("ok" if outcome.passed else "failing", text) + details(
        outcome, time=milliseconds(outcome.seconds)
    )


def blackbox(module: str, outcome: Outcome) -> Iterator[Metric]:
    """An outcome by the names of blackbox_exporter."""
    total = sum(outcome.phases.values())
    yield Metric("probe_success", float(outcome.passed), help="Whether the probe passed")
    yield Metric("probe_duration_seconds", total, help="How long the probe took")
    yield Metric("probe_dns_lookup_time_seconds", outcome.phases.get("resolve", 0.0), help="Time of the name lookup")
    if outcome.address:
        yield Metric("probe_ip_protocol", 6.0 if ":" in outcome.address else 4.0, help="The version of IP")
    group = {"icmp": "icmp", "http": "http", "https": "http", "dns": "dns"}.get(module)
    if group:
        for phase, seconds in outcome.phases.items():
            yield Metric(f"probe_{group}_duration_seconds", seconds, {"phase": phase}, help="Time of each phase")
    facts = outcome.facts
    if group == "http":
        yield Metric("probe_http_status_code", float(facts.get("status", 0)), help="The status")
        yield Metric("probe_http_ssl", float(module == "https" and "protocol" in facts), help="Whether TLS was used")
        if "HTTP version" in facts:
            yield Metric("probe_http_version", float(str(facts["HTTP version"])), help="The version of HTTP")
            yield Metric("probe_http_uncompressed_body_length", float(facts["bytes"]), help="Bytes of the body")
    if "answers" in facts:
        yield Metric("probe_dns_answer_rrs", float(facts["answers"]), help="Records of the answer")
        yield Metric("probe_dns_query_succeeded", 1.0, help="Whether there was an answer")
    yield from certificate_metrics(facts, {})


def certificate_metrics(facts: dict[str, Any], labels: dict[str, str]) -> Iterator[Metric]:
    if "expires" in facts:
        yield Metric("probe_ssl_earliest_cert_expiry", facts["expires"], labels, help="When the certificate expires")
    if "protocol" in facts:
        tls = labels | {"version": facts["protocol"].replace("TLSv", "TLS ")}
        yield Metric("probe_tls_version_info", 1.0, tls, help="The version of TLS")
