#!/usr/bin/env python3
"""One command from a fresh clone: makes .venv, installs what the command needs, and becomes the command.

The standard library is all that it uses. It becomes the command by exec, so that Ctrl-C and TERM reach that directly.
"""

# No `from __future__ import annotations`, and no syntax beyond Python 3.6: an old Python must get as far as the next `if`.
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
    """The newest Python on PATH that will do, or ""; tried, since a version manager's shims are there for all versions."""
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
"""The Python that .venv is made of: this one, or the one behind it when .venv is active already."""
INSTALL = ("install", "--quiet", "--no-input", "--disable-pip-version-check")
SETTINGS = {"PIP_USER": "0", "PIP_RETRIES": "1"}
"""One retry: without a network, pip's five take 8 s to say so. As variables these reach the pip that it runs for builds."""
RUBBISH = (
    ".venv",
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

WHOLE = (
    "microwsgi/wire/*",
    *(f"microwsgi/server/{name}.py" for name in ("connection", "recipient", "sender", "handler")),
    *(f"microwsgi/framework/{name}.py" for name in ("files", "static", "events")),
)
"""What must be covered by its tests to the last branch: the way of every byte from and to a client, and of every file."""


def stamp() -> str:
    """What .venv depends on: if one of these changes (an edited pyproject, an upgraded Python, a moved clone) it is remade."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(f"{sys.version}\n{ROOT}\n".encode() + file.read()).hexdigest()


def installed(wanted: str) -> list[str] | None:
    """The groups that .venv has; None if it isn't ours, is out of date or was never finished."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            first, *groups = file.read().split()
    except (OSError, ValueError):
        return None
    return groups if first == wanted and os.path.exists(PYTHON) else None


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        requirements: list[str] = tomllib.load(file)["dependency-groups"][name]
    return requirements


def pip(requirements: Sequence[str], python: str = PYTHON) -> str:
    """Install into .venv; what pip said when it could not, else "".

    This Python's own pip does it: to give .venv one takes three seconds. That is for a Python that has none, or an old one.
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
    """The lines that say why, of the many that pip writes around them."""
    lines = [line.strip() for line in complaint.splitlines()]
    return [line for line in lines if "error: " in line.lower() and "subprocess-exited" not in line] or lines[-5:]


def make_venv() -> None:
    """Make .venv; anew if it is one of ours, while what somebody else has made is added to and never emptied."""
    print("Making .venv ...", flush=True)
    clear = ["--clear"] if os.path.exists(STAMP) else []
    if subprocess.call([BASE, "-m", "venv", "--without-pip", *clear, VENV]):
        sys.exit(f"{BASE} -m venv has failed; its reason is above.")


def install(groups: Sequence[str]) -> None:
    """Install microwsgi as it stands here, and these groups."""
    print(f"Installing {', '.join(['microwsgi', 'WebOb', *groups])} ...", flush=True)
    complaint = pip(["--editable", ".", *(line for name in groups for line in group(name))])
    if complaint:
        why = "\n  ".join(reasons(complaint))
        sys.exit(
            f"pip could not install that:\n  {why}\n"
            f"Without a network, from a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make {sys.argv[1]}"
        )


def install_what_can_be(name: str) -> None:
    """Install the requirements of a group one by one, and say which are left out, and why."""
    for line in group(name):
        print(f"Installing {line} ...", flush=True)
        complaint = pip([line])
        if complaint:
            print(f"  left out: {reasons(complaint)[0]}")


def prepare(*groups: str, optional: Sequence[str] = ()) -> None:
    """See to it that .venv has microwsgi and these groups; of the optional ones, what can be installed here."""
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
            install_what_can_be(name)
    with open(STAMP, "w", encoding="utf-8") as file:
        file.write("\n".join([wanted, *(have or []), *missing]))


def become(*command: str) -> None:
    """Go on as this program of .venv."""
    sys.stdout.flush()
    os.execv(command[0], command)


def serve(*arguments: str) -> None:
    """Serve an example on http://127.0.0.1:8000: `make serve APP=apps.probe:app`; without APP the echo application."""
    application = os.environ.get("APP", "apps.echo:app")
    prepare(*(["apps"] if application != "apps.echo:app" else []))
    become(os.path.join(VENV, "bin", "microwsgi"), "serve", application, *arguments)


def prepare_tests() -> None:
    """What the tests use; where everything is required, other servers and frameworks too."""
    everything = os.environ.get("MICROWSGI_TEST_REQUIRE") == "all"
    prepare("dev", optional=["bench"] if everything else [])


def test(*arguments: str) -> None:
    """Run all tests but the soak."""
    prepare_tests()
    become(PYTHON, "-m", "pytest", *arguments)


def coverage() -> None:
    """Run the tests of what touches the wire, and of files; each line and branch of these must have been taken."""
    prepare_tests()
    for line in (
        "erase",
        "run -m pytest --quiet tests/wire tests/server tests/tls tests/framework",
        "combine --quiet",
        f"report --fail-under=100 --include={','.join(WHOLE)}",
    ):
        status = subprocess.call([PYTHON, "-m", "coverage", *line.split()])
        if status:
            sys.exit(status)


def soak(*arguments: str) -> None:
    """Run the tests that take long."""
    prepare("dev")
    become(PYTHON, "-m", "pytest", "-m", "soak", *arguments)


def check() -> None:
    """Check lint, format, types, and which module imports which."""
    prepare("dev")
    commands = ("ruff check", "ruff format --check", "mypy", "pytest --quiet tests/test_floors.py")
    failed = [line for line in commands if subprocess.call([PYTHON, "-m", *line.split()])]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


def compare(*arguments: str) -> None:
    """Compare the server with that of version 0.1: the same conversations, the same responses."""
    prepare("dev")
    become(PYTHON, "-m", "tests.comparison", *arguments)


def bench(*arguments: str) -> None:
    """Measure, beside every other server that can be installed here."""
    prepare(optional=["bench"])
    become(PYTHON, "-m", "benchmarks", *arguments)


def fuzz(*arguments: str) -> None:
    """Fuzz head, chunks and handler, for a minute each or ARGS=SECONDS."""
    prepare("fuzz")
    become(PYTHON, "-m", "tests.fuzz", *arguments)


def tls_scan() -> None:
    """Have sslyze look at a server with TLS, by Mozilla's recommendations."""
    prepare("scan")
    become(PYTHON, "-m", "tests.tls_scan")


def build() -> None:
    """Make a wheel and an sdist in dist."""
    prepare("dev")
    become(PYTHON, "-c", "from flit_core.buildapi import *; print(build_wheel('dist'), build_sdist('dist'), sep='\\n')")


def clean() -> None:
    """Remove what these commands have made, .venv too."""
    for name in RUBBISH:
        path = os.path.join(ROOT, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


COMMANDS = {
    function.__name__.replace("_", "-"): function
    for function in (serve, test, coverage, soak, check, compare, bench, fuzz, tls_scan, build, clean)
}


def usage() -> str:
    """What there is."""
    lines = [f"  make {name:8} {function.__doc__}" for name, function in COMMANDS.items()]
    return "\n".join([*lines, "Options go in ARGS: make test ARGS='-x -k chunked'; another Python in PYTHON."])


def main() -> None:
    """Run the command that was asked for."""
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
