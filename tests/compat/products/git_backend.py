"""git http-backend, a CGI program, behind a small bridge: push of 8 MB and clone by git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.compat.client import Site
from tests.compat.products.dulwich import push_and_clone

PACKAGES: list[str] = []
PROGRAMS = ["git"]


def prepare(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", folder / "repository.git"], check=True)
    subprocess.run(["git", "-C", folder / "repository.git", "config", "http.receivepack", "true"], check=True)


def application(folder: Path) -> Any:
    def bridge(environ: dict[str, Any], start_response: Any) -> Any:
        own = {"GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH": os.environ["PATH"]}
        variables = {key: value for key, value in environ.items() if isinstance(value, str) and "." not in key}
        program = subprocess.Popen(
            ["git", "http-backend"], env={**variables, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert program.stdin is not None
        assert program.stdout is not None
        while data := environ["wsgi.input"].read(65_536):
            program.stdin.write(data)
        program.stdin.close()
        fields: list[tuple[str, str]] = []
        while line := program.stdout.readline().decode().strip():
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
        status = dict(fields).get("Status", "200 OK")
        start_response(status, [field for field in fields if field[0] != "Status"])
        yield from iter(lambda: program.stdout.read(65_536), b"")  # type: ignore[union-attr]
        program.wait()

    return bridge


def check_push_and_clone(site: Site) -> Any:
    return push_and_clone(site, "/repository.git")
