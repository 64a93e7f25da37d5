"""Where and when a run was made: a figure without these is a rumour."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
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


def facts(python: str) -> dict[str, Any]:
    """Everything that a reader needs to doubt or repeat the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": _output("git", "describe", "--always", "--dirty"),
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


def in_words(found: dict[str, Any]) -> str:
    """The facts as the two lines above a report."""
    installed = found["versions"]
    names = ", ".join(f"{name} {version}" for name, version in installed.items() if name != "python")
    return (
        f"{found['date']}  commit {found['commit'] or 'unknown'}  Python {installed['python']}; {names}\n"
        f"{found['processor']}, {found['cores']} cores, {found['memory_kib'] / 2**20:.0f} GiB, {found['system']}; "
        f"servers on core {found['server_cores']}, clients on {found['client_cores']}, load before {found['load_before']:.2f}"
    )
