"""microwsgi/devtools/exceptioninfo.py: an exception as values."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from microwsgi.devtools.exceptioninfo import CAUSED, DURING, HIDDEN, ExceptionInfo, exception_info
from microwsgi.devtools.stack import fold


def caught(function: Callable[[], object]) -> ExceptionInfo:
    try:
        function()
    except BaseException as error:
        return exception_info(error)
    raise AssertionError


def raising(error: BaseException) -> None:
    raise error


def values(**local: Any) -> dict[str, str]:
    """What is shown of local values."""

    def fail() -> None:
        held = local["held"] if "held" in local else None  # noqa: F841, SIM401
        password = local  # noqa: F841
        raise ValueError

    return caught(fail).frames[-1].values


def test_what_failed_is_marked() -> None:
    def fail() -> object:
        item = {"ä": 1}
        return item["ä"] + item["b"]

    place = caught(fail).frames[-1]
    (line,) = [each for each in place.lines if each.number == place.frame.line]
    assert line.text[line.start : line.end] == 'item["b"]'
    assert place.frame.function.endswith("fail")
    assert len(place.lines) == 11


def test_what_failed_over_several_lines_is_marked_in_each() -> None:
    def fail() -> object:
        return [][
            sum(range(1, 20)) + sum(range(1, 30)) + sum(range(1, 40)) + sum(range(1, 50)) + sum(range(1, 60)) + 1234567
        ]

    lines = [line for line in caught(fail).frames[-1].lines if line.start < line.end]
    marked = [line.text[line.start : line.end] for line in lines]
    assert (marked[0], marked[1][:3], marked[2]) == ("[][", "sum", "]")


class Bad:
    def __repr__(self) -> str:
        raise SystemExit


class Broken:
    def __repr__(self) -> str:
        raise ValueError


class User(NamedTuple):
    name: str = "a"
    password: str = "hunter2"


@pytest.mark.parametrize(
    "held",
    [
        User(),
        [User()],
        [("Cookie", "hunter2")],
        OrderedDict(api_key=b"hunter2"),
        "a=1&token=hunter2",
        b"a=1&token=hunter2",
        {"QUERY_STRING": "session-id=hunter2"},
        "Authorization: Bearer hunter2",
        'x; password="a hunter2"',
        "secret=" + "x" * 1000 + "hunter2",
    ],
)
def test_secrets_within_a_text_are_hidden_too(held: object) -> None:
    text = values(held=held)["held"]
    assert HIDDEN in text
    assert "hunter2" not in text


def test_a_text_that_only_speaks_of_secrets_is_shown() -> None:
    assert values(held="a session, and what it holds")["held"] == "'a session, and what it holds'"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("x" * 10_000, None),
        (b"x" * 10_000, "(10000 bytes)"),
        (list(range(10_000)), "..."),
        ({"password": "hunter2", "a": 1}, HIDDEN),
        (Bad(), "whose repr raises SystemExit"),
        (Broken(), "whose repr raises ValueError"),
        ([1, Broken()], "[1, (Broken"),
        (10**300, "..."),
        ({"a": {"b": {"c": {"d": {}}}}}, "..."),
    ],
)
def test_values_are_bounded_and_survived_and_secrets_hidden(held: object, said: str | None) -> None:
    text = values(held=held)["held"]
    assert said is None or said in text
    assert len(text) < 400
    assert "hunter2" not in text
    assert values(held=held)["password"] == HIDDEN


def test_causes_and_contexts_and_groups() -> None:
    def caused() -> None:
        try:
            raising(KeyError("a"))
        except KeyError as error:
            raise ValueError("b") from error

    def during() -> None:
        try:
            raising(KeyError("a"))
        except KeyError:
            raise ValueError("b")  # noqa: B904

    def silenced() -> None:
        try:
            raising(KeyError("a"))
        except KeyError:
            raise ValueError("b") from None

    assert [(before.kind, how) for before, how in caught(caused).before] == [("KeyError", CAUSED)]
    assert [(before.kind, how) for before, how in caught(during).before] == [("KeyError", DURING)]
    assert caught(silenced).before == []

    def group() -> None:
        raise ExceptionGroup("several", [ValueError("a"), ExceptionGroup("inner", [TypeError("b")])])

    found = caught(group)
    assert [member.kind for member in found.members] == ["ValueError", "ExceptionGroup"]
    assert [member.text for member in found.members[1].members] == ["TypeError: b"]


def test_exceptions_that_lead_in_circles_are_shown_once_each() -> None:
    group = ExceptionGroup("all", [ValueError(number) for number in range(5)])
    for member in group.exceptions:
        member.__context__ = group
    assert sum(1 for _ in everyone(caught(partial(raising, group)))) == 6


def test_of_very_many_exceptions_the_first_are_shown() -> None:
    group = ExceptionGroup("all", [ValueError(number) for number in range(10_000)])
    found = caught(partial(raising, group))
    assert sum(1 for _ in everyone(found)) == 50
    assert found.text == "ExceptionGroup: all (10000 sub-exceptions)"


def everyone(info: ExceptionInfo) -> Iterator[ExceptionInfo]:
    """A info, and those within it."""
    yield info
    for each in [*info.members, *(before for before, _ in info.before)]:
        yield from everyone(each)


def test_what_an_exception_says_is_bounded_and_its_notes_are_shown() -> None:
    error = ValueError("x" * 1_000_000)
    error.add_note("a note")
    text = caught(partial(raising, error)).text
    assert text.endswith("... (1000012 characters)\na note")
    assert len(text) < 2100


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 says it only when it ends by the exception")
def test_it_says_what_was_probably_meant() -> None:
    def fail() -> object:
        number = 1
        return numbre + number  # type: ignore[name-defined]  # noqa: F821

    assert "Did you mean: 'number'?" in caught(fail).text


def test_notes_are_part_of_what_it_says() -> None:
    def fail() -> None:
        error = ValueError("a")
        error.add_note("a note")
        raise error

    assert caught(fail).text == "ValueError: a\na note"


def test_a_recursion_is_shown_by_its_first_and_its_last_round() -> None:
    def alone() -> None:
        alone()

    def first() -> None:
        second()

    def second() -> None:
        first()

    def deep() -> None:  # no recursion: a thousand functions would be as deep
        left = 100
        source = "def call0():\n  raise ValueError\n"
        for number in range(left):
            source += f"def call{number + 1}():\n  call{number}()\n"
        names: dict[str, Any] = {}
        exec(source, names)  # noqa: S102 - ours
        names[f"call{left}"]()

    for function, most, note in (
        (alone, 4, "the last call repeated"),
        (first, 7, "the last 2 calls repeated"),
        (deep, 60, "43 more calls"),
    ):
        frames = caught(function).frames
        assert len(frames) <= most, function
        assert [each.note for each in frames if note in each.note], (function, [each.note for each in frames])


def test_folded_calls_are_counted() -> None:
    for keys, expected in (
        ("", []),
        ("abc", [(0, ""), (1, ""), (2, "")]),
        ("aaa", [(0, ""), (1, ""), (2, "")]),
        ("xaaaaay", [(0, ""), (1, ""), (5, "the last call repeated 3 more times"), (6, "")]),
        ("ababababa", [(0, ""), (1, ""), (6, "the last 2 calls repeated 2 more times"), (7, ""), (8, "")]),
    ):
        assert fold(keys) == expected, keys


def test_the_names_of_a_module_are_its_own() -> None:
    def fail() -> None:
        exec(compile("value = 1\nraise ValueError", "module.py", "exec"), {"__name__": "module"})  # noqa: S102 - ours

    assert caught(fail).frames[-1].values == {"value": "1"}


def test_an_exception_whose_str_fails_is_told() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise Odd

    assert "Odd: <exception str() failed>" in caught(fail).text


def test_a_thousand_of_them_keep_nothing() -> None:
    """With a megabyte in a local value each."""

    def fail() -> None:
        held = bytes(1 << 20)
        raise ValueError(len(held))

    caught(fail)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(1000):
            caught(fail)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 20 << 20
    finally:
        tracemalloc.stop()
