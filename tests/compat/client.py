"""Run the checks of a product against a URL, with its own packages, and print the answers as JSON.

    python -m tests.compat.client PRODUCT prepare       before any server starts
    python -m tests.compat.client PRODUCT check URL     once for each server

A check is a function `check_…(site)` of the product's module. It returns the answer, or raises.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from tests.compat import PRODUCTS

LIMIT = 90
"""Seconds for a response or a program."""
SHORT = 200
"""Texts up to this length are shown in an answer; of longer contents their length and hash are."""


class Site:
    """A URL, a folder for files, and an HTTP client for checks that need no other one."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.port = int(url.rpartition(":")[2])
        self.tls = url.startswith("https:")

    @cached_property
    def session(self) -> Any:
        """A session of requests. It takes the CA from REQUESTS_CA_BUNDLE."""
        import requests

        return requests.Session()

    def ask(self, path: str, method: str = "GET", *, fails: bool = False, **options: Any) -> Any:
        """Send a request to a path, and return the response of requests; AssertionError for an unexpected status 500."""
        response = self.session.request(method, self.url + path, timeout=LIMIT, **options)
        assert fails or response.status_code != 500, f"500 for {method} {path}: {response.text}"
        return response

    def seen(
        self, path: str, method: str = "GET", *, fields: tuple[str, ...] = ("Content-Type",), **options: Any
    ) -> Any:
        """Send a request, and return the status, some fields and the content of the response."""
        response = self.ask(path, method, **options)
        return [response.status_code, *(response.headers.get(name) for name in fields), self.shown(response.content)]

    def shown(self, content: bytes) -> str:
        """Return a short content as text, without our own URL; of a long one its length and hash."""
        for own in (self.url, self.url.partition("//")[2]):
            content = content.replace(own.encode(), b"SITE")
        return described(content) if len(content) > SHORT else content.decode("utf-8", "replace")

    def run(self, *words: str, status: int = 0, **options: Any) -> str:
        """Run a program in the folder, and return its output; AssertionError if it fails."""
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, timeout=LIMIT, check=False, **options
        )
        assert done.returncode == status, f"{words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
        output: str = done.stdout
        return output

    def file(self, name: str, size: int) -> Path:
        """Return a file of this size, which is made unless it is there."""
        path = self.folder / name
        if not path.exists() or path.stat().st_size != size:
            path.write_bytes(content(size))
        return path


def content(size: int) -> bytes:
    """Return bytes that are the same in every run."""
    block = b"".join(sha256(bytes([number])).digest() for number in range(256))
    return (block * (size // len(block) + 1))[:size]


def described(data: bytes) -> str:
    """Return the length of data and the start of its hash."""
    return f"{len(data)} {sha256(data).hexdigest()[:12]}"


def pieces(data: bytes, size: int = 50_000) -> Iterator[bytes]:
    """Yield data in pieces: a client that gets an iterator sends it chunked."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def versions(requirements: list[str]) -> dict[str, str]:
    """Return the installed versions of these requirements."""
    names = [re.split(r"[\[<>=!;~ @]", line)[0] for line in requirements]
    return {name: metadata.version(name) for name in names}


def answer(check: Any, site: Site) -> Any:
    """Return what a check returns, or how it failed."""
    try:
        return check(site)
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        return f"FAILED: {type(error).__name__}: {lines[0][:SHORT]}"


def main() -> None:
    name, task, *arguments = sys.argv[1:]
    product = import_module(f"{PRODUCTS}.{name}")
    folder = Path(os.environ["COMPAT_FOLDER"])
    if task == "prepare":
        getattr(product, "prepare", lambda _: None)(folder)
        print(json.dumps(versions([*product.PACKAGES, *json.loads(arguments[0])])))
        return
    checks = [function for key, function in vars(product).items() if key.startswith("check_")]
    print(
        json.dumps(
            {check.__name__.removeprefix("check_"): answer(check, Site(arguments[0], folder)) for check in checks}
        )
    )


if __name__ == "__main__":
    main()
