"""The probing applications with a configuration of a test's own."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


def loaded(module: str, config: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`apps.probe` or `apps.path`, imported anew."""
    (folder / "probe.toml").write_text(config, encoding="utf-8")
    monkeypatch.setenv("PROBE_CONFIG", str(folder / "probe.toml"))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return import_module(module)
