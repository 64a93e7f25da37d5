"""Drawings of a stack: what a terminal shows in 80 columns, without colour, and what a page holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from microwsgi.devtools import render
from microwsgi.devtools.stack import FRAMEWORK, OWNERS, SERVER, STDLIB, YOURS, Frame, capture, full_stack

ESCAPES = re.compile(r"\033\[[0-9;]*m")
LONG = "WSGIRequestHandler.a_method_with_a_name_that_goes_on_and_on_beyond_all_terminals"


def stack(count: int) -> list[Frame]:
    """So many frames, of all owners, with long names and places."""
    folder = "/a/folder/whose/name/is/long/as/they/are/in/node/modules"
    return [Frame("a.module", LONG, f"{folder}/{n}.py", n, OWNERS[n % len(OWNERS)]) for n in range(count)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file to be named by frames."""
    path = tmp_path / "program.py"
    path.write_text('@decorated\n@again\ndef view(request):\n    call(  # noqa: X\n\tx\x1b[31m="<b>")\n')
    return path


def test_each_frame_says_whose_what_and_where_it_is_and_how_it_calls_the_next() -> None:
    frames = capture()[-2:]
    first, call, second, standing = render.text(frames).splitlines()
    assert first.split() == [render.owner_name(frames[0]), frames[0].function, render.location(frames[0])]
    assert call.strip() == render.source_line(frames[0])
    assert second.split()[:2] == [
        "yours",
        frames[1].function[:59] if len(frames[1].function) < 50 else second.split()[1],
    ]
    assert standing.strip() == "frames = capture()[-2:]"


@pytest.mark.parametrize("count", [0, 1, 5, 29, 90])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal_is_wide(count: int, width: int) -> None:
    lines = render.text(stack(count), width=width).splitlines()
    assert len(lines) == count  # no source: one line for each
    assert all(len(line) == width for line in lines)
    assert all(line.endswith(f"{n}.py:{n}") for n, line in enumerate(lines))


def test_a_deeper_frame_never_stands_further_left() -> None:
    starts = [line.index("WSGI") for line in render.text(stack(29)).splitlines()]
    assert starts == sorted(starts)
    assert starts[-1] - starts[0] == 15


def test_colours_add_nothing_but_colours() -> None:
    frames = stack(8)
    assert "\033" not in render.text(frames)
    assert ESCAPES.sub("", render.text(frames, color=True)) == render.text(frames)
    assert len(set(ESCAPES.findall(render.text(frames, color=True)))) == len(OWNERS) + 1
    stacks = {"one": frames, "another": frames[:3]}
    assert ESCAPES.sub("", render.comparison(stacks, color=True)) == render.comparison(stacks)


def test_whose_it_is_can_be_read_without_colour() -> None:
    assert [
        (render.kind(frame), render.owner_name(frame))
        for frame in (
            Frame("threading", "f", "threading.py", 1, STDLIB),
            Frame("microwsgi.framework.app", "f", "app.py", 1, FRAMEWORK),
            Frame("werkzeug.serving", "f", "serving.py", 1, SERVER),
            Frame("webob.dec", "f", "dec.py", 1, FRAMEWORK),
            Frame("flask.app", "f", "app.py", 1, FRAMEWORK),
            Frame("__main__", "<module>", "/usr/bin/waitress-serve", 1, SERVER),
            Frame("hello", "f", "hello.py", 1, YOURS),
        )
    ] == [
        (STDLIB, "library"),
        (SERVER, "microwsgi"),
        (SERVER, "werkzeug"),
        (render.WEBOB, "webob"),
        (FRAMEWORK, "flask"),
        (SERVER, "waitress-serve"),
        (YOURS, "yours"),
    ]
    assert render.summary(stack(5)) == "5 frames: 2 library, 2 a, 1 yours"


def test_one_line_for_each_stack_that_is_compared() -> None:
    assert render.comparison({"ours": stack(4), "another": stack(2)}).splitlines() == [
        "ours       4  lsfY",
        "another    2  ls",
        "              l library, s server, f framework, Y yours",
    ]


def test_a_function_that_was_just_called_shows_its_def(program: Path) -> None:
    assert render.source_line(Frame("program", "view", str(program), 1, YOURS)) == "def view(request):"


def test_source_is_shown_without_remarks_for_tools_and_without_control_characters(program: Path) -> None:
    assert render.source_line(Frame("program", "view", str(program), 4, YOURS)) == "call("
    assert render.source_line(Frame("program", "view", str(program), 5, YOURS)) == 'x [31m="<b>")'
    assert render.source_line(Frame("program", "view", str(program), 99, YOURS)) == ""
    assert render.source_line(Frame("nothing", "view", "<no file>", 1, YOURS)) == ""


class Reader(HTMLParser):
    """Counts what is open, and what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("count", [0, 1, 29])
def test_the_html_is_a_list_with_an_item_for_each_frame(count: int) -> None:
    reader, frames = Reader(), stack(count)
    reader.feed(render.html(frames))
    assert reader.open == []
    assert [name for tag, name in reader.seen if tag == "li"] == [render.kind(frame) for frame in frames]
    reader.feed(render.html_comparison({"<ours>": frames}))
    assert reader.open == []
    assert sum(tag == "rect" for tag, _ in reader.seen) == count


def test_nothing_of_a_frame_is_taken_for_html(program: Path) -> None:
    frames = [Frame("<i>", "<lambda>", str(program), 5, FRAMEWORK), Frame("x", "<i>", "/<i>.py", 1, YOURS)]
    for text in (render.html(frames), render.html_comparison({"<i>": frames})):
        assert not re.search(r"<(lambda|i>\.|b>\")", text.replace("<i class", ""))
        assert "&lt;i&gt;" in text


def test_the_style_touches_nothing_else_on_the_page() -> None:
    selectors = re.findall(
        r"([^{}]+)\{[^{}]*\}", re.sub(r"@media [^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", r"\1", render.STYLE)
    )
    assert len(selectors) > 10
    assert all(each.strip().startswith((".stack", ".stacks")) for group in selectors for each in group.split(","))


def test_the_whole_stack_of_a_failure_goes_from_the_threads_first_frame_to_the_raiser() -> None:
    def raiser() -> None:
        raise ValueError

    try:
        raiser()
    except ValueError as error:
        frames = full_stack(error)
    here = capture()
    assert [frame[:3] for frame in frames[:-1]] == [frame[:3] for frame in here]
    assert frames[-1].function == raiser.__qualname__
    assert frames[-2].line < here[-1].line
