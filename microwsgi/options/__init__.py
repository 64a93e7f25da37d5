"""The options: their declaration, the kinds of their values, and the places where they are set."""

from __future__ import annotations

from microwsgi.options.declaration import Options

__all__ = ["Options"]
