"""How many generated examples a run tries: fewer if it leaves out the tests marked slow (`make test`)."""

from __future__ import annotations

quick = False
"""Set by tests/conftest.py before the tests are imported."""


def examples(count: int) -> int:
    """Return the number of examples for a property that `make test-all` tries `count` times."""
    return max(count // 5, 30) if quick else count
