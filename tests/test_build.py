"""What is published: a wheel with the package and nothing else, an sdist that builds the same wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.request import urlopen

import pytest

import dev
from microwsgi import __version__
from tests.programs import absent
from tests.running import ROOT, Running, environment

pytestmark = pytest.mark.slow  # builds wheels

BUILD = "import sys; from flit_core import buildapi; print(getattr(buildapi, sys.argv[1])(sys.argv[2]))"


def build(kind: str, source: Path, target: Path) -> Path:
    """The path of the `wheel` or `sdist` that flit makes of a source tree."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(target)]
    return target / subprocess.run(command, cwd=source, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"microwsgi-{__version__}"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    files = [path for path in (ROOT / "microwsgi").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    metadata = f"microwsgi-{__version__}.dist-info"
    assert set(contents(wheel)) == {path.relative_to(ROOT).as_posix() for path in files} | {
        f"{metadata}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }


def test_the_metadata_is_the_packages_own(wheel: Path) -> None:
    metadata = contents(wheel)[f"microwsgi-{__version__}.dist-info/METADATA"].decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert [line for line in required if "extra ==" not in line] == ["Requires-Dist: WebOb>=1.8.9"]
    assert 'Requires-Dist: cryptography>=42 ; extra == "tls"' in required
    assert {line.partition("extra == ")[2].strip('"') for line in required} - {""} == {"apps", "bench", "redis", "tls"}
    assert "Requires-Python: >=3.11" in metadata
    assert f"Version: {__version__}" in metadata


@pytest.mark.slow
def test_pytest_finds_the_fixtures_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """By the entry point: nobody names the plugin."""
    installed, project = tmp_path / "installed", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)  # noqa: S202 - our own
    project.mkdir()
    (project / "hello.py").write_text("from webob import Response\napp = Response(text='hello')\n")
    (project / "pytest.ini").write_text("[pytest]\nmicrowsgi_app = hello:app\n")
    (project / "test_hello.py").write_text(
        "import microwsgi\n\n\ndef test_hello(client, live_server):\n    client.get('/').expect(200, text='hello')\n"
        f"    assert microwsgi.__file__.startswith({str(installed)!r})\n    assert live_server.port\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        check=False, cwd=project, env=environment(PYTHONPATH=str(installed)), capture_output=True, text=True,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def files(root: Path) -> set[str]:
    """All files of the folders that a checkout has, without what running them leaves there."""
    return {
        path.relative_to(root).as_posix()
        for folder in ("apps", "benchmarks", "docs", "microwsgi", "tests")
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and root / "benchmarks" / "out" not in path.parents
    }


@pytest.mark.slow
def test_the_sdist_can_be_tested_measured_and_run(sdist: Path) -> None:
    """The tests import the benchmarks, so one without the other is no use."""
    assert {path.name for path in sdist.iterdir()} == {
        "CHANGELOG.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "apps", "benchmarks", "deploy", "dev.py",
        "docs", "microwsgi", "pyproject.toml", "tests",
    }  # fmt: skip
    assert files(sdist) == files(ROOT)
    assert not list(sdist.rglob("*.pyc"))
    assert not (sdist / "benchmarks" / "out").exists()


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build("wheel", sdist, tmp_path)) == contents(wheel)


@pytest.mark.slow
def test_two_builds_are_equal(sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SOURCE_DATE_EPOCH, which `make build` sets: the times of files differ from one checkout to the next."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for kind in ("wheel", "sdist"):
        for name in ("first", "second"):
            (tmp_path / kind / name).mkdir(parents=True)
        first = build(kind, sdist, tmp_path / kind / "first")
        for number, path in enumerate(sorted(sdist.rglob("*.py"))):
            os.utime(path, (number, 1_600_000_000 + number))
        assert build(kind, sdist, tmp_path / kind / "second").read_bytes() == first.read_bytes()


@pytest.mark.slow
def test_the_installed_wheel_serves_an_application_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "empty", tmp_path / "elsewhere"
    subprocess.run([dev.BASE, "-m", "venv", "--without-pip", environment], check=True)
    if complaint := dev.pip([str(wheel)], str(environment / "bin" / "python")):
        absent("network", f"pip can't install the wheel and WebOb here: {complaint.splitlines()[-1]}")
    folder.mkdir()
    (folder / "hello.py").write_text("from webob import Response\napp = Response(text='from elsewhere')\n")
    command = [str(environment / "bin" / "microwsgi"), "serve", "hello:app", "--port", "0"]
    server = Running(command, cwd=folder, PYTHONPATH="")
    try:
        with urlopen(server.url()) as response:  # noqa: S310 - ours
            assert response.read() == b"from elsewhere"
    finally:
        server.end()
