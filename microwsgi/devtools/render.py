"""Render a stack (the frames of `microwsgi.devtools.stack`) as text for a terminal or as HTML for a page.

    print(text(capture()))                   80 columns, without colour
    f"<style>{STYLE}</style>{html(frames)}"  a list for any page: light and dark, no script

For each frame both show its owner, its function, its location, and the source line that calls the next frame.
"""

from __future__ import annotations

import linecache
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from microwsgi.devtools.stack import FRAMEWORK, SERVER, STDLIB, YOURS, Frame, fold, short_path

WEBOB = "webob"
"""The kind of frames of WebOb, which have their own color; their owner is a framework."""
STYLES = {STDLIB: "2", SERVER: "34", WEBOB: "35", FRAMEWORK: "33", YOURS: "1;32"}
"""ANSI styles: dim, blue, magenta, yellow, bold green."""
LETTERS = {STDLIB: "l", SERVER: "s", WEBOB: "w", FRAMEWORK: "f", YOURS: "Y"}
MEANINGS = {STDLIB: "library", SERVER: "server", WEBOB: "WebOb", FRAMEWORK: "framework", YOURS: "yours"}
STAIR = 16
"""The largest indent of the last frame, in columns."""
STEP = 2
"""The indent from one frame to the next, in columns, at most."""
NARROW = 60
"""The smallest width of a drawing, in columns."""


def kind(frame: Frame) -> str:
    """Return the key of STYLES for a frame. The server and the framework of microwsgi have the same key."""
    package = frame.module.partition(".")[0]
    return {"microwsgi": SERVER, "webob": WEBOB}.get(package, frame.owner)


def owner_name(frame: Frame) -> str:
    """Return "library", "yours", or the name of the package."""
    if frame.owner in {STDLIB, YOURS}:
        return MEANINGS[frame.owner]
    package = frame.module.partition(".")[0]
    return os.path.basename(frame.file) if package == "__main__" else package  # a console script


def package(frame: Frame) -> str:
    """Return the top-level package of a frame; of a script its file."""
    top = frame.module.partition(".")[0]
    return os.path.basename(frame.file) if top in {"", "__main__"} else top


def name(frame: Frame) -> str:
    """Return the name of the function, without `<locals>`."""
    return frame.function.replace(".<locals>", "")


def location(frame: Frame) -> str:
    """Return file and line, with the file relative to the current folder, or to the folder that contains its package."""
    file = short_path(frame.file, os.getcwd())
    module = f"{frame.module.replace('.', os.sep)}.py"
    if frame.owner != YOURS and file.endswith(f"{os.sep}{module}"):
        file = module  # a checkout that is not installed
    return f"{file}:{frame.line}"


def source_line(frame: Frame) -> str:
    """Return the source line of a frame; for a function that has just been called its `def`; "" without source."""
    lines = linecache.getlines(frame.file)[frame.line - 1 :]
    if lines and lines[0].lstrip().startswith("@"):
        lines = [line for line in lines if line.lstrip().startswith(("def ", "async def "))] or lines
    line = lines[0].strip() if lines else ""
    for remark in ("  # type: ", "  # noqa"):  # comments for tools
        line = line.partition(remark)[0]
    return "".join(each if each.isprintable() else " " for each in line)


def summary(frames: Sequence[Frame]) -> str:
    """Return the number of frames by owner: `5 frames: 2 library, 2 microwsgi, 1 yours`."""
    counts = ", ".join(f"{count} {owner}" for owner, count in Counter(map(owner_name, frames)).items())
    return f"{len(frames)} frame{'' if len(frames) == 1 else 's'}: {counts}"


# --- For a terminal -----------------------------------------------------------------------------------------------------


def text(frames: Sequence[Frame], *, width: int = 80, color: bool = False) -> str:
    """Return two lines for each frame, at most `width` long: owner, function and location, and the source line."""
    width = max(width, NARROW)
    owners = max((len(owner_name(frame)) for frame in frames), default=0)
    lines = []
    for number, note in fold(frames):
        frame = frames[number]
        if note:
            lines.append(f"{'':<{owners}}  ... {note}")
        indent = min(number * STEP, number * STAIR // len(frames))
        room = width - owners - 2 - indent
        where = truncate_start(location(frame), max(room - len(name(frame)) - 2, room // 3))
        what = truncate_end(name(frame), room - len(where) - 2)
        left = f"{owner_name(frame):<{owners}}  {' ' * indent}"
        lines.append(colored(f"{left}{what}{where:>{room - len(what)}}", STYLES[kind(frame)], color=color))
        if line := source_line(frame):
            lines.append(f"{' ' * len(left)}  {truncate_end(line, room - 2)}")
    return "\n".join(lines)


def comparison(stacks: Mapping[str, Sequence[Frame]], *, color: bool = False) -> str:
    """Return a line for each stack: its name, its depth, and a letter for each frame."""
    names = max(map(len, stacks), default=0)
    lines = []
    for title, frames in stacks.items():
        letters = "".join(colored(LETTERS[kind(frame)], STYLES[kind(frame)], color=color) for frame in frames)
        lines.append(f"{title:<{names}}  {len(frames):>3}  {letters}")
    key = (colored(f"{LETTERS[each]} {MEANINGS[each]}", STYLES[each], color=color) for each in drawn(stacks))
    return "\n".join([*lines, f"{'':<{names}}       {', '.join(key)}"])


def drawn(stacks: Mapping[str, Sequence[Frame]]) -> list[str]:
    """Return the kinds of frames that occur."""
    found = {kind(frame) for frames in stacks.values() for frame in frames}
    return [each for each in STYLES if each in found]


def colored(line: str, style: str, *, color: bool) -> str:
    """Return a line in an ANSI style."""
    return f"\033[{style}m{line}\033[0m" if color else line


def truncate_end(line: str, room: int) -> str:
    """Return a line shortened at its end."""
    return line if len(line) <= room else f"{line[: room - 3]}..."


def truncate_start(line: str, room: int) -> str:
    """Return a line shortened at its beginning."""
    return line if len(line) <= room else f"...{line[3 - room :]}"


# --- For a page ---------------------------------------------------------------------------------------------------------

STYLE = """\
.stack, .stacks {
  --stdlib: #64748b; --server: #2563eb; --webob: #9333ea; --framework: #b45309; --yours: #047857; --quiet: #59636e;
}
@media (prefers-color-scheme: dark) {
  .stack, .stacks {
    --stdlib: #94a3b8; --server: #79a8ff; --webob: #d19bff; --framework: #f0a04b; --yours: #3fb68b; --quiet: #9198a1;
  }
}
.stack { list-style: none; margin: 1rem 0; padding: 0; font: .85rem/1.45 ui-monospace, monospace }
.stack li {
  border-left: .35rem solid var(--paint); padding: .15rem .6rem; margin: 0 0 .2rem calc(var(--step) * .6rem);
  display: flex; flex-wrap: wrap; gap: 0 .8rem;
}
.stack b { color: var(--paint); overflow-wrap: anywhere }
.stack .place { margin-left: auto; color: var(--quiet); overflow-wrap: anywhere }
.stack code { flex-basis: 100%; font: inherit; white-space: pre-wrap; overflow-wrap: anywhere }
.stack .whose { color: var(--quiet) }
.stack > .stdlib, .stacks .stdlib { --paint: var(--stdlib) } .stack > .server, .stacks .server { --paint: var(--server) }
.stack > .webob, .stacks .webob { --paint: var(--webob) } .stack > .yours, .stacks .yours { --paint: var(--yours) }
.stack > .framework, .stacks .framework { --paint: var(--framework) }
.stacks { border-collapse: collapse; width: 100% }
.stacks th { text-align: left; font-weight: 500 } .stacks td:last-child { width: 75% }
.stacks th, .stacks td { padding: .2rem .6rem .2rem 0; font-variant-numeric: tabular-nums }
.stacks svg { display: block; width: 100%; height: 1.4rem } .stacks rect { fill: var(--paint) }
.stacks td span { white-space: nowrap; margin-right: .6em }
.stacks .key { display: inline-block; width: .8em; height: .8em; background: var(--paint) }
"""
"""The style sheet for `html` and `html_comparison`. It applies within .stack and .stacks only."""


def html(frames: Sequence[Frame]) -> str:
    """Return the frames as `<ol class="stack">`, the thread's first frame first, for use with STYLE."""
    items = []
    for number, note in fold(frames):
        frame = frames[number]
        if note:
            items.append(f'<li class="stdlib"><span class="whose">... {escape(note)}</span></li>')
        step = min(number, number * STAIR // STEP // len(frames))
        items.append(
            f'<li class="{kind(frame)}" style="--step:{step}"><b>{escape(name(frame))}</b>'
            f'<span class="whose">{escape(owner_name(frame))}</span><span class="place">{escape(location(frame))}</span>'
            f"<code>{escape(source_line(frame))}</code></li>"
        )
    return "\n".join(['<ol class="stack">', *items, "</ol>"])


PAGE_STYLE = """\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem } h1, h2 { overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
"""


def page(title: str, note: str, stacks: Mapping[str, Sequence[Frame]]) -> str:
    """Return a whole page: a comparison if there are several stacks, then each stack."""
    parts = [
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}{STYLE}</style><h1>{escape(title)}</h1><p>{escape(note)}</p>",
        html_comparison(stacks) if len(stacks) > 1 else "",
    ]
    for server, frames in stacks.items():
        parts += [f"<h2>{escape(server)}: {escape(summary(frames))}</h2>", html(frames)]
    return "\n".join([*parts, "</html>", ""])


def html_comparison(stacks: Mapping[str, Sequence[Frame]]) -> str:
    """Return a table with a row for each stack: its name, its depth, and a bar with a box for each frame."""
    longest = max(map(len, stacks.values()), default=0)
    rows = []
    for title, frames in stacks.items():
        boxes = "".join(
            f'<rect class="{kind(frame)}" x="{number}.05" y="0" width=".9" height="1">'
            f"<title>{escape(f'{name(frame)}, {owner_name(frame)}, {location(frame)}')}</title></rect>"
            for number, frame in enumerate(frames)
        )
        bar = f'<svg viewBox="0 0 {longest} 1" preserveAspectRatio="none" role="img">{boxes}</svg>'
        rows.append(f"<tr><th>{escape(title)}</th><td>{len(frames)}</td><td>{bar}</td></tr>")
    key = " ".join(f'<span class="{each}"><i class="key"></i> {MEANINGS[each]}</span>' for each in drawn(stacks))
    return "\n".join(['<table class="stacks">', *rows, f"<tr><td></td><td></td><td>{key}</td></tr>", "</table>"])
