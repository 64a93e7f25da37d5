"""The table of states and events in docs/architecture.md, from the code. `python -m tests.states` prints it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from microwsgi.server.compat import HandlerConnection
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.proxied import ProxiedConnection
from microwsgi.server.state import OWNED, READ, WRITE, State, Table
from microwsgi.tls.handshake import HandshakeConnection

KINDS: tuple[tuple[str, Table], ...] = (
    ("PROXY protocol", ProxiedConnection.table),
    ("TLS port", HandshakeConnection.table),
    ("WSGI", WSGIRequestHandler.table),
    ("handler class", HandlerConnection.table),
)
"""The kinds of connections, and their tables."""
INTERESTS = {READ: "read", WRITE: "write", 0: ""}


def name(method: Callable[..., object] | None) -> str:
    """A method as the table shows it."""
    return f"`{method.__name__}`" if method is not None else ""


def lines() -> list[str]:
    """The table in Markdown."""
    found = [
        "| connection | state | waits for | event | deadline | drain | evicted | handed off |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, table in KINDS:
        for state in sorted(table):
            row = table[state]
            cells = [name(row.on_event), name(row.on_deadline), name(row.on_drain)]
            order = {0: "", 1: "first", 2: "then"}[row.eviction_rank]
            ends = [order, "yes" if row.handoff else ""]
            found.append("| " + " | ".join([kind, state.name, INTERESTS[row.interest], *cells, *ends]) + " |")
    return [line.replace("|  |", "| |").replace("|  |", "| |") for line in found]


def undocumented() -> list[State]:
    """States that no table has: those of connections that a thread owns."""
    return [state for state in State if not any(state in table for _, table in KINDS)]


def docstrings() -> dict[str, str]:
    """Each state and the text below it in the source."""
    source = inspect.getsource(State)
    return {
        state.name: source.partition(f"    {state.name} = ")[2].partition('"""')[2].partition('"""')[0]
        for state in State
    }


if __name__ == "__main__":
    assert set(undocumented()) == OWNED
    print("\n".join(lines()))
