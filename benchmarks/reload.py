"""Rows about reloading and workers: time from a save to new code, cost of watching files, and the speed-up by a second worker.

The application imports WebOb and ten generated modules, one of which is saved repeatedly. Each save changes the size of the
file, because some peers miss changes that leave the size the same (`microwsgi.serving.imports` explains why).
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks import wrk
from benchmarks.confidence import percentile
from benchmarks.footprint import free_port
from benchmarks.processes import CORES, ROOT, Process, Server, Unavailable
from benchmarks.rows import Row, ratio_to, value_of
from benchmarks.servers import require
from benchmarks.wrk import Figures

MODULES = 10
LINES = 100  # lines of each module
SAVES, PEERS_SAVES = 100, 10
PAUSE = 0.05, 0.15  # seconds from a response by new code to the next save
PEERS_PAUSE = 0.6, 1.1  # longer: some peers miss a save that follows soon after their restart
LIMIT = 15.0  # seconds within which new code must answer
EXTRA = 5000  # files that are watched in addition to the modules
QUIET_TIME, OBSERVED_TIME = 3.0, 5.0  # seconds before and during the measurement of an idle reloader
FUNCTION = '''
def view_{number}(request, *names):
    """One of many functions, so that the module has something to compile."""
    items = [name.strip().upper() for name in names if name]
    if request.method == "POST":
        return {{"items": items, "count": len(items) + {number}}}
    raise ValueError(f"no {{request.path}} here")

'''
APPLICATION = """
import webob
{imports}

def app(environ, start_response):
    return webob.Response(str(module5.VALUE), content_type="text/plain")(environ, start_response)
"""
FLASK = """
import flask
{imports}

app = flask.Flask(__name__)

@app.get("/<name>")
def view(name):
    return str(module5.VALUE)
"""
DJANGO = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
{imports}

settings.configure(DEBUG=True, SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], STATIC_URL="static/")
urlpatterns = [path("<name>", lambda request, name: HttpResponse(str(module5.VALUE)))]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
BUSY = """
def app(environ, start_response):
    total = 0
    for number in range(30_000):
        total += number
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(total).encode()]
"""

STAT, WATCHDOG = "flask run --debug", "flask run --debug, watchdog"
HIDDEN = 'raise ImportError("hidden, so that Werkzeug takes its other reloader")\n'

Command = Callable[[str, str, str], list[str]]  # of the interpreter, the folder and the port


def flask_run(python: str, folder: str, port: str) -> list[str]:
    return [python, "-m", "flask", "--app", f"{folder}/flask_app.py", "run", "--debug", "--port", port]


COMMANDS: dict[str, tuple[str | None, Command]] = {
    "microwsgi": (
        None,
        lambda python, folder, port: [
            python, "-m", "microwsgi", "serve", "app", "--app-dir", folder, "-p", port, "--reload", "--access-log", "off",
        ],
    ),
    "microwsgi --reload-poll": (None, lambda *where: [*COMMANDS["microwsgi"][1](*where), "--reload-poll"]),
    STAT: ("flask", flask_run),
    WATCHDOG: ("watchdog", flask_run),
    "django runserver": (
        "django", lambda python, folder, port: [python, f"{folder}/django_app.py", "runserver", f"127.0.0.1:{port}"],
    ),
    "gunicorn --reload": (
        "gunicorn",
        lambda python, folder, port: [
            python, "-m", "gunicorn", "--reload", "--chdir", folder, "--bind", f"127.0.0.1:{port}", "app:app",
        ],
    ),
    "uvicorn --reload": (
        "uvicorn",
        lambda python, folder, port: [
            python, "-m", "uvicorn", "--interface", "wsgi", "--reload", "--reload-dir", folder, "--app-dir", folder,
            "--port", port, "app:app",
        ],
    ),
}  # fmt: skip
"""The servers that reload: the distribution that each needs, and its command."""


def write_application(folder: Path) -> None:
    """Write the modules, and an application for each framework."""
    imports = "\n".join(f"import module{number}" for number in range(MODULES))
    for number in range(MODULES):
        save(folder, number, 0)
    for name, text in (("app", APPLICATION), ("flask_app", FLASK), ("django_app", DJANGO)):
        (folder / f"{name}.py").write_text(text.format(imports=imports))


def save(folder: Path, number: int, value: int) -> None:
    """Save a module with a new value and a new size."""
    functions = "".join(FUNCTION.format(number=each) for each in range(LINES // FUNCTION.count("\n")))
    (folder / f"module{number}.py").write_text(f"VALUE = {value}\n{functions}#{'.' * (value % 70)}\n")


def fetch(port: int) -> str:
    """Send a request on a new connection, and return the body of the response, or "" if there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/x")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def wait_for(port: int, expected: str) -> float:
    """Send requests until the body of a response is `expected`, and return the seconds. Raise Unavailable after LIMIT."""
    begun = time.perf_counter()
    while fetch(port) != expected:
        if time.perf_counter() - begun > LIMIT:
            raise Unavailable(f"new code does not answer within {LIMIT:.0f} s")
        time.sleep(0.0005)
    return time.perf_counter() - begun


@contextmanager
def reloading(name: str, python: str, *options: str, extra: int = 0) -> Iterator[tuple[Process, Path, int]]:
    """Start a server that reloads. The context is its process, the folder of its application, and its port."""
    if name not in COMMANDS:
        raise Unavailable("does not reload")
    if COMMANDS[name][0]:
        require(str(COMMANDS[name][0]), python)
    with tempfile.TemporaryDirectory(prefix="microwsgi-reload-") as directory:
        folder, port = Path(directory), free_port()
        write_application(folder)
        if name == STAT:
            (folder / "watchdog.py").write_text(HIDDEN)
        (folder / "pages").mkdir()
        for number in range(extra):
            (folder / "pages" / f"{number}.html").write_text(f"<p>{number}")
        command = [*COMMANDS[name][1](python, directory, str(port)), *options]
        # The reloader and its child process may use all cores, as on a developer's machine.
        with Process(command, set(CORES), PYTHONPATH=f"{directory}:{ROOT}") as process:
            wait_for(port, "0")
            yield process, folder, port


def measure_reload(name: str, python: str, log: str) -> Figures:
    """Measure the seconds from the end of a save to the first response by new code."""
    with reloading(name, python) as (_, folder, port):
        times = []
        saves, pause = (SAVES, PAUSE) if name.startswith("microwsgi") else (PEERS_SAVES, PEERS_PAUSE)
        for value in range(1, 1 + saves):
            time.sleep(random.uniform(*pause))  # noqa: S311 - not for security
            save(folder, 5, value)
            times.append(wait_for(port, str(value)))
    times.sort()
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99), "max": times[-1]}


def idling(extra: int) -> Callable[[str, str, str], Figures]:
    """Return a function that measures the processor time of a reloader while no file changes, in percent of a core."""

    def measure(name: str, python: str, log: str) -> Figures:
        options = ["--reload-include", "pages/*.html"] if extra else []
        with reloading(name, python, *options, extra=extra) as (process, _, _):
            time.sleep(QUIET_TIME)
            spent = process.processor_seconds()
            time.sleep(OBSERVED_TIME)
            return {"core_percent": (process.processor_seconds() - spent) / OBSERVED_TIME * 100}

    return measure


def measure_workers(name: str, python: str, log: str) -> Figures:
    """Measure requests per second of two workers, for an application that computes for 1 ms, and the ratio to one worker."""
    rates = []
    with tempfile.TemporaryDirectory(prefix="microwsgi-workers-") as directory:
        (Path(directory) / "busy.py").write_text(BUSY)
        for workers in ("1", "2"):
            if name == "microwsgi":
                command = [
                    python, "-m", "microwsgi", "serve", "busy", "--app-dir", directory, "-p", "0",
                    "--workers", workers, "--access-log", "off",
                ]  # fmt: skip
            else:
                require("gunicorn", python)
                command = [
                    python, "-m", "gunicorn", "--chdir", directory, "--bind", "127.0.0.1:0", "--workers", workers,
                    "--worker-class", "gthread", "--threads", "4", "busy:app",
                ]  # fmt: skip
            with Server(command, cores=set(CORES)) as server:
                wrk.load(server, "/", 8, 1)
                rates.append(wrk.load(server, "/", 8, 2)["rate"])
    return {"rate": rates[1], "scaling": rates[1] / rates[0]}


PEERS = (STAT, WATCHDOG, "django runserver", "gunicorn --reload", "uvicorn --reload")

ROWS = [
    Row(
        "reload", "from the end of a save to the first response by new code", measure_reload,
        [
            value_of("p50", "ms, median", 30.0, 15.0, scale=1e3),
            value_of("p99", "ms, p99", 100.0, 50.0, scale=1e3),
            *(ratio_to(peer, "p50", 1.0) for peer in PEERS),
        ],
        app=None, peers=PEERS, optional_peers=("microwsgi --reload-poll",), rounds=1, expected_seconds=20.0,
    ),
    Row(
        "reload-idle", "processor time of --reload while no file changes", idling(0),
        [value_of("core_percent", "% of a core", 1.0, 0.1)],
        app=None, optional_peers=("microwsgi --reload-poll", *PEERS), rounds=1,
        expected_seconds=QUIET_TIME + OBSERVED_TIME + 1,
    ),
    Row(
        f"reload-idle-{EXTRA}", f"--reload with {EXTRA:,} more files while no file changes", idling(EXTRA),
        [value_of("core_percent", "% of a core", 1.0, 0.1)], app=None, optional_peers=("microwsgi --reload-poll",), rounds=1,
        expected_seconds=QUIET_TIME + OBSERVED_TIME + 2,
    ),
    Row(
        "workers", "two workers on two cores, 1 ms of computation per request", measure_workers,
        [value_of("scaling", "times one worker", 1.5, 1.8, at_most=False), ratio_to("gunicorn --workers", "rate", 1.0)],
        app=None, peers=("gunicorn --workers",), rounds=1, expected_seconds=8.0,
    ),
]  # fmt: skip
SUBJECTS = (*COMMANDS, "gunicorn --workers")
"""Subjects of these rows only."""
