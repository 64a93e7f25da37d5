"""Probes of hosts, all the time or asked for: `PROBE_CONFIG=probe.toml microwsgi serve apps.probe:app`.

Each target is probed in rounds (ICMP, TCP, TLS, HTTP, DNS), and shown as SmokePing shows it: the median as a line, the others
as smoke. /metrics is for Prometheus, and /probe?target=HOST&module=tcp is what blackbox_exporter has, for targets in the
networks that the configuration allows and no others: apps/probing/policy.py says why, and apps/probing/config.py how.
"""

from __future__ import annotations

import os
from html import escape
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from apps.look.page import FILES, listed, of_this_site, page
from apps.probing.config import load
from apps.probing.history import summary
from apps.probing.outcome import ANSWERED, MEANINGS, Outcome
from apps.probing.policy import Budget, Refused
from apps.probing.probes import MODULES
from apps.probing.rounds import Prober
from apps.probing.smoke import picture, text_of
from microwsgi import App, Request, Response, abort
from microwsgi.events import Broadcaster

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's exposition format."""
FEWEST = 60
"""Rounds that a picture has room for from the beginning."""


config = load(os.environ.get("PROBE_CONFIG", ""))
watched = {each.name: each for each in config.targets}
told = Broadcaster()
prober = Prober(config, lambda each, _: told.send(each.name))
budget = Budget()

app = App()
app.static("/look", FILES)


@app.before
def begin(request: Request) -> None:
    """The probing begins with the first request: a server may fork after the import, and threads don't survive that."""
    prober.start()


@app.get("/")
def overview(request: Request) -> Response:
    """All targets."""
    parts = [f'<section id="{escape(name)}">{section(name)}</section>' for name in watched]
    modules = "".join(f"<option>{escape(name)}</option>" for name in MODULES)
    ask = (
        '<form action="probe"><label>target <input name="target" placeholder="host:port" required></label>'
        f'<label>module <select name="module">{modules}</select></label><button>Probe</button></form>'
    )
    return page(request, "Probes", "".join(parts) + f"<section>{ask}</section>", live=True)


@app.get("/part/{name}")
def part(request: Request, name: str) -> str:
    """What changes of one target."""
    if name not in watched:
        abort(404)
    return section(name)


def section(name: str) -> str:
    """A target as HTML."""
    target, rounds = watched[name], prober.histories[name].rounds
    found = summary(rounds)
    last = max(rounds[-1].results, key=rounds[-1].results.__getitem__) if rounds else "not probed yet"
    kind = "" if not rounds else "good" if last == ANSWERED else "bad"
    head = (
        f"<header><h2>{escape(name)}</h2><span>{escape(target.module)} {escape(target.target)}</span>"
        f'<strong class="{kind}" title="{escape(MEANINGS.get(last, ""))}">{escape(last)}</strong></header>'
    )
    figures: dict[str, object] = {
        "median": text_of(found.median),
        "90 %": text_of(found.p90),
        "99 %": text_of(found.p99),
        "worst": text_of(found.worst),
        "jitter": text_of(found.jitter),
        "lost": f"{found.loss:.1%}",
        "sent": found.sent,
    }
    facts = {key: readable(key, value) for key, value in (rounds[-1].facts if rounds else {}).items()}
    chart = picture(rounds, max(len(rounds), FEWEST), f"Round trips of {escape(name)}")
    return f"{head}{listed(figures)}{chart}{listed(facts)}"


@app.get("/events")
def events(request: Request) -> Response:
    """The name of each target that has a new round."""
    return told.listen(request)


@app.get("/api")
def api(request: Request) -> dict[str, Any]:
    """All figures."""
    return {
        name: {"module": watched[name].module, "target": watched[name].target} | summary(history.rounds)._asdict()
        for name, history in prober.histories.items()
    }


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """The last round of each target, for Prometheus."""
    registry = CollectorRegistry()
    labels = ("name", "module", "target")
    loss = Gauge("probe_loss_ratio", "Share of the last round that was not answered", labels, registry=registry)
    median = Gauge("probe_median_seconds", "Median of the last round", labels, registry=registry)
    worst = Gauge("probe_worst_seconds", "The slowest answer of the last round", labels, registry=registry)
    for name, history in prober.histories.items():
        if not (rounds := history.rounds):
            continue
        values = (name, watched[name].module, watched[name].target)
        loss.labels(*values).set(rounds[-1].loss)
        if rounds[-1].seconds:
            median.labels(*values).set(rounds[-1].percentile(0.5) or 0)
            worst.labels(*values).set(max(rounds[-1].seconds))
    return Response(generate_latest(registry), headerlist=[("Content-Type", TEXT)])


@app.get("/probe")
def probe(request: Request) -> Response:
    """One probe of a target that the configuration allows: a page for a browser, metrics for all others."""
    of_this_site(request)
    name, text = request.query("module", default="tcp"), request.query("target")
    if name not in MODULES:
        abort(400, f"There is no module {name}; there are {', '.join(MODULES)}.")
    if not budget.take(request.remote_addr or ""):
        abort(429, f"{budget.each_minute} probes a minute are enough.")
    if not budget.slots.acquire(timeout=config.timeout):
        abort(503, "Too many probes are under way.")
    try:
        target = config.policy.resolve(text, MODULES[name].port)
        outcome = MODULES[name].send(target, config.timeout)
    except Refused as error:
        abort(403, str(error))
    finally:
        budget.slots.release()
    if request.accept.acceptable_offers(["text/plain", "text/html"])[:1] == [("text/html", 1.0)]:
        return page(request, f"{name} {text}", shown(outcome))
    return Response(blackbox(outcome), headerlist=[("Content-Type", TEXT)])


def readable(key: str, value: object) -> object:
    """A fact for people."""
    if isinstance(value, float):
        return text_of(value) if key.endswith(" time") else f"{value:.1f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def shown(outcome: Outcome) -> str:
    """An outcome as HTML."""
    kind = "good" if outcome.result == ANSWERED else "bad"
    facts = {key: readable(key, value) for key, value in outcome.facts.items()}
    phases = {name: text_of(seconds) for name, seconds in outcome.phases.items()}
    return (
        f'<p><strong class="{kind}">{escape(outcome.result)}</strong>: {escape(MEANINGS[outcome.result])}; '
        f"{text_of(outcome.seconds)}</p>{listed(phases)}{listed(facts)}"
    )


def blackbox(outcome: Outcome) -> bytes:
    """An outcome by the names of blackbox_exporter."""
    registry = CollectorRegistry()
    success = Gauge("probe_success", "Whether the probe was answered", registry=registry)
    success.set(outcome.result == ANSWERED)
    Gauge("probe_duration_seconds", "How long it took", registry=registry).set(outcome.seconds or 0.0)
    phases = Gauge("probe_phase_duration_seconds", "How long its phases took", ["phase"], registry=registry)
    for name, seconds in outcome.phases.items():
        phases.labels(name).set(seconds)
    for fact, metric in (("status", "probe_http_status_code"), ("expires", "probe_ssl_earliest_cert_expiry")):
        value = outcome.facts.get(fact)
        if isinstance(value, (int, float)):
            Gauge(metric, "As blackbox_exporter has it", registry=registry).set(value)
    text: bytes = generate_latest(registry)
    return text
