"""Probes of hosts, all the time or on demand: `PROBE_CONFIG=probe.toml microwsgi serve apps.probe:app`.

Each target is probed in rounds (ICMP, TCP, TLS, HTTP, DNS) from the server's start on. The first page lists the targets, the
worst first; a target's page shows its times as SmokePing does. /metrics is for Prometheus, and /probe?target=HOST&module=tcp is
what blackbox_exporter has, for targets in the networks that the configuration allows.

    prober      rounds in an event loop, in one process     apps/probing/rounds.py, apps/background.py
    history     the rounds, in SQLite                       apps/history.py
    pages       drawn from these, once for all viewers
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from apps.history import DAY, HOUR, MERGED
from apps.look.chart import milliseconds
from apps.look.metrics import Metric, exposition
from apps.look.page import (
    FILES,
    SIBLINGS,
    Cell,
    Drawn,
    clock_time,
    duration,
    filter_form,
    listed,
    moment,
    page,
    range_links,
    range_of,
    section,
    sort_links,
    table,
    ticks,
)
from apps.probing.config import Watched, load
from apps.probing.names import Resolver
from apps.probing.outcome import MEANINGS, Outcome, Reason
from apps.probing.policy import Budget
from apps.probing.probes import MODULES, Check, run
from apps.probing.rounds import Prober, Round, State, merged
from apps.probing.smoke import picture, spark
from microwsgi import App, Request, Response, abort
from microwsgi.framework.crosssite import require_same_site

LINKS = {"Targets": "/", "Metrics": "/metrics"}
ORDER = {"failing": 0, "degraded": 1, "unknown": 2, "ok": 3}
SPARKS = 50
"""Targets with a small chart: the worst."""
TLS_VERSIONS = {"TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}

config = load(os.environ.get("PROBE_CONFIG", ""))
watched = {each.name: each for each in config.targets}
prober = Prober(config)
budget = Budget(config.per_minute)
drawn = Drawn()

app = App()
app.static("/look", FILES)
prober.start()


@app.before
def begin(request: Request) -> None:
    """A server may fork after the import, and threads do not survive that."""
    prober.start()


# --- Pages ------------------------------------------------------------------------------------------------------------


@app.get("/")
def overview(request: Request) -> Response:
    """All targets."""
    modules = "".join(f"<option>{escape(name)}</option>" for name in MODULES)
    form = (
        '<h2>Probe once</h2><form action="probe"><label>Target <input name="target" placeholder="host:port" required></label>'
        f'<label>Module <select name="module">{modules}</select></label><button>Probe</button></form>'
    )
    content = section(request, "all", part(request, "all"), "Targets") + filter_form(request, "Targets with the text")
    return page(request, "Probes", content + form, links=LINKS, live=True)


@app.get("/target/{name:path}")
def target(request: Request, name: str) -> Response:
    """One target."""
    content = range_links(request) + section(
        request, f"target/{quote(name, safe='')}", part(request, f"target/{name}"), name
    )
    return page(request, name, content, links=LINKS, live=True)


@app.get("/part/{name:path}")
def part(request: Request, name: str) -> str:
    """A section of a page, drawn when there is a new round."""
    _, period = range_of(request)
    if name == "all":
        return drawn.get(request, name, version(), lambda: summary(request))
    chosen = watched.get(name.removeprefix("target/"))
    if chosen is None:
        abort(404, f"There is no {name}.")
    return drawn.get(
        request, name, version(), lambda: details(chosen, period, request.environ.get(SIBLINGS, {}).get("Routes"))
    )


@app.get("/events")
def events(request: Request) -> Response:
    """A tick a second, with the version of all parts."""
    return ticks(request, lambda: {"*": version()})


def version() -> str:
    """Changes with each round, and every ten seconds: what does not change becomes old."""
    return f"{prober.update()}.{time.time() // 10:.0f}"


def states() -> dict[str, State]:
    """The state of each target, the worst and latest first."""
    prober.update()
    found = {name: prober.conditions[name].shown(prober.stale_after) for name in watched}
    return dict(sorted(found.items(), key=lambda item: (ORDER[item[1].name], -item[1].since)))


def summary(request: Request) -> str:
    """What is wrong and since when, and a table of all targets."""
    found = states()
    worst = next(iter(found.values())).name if found else "unknown"
    wanted, sort = request.GET.get("filter", "").lower(), request.GET.get("sort", "")
    chosen = [
        each for each in found.items()
        if wanted in f"{each[0]} {watched[each[0]].check.module} {watched[each[0]].check.target} {each[1].text}".lower()
    ]  # fmt: skip
    if (column := sort.lstrip("-")) in KEYS:
        chosen.sort(key=lambda each: KEYS[column](*each), reverse=sort.startswith("-"))
    now = time.time()
    rows = [row(name, state, now, small_chart=place < SPARKS) for place, (name, state) in enumerate(chosen)]
    newest = max((each.recent[-1].at for each in prober.conditions.values() if each.recent), default=0.0)
    age = f'<p class="quiet">Last round {moment(newest)}</p>' if newest else ""
    shown = table("Targets, the worst first", COLUMNS, rows, sort_links(request, KEYS))
    text = f'<p class="summary {worst}" role="status">{escape(sentence(found))}</p>{age}'
    return f'{text}<div class="phone-stack">{shown}</div>'


def sentence(found: dict[str, State]) -> str:
    """How many targets have a problem, and what changed last."""
    bad = {name: state for name, state in found.items() if state.name in {"failing", "degraded"}}
    unknown = [state for state in found.values() if state.name == "unknown"]
    text = f"{len(bad)} of {len(found)} targets have a problem." if bad else ""
    if bad:
        name, state = max(bad.items(), key=lambda item: item[1].since)
        text += f" The latest: {name} is {state.name} since {clock_time(state.since)} ({state.text})."
    if unknown:
        text += f" {len(unknown)} of {len(found)} have no data: {unknown[0].text}."
    return " ".join(filter(None, [text or f"All {len(found)} targets are ok.", prober.history.trouble]))


def row(name: str, state: State, now: float, *, small_chart: bool) -> list[object]:
    """A target in the table."""
    recent, check = prober.conditions[name].recent, watched[name].check
    together = merged(recent) if recent else None
    drawn_times = spark(prober.rounds(name, now - 600, now), now - 600, now, config.interval) if small_chart else ""
    link = f'<a href="target/{escape(quote(name, safe=""))}">{escape(name)}</a>'
    return [
        Cell(f'<span class="state {state.name}">{state.name}</span>'),
        Cell(link),
        Cell(drawn_times),
        f"{clock_time(state.since)} ({duration(now - state.since)})" if state.since else "",
        state.text,
        "-" if together is None or together.loss is None else f"{together.loss:.0%}",
        milliseconds(together.quantile(0.5) if together else None),
        f"{check.module} {check.target}",
    ]


COLUMNS = ("state", "target", "last 10 minutes", "since", "reason", "packet loss", "median", "probe")
KEYS: dict[str, Callable[[str, State], Any]] = {
    "state": lambda _, state: ORDER[state.name],
    "target": lambda name, _: name.lower(),
    "probe": lambda name, _: watched[name].check[:2],
    "packet loss": lambda name, _: -sum(each.loss or 0.0 for each in prober.conditions[name].recent),
    "median": lambda name, _: -max((each.quantile(0.5) or 0.0 for each in prober.conditions[name].recent), default=0.0),
    "since": lambda _, state: -state.since,
    "reason": lambda _, state: state.text,
}
"""Columns by which the table can be sorted."""


def details(chosen: Watched, period: float, routes: str | None) -> str:
    """A target: its state, its chart, and the figures of the period. `routes` is where apps.path is."""
    now, condition = time.time(), prober.conditions[chosen.name]
    state = condition.shown(prober.stale_after)
    rounds = prober.rounds(chosen.name, now - period, now)
    since = (
        f" since {clock_time(state.since, day=period > DAY / 2)} (for {duration(now - state.since)})"
        if state.since
        else ""
    )
    text = f'<span class="state {state.name}">{state.name}</span>{since}' + (
        f": {escape(state.text)}" if state.text else ""
    )
    parts = [f'<p class="summary {state.name}" role="status">{text}</p>']
    reason = next((each for each in Reason if each in state.text), None)
    parts += [f"<p>{escape(MEANINGS[reason])}</p>"] if reason and state.name != "ok" else []
    step = config.interval if period <= HOUR else max(MERGED, config.interval)
    parts.append(picture(rounds, now - period, now, step, f"Times of {chosen.name}, the last {duration(period)}"))
    parts.append(
        '<p class="quiet">Line: the median. Smoke: the other times. Red: the share of failed probes. Grey: no data.</p>'
    )
    if rounds:
        parts.append(listed(figures(rounds)))
        last = rounds[-1] if period <= HOUR or not condition.recent else condition.recent[-1]
        phases = {f"{name} time": milliseconds(value) for name, value in last.phases.items()}
        check = f"{chosen.check.module} {chosen.check.target}"
        facts = {"probe": check, "address": last.address or "-", **phases, **shown_facts(last.facts)}
        parts.append(f"<h2>The last probe</h2><p>{moment(last.at)}</p>{listed(facts)}")
    if routes:
        parts.append(
            f'<p><a href="{escape(routes)}to?{escape(urlencode({"target": chosen.name}))}">The route to it</a></p>'
        )
    return "".join(parts)


def figures(rounds: list[Round]) -> dict[str, object]:
    """Of all rounds together."""
    found = merged(rounds)
    jitter = [each.jitter for each in rounds if each.jitter is not None]
    times = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "slowest": 1.0}
    reasons = {reason: f"{count} probes" for reason, count in found.reasons.items()}
    return {
        "packet loss": "-" if found.loss is None else f"{found.loss:.1%}",
        "passed": f"{found.passed} of {found.probes}",
        **{name: milliseconds(found.quantile(share)) for name, share in times.items()},
        "jitter": milliseconds(sum(jitter) / len(jitter) if jitter else None),
        **reasons,
    }


def shown_facts(facts: dict[str, Any]) -> dict[str, object]:
    """Facts for people."""
    return {
        name: clock_time(value, day=True) if name == "expires" else value
        for name, value in facts.items()
        if value != ""
    }


# --- Figures for programs ---------------------------------------------------------------------------------------------


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """The state of all targets and the rounds of a period; times in seconds."""
    _, period = range_of(request)
    now, found = time.time(), {}
    for name, state in states().items():
        rounds = prober.rounds(name, now - period, now)
        together = (
            merged(rounds)._asdict() | {"median": merged(rounds).quantile(0.5), "loss": merged(rounds).loss}
            if rounds
            else {}
        )
        age = now - rounds[-1].at if rounds else None
        found[name] = {"module": watched[name].check.module, "target": watched[name].check.target, "state": state.name,
                       "since": state.since, "text": state.text, "age": age, "rounds": len(rounds), **together}  # fmt: skip
    return found


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """The last round of each target. A target without a new round has its age only: an old value must not look new."""
    rows: list[Metric] = []
    for name, state in states().items():
        recent, check = prober.conditions[name].recent, watched[name].check
        labels = {"name": name, "module": check.module, "target": check.target}
        if not recent:
            continue
        last = recent[-1]
        rows.append(Metric("probe_last_round_timestamp_seconds", last.at, labels, help="When the last round began"))
        rows.append(Metric("probe_age_seconds", time.time() - last.at, labels, help="Seconds since then"))
        if state.name == "unknown":
            continue
        rows.append(
            Metric(
                "probe_success",
                float(last.passed == last.probes),
                labels,
                help="Whether all probes of the round passed",
            )
        )
        rows.append(
            Metric("probe_pass_ratio", last.passed / last.probes, labels, help="Share of the probes that passed")
        )
        if last.loss is not None:
            rows.append(
                Metric("probe_packet_loss_ratio", last.loss, labels, help="Share of the packets without an answer")
            )
        if last.seconds:
            for metric, share in (("probe_duration_seconds", 0.5), ("probe_duration_max_seconds", 1.0)):
                rows.append(Metric(metric, last.quantile(share) or 0.0, labels, help="Median or maximum of the round"))
        rows += certificate_metrics(last.facts, labels)
    return exposition(sorted(rows, key=lambda each: each.name))


@app.get("/probe")
def probe(request: Request) -> Response:
    """One probe of a target that the configuration allows: a page for a browser, metrics for all others."""
    require_same_site(request)
    module, text = request.query("module", default="tcp"), request.query("target")
    if module not in MODULES:
        abort(400, f"There is no module {module}; there are {', '.join(MODULES)}.")
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
    if request.accept.acceptable_offers(["text/plain", "text/html"])[:1] == [("text/html", 1.0)]:
        return page(request, f"{module} {text}", shown(outcome), links=LINKS)
    return exposition(blackbox(module, outcome))


def shown(outcome: Outcome) -> str:
    """An outcome as HTML."""
    kind = "ok" if outcome.passed else "failing"
    facts = {"address": outcome.address or "-", "time": milliseconds(outcome.seconds)}
    phases = {f"{name} time": milliseconds(seconds) for name, seconds in outcome.phases.items()}
    text = f"{outcome.reason}. {MEANINGS[outcome.reason]}"
    return f'<p class="summary {kind}">{escape(text)}</p>{listed(facts | phases | shown_facts(outcome.facts))}'


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
        yield Metric("probe_http_status_code", float(facts.get("status", 0)), help="The status")  # type: ignore[arg-type]
        yield Metric("probe_http_ssl", float(module == "https" and "protocol" in facts), help="Whether TLS was used")
        if "HTTP version" in facts:
            yield Metric("probe_http_version", float(str(facts["HTTP version"])), help="The version of HTTP")
            yield Metric("probe_http_uncompressed_body_length", float(facts["bytes"]), help="Bytes of the body")  # type: ignore[arg-type]
    if "answers" in facts:
        yield Metric("probe_dns_answer_rrs", float(facts["answers"]), help="Records of the answer")  # type: ignore[arg-type]
        yield Metric("probe_dns_query_succeeded", 1.0, help="Whether there was an answer")
    yield from certificate_metrics(facts, {})


def certificate_metrics(facts: dict[str, Any], labels: dict[str, str]) -> Iterator[Metric]:
    """Of a TLS connection."""
    if "expires" in facts:
        yield Metric("probe_ssl_earliest_cert_expiry", facts["expires"], labels, help="When the certificate expires")
    if "protocol" in facts:
        tls = labels | {"version": TLS_VERSIONS.get(facts["protocol"], facts["protocol"])}
        yield Metric("probe_tls_version_info", 1.0, tls, help="The version of TLS")
