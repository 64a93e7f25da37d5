"""Programs that some tests use and not every machine has: those tests say so and are skipped, but in CI they fail."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "MICROWSGI_TEST_REQUIRE"
"""Environment variable: names with commas between, or `all`, of what must be there."""
NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
"""Programs that are called differently from system to system."""


def absent(name: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it if it was asked for that it runs."""
    required = os.environ.get(REQUIRED, "").split(",")
    if name in required or "all" in required:
        pytest.fail(f"{reason} ({REQUIRED} asks for {name})")
    pytest.skip(reason)


def need(name: str) -> str:
    """The path of a program; a test that calls this does not run without it."""
    for alias in NAMES.get(name, (name,)):
        if path := shutil.which(alias):
            return path
    absent(name, f"{name} is not installed")
