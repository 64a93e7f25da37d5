"""`microwsgi routes`: list the routes of an App."""

from __future__ import annotations

import json
from typing import Any

from microwsgi.errors import UsageError
from microwsgi.framework.app import App
from microwsgi.serving.loader import load_named


def routes_command(words: list[str], given: dict[str, Any]) -> int:
    """Run `microwsgi routes`. Raises UsageError, also for an application that is not an App."""
    if len(words) > 1:
        raise UsageError(f"expected one application, not {len(words)}: {' '.join(words)}.")
    name, application = load_named(words[0] if words else None, given.get("app_dir", "."))
    if not isinstance(application, App):
        kind = type(application).__name__
        raise UsageError(f"{name} is a {kind}: only the routes of a microwsgi.App can be listed.")
    print(as_json(application) if given["json"] else as_lines(application))
    return 0


def as_lines(app: App) -> str:
    """Return a line for each route, sorted by path."""
    rows = [(" ".join(each.methods), each.pattern.text, each.name, each.location) for each in app.routes]
    rows = [("METHOD", "PATH", "VIEW", "LOCATION"), *sorted(rows, key=lambda row: (row[1], row[0]))]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_json(app: App) -> str:
    """Return the routes as JSON."""
    rows = [
        {"methods": route.methods, "path": route.pattern.text, "name": route.name, "location": route.location}
        for route in app.routes
    ]
    return json.dumps(rows, indent=2)
