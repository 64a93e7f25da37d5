"""Run the products on the servers, compare the answers, and write docs/compatibility.md.

    python -m tests.compat                all products, and the page
    python -m tests.compat core           the core on four servers, as CI does; no page
    python -m tests.compat flask django   these products; the page keeps the last results of the others
    python -m tests.compat --on serve,gthread flask

For each product: main → environment (a venv in .venv-compat) → client prepare → on each server: running, client check → judge.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import pkgutil
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import dev
from tests.compat import PRODUCTS, products
from tests.compat.page import page
from tests.compat.servers import OURS, PEERS, SERVERS, debian_version, running
from tests.running import ROOT, environment

CACHE = ROOT / ".venv-compat"
PAGE = ROOT / "docs" / "compatibility.md"
RESULTS = CACHE / "results"
CORE_SERVERS = "serve,tls,gthread,waitress"
BASE = ["WebOb", "requests"]
LIMIT = 400
"""Seconds for all checks of a product on one server."""

Answers = dict[str, Any]
"""The name of a check and its answer."""


class Result(NamedTuple):
    """What was found for a product."""

    name: str
    summary: str
    versions: dict[str, str]
    answers: dict[str, Answers]
    """By server."""
    differences: list[tuple[str, str, str]]
    """Server, check, and the reason that the product's module gives."""
    faults: list[str]
    """Differences without a reason."""
    left_out: str = ""
    """Why the product was not run at all."""
    date: str = ""


def summary_of(name: str, module: ModuleType) -> str:
    """Return what a product is: the first line of its module."""
    return (module.__doc__ or name).strip().splitlines()[0]


def product_modules(names: list[str]) -> dict[str, ModuleType]:
    """Return the modules of the products that were asked for; `core` stands for those marked CORE."""
    known = {info.name: import_module(f"{PRODUCTS}.{info.name}") for info in pkgutil.iter_modules(products.__path__)}
    unknown = [name for name in names if name not in known and name != "core"]
    if unknown:
        sys.exit(f"Unknown product: {', '.join(unknown)}. There are: {', '.join(known)}")
    core = "core" in names
    return {
        name: module
        for name, module in known.items()
        if not names or name in names or (core and getattr(module, "CORE", False))
    }


def venv(name: str, requirements: list[str]) -> Path:
    """Return the Python of the product's venv, which is made if it is not there or its requirements have changed."""
    folder = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = folder / "bin" / "python", folder / "stamp"
    wanted = hashlib.sha256(f"{sys.version}\n{ROOT}\n{sorted(requirements)}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([str(dev.BASE), "-m", "venv", "--without-pip", "--clear", str(folder)], check=True)
    complaint = dev.pip(requirements, str(python))
    if complaint:
        raise RuntimeError(f"not installed: {dev.reasons(complaint)[0]}")
    stamp.write_text(wanted)
    return python


def variables(name: str, folder: Path) -> dict[str, str]:
    """Return the environment variables of servers and clients. One folder has the CA of all runs with --tls."""
    (folder / name).mkdir(exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    data = CACHE / "data"
    certificate = str(data / "microwsgi" / "ca.pem")
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
    return environment(
        COMPAT_PRODUCT=name,
        COMPAT_FOLDER=str(folder / name),
        HOME=str(folder / "home"),
        XDG_DATA_HOME=str(data),
        NO_PROXY="*",
        PYTHONHASHSEED="0",  # Allow fields and the like are joined sets
        **dict.fromkeys(names, certificate),
    )


def client(python: Path, variables: dict[str, str], *words: str) -> Any:
    """Run tests.compat.client in the venv of the product, and return what it printed last."""
    command = [str(python), "-m", "tests.compat.client", variables["COMPAT_PRODUCT"], *words]
    done = subprocess.run(
        command,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=variables["COMPAT_FOLDER"],
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    if os.environ.get("COMPAT_VERBOSE"):
        print(done.stderr, file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def answers_on(server: str, name: str, python: Path, folder: Path) -> Answers:
    """Return the answers on a server. One that does not start is an answer, too; tracebacks in its log are one."""
    log = folder / f"{server}.log"
    own = variables(name, folder)
    try:
        with running(SERVERS[server], python, own, log) as url:
            found: Answers = client(python, own, "check", url)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"start": f"FAILED: {error}"}
    text = log.read_text(errors="replace")
    if "Traceback (most recent call last)" in text:
        found["tracebacks"] = "in the log"
        keep = CACHE / "logs" / f"{name}-{server}.log"
        keep.parent.mkdir(exist_ok=True)
        shutil.copy(log, keep)
    return found


def shortened(answer: Any) -> str:
    """Return an answer as text for a message."""
    text = repr(answer)
    return text if len(text) < 1000 or os.environ.get("COMPAT_VERBOSE") else f"{text[:1000]} ..."


def judge(module: ModuleType, answers: dict[str, Answers]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the differences that have a reason, and those that have none.

    An answer of ours is right if it is no failure, and equal to that of one of the peers that have not failed. Where the
    product is ours, the answers of all other servers are compared with those of the server in REFERENCE.
    """
    reasons: dict[str, str] = getattr(module, "DIFFERENCES", {})
    reference = getattr(module, "REFERENCE", "")
    judged = [server for server in answers if SERVERS[server].ours]
    if reference:
        judged = [*answers]
    others = {server: found for server, found in answers.items() if server == reference or server not in judged}
    others = {server: found for server, found in others.items() if "start" not in found}
    explained, faults = [], []
    for server in judged:
        for check, found in answers[server].items():
            failed = isinstance(found, str) and found.startswith("FAILED")
            theirs = {name: found.get(check) for name, found in others.items()}
            passed = [other for other in theirs.values() if not str(other).startswith("FAILED")]
            same = found in passed or not passed
            if failed or not same:
                reason = reasons.get(f"{check} on {server}") or reasons.get(check)
                if reason:
                    explained.append((server, check, reason))
                else:
                    faults.append(f"{check} on {server}: {shortened(found)}; the others: {shortened(theirs)}")
    return explained, faults


def run(name: str, module: ModuleType, servers: list[str]) -> Result:
    """Run a product on these servers, or without any on those that its module names."""
    start = time.monotonic()
    usual: list[str] = getattr(module, "SERVERS", [*OURS, *PEERS])
    debian = {server: debian_version(SERVERS[server].debian) for server in usual if SERVERS[server].debian}
    usual = [server for server in usual if debian.get(server, "here")]
    own = [server for server in usual if server in servers or not servers] or usual
    requirements = [*BASE, *(SERVERS[server].package for server in usual if SERVERS[server].package)]
    summary = summary_of(name, module)
    missing = [program for program in getattr(module, "PROGRAMS", []) if shutil.which(program) is None]
    with tempfile.TemporaryDirectory(prefix=f"compat-{name}-") as temporary:
        folder = Path(temporary)
        try:
            if missing:
                raise RuntimeError(f"{', '.join(missing)} is not installed")
            python = venv(name, [*requirements, *module.PACKAGES])
            used = client(python, variables(name, folder), "prepare", json.dumps(sorted({*requirements} - {*BASE})))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{name}: left out: {error}", flush=True)
            return Result(name, summary, {}, {}, [], [], str(error))
        answers = {server: answers_on(server, name, python, folder) for server in own}
    used |= {server: version or "not installed" for server, version in debian.items()}
    explained, faults = judge(module, answers)
    count = max(map(len, answers.values()))
    print(f"{name}: {count} checks, {len(faults)} faults, {time.monotonic() - start:.0f} s", flush=True)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    for fault in faults:
        print(f"  {fault}", flush=True)
    return Result(name, summary, used, answers, explained, faults, date=today)


def keep(result: Result) -> Result:
    """Store a result, for the page: a run of some products leaves the others' as they are."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{result.name}.json").write_text(json.dumps(result._asdict()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make compat", description="Run real products on microwsgi and on other servers."
    )
    parser.add_argument("names", nargs="*", help="products; core for those that CI runs; all if none is named")
    parser.add_argument("--on", metavar="SERVERS", help=f"comma-separated, of {', '.join(SERVERS)}")
    parser.add_argument("--jobs", type=int, default=2, help="products that run at the same time (2)")
    arguments = parser.parse_args()
    on = arguments.on or (CORE_SERVERS if "core" in arguments.names else "")
    servers = on.split(",") if on else []
    modules = product_modules(arguments.names)
    CACHE.mkdir(exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        store = (lambda result: result) if servers else keep
        results = list(pool.map(lambda item: store(run(item[0], item[1], servers)), modules.items()))
    if not servers:
        kept = [Result(**json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
        system = f"Python {platform.python_version()}, {platform.system()}"
        known = product_modules([])
        kept = [result for result in kept if result.name in known]
        missing = [name for name in known if name not in {result.name for result in kept}]
        kept += [Result(name, summary_of(name, known[name]), {}, {}, [], [], "No run is recorded.") for name in missing]
        PAGE.write_text(page(sorted(kept), system, PAGE.read_text()))
    faults = sum(len(result.faults) for result in results)
    left_out = [result.name for result in results if result.left_out]
    print(f"{len(results)} products, {faults} faults; left out: {', '.join(left_out) or 'none'}")
    required = os.environ.get("MICROWSGI_TEST_REQUIRE") == "all" or {*arguments.names} & {*left_out}
    sys.exit(bool(faults or (required and left_out)))


if __name__ == "__main__":
    main()
