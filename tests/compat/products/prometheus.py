"""prometheus_client: its WSGI application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["prometheus-client"]


def application(folder: Path) -> Any:
    from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app

    registry = CollectorRegistry()
    Gauge("a_gauge", "of the tests", ["b"], registry=registry).labels("ä").set(5)
    return make_wsgi_app(registry)


def check_metrics(site: Site) -> Any:
    fields = ("Content-Type", "Content-Encoding")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "identity"}
    return [site.seen("/metrics", fields=fields), site.seen("/metrics?name[]=b", headers=accept, fields=fields)]


def check_methods(site: Site) -> Any:
    return [site.seen("/metrics", method) for method in ("HEAD", "OPTIONS", "POST")]
