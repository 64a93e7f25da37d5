"""The test suite of requests, over httpbin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.compat.client import LIMIT, Site

PACKAGES = ["requests[socks]", "httpbin~=0.10.0", "pytest-httpbin", "pytest-mock", "pytest<9", "trustme"]
SERVERS = ["serve", "workers", "gthread", "waitress"]
FOREIGN = "test_request_with_bytestring_host"
DIFFERENCES = {"a_foreign_host": "The test sends `Host: httpbin.org`, a name that microwsgi does not serve: 421."}
PLUGIN = """
import os, pytest
from pytest_httpbin.plugin import *
class Here:
    url = os.environ["HTTPBIN"]
@pytest.fixture
def httpbin():
    return Here
"""


def prepare(folder: Path) -> None:
    """Get the sdist, which has the tests, of the version that is installed."""
    from requests import __version__

    options = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d"]
    pip = [getattr(sys, "_base_executable", sys.executable), *options]
    variables = {key: value for key, value in os.environ.items() if "CA_BUNDLE" not in key and "SSL" not in key}
    subprocess.run([*pip, str(folder), f"requests=={__version__}"], check=True, env=variables)
    with tarfile.open(next(folder.glob("requests-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    (folder / "plugin.py").write_text(PLUGIN)


def application(folder: Path) -> Any:
    from httpbin import app

    return app


def pytest(site: Site, *words: str) -> list[str]:
    """Run the suite, and return the tests that failed and the number of those that passed."""
    options = ["-q", "-p", "no:httpbin", "-p", "plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *words]
    variables = {**os.environ, "HTTPBIN": site.url, "PYTHONPATH": f"{site.folder}:{os.environ['PYTHONPATH']}"}
    where = next(path for path in site.folder.glob("requests-*") if path.is_dir())
    done = subprocess.run(
        command, cwd=where, env=variables, capture_output=True, text=True, timeout=3 * LIMIT, check=False
    )
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    return [*sorted(failed), *re.findall(r"\d+ passed", done.stdout)]


def check_suite(site: Site) -> Any:
    return pytest(site, "-k", f"not {FOREIGN}")


def check_a_foreign_host(site: Site) -> Any:
    return pytest(site, "-k", FOREIGN)
