"""`microwsgi dev`: `microwsgi serve` with what helps while an application is written."""

from __future__ import annotations

from collections.abc import Mapping

from microwsgi.serving import serve_command

SWITCHES: Mapping[str, object] = {"reload": True, "debug": True, "slow": 5.0}
"""Options that hold unless the command line or the environment says otherwise."""


def dev_command(words: list[str], given: dict[str, object]) -> int:
    """`microwsgi dev`. Raises UsageError."""
    return serve_command(words, {**SWITCHES, **given})
