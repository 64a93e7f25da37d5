"""Frames as values: their order, their owners, and what they do not keep."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from types import CodeType

import pytest
from werkzeug.datastructures import MultiDict
from werkzeug.serving import make_server

from microwsgi.devtools import stack
from microwsgi.devtools.stack import FRAMEWORK, SERVER, STDLIB, YOURS, Frame, capture, traceback_frames
from tests.running import environment


def in_thread(function: Callable[[], list[Frame]]) -> list[Frame]:
    """What a function returns in a thread of its own, where the stack begins with the thread's first frame."""
    found: list[list[Frame]] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_the_threads_first_frame_comes_first_and_the_caller_last() -> None:
    def inner() -> list[Frame]:
        return capture()

    frames = in_thread(inner)
    assert [frame.function for frame in frames[:3]] == ["Thread._bootstrap", "Thread._bootstrap_inner", "Thread.run"]
    assert [frame.owner for frame in frames[:3]] == [STDLIB] * 3
    assert frames[-1] == Frame(__name__, inner.__qualname__, __file__, inner.__code__.co_firstlineno + 1, YOURS)


def test_a_frame_that_is_given_is_the_last() -> None:
    def inner() -> list[Frame]:
        return capture(sys._getframe(1))  # there is no other way

    assert capture()[:-1] == inner()[:-1]
    assert inner()[-1].function == "test_a_frame_that_is_given_is_the_last"


def test_the_line_is_where_the_frame_stands() -> None:
    first, second = (
        capture()[-1].line,
        capture()[-1].line,
    )
    assert second == first + 1


def test_a_trail_goes_from_the_catcher_to_the_raiser() -> None:
    def raiser() -> None:
        raise ValueError

    try:
        raiser()
    except ValueError as error:
        frames = traceback_frames(error.__traceback__)
    assert [frame.function.rpartition(".")[2] for frame in frames] == [
        "test_a_trail_goes_from_the_catcher_to_the_raiser",
        "raiser",
    ]
    assert frames[1].line == raiser.__code__.co_firstlineno + 1
    assert traceback_frames(None) == []


@pytest.mark.parametrize(
    ("module", "function", "owner"),
    [
        ("json", json.loads, STDLIB),
        ("tests.devtools.test_stack", in_thread, YOURS),
        ("werkzeug.serving", make_server, SERVER),
        ("werkzeug.datastructures.structures", MultiDict.add, FRAMEWORK),
        ("microwsgi.devtools.stack", capture, FRAMEWORK),
        ("microwsgi.server.handler", in_thread, SERVER),
        ("microwsgi.framework.routing", in_thread, FRAMEWORK),
        ("microwsgix", in_thread, YOURS),
    ],
)
def test_an_owner_is_told_by_the_package_and_else_by_the_files_place(
    module: str, function: Callable[..., object], owner: str
) -> None:
    assert stack.owner(module, function.__code__) == owner


@pytest.mark.parametrize(
    ("file", "owner"),
    [
        ("<frozen runpy>", STDLIB),
        ("<string>", YOURS),
        (sysconfig.get_path("scripts") + "/something", SERVER),
        (sysconfig.get_path("purelib") + "/something/app.py", FRAMEWORK),
        (sysconfig.get_path("stdlib") + "/socketserver.py", STDLIB),
    ],
)
def test_an_owner_is_told_by_the_place_of_the_file(file: str, owner: str) -> None:
    assert stack.owner("__main__", code_of(file)) == owner


def code_of(file: str) -> CodeType:
    return compile("pass", file, "exec")


def test_a_module_that_runs_as_main_has_its_own_name() -> None:
    code = "import sys; from microwsgi.devtools.stack import capture; print([f.module for f in capture()])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    assert run.stdout == "['__main__']\n"
    run = subprocess.run(
        [sys.executable, "-m", "tests.devtools.as_main"], check=True, capture_output=True, text=True, env=environment()
    )
    assert run.stdout.splitlines()[-1] == "tests.devtools.as_main <module>"


def test_values_keep_no_frame_alive() -> None:
    frames = capture()
    assert all(isinstance(part, str | int) for frame in frames for part in frame)
