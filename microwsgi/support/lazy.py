"""Modules of the standard library that are imported when they are first used: `lazy.json.dumps(...)`.

Most starts of a server need none of them, and importing them would take 3 ms. Type checkers read `lazy.pyi`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Import a module (PEP 562), and store it, so that this is called only once for each module."""
    module = globals()[name] = import_module(name)
    return module
