"""The machine, the time and the versions of a run."""

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
    """Return the value of the first "name: value" line of a file that begins with `start`, or ""."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(start)), "")


def _output(*command: str) -> str:
    """Return the output of a command, or "" if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    except OSError:
        return ""


def commit() -> str:
    """Return the commit, with "-dirty" if the tree differs from it outside docs/, where the benchmarks write figures."""
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return _output("git", "describe", "--always") + ("-dirty" if changed else "")


def facts(python: str) -> dict[str, Any]:
    """Return the facts that a reader needs to assess or repeat the run."""
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
    """Return a line with the time, the commit, the versions and the machine of a row."""
    installed = found["versions"]
    # The first word is the distribution's name: "gunicorn gthread", "Flask".
    distributions = dict.fromkeys(name.lower().split()[0] for name in names)
    peers = ", ".join(f"{name} {installed[name]}" for name in distributions if name in installed)
    return (
        f"{found['date']}, commit {found['commit'] or 'unknown'}, Python {installed['python']}{'; ' if peers else ''}{peers}; "
        f"{found['processor']}, {found['cores']} cores, {found['system']}"
    )


def describe_run(found: dict[str, Any]) -> str:
    """Return the facts as two lines of text, for the head of a report."""
    installed = found["versions"]
    names = ", ".join(f"{name} {version}" for name, version in installed.items() if name != "python")
    return (
        f"{found['date']}  commit {found['commit'] or 'unknown'}  Python {installed['python']}; {names}\n"
        f"{found['processor']}, {found['cores']} cores, {found['memory_kib'] / 2**20:.0f} GiB, {found['system']}; "
        f"servers on core {found['server_cores']}, clients on {found['client_cores']}, "
        f"load average before the run {found['load_before']:.2f}"
    )
