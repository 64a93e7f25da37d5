"""hgweb, Mercurial over HTTP: clone and push by Debian's hg."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["mercurial"]
PROGRAMS = ["hg"]
HG = ("hg", "--noninteractive", "--config", "ui.username=a")
DIFFERENCES: dict[str, str] = {}


def prepare(folder: Path) -> None:
    import subprocess

    subprocess.run(["hg", "init", str(folder / "repository")], check=True)
    (folder / "config").write_text(
        f"[paths]\n/ = {folder}/repository\n[web]\npush_ssl = false\nallow_push = *\nallow_read = *\n"
    )


def application(folder: Path) -> Any:
    from mercurial.hgweb import hgweb

    return hgweb(str(folder / "config").encode())


def check_push_and_clone(site: Site) -> Any:
    for name in ("work", "clone"):
        shutil.rmtree(site.folder / name, ignore_errors=True)
    hg = (*HG, "--config", f"web.cacerts={os.environ['SSL_CERT_FILE']}") if site.tls else HG
    site.run(*hg, "clone", "-q", site.url, "work")
    (site.folder / "work" / f"large{site.port}").write_bytes(os.urandom(3_000_000))
    site.run(*hg, "-R", "work", "commit", "-qA", "-m", f"large {site.port}")
    site.run(*hg, "-R", "work", "push", "-q", site.url)
    site.run(*hg, "clone", "-q", site.url, "clone")
    return [(site.folder / name / f"large{site.port}").stat().st_size for name in ("work", "clone")]


def check_pages(site: Site) -> Any:
    return [
        site.ask(path).status_code
        for path in ("/", "/file/tip", "/log?style=raw", "/missing", "/static/style-paper.css")
    ]
