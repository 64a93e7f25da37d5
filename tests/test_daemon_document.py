"""docs/daemon.md: its dialogue is run, its signals are those that are listened to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from microwsgi.options import Options
from microwsgi.prefork.life import table
from microwsgi.prefork.supervisor import Supervisor
from microwsgi.process.system import System
from microwsgi.serving.console import Console
from microwsgi.serving.serve import Stop
from microwsgi.serving.service import Service
from tests.background import Machine, free_port
from tests.running import ROOT

DOCUMENT = (ROOT / "docs" / "daemon.md").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def shape(text: str) -> str:
    """Without what is another one each time: numbers, folders, the user, the options that the test adds."""
    text = re.sub(r"(?m)^(  (?:Directory|Options|User): +).*", r"\1", text)
    text = re.sub(r"/\S+/microwsgi/", "FOLDER/", text)
    return re.sub(r" \d+ (MB|ms|s)\b", r" N \1", re.sub(r"\d[\d.]*", "N", text))


def test_the_dialogue_is_what_is_said(machine: Machine) -> None:
    (block,) = re.findall(r"```\n(\$ microwsgi serve apps.*?)```", DOCUMENT, re.DOTALL)
    port = str(free_port())
    for part in block.split("$ microwsgi ")[1:]:
        command, _, said = part.partition("\n")
        where = ["-p", port, "--app-dir", str(ROOT)] if command.startswith("serve") else []
        assert shape(machine(*shlex.split(command), *where)) == shape(said), command


def test_the_signals_are_those_that_are_listened_to() -> None:
    (table,) = re.findall(r"\| signal \|.*?\n\n", DOCUMENT, re.DOTALL)
    rows = re.findall(r"^\| ([A-Z0-9, ]+) (?:\(Ctrl-.*?\) )?\|", table, re.MULTILINE)
    documented = {name for row in rows for name in row.split(", ")}
    stop = Stop(Console())
    stop.end()
    alone = {"INT", "TERM", *(number.name[3:] for number in stop.others)}  # type: ignore[attr-defined]  # signal.Signals
    service, supervisor = Service(Options(), Console(), System()), Supervisor(Options(), [], lambda *_: None)  # type: ignore[arg-type]
    try:
        service.attach(supervisor)
        parent = {number.name[3:] for number in supervisor.signals.actions} - {"CHLD"}  # type: ignore[attr-defined]
    finally:
        supervisor.close()
        assert supervisor.handoff is not None
        supervisor.handoff.close()
    assert documented == alone == parent


def test_the_table_of_states_is_the_one_of_the_code() -> None:
    assert f"\n{table()}\n" in DOCUMENT
