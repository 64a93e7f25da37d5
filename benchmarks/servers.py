"""The servers: for each one the command that starts it, as its users do, and the distribution that contains it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.processes import ROOT, Unavailable, environment

HELLO = "benchmarks.subjects.hello:app"
REQUIRED = ("microwsgi", "bare", "http.server", "httpsrv.py", "import webob", "plain WebOb")


def is_required(name: str) -> bool:
    """Return whether a subject is part of the project, its requirements or Python, so that it is an error if it fails."""
    return name.startswith(REQUIRED)


class ServerSpec:
    """A server: its distribution, and a function `command(python, app, port, threads, log)` that returns its command.

    Threads 0 means the server's default, port 0 a free port.
    """

    def __init__(self, distribution: str | None, command: Callable[[str, str, str, int, str], list[str]]) -> None:
        self.distribution, self.command = distribution, command


def _peer(name: str) -> ServerSpec:
    distribution = None if name in ("wsgiref", "microwsgi") else name
    return ServerSpec(
        distribution,
        lambda python, app, port, threads, log: [
            python, "benchmarks/subjects/peers.py", name, app, port, str(threads),
        ],
    )  # fmt: skip


def _bare(python: str, app: str, port: str, threads: int, log: str) -> list[str]:
    return [python, "-m", "benchmarks.subjects.bare", app]


def _microwsgi(python: str, app: str, port: str, threads: int, log: str) -> list[str]:
    more = ["--threads", str(threads)] if threads else []
    return [python, "-m", "microwsgi", "serve", app, "--port", port, "--access-log", log, *more]


def _granian(python: str, app: str, port: str, threads: int, log: str) -> list[str]:
    more = ["--blocking-threads", str(threads)] if threads else []
    return [python, "-m", "granian", "--interface", "wsgi", "--workers", "1", *more, "--port", port, app]


def _gunicorn(worker: str, threads: int) -> ServerSpec:
    def command(python: str, app: str, port: str, wanted: int, log: str) -> list[str]:
        script = Path(python).with_name("gunicorn")
        start = [str(script)] if script.exists() else [python, "-m", "gunicorn"]
        settings = ["--worker-class", worker, "--threads", str(wanted or threads), "--bind", f"127.0.0.1:{port}"]
        return [*start, *settings, app]

    return ServerSpec("gunicorn", command)


SERVERS = {
    "microwsgi": ServerSpec(None, _microwsgi),
    "microwsgi-nolog": _peer("microwsgi"),
    "bare": ServerSpec(None, _bare),
    "bjoern": _peer("bjoern"),
    "fastwsgi": _peer("fastwsgi"),
    "freastal": _peer("freastal"),
    "granian": ServerSpec("granian", _granian),
    "gunicorn gthread": _gunicorn("gthread", 4),
    "gunicorn sync": _gunicorn("sync", 1),
    "waitress": _peer("waitress"),
    "cheroot": _peer("cheroot"),
    "werkzeug": _peer("werkzeug"),
    "wsgiref": _peer("wsgiref"),
}


@cache
def versions(python: str) -> dict[str, str]:
    """Return the versions of all installed peers and of the interpreter, with the build options that change its speed."""
    names = sorted(
        {kind.distribution for kind in SERVERS.values() if kind.distribution}
        | {"webob", "flask", "bottle", "django", "uvicorn", "watchdog"}
    )
    code = (
        "import sys, platform, importlib.metadata as m\n"
        "from benchmarks.interpreter import build_options\n"
        "python = ' '.join([platform.python_version(), *build_options()])\n"
        "print('python', python, sys.implementation.name, sep='\\t')\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name), '', sep='\\t')\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    result = subprocess.run(
        [python, "-c", code, *names], capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    return {name: version for name, version, _ in (line.split("\t") for line in result.stdout.splitlines())}


def require(name: str, python: str) -> None:
    """Raise Unavailable if a server, or a distribution, is not installed for the interpreter."""
    distribution = SERVERS[name].distribution if name in SERVERS else name
    if distribution and distribution not in versions(python):
        raise Unavailable(f"not installed: python -m pip install {distribution}")
