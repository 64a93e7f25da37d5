"""The probing applications with a configuration of a test's own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def loaded(module: str, config: str, folder: Path) -> Iterator[Any]:
    """`apps.probe` or `apps.path`, imported anew; their work ends with the `with`."""
    (folder / "probe.toml").write_text(config, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_CONFIG", str(folder / "probe.toml"))
        patch.delitem(sys.modules, module, raising=False)
        found: Any = import_module(module)
        work = found.prober if module == "apps.probe" else found.tracer
        try:
            yield found
        finally:
            work.background.stop()
            work.history.close()
