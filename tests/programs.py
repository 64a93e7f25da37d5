"""Programs that some tests need and not every machine has: without them these tests are skipped, but fail in CI."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import NoReturn

import pytest

VARIABLE = "MICROWSGI_TEST_REQUIRE"
REQUIRED = os.environ.pop(VARIABLE, "").split(",")
"""Names of what must be there, or `all`; taken away, since a server that the tests start would find no such option."""
NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
"""Programs that are called differently from system to system."""


def absent(name: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it if it was asked for that it runs."""
    if name in REQUIRED or "all" in REQUIRED:
        pytest.fail(f"{reason} ({VARIABLE} asks for {name})")
    pytest.skip(reason, allow_module_level=True)


def need(name: str) -> str:
    """The path of a program; a test that calls this does not run without it."""
    for alias in NAMES.get(name, (name,)):
        if path := shutil.which(alias):
            return path
    absent(name, f"{name} is not installed")


def need_package(*names: str) -> None:
    """Skip the running test, or the whole module, if a package is missing: some have no wheels for some Pythons."""
    for name in names:
        if find_spec(name) is None:
            absent(name, f"{name} is not installed")
