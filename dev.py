#!/usr/bin/env python3
"""Run a development command from a fresh clone: make .venv, install the packages that the command needs, and exec it.

This script uses the standard library only. With exec, Ctrl-C and TERM reach the command directly. To add a command, write a
function, list it in COMMANDS and add its name to the Makefile.
"""

# No `from __future__ import annotations`, no syntax newer than Python 3.6: an old Python must reach the version check below.
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "microwsgi-stamp")


def newer_python() -> str:
    """Return the newest sufficient Python on PATH, or "". Each is run: a version manager has shims for versions it lacks."""
    for minor in range(40, OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return name
    return ""


if sys.version_info < OLDEST:
    version = ".".join(str(number) for number in sys.version_info[:3])
    newer = newer_python()
    cure = f"Try: {' '.join(['make', *sys.argv[1:2]])} PYTHON={newer}" if newer else "There is none on PATH."
    sys.exit(f"microwsgi needs Python 3.11 or newer, and this is {version}. {cure}")

import hashlib
import tomllib
from collections.abc import Sequence

BASE = getattr(sys, "_base_executable", sys.executable)
"""The Python that .venv is made with: this one, or its base if this one is in an active .venv."""
INSTALL = ("install", "--quiet", "--no-input", "--disable-pip-version-check")
SETTINGS = {"PIP_USER": "0", "PIP_RETRIES": "1"}
"""One retry: without a network, pip's five retries take 8 s. As variables, these reach the pip that pip runs for builds."""
NETWORK = {"apps.inspect", "apps.netmon", "apps.path", "apps.probe"}
"""Examples that import packages of the extra `apps`."""
GENERATED = (
    ".venv",
    ".venv-compat",
    ".venv-pythons",
    "dist",
    "build",
    "htmlcov",
    ".coverage",
    ".pytest_cache",
    ".hypothesis",
    ".fuzz",
    ".mypy_cache",
    ".ruff_cache",
)

PARALLEL = ("-n", "4", "--dist", "worksteal")
"""Options of pytest-xdist. Many tests wait: four processes keep two cores busy, and take blocks of tests from each other."""
QUICK = ("-m", "not slow and not soak")
"""Options of pytest for the tests of `make test`. Without them, pytest runs all but those marked soak (pyproject.toml)."""

SOURCE_TESTS = ("floors", "structure", "names", "private_names", "signal_handlers", "messages")
"""Tests that read the source: the direction of imports, structure, names, messages. `make check` runs these."""

WHOLE = (
    "microwsgi/wire/*",
    *(f"microwsgi/server/{name}.py" for name in ("transport", "handler", "exchange", "request_body")),
    *(f"microwsgi/framework/{name}.py" for name in ("files", "static", "events")),
)
"""Files whose lines and branches the tests must cover: every byte from and to a client and every file passes them."""

MIN_COVERAGE = 98
"""Percent of these that must be covered; wire/ and framework/ are covered whole."""
COVERING = ("tests/wire", "tests/server", "tests/tls", "tests/framework")
"""The tests that cover them. Coverage slows tests down and changes what is imported: the other tests run without."""


def stamp() -> str:
    """Return a hash of pyproject.toml, the Python version and the folder. If it changes, .venv is made anew."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(f"{sys.version}\n{ROOT}\n".encode() + file.read()).hexdigest()


def installed(wanted: str) -> list[str] | None:
    """Return the groups installed in .venv; None if it is not from this script, out of date or incomplete."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            first, *groups = file.read().split()
    except (OSError, ValueError):
        return None
    return groups if first == wanted and os.path.exists(PYTHON) else None


def group(name: str) -> list[str]:
    """Return the requirements of an extra and of the dependency group of the same name; one of them exists."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)
    tables = (project.get("project", {}).get("optional-dependencies", {}), project["dependency-groups"])
    found: list[list[str]] = [table[name] for table in tables if name in table]
    if not found:
        raise LookupError(name)
    return [line for lines in found for line in lines]


def pip(requirements: Sequence[str], python: str = PYTHON) -> str:
    """Install into .venv. Return pip's messages if that failed, else "".

    The pip of the base Python is used: to install pip into .venv takes three seconds. That is done only if the base Python has
    no pip, or one that is too old.
    """
    environment = {**os.environ, **SETTINGS}
    for attempt in ([BASE, "-m", "pip", "--python", python], [python, "-m", "pip"]):
        done = subprocess.run(
            [*attempt, *INSTALL, *requirements], check=False, capture_output=True, text=True, cwd=ROOT, env=environment
        )
        if done.returncode == 0:
            return ""
        if "No module named pip" not in done.stderr and "no such option: --python" not in done.stderr:
            break
        subprocess.run([python, "-m", "ensurepip"], check=False, capture_output=True)
    else:
        sys.exit("This Python has neither pip nor ensurepip; on Debian and Ubuntu: sudo apt install python3-venv")
    return done.stderr.strip()


def reasons(complaint: str) -> list[str]:
    """Return the lines of pip's output that give the reason."""
    lines = [line.strip() for line in complaint.splitlines()]
    return [line for line in lines if "error: " in line.lower() and "subprocess-exited" not in line] or lines[-5:]


def make_venv() -> None:
    """Make .venv. One that this script made is emptied first; packages are added to any other."""
    print("Making .venv ...", flush=True)
    clear = ["--clear"] if os.path.exists(STAMP) else []
    if subprocess.call([BASE, "-m", "venv", "--without-pip", *clear, VENV]):
        sys.exit(f"{BASE} -m venv has failed; the reason is above.")


def install(groups: Sequence[str]) -> None:
    """Install microwsgi in editable mode, and these groups."""
    print(f"Installing {', '.join(['microwsgi', 'WebOb', *groups])} ...", flush=True)
    complaint = pip(["--editable", ".", *(line for name in groups for line in group(name))])
    if complaint:
        why = "\n  ".join(reasons(complaint))
        sys.exit(
            f"pip could not install that:\n  {why}\n"
            f"Without a network, from a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make {sys.argv[1]}"
        )


def install_optional(name: str) -> None:
    """Install the requirements of a group one by one; print which cannot be installed, and why."""
    for line in group(name):
        print(f"Installing {line} ...", flush=True)
        complaint = pip([line])
        if complaint:
            print(f"  left out: {reasons(complaint)[0]}")


def prepare(*groups: str, optional: Sequence[str] = ()) -> None:
    """Make sure that .venv has microwsgi and these groups, and the packages of the optional groups that can be installed."""
    wanted = stamp()
    have = installed(wanted)
    missing = [name for name in (*groups, *optional) if name not in (have or [])]
    if have is not None and not missing:
        return
    if have is None:
        make_venv()
    install([name for name in missing if name not in optional])
    for name in missing:
        if name in optional:
            install_optional(name)
    with open(STAMP, "w", encoding="utf-8") as file:
        file.write("\n".join([wanted, *(have or []), *missing]))


def exec_command(*command: str) -> None:
    """Replace this process by a program of .venv."""
    sys.stdout.flush()
    os.execv(command[0], command)


def serve(*arguments: str) -> None:
    """Serve apps.echo:app on http://127.0.0.1:8000, or APP=apps.netmon:app and what that imports."""
    application = os.environ.get("APP") or "apps.echo:app"
    if arguments and not arguments[0].startswith("-"):
        application, arguments = arguments[0], arguments[1:]
    prepare(*(["apps"] if application.partition(":")[0] in NETWORK else []))
    exec_command(os.path.join(VENV, "bin", "microwsgi"), "serve", application, *arguments)


def prepare_tests() -> None:
    """Install the packages that the tests use; where everything is required, other servers and frameworks too."""
    everything = os.environ.get("MICROWSGI_TEST_REQUIRE") == "all"
    prepare("dev", optional=["bench"] if everything else [])


def test(*arguments: str) -> None:
    """Run the tests, without those marked slow or soak."""
    prepare_tests()
    exec_command(PYTHON, "-m", "pytest", *PARALLEL, *QUICK, *arguments)


def test_all(*arguments: str) -> None:
    """Run all tests but those marked soak."""
    prepare_tests()
    exec_command(PYTHON, "-m", "pytest", *PARALLEL, *arguments)


def test_pythons(*arguments: str) -> None:
    """Run the tests on every Python from 3.11 on that is here; ARGS=--get gets more before."""
    exec_command(BASE, "-m", "tests.pythons", *arguments)


def coverage(*arguments: str) -> None:
    """Run the tests of wire, server, tls and framework; fail if they leave out a line or branch of certain files.

    Tests that fail run once more, alone: tests may disturb each other on a busy machine.
    """
    prepare_tests()
    coverage = [PYTHON, "-m", "coverage"]
    subprocess.check_call([*coverage, "erase"])
    tests = [*coverage, "run", "-m", "pytest", *arguments]
    failed = 1  # pytest's exit code if tests have failed
    status = subprocess.call([*tests, *PARALLEL, *COVERING])
    if status == failed:
        print("Once more, alone: the tests that failed", flush=True)
        status = subprocess.call([*tests, "--last-failed", *COVERING])
    if status:
        sys.exit(status)
    for line in (
        ["combine", "--quiet"],
        ["report", f"--fail-under={MIN_COVERAGE}", f"--include={','.join(WHOLE)}"],
    ):
        status = subprocess.call([*coverage, *line])
        if status:
            sys.exit(status)


def soak(*arguments: str) -> None:
    """Run the tests marked soak, which take minutes each."""
    prepare("dev")
    exec_command(PYTHON, "-m", "pytest", "-m", "soak", *arguments)


def check() -> None:
    """Check lint rules, format, types, and the rules of `SOURCE_TESTS`."""
    prepare("dev")
    tests = f"pytest --quiet -n 2 {' '.join(f'tests/test_{name}.py' for name in SOURCE_TESTS)}"
    commands = ("ruff check", "ruff format --check", "mypy", tests)
    failed = [line for line in commands if subprocess.call([PYTHON, "-m", *line.split()])]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


def compare(*arguments: str) -> None:
    """Compare the server with that of version 0.1: the same conversations, the same responses."""
    prepare("dev")
    exec_command(PYTHON, "-m", "tests.comparison", *arguments)


def compat(*arguments: str) -> None:
    """Run real products and clients on this server and on others, in venvs of their own; ARGS=core runs some."""
    exec_command(BASE, "-m", "tests.compat", *arguments)


def bench(*arguments: str) -> None:
    """Run the benchmarks, with every other server that can be installed here."""
    prepare(optional=["bench"])
    exec_command(PYTHON, "-m", "benchmarks", *arguments)


def instructions(*arguments: str) -> None:
    """Count the instructions of a request with valgrind; ARGS=--check compares with the committed figures."""
    prepare()
    exec_command(PYTHON, "-m", "benchmarks.instructions", *arguments)


def fuzz(*arguments: str) -> None:
    """Fuzz the request head, chunks and the handler, for a minute each or ARGS=SECONDS."""
    prepare("fuzz")
    exec_command(PYTHON, "-m", "tests.fuzz", *arguments)


def tls_scan() -> None:
    """Scan a server with TLS with sslyze, against Mozilla's recommendations."""
    prepare("scan")
    exec_command(PYTHON, "-m", "tests.tls_scan")


def docs() -> None:
    """Build the documentation as a site in build/docs. A warning, such as a broken link, is an error."""
    prepare("docs")
    exec_command(
        PYTHON, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "docs", "build/docs"
    )


def build() -> None:
    """Build a wheel and an sdist in dist, and check them. Two builds of a commit are equal: files get its date."""
    prepare("dev", "build")
    if "SOURCE_DATE_EPOCH" not in os.environ:
        date = subprocess.run(["git", "log", "-1", "--format=%ct"], check=False, capture_output=True, text=True)
        os.environ.update({"SOURCE_DATE_EPOCH": date.stdout.strip()} if date.returncode == 0 else {})
    shutil.rmtree("dist", ignore_errors=True)
    os.mkdir("dist")
    program = "from flit_core.buildapi import *; print(build_wheel('dist'), build_sdist('dist'), sep='\\n')"
    built = subprocess.run([PYTHON, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    files = [os.path.join("dist", name) for name in built]
    print(*files, sep="\n", flush=True)
    subprocess.check_call([PYTHON, "-m", "check_wheel_contents", files[0]])
    exec_command(PYTHON, "-m", "twine", "check", "--strict", *files)


def clean() -> None:
    """Remove the files that these commands have made, .venv too."""
    for name in GENERATED:
        path = os.path.join(ROOT, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


COMMANDS = {
    function.__name__.replace("_", "-"): function
    for function in (
        serve,
        test,
        test_all,
        test_pythons,
        coverage,
        soak,
        check,
        compare,
        compat,
        bench,
        instructions,
        fuzz,
        tls_scan,
        docs,
        build,
        clean,
    )
}


def usage() -> str:
    """Return the list of commands, each with the first line of its docstring."""
    summaries = [(name, (function.__doc__ or "").splitlines()[0]) for name, function in COMMANDS.items()]
    lines = [f"  make {name:12} {summary}" for name, summary in summaries]
    return "\n".join([*lines, "Options go in ARGS: make test ARGS='-x -k chunked'; another Python in PYTHON."])


def main() -> None:
    """Run the command given as the first argument."""
    name, *arguments = sys.argv[1:] or ["help"]
    if name == "help":
        print(usage())
        return
    if name not in COMMANDS:
        sys.exit(f"There is no {name}; there are:\n{usage()}")
    os.chdir(ROOT)
    try:
        COMMANDS[name](*arguments)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
