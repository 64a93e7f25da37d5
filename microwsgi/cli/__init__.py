"""The command line."""

from __future__ import annotations

from microwsgi.cli.program import main

__all__ = ["main"]
