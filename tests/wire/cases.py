"""The wire cases: `cases/{accepted,refused}/NAME.http` with NAME.json beside it, whose format cases/README.md describes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_suffix("")


class Case(NamedTuple):
    """One connection's bytes, and what has to come of them."""

    name: str
    data: bytes
    rule: str
    section: str
    requests: list[dict[str, Any]]
    """What is accepted; unknown for a refused case, where only `after` counts them."""
    status: int | None
    """The status code of the refusal; None for an accepted case."""
    after: int
    options: dict[str, Any]

    @property
    def persistent(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.status is None and all(request["persistent"] for request in self.requests)


def load(path: Path) -> Case:
    """The case of one .http file."""
    expected = json.loads(path.with_suffix(".json").read_text())
    requests = expected.get("requests", [])
    return Case(
        name=path.stem,
        data=path.read_bytes(),
        rule=expected["rule"],
        section=expected["section"],
        requests=requests,
        status=expected.get("status"),
        after=expected.get("after", len(requests)),
        options=expected.get("options", {}),
    )


@cache
def cases(kind: str) -> tuple[Case, ...]:
    """All cases of a kind, "accepted" or "refused", sorted by name."""
    return tuple(load(path) for path in sorted((FOLDER / kind).glob("*.http")))
