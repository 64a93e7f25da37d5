"""`microwsgi routes`."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.running import Running


def test_the_table_has_a_line_for_each_route(command: Callable[..., Running]) -> None:
    running = command("routes", "apps.hello:app")
    assert running.wait() == 0
    header, first, second = running.output.splitlines()
    assert header.split() == ["METHOD", "PATH", "VIEW", "LOCATION"]
    assert first.split()[:3] == ["GET", "/", "index"]
    assert second.split()[:3] == ["GET", "/hello/{name}", "hello"]
    assert second.split()[3].startswith("apps/hello.py:")


def test_the_values(command: Callable[..., Running]) -> None:
    running = command("routes", "apps.hello:app", "--json")
    assert running.wait() == 0
    assert [row["path"] for row in json.loads(running.output)] == ["/", "/hello/{name}"]


def test_what_is_no_app_says_so(command: Callable[..., Running]) -> None:
    running = command("routes", "apps.echo:app")
    assert running.wait() == 2
    assert "only the routes of a microwsgi.App can be listed" in running.output
