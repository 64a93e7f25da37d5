"""Dulwich, git in Python over HTTP: push of 8 MB and clone by git itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["dulwich"]
PROGRAMS = ["git"]
CORE = True
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")


def prepare(folder: Path) -> None:
    from dulwich.repo import Repo

    Repo.init_bare(str(folder / "repository"), mkdir=True)


def application(folder: Path) -> Any:
    from dulwich.repo import Repo
    from dulwich.server import DictBackend
    from dulwich.web import make_wsgi_chain

    return make_wsgi_chain(DictBackend({"/repository.git": Repo(str(folder / "repository"))}))


def push_and_clone(site: Site, path: str) -> Any:
    """Push a large file to a branch of this run (git sends what exceeds 1 MiB in chunks), and clone that."""
    for name in ("work", "clone"):
        shutil.rmtree(site.folder / name, ignore_errors=True)
    url, branch = site.url + path, f"b{site.port}"
    site.run(*GIT, "init", "-q", "work")
    (site.folder / "work" / "large").write_bytes(os.urandom(8_000_000))
    site.run(*GIT, "-C", "work", "-c", "core.compression=0", "add", "large")
    site.run(*GIT, "-C", "work", "commit", "-qm", "large")
    site.run(
        *GIT,
        "-C",
        "work",
        "-c",
        "pack.compression=0",
        "-c",
        "pack.window=0",
        "push",
        "-q",
        url,
        f"HEAD:refs/heads/{branch}",
    )
    site.run(*GIT, "clone", "-q", "--branch", branch, url, "clone")
    return (site.folder / "work" / "large").read_bytes() == (site.folder / "clone" / "large").read_bytes()


def check_push_and_clone(site: Site) -> Any:
    return push_and_clone(site, "/repository.git")
