"""The report: the results of a run, which can be written, read, shown, drawn and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import latency, throughput
from benchmarks.noise import Noise, noise_from_json
from benchmarks.servers import is_required
from benchmarks.stacks import Depth

FORMAT = 1


class Report:
    """The results of all parts. Parts that were not run are empty."""

    def __init__(self, machine: dict[str, Any]) -> None:
        self.machine = machine
        self.stacks: dict[str, Depth] = {}
        self.latency: dict[str, latency.Result] = {}
        self.noise = Noise()
        self.throughput: dict[str, throughput.Result] = {}
        self.left_out: dict[str, str] = {}  # "part: subject" to the reason

    def failures(self) -> dict[str, str]:
        """Return the project's own subjects that could not be measured, and the reasons."""
        return {where: reason for where, name, reason in self._missing() if is_required(name)}

    def absences(self) -> dict[str, str]:
        """Return the peers that could not be measured in a whole part, and the reasons."""
        failures = self.failures()
        return {where: reason for where, reason in self.left_out.items() if where not in failures}

    def _missing(self) -> Iterator[tuple[str, str, str]]:
        for where, reason in self.left_out.items():
            yield where, where.partition(": ")[2], reason
        for part, results in (("latency", self.latency), ("throughput", self.throughput)):
            for row, result in results.items():
                for name, reason in result.left_out.items():
                    yield f"{part}, {row}: {name}", name, reason

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "machine": self.machine,
            "stacks": {name: depth.as_json() for name, depth in self.stacks.items()},
            "latency": {name: result.as_json() for name, result in self.latency.items()},
            "noise": self.noise.as_json(),
            "throughput": {name: result.as_json() for name, result in self.throughput.items()},
            "left_out": self.left_out,
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON, including all rounds and histograms."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json()) + "\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read the report of an earlier run. Raise ValueError if the file is not a report."""
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{path} is not a report of these benchmarks")
        report = cls(found["machine"])
        report.stacks = {name: Depth.from_json(name, each) for name, each in found["stacks"].items()}
        report.latency = {
            name: latency.Result.from_json(name, each)
            for name, each in found["latency"].items()
            if name in latency.BY_NAME
        }
        report.noise = noise_from_json(found["noise"])
        report.throughput = {
            name: throughput.Result.from_json(name, each)
            for name, each in found["throughput"].items()
            if name in throughput.ROWS
        }
        report.left_out = found["left_out"]
        return report
