"""The list of messages that a reviewer reads (`python -m tests.messages`) is whole."""

from __future__ import annotations

import ast

import pytest

from tests.messages import PACKAGE, messages, texts

pytestmark = pytest.mark.slow  # `make check` runs these


def found(source: str) -> list[str]:
    return [text for node in ast.walk(ast.parse(source)) for _, text in texts(node)]


def test_texts_that_people_read_are_found() -> None:
    assert found('raise UsageError(f"no {thing!r} here")') == ["no {thing} here"]
    assert found('console.say("It stops.", 1)') == ["It stops."]
    assert found('raise LoadError("a b" if x else f"{c} d") from None') == ["a b", "{c} d"]
    assert found('def f():\n    "Not this one."\n    return "not found here"') == ["not found here"]
    assert found('x = {"GET /": 1, "a": "two words"}') == ["two words"]
    assert found('open("a b"); environ["c d"]') == []


def test_the_list_has_messages_of_each_kind() -> None:
    texts = [message.text for message in messages(sorted(PACKAGE.rglob("*.py")))]
    for part in (
        "there is no command {first}",
        "address to listen on",
        "Serve an application.",
        "A field line exceeds the limit of {room} bytes",
        "is still being imported after",
        "WARNING: anybody who can read",
    ):
        assert any(part in text for text in texts), part
