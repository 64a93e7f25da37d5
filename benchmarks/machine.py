"""Where and when a run was made: a figure without these is a rumour."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.processes import CLIENT_CORES, ROOT, SERVER_CORE
from benchmarks.servers import versions


def _line(path: str, start: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(start)), "")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    except OSError:
        return ""


def commit() -> str:
    """Name the commit, and whether the tree differs from it: in what is measured, not in docs/ where figures are written."""
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return _output("git", "describe", "--always") + ("-dirty" if changed else "")


def facts(python: str) -> dict[str, Any]:
    """Everything that a reader needs to doubt or repeat the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions(python),
        "harness_python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_kib": int(_line("/proc/meminfo", "MemTotal").split()[0] or 0),
        "load_before": os.getloadavg()[0],
        "server_cores": sorted(SERVER_CORE),
        "client_cores": sorted(CLIENT_CORES),
    }


def describe_row(found: dict[str, Any], names: Iterable[str]) -> str:
    """Return in a line when, where and with which versions a row was measured."""
    installed = found["versions"]
    first = dict.fromkeys(name.lower().split()[0] for name in names)  # "gunicorn gthread" and "Flask" are distributions
    told = ", ".join(f"{name} {installed[name]}" for name in first if name in installed)
    return (
        f"{found['date']}, commit {found['commit'] or 'unknown'}, Python {installed['python']}{'; ' if told else ''}{told}; "
        f"{found['processor']}, {found['cores']} cores, {found['system']}"
    )


def describe_run(found: dict[str, Any]) -> str:
    """The facts as the two lines above a report."""
    installed = found["versions"]
    names = ", ".join(f"{name} {version}" for name, version in installed.items() if name != "python")
    return (
        f"{found['date']}  commit {found['commit'] or 'unknown'}  Python {installed['python']}; {names}\n"
        f"{found['processor']}, {found['cores']} cores, {found['memory_kib'] / 2**20:.0f} GiB, {found['system']}; "
        f"servers on core {found['server_cores']}, clients on {found['client_cores']}, load before {found['load_before']:.2f}"
    )
