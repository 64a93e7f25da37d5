"""dev.py: the two commands of the README, from a fresh clone, and what it says when something is missing."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

import dev
from tests.programs import absent, need
from tests.running import ROOT, Running, environment

SKIPPED = shutil.ignore_patterns(".*", "__pycache__", "dist", "build", "tests", "benchmarks")
"""What a start does not need."""
INSTALLING = 120
"""Seconds for a first start, on a slow network too."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean copy of the checkout, in a folder with a space in its name."""
    return shutil.copytree(ROOT, tmp_path / "a clone", ignore=SKIPPED)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that dev is pointed to, with an environment that has everything."""
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\ndev = ["pytest"]\nbench = ["bottle", "bjoern"]\n')
    for name, path in (("ROOT", ""), ("VENV", ".venv"), ("PYTHON", ".venv/python"), ("STAMP", ".venv/stamp")):
        monkeypatch.setattr(dev, name, str(tmp_path / path))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "python").touch()
    return tmp_path


def record(monkeypatch: pytest.MonkeyPatch, *complaints: str) -> list[object]:
    """What dev does, instead of doing it; pip complains like that."""
    done: list[object] = []
    said = iter(complaints)

    def pip(requirements: list[str]) -> str:
        done.append(requirements)
        return next(said, "")

    monkeypatch.setattr(dev, "make_venv", lambda: done.append("venv"))
    monkeypatch.setattr(dev, "pip", pip)
    monkeypatch.setattr(os, "execv", lambda path, arguments: done.append([path, *arguments[1:]]))
    return done


def python_that(folder: Path, name: str, script: str) -> str:
    """A program that passes for a Python."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_example_is_served_with_what_it_imports(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make serve APP=apps.netmon:app`: make passes its variables on as environment."""
    (bare / "pyproject.toml").write_text(
        '[project.optional-dependencies]\napps = ["psutil"]\n[dependency-groups]\ndev = []\n'
    )
    done = record(monkeypatch)
    monkeypatch.setenv("APP", "apps.netmon:app")
    dev.serve("--port", "0")
    assert done[-2] == ["--editable", ".", "psutil"]
    assert done[-1][1:] == ["serve", "apps.netmon:app", "--port", "0"]  # type: ignore[index]


def test_extras_and_groups_of_one_name_are_joined(bare: Path) -> None:
    (bare / "pyproject.toml").write_text(
        '[project.optional-dependencies]\nbench = ["bottle"]\n[dependency-groups]\nbench = ["bjoern"]\n'
    )
    assert dev.group("bench") == ["bottle", "bjoern"]
    with pytest.raises(LookupError):
        dev.group("nothing")


@pytest.mark.parametrize("changed", ["pyproject.toml", "python", "folder"])
def test_the_stamp_changes_with_what_the_environment_depends_on(
    bare: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    before = dev.stamp()
    assert dev.stamp() == before
    if changed == "pyproject.toml":
        (bare / changed).write_text("[project]\n")
    elif changed == "python":
        monkeypatch.setattr(sys, "version", "3.99")
    else:
        monkeypatch.setattr(dev, "ROOT", str(shutil.copytree(bare, bare / "moved")))
    assert dev.stamp() != before


def test_a_stamp_counts_only_if_it_is_this_one_and_the_environment_is_there(bare: Path) -> None:
    stamp = bare / ".venv" / "stamp"
    assert dev.installed("now") is None
    stamp.write_text("before\ndev")
    assert dev.installed("now") is None
    stamp.write_text("now\ndev")
    assert dev.installed("now") == ["dev"]
    (bare / ".venv" / "python").unlink()
    assert dev.installed("now") is None


def test_each_group_is_installed_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = record(monkeypatch)
    dev.prepare()
    assert done == ["venv", ["--editable", "."]]
    dev.prepare()
    dev.prepare("dev")
    assert done[2:] == [["--editable", ".", "pytest"]]
    dev.prepare("bench")
    dev.prepare("dev")
    dev.prepare()
    assert done[3:] == [["--editable", ".", "bottle", "bjoern"]]


def test_of_an_optional_group_what_fails_is_left_out_with_the_reason(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = record(monkeypatch, "", "", "Building\n  ev.h: fatal error: No such file\nnote: not pip's")
    dev.prepare(optional=["bench"])
    assert done[2:] == [["bottle"], ["bjoern"]]
    assert "  left out: ev.h: fatal error: No such file\n" in capsys.readouterr().out
    dev.prepare(optional=["bench"])
    assert len(done) == 4


def test_what_pip_could_not_install_is_said_with_the_cure_and_tried_again(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = record(monkeypatch, "\n".join(f"line {number}" for number in range(9)))
    monkeypatch.setattr(sys, "argv", ["dev.py", "test"])
    with pytest.raises(SystemExit) as error:
        dev.prepare("dev")
    assert str(error.value).splitlines() == [
        "pip could not install that:",
        *(f"  line {number}" for number in range(4, 9)),
        "Without a network, from a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make test",
    ]
    dev.prepare("dev")
    assert len(done) == 4


def test_an_environment_of_somebody_else_is_never_emptied(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ours() -> bool:
        """Whether making the environment would empty it."""
        run: list[str] = []
        monkeypatch.setattr(subprocess, "call", run.extend)
        dev.make_venv()
        return "--clear" in run

    assert not ours()
    (bare / ".venv" / "stamp").touch()
    assert ours()


@pytest.mark.parametrize("complaint", ["python: No module named pip", "no such option: --python"])
def test_a_python_without_a_pip_that_will_do_gives_the_environment_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    monkeypatch.setattr(dev, "BASE", python_that(tmp_path, "base", f"echo '{complaint}' >&2; exit 1"))
    inner = python_that(tmp_path, "inner", 'echo "$2" >>"$0.log"')
    assert dev.pip(["WebOb"], inner) == ""
    assert Path(inner + ".log").read_text().split() == ["ensurepip", "pip"]


def test_a_python_without_pip_and_ensurepip_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = python_that(tmp_path, "python", "echo 'python: No module named pip' >&2; exit 1")
    monkeypatch.setattr(dev, "BASE", nothing)
    with pytest.raises(
        SystemExit, match="neither pip nor ensurepip; on Debian and Ubuntu: sudo apt install python3-venv"
    ):
        dev.pip(["WebOb"], nothing)


def too_old(path: Path) -> str:
    """What dev.py says to a Python 3.8 with this on PATH."""
    pretend = (
        f"import sys, runpy; sys.version_info = (3, 8, 18); sys.argv[1:] = ['serve']; runpy.run_path({dev.__file__!r})"
    )
    command = [sys.executable, "-c", pretend]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": str(path)})
    assert done.returncode == 1
    return done.stderr


def test_an_old_python_is_told_of_a_newer_one_that_runs(tmp_path: Path) -> None:
    assert too_old(tmp_path) == "microwsgi needs Python 3.11 or newer, and this is 3.8.18. There is none on PATH.\n"
    python_that(tmp_path, "python3.12", "exit 0")
    python_that(tmp_path, "python3.13", "echo 'pyenv: not active' >&2; exit 127")
    assert too_old(tmp_path) == (
        "microwsgi needs Python 3.11 or newer, and this is 3.8.18. Try: make serve PYTHON=python3.12\n"
    )


def test_an_old_python_can_read_the_file() -> None:
    """RHEL 8 still calls its Python 3.6 python3."""
    ast.parse(Path(dev.__file__).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("command", "became"),
    [
        (["serve", "--port", "0"], ["bin/microwsgi", "serve", "apps.echo:app", "--port", "0"]),
        (["serve", "hello:app", "--port", "0"], ["bin/microwsgi", "serve", "hello:app", "--port", "0"]),
        (["test", "-k", "a or b"], ["python", "-m", "pytest", *dev.PARALLEL, *dev.QUICK, "-k", "a or b"]),
        (["test-all", "-x"], ["python", "-m", "pytest", *dev.PARALLEL, "-x"]),
        (["soak"], ["python", "-m", "pytest", "-m", "soak"]),
        (["bench", "stack"], ["python", "-m", "benchmarks", "stack"]),
    ],
)
def test_arguments_are_passed_on(
    bare: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], became: list[str]
) -> None:
    done = record(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["dev.py", *command])
    monkeypatch.chdir(bare)
    dev.main()
    assert done[-1] == [str(bare / ".venv" / became[0]), *became[1:]]


def test_where_everything_is_required_the_tests_get_the_peers_too(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = record(monkeypatch)
    monkeypatch.setenv("MICROWSGI_TEST_REQUIRE", "all")
    dev.test()
    assert done[:-1] == ["venv", ["--editable", ".", "pytest"], ["bottle"], ["bjoern"]]


def test_make_passes_arguments_on() -> None:
    make = [need("make"), "--no-print-directory", "PYTHON=echo", "test", "ARGS=-x -k 'a or b'"]
    done = subprocess.run(make, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert done.stdout == "dev.py test -x -k a or b\n"


def test_make_alone_lists_the_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make = [need("make"), "--no-print-directory", f"PYTHON={sys.executable}"]
    done = subprocess.run(make, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == list(dev.COMMANDS)


def test_an_unknown_command_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dev.py", "tset"])
    with pytest.raises(SystemExit, match="There is no tset; there are:"):
        dev.main()


def test_check_runs_everything_and_names_what_failed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch)
    run: list[str] = []

    def call(command: list[str]) -> int:
        run.append(command[2])
        return int(command[2] == "mypy" or "--check" in command)

    monkeypatch.setattr(subprocess, "call", call)
    with pytest.raises(SystemExit, match=r"^Failed: ruff format --check, mypy$"):
        dev.check()
    assert run == ["ruff", "ruff", "mypy", "pytest"]


def test_clean_removes_what_was_made_and_follows_no_link(bare: Path) -> None:
    (bare / "elsewhere").mkdir()
    (bare / "dist").symlink_to("elsewhere")
    (bare / ".coverage").touch()
    dev.clean()
    assert {path.name for path in bare.iterdir()} == {"pyproject.toml", "elsewhere"}


def started(clone: Path, *command: str) -> Running:
    """A command in the clean copy, by the Python that a newcomer has: not one that an environment is active for."""
    return Running([*command], cwd=clone, PYTHONPATH="", PATH=f"{Path(dev.BASE).parent}:{os.environ['PATH']}")


def first_url(server: Running) -> str:
    """Where it serves; no test when pip has no network."""
    try:
        return server.url(limit=INSTALLING)
    except AssertionError:
        if "pip could not install" in server.output:
            absent("network", f"pip can't install WebOb here:\n{server.output}")
        raise


@pytest.mark.slow
def test_make_serve_in_a_clean_copy(clone: Path) -> None:
    """Installs, serves, and stops by Ctrl-C with exit code 0; the second time it only serves."""
    server = started(clone, need("make"), "--no-print-directory", f"PYTHON={dev.BASE}", "serve", "ARGS=--port 0")
    try:
        with urlopen(first_url(server)) as response:  # noqa: S310 - ours
            assert b"<form" in response.read()
        assert any("Installing microwsgi, WebOb ..." in line for line in server.read_lines)
        for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGINT)
        assert server.wait() == 0
    finally:
        server.end()

    server = started(clone, dev.BASE, "dev.py", "serve", "--port", "0")
    try:
        with urlopen(server.url()) as response:  # noqa: S310 - ours
            assert response.status == 200
        assert "Installing" not in server.output
        assert server.stop(signal.SIGINT) == 0, "it became the server: the signal is its own"
    finally:
        server.end()
