"""Prometheus's text exposition format, version 0.0.4: a metric's name, its kind, and a value for each set of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from microwsgi import Response

TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Metric(NamedTuple):
    """One line of a metric with this name."""

    name: str
    value: float
    labels: Mapping[str, str] = {}
    kind: str = "gauge"
    help: str = ""


def exposition(metrics: Iterable[Metric]) -> Response:
    lines: list[str] = []
    last = ""
    for each in sorted(metrics, key=lambda each: each.name):  # lines of one name must follow each other
        if each.name != last:
            last = each.name
            lines += [f"# HELP {last} {each.help}", f"# TYPE {last} {each.kind}"]
        labels = ",".join(f'{key}="{value.translate(ESCAPES)}"' for key, value in each.labels.items())
        lines.append(f"{last}{{{labels}}} {each.value!r}" if labels else f"{last} {each.value!r}")
    return Response("\n".join([*lines, ""]).encode(), headerlist=[("Content-Type", TYPE)])
