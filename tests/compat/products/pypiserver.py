"""pypiserver: twine uploads a wheel, pip installs it."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from tests.compat.client import Site, content

PACKAGES = ["pypiserver", "twine"]
PIP = (getattr(sys, "_base_executable", sys.executable), "-m", "pip", "--disable-pip-version-check", "--isolated")


def application(folder: Path) -> Any:
    from pypiserver import app

    (folder / "packages").mkdir(exist_ok=True)
    return app(roots=[folder / "packages"], authenticate=[], password_file=".", overwrite=True)


def wheel(folder: Path, version: str) -> Path:
    """Write a wheel with a file of 3 MB."""
    path = folder / f"exemplar-{version}-py3-none-any.whl"
    files = {
        "exemplar.bin": content(3_000_000),
        f"exemplar-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: exemplar\nVersion: {version}\n".encode(),
        f"exemplar-{version}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"exemplar-{version}.dist-info/RECORD"
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}"
        for name, data in files.items()
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, record: "\n".join([*lines, f"{record},,", ""]).encode()}.items():
            archive.writestr(name, data)
    return path


def check_twine_and_pip(site: Site) -> Any:
    version = f"1.{site.port}"
    made = wheel(site.folder, version)
    twine = (sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar")
    site.run(*twine, "--repository-url", f"{site.url}/", "-u", "a", "-p", "a", str(made))
    shutil.rmtree(site.folder / "target", ignore_errors=True)
    options = ("--no-deps", "--no-cache-dir", "--target", "target", "--index-url", f"{site.url}/simple/")
    certificate = ("--cert", os.environ["SSL_CERT_FILE"]) if site.tls else ()
    site.run(*PIP, "install", "-q", *options, *certificate, f"exemplar=={version}")
    return (site.folder / "target" / "exemplar.bin").stat().st_size
