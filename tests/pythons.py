"""Run the tests on every Python that is here or can be had, and write docs/pythons.md: `make test-pythons`.

    python -m tests.pythons              3.11 and newer on PATH and in pyenv, and those that were got before
    python -m tests.pythons --get        get Debian's 3.14 and newer, and build a free-threaded 3.13t; as root
    python -m tests.pythons 3.12 3.13t   these only; the page keeps the last results of the others

Each runs `make test` of a copy of the checkout below .venv-pythons. --get puts Debian's unstable into a folder there, with
debootstrap, and compiles 3.13t in it from its stable release's sources. Nothing outside .venv-pythons changes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.running import ROOT, environment

CACHE = ROOT / ".venv-pythons"
PAGE = ROOT / "docs" / "pythons.md"
LIMIT = 3600
"""Seconds for the tests of a Python."""
AGAIN = 20
"""The most tests that are run again if they fail."""
DEBIAN = "unstable"
"""The release, and the folder below .venv-pythons that it is put into."""
SOURCES = "trixie"
"""The release with the sources of 3.13."""
LIBRARIES = "libssl-dev zlib1g-dev libffi-dev libbz2-dev liblzma-dev libsqlite3-dev libreadline-dev"
PROGRAMS = "ca-certificates git make curl openssl procps iproute2"
WITHOUT = {"t": ["cryptography", "mypy", "playwright", "trustme"]}
"""Packages without wheels for the Pythons whose names end so; tests that need these are skipped (tests/programs.py)."""
PURE = "hypothesis>=6.100,<6.140"
"""For these Pythons: newer ones have a part in Rust."""
HEAD = """# Pythons

`make test-pythons` runs `make test` on every Python from 3.11 on that is on the machine, and writes this page. As root, `make
test-pythons ARGS=--get` gets more before: Debian's newest, and a free-threaded 3.13t (`PYTHON_GIL=0`).

Tests that fail run again, one after the other: some of them disturb each other on a busy machine. Those that fail twice are
listed. The folder of Debian's newest Pythons has no browser and few other programs: tests that need these are skipped.

"""


class Python(NamedTuple):
    """A Python, and the Debian folder that it is in, if it is in one."""

    name: str
    command: str
    root: Path | None = None


class Result(NamedTuple):
    """The versions and the outcome of the tests of a Python."""

    name: str
    version: str
    outcome: str
    """The last line of pytest."""
    without: list[str]
    """Packages that it has no wheels for."""
    failed: list[str]
    date: str = ""


def works(path: str) -> bool:
    """Return whether a Python runs: a version manager has shims for those that it lacks. One named t must be free-threaded."""
    free = str(path.endswith("t"))
    program = "import sysconfig, venv; print(bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    done = subprocess.run([path, "-c", program], check=False, capture_output=True, text=True)
    return done.stdout.strip() == free


def found() -> list[Python]:
    """Return the Pythons that are here, one of each name."""
    versions = Path(os.environ.get("PYENV_ROOT", "pyenv")) / "versions"
    pythons: dict[str, Python] = {}
    for name in [f"3.{minor}{end}" for minor in range(11, 30) for end in ("", "t")]:
        candidates = [shutil.which(f"python{name}"), *sorted(versions.glob(f"*/bin/python{name}"), reverse=True)]
        for path in filter(None, candidates):
            if name not in pythons and works(str(path)):
                pythons[name] = Python(name, str(path))
    root = CACHE / DEBIAN
    for file in sorted(root.glob("usr/bin/python3.[0-9]*")) + sorted(root.glob("opt/free/bin/python3.[0-9]*t")):
        name = file.name.removeprefix("python")
        if re.fullmatch(r"3\.\d+t?", name) and name not in pythons:
            pythons[name] = Python(name, f"/{file.relative_to(root)}", root)
    return list(pythons.values())


def inside(root: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a Debian folder, with /proc, /dev and /sys in a mount namespace of its own.

    The folder itself is a mount there: `ip netns` changes that of /.
    """
    mounts = [
        f"mount --rbind {root} {root}",
        *(f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev", "sys")),
    ]
    script = f'{"; ".join(mounts)}; exec chroot {root} "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *words]
    return subprocess.run(command, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def get() -> None:
    """Get Debian's newest Pythons, and build a free-threaded one."""
    if os.getuid() or not shutil.which("debootstrap"):
        sys.exit("--get needs root and debootstrap.")
    root = CACHE / DEBIAN
    complete = root / "complete"  # an interrupted debootstrap leaves a folder that looks complete
    if not complete.exists():
        shutil.rmtree(root, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PROGRAMS.replace(' ', ',')}", DEBIAN, str(root)]
        subprocess.run(command, check=True)
        complete.touch()
    for own in ("etc/pip.conf", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):  # of this machine
        if Path("/", own).exists():
            shutil.copy(Path("/", own), root / own)
    install = "apt-get install --yes --quiet=2 --no-install-recommends"
    script = f"""
        export DEBIAN_FRONTEND=noninteractive
        sed 's/^deb /deb-src /; s/{DEBIAN}/{SOURCES}/' /etc/apt/sources.list >/etc/apt/sources.list.d/sources.list
        # A mirror may be behind: as with debootstrap, the signature is checked, and the date to which it is valid is not.
        apt-get -o Acquire::Check-Valid-Until=false update --quiet=2
        {install} $(apt-cache search --names-only '^python3[.]1[4-9]-venv$' | cut -d' ' -f1)
        test -x /opt/free/bin/python3.13t && exit
        {install} build-essential dpkg-dev pkg-config {LIBRARIES}
        mkdir -p /build; cd /build; apt-get source --quiet=2 python3.13; cd python3.13-*/
        # Debian's folders for packages: with this patch a venv of 3.13t does not find its own.
        patch --quiet --reverse --strip=1 <debian/patches/distutils-install-layout.diff
        ./configure --quiet --prefix=/opt/free --disable-gil --without-ensurepip; make -s -j2; make -s install
    """
    inside(root, "sh", "-ec", script).check_returncode()


def copy(python: Python, without: list[str]) -> Path:
    """Copy the checkout for a Python, but not its .venv, which is used again."""
    parent = python.root / "srv" if python.root else CACHE
    target = parent / f"checkout-{python.name}"
    target.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607
    for old in target.iterdir():
        if old.name != ".venv":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    project = target / "pyproject.toml"
    lines = project.read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.strip().startswith(tuple(f'"{name}' for name in without)))
    project.write_text(re.sub(r'"hypothesis.*?"', f'"{PURE}"', kept) if without else kept)
    return target


def execute(python: Python, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a Python with arguments in a folder. Raises TimeoutExpired."""
    variables = environment(PYTHONPATH="", **({"PYTHON_GIL": "0"} if python.name.endswith("t") else {}))
    if python.root:
        inner = ["env", f"--chdir=/{folder.relative_to(python.root)}", "HOME=/root", python.command, *words]
        return inside(python.root, *inner, env=variables, capture_output=True, timeout=LIMIT)
    command = [python.command, *words]
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def failures(output: str) -> list[str]:
    """Return the ids of the tests that failed, from pytest's output."""
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)


def run(python: Python, arguments: list[str]) -> Result:
    """Run `make test` in a copy of the checkout, and what failed once more alone, since the machine may be busy."""
    without = next((names for end, names in WITHOUT.items() if python.name.endswith(end)), [])
    target = copy(python, without)
    version = execute(python, target, "-V").stdout.strip()
    words = ["dev.py", "test", "--quiet", "-p", "no:cacheprovider"]
    start = time.monotonic()
    log = CACHE / f"{python.name}.log"
    try:
        done = execute(python, target, *words, *arguments)
        log.write_text(done.stdout + done.stderr)
        first = failed = failures(done.stdout)
        if first and len(first) <= AGAIN:
            again = execute(python, target, *words, "-n0", *first)
            log.write_text(log.read_text() + again.stdout + again.stderr)
            failed = failures(again.stdout) or (first if again.returncode else [])
    except subprocess.TimeoutExpired as late:
        log.write_bytes(late.stdout or b"")
        return Result(python.name, version, f"not finished after {LIMIT} s", without, [])
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    outcome = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), lines[-1])
    outcome = re.sub(r" in [\d.]+s.*", "", outcome).strip("= ")
    if len(failed) < len(first):
        outcome += f"; {len(first) - len(failed)} of these passed when run again alone"
    print(f"{python.name}: {outcome} ({time.monotonic() - start:.0f} s)", *failed, sep="\n  ", flush=True)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return Result(python.name, version, outcome, without, failed, today)


def order(name: str) -> tuple[int, str]:
    """Return a key that sorts names of Pythons: 3.13, 3.13t, 3.14."""
    return int(re.sub(r"\D", "", name)), name


def notes(result: Result) -> str:
    """Return the tests that failed and the packages that were missing, as paragraphs; empty if there are none."""
    found = []
    if result.failed:
        found += ["Failed:", "\n".join(f"- `{name}`" for name in result.failed)]
    if result.without:
        names = ", ".join(result.without)
        found.append(f"There are no wheels of {names} for {result.name}: tests that need these are among the skipped.")
    return "\n\n".join(found)


def page(results: list[Result], before: str) -> str:
    """Return docs/pythons.md with these results, and with those that the page had before of other Pythons."""
    rows = {row[1]: row[0] for row in re.finditer(r"^\| (3\.\d+t?) \|.*$", before, re.MULTILINE)}
    _, *found = re.split(r"^## (.+)\n", before, flags=re.MULTILINE)
    sections = {name: text.strip() for name, text in zip(found[::2], found[1::2], strict=True)}
    for result in results:
        rows[result.name] = f"| {result.name} | {result.version} | {result.date} | {result.outcome} |"
        sections[result.name] = notes(result)
    lines = [
        f"{HEAD}| Python | version | date | result |",
        "|---|---|---|---|",
        *(rows[name] for name in sorted(rows, key=order)),
    ]
    lines += [f"\n## {name}\n\n{sections[name]}" for name in sorted(sections, key=order) if sections[name]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make test-pythons", description="Run the tests on several Pythons.")
    parser.add_argument("names", nargs="*", help="Pythons, like 3.12 or 3.13t; all that are here if none is named")
    parser.add_argument(
        "--get", action="store_true", help="get Debian's newest Pythons and build 3.13t before, as root"
    )
    parser.add_argument("--pytest", metavar="OPTIONS", default="", help="options for pytest")
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    if arguments.get:
        get()
    pythons = [python for python in found() if not arguments.names or python.name in arguments.names]
    if missing := set(arguments.names) - {python.name for python in pythons}:
        sys.exit(f"Not here: {', '.join(sorted(missing))}. There are: {', '.join(python.name for python in found())}")
    results = [run(python, arguments.pytest.split()) for python in pythons]
    if not arguments.pytest:
        PAGE.write_text(page(results, PAGE.read_text()))
    sys.exit(any(result.failed or "passed" not in result.outcome for result in results))


if __name__ == "__main__":
    main()
