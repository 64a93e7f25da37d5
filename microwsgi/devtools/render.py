"""Drawings of a stack: lines for a terminal, and HTML for a page, of the frames that `microwsgi.devtools.stack` returns.

    print(text(capture()))                   80 columns, without colour
    f"<style>{STYLE}</style>{html(frames)}"  a list for the page of somebody else: light and dark, no script

Both say of each frame whose it is, what it is called, where it stands, and the source line that calls the next one.
"""

from __future__ import annotations

import linecache
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from microwsgi.devtools.stack import FRAMEWORK, SERVER, STDLIB, YOURS, Frame, fold, short_path

WEBOB = "webob"
"""What a frame of WebOb is drawn as; it is a framework's otherwise."""
STYLES = {STDLIB: "2", SERVER: "34", WEBOB: "35", FRAMEWORK: "33", YOURS: "1;32"}
"""The styles of ANSI terminals: dim, blue, magenta, yellow, bold green."""
LETTERS = {STDLIB: "l", SERVER: "s", WEBOB: "w", FRAMEWORK: "f", YOURS: "Y"}
MEANINGS = {STDLIB: "library", SERVER: "server", WEBOB: "WebOb", FRAMEWORK: "framework", YOURS: "yours"}
STAIR = 16
"""Columns by which the last frame of a stack stands further right than its first, at most."""
STEP = 2
"""Columns from one frame to the next, at most."""
NARROW = 60
"""Columns that a drawing has at least."""


def kind(frame: Frame) -> str:
    """What it is drawn as: a key of STYLES. All of microwsgi is one thing here, the server and the framework."""
    package = frame.module.partition(".")[0]
    return {"microwsgi": SERVER, "webob": WEBOB}.get(package, frame.owner)


def owner_name(frame: Frame) -> str:
    """Library, yours, or the name of the package that it is from."""
    if frame.owner in {STDLIB, YOURS}:
        return MEANINGS[frame.owner]
    package = frame.module.partition(".")[0]
    return os.path.basename(frame.file) if package == "__main__" else package  # an installer's script


def package(frame: Frame) -> str:
    """Return the top-level package of a frame; of a script its file."""
    top = frame.module.partition(".")[0]
    return os.path.basename(frame.file) if top in {"", "__main__"} else top


def name(frame: Frame) -> str:
    """What it is called, as a person would say it."""
    return frame.function.replace(".<locals>", "")


def location(frame: Frame) -> str:
    """File and line, the file as short as it is clear in the folder that we are in; of packages from the package on."""
    file = short_path(frame.file, os.getcwd())
    module = f"{frame.module.replace('.', os.sep)}.py"
    if frame.owner != YOURS and file.endswith(f"{os.sep}{module}"):
        file = module  # a checkout, which is installed nowhere
    return f"{file}:{frame.line}"


def source_line(frame: Frame) -> str:
    """The line that it stands at; the `def` of a function that has just been called; nothing where there is no source."""
    lines = linecache.getlines(frame.file)[frame.line - 1 :]
    if lines and lines[0].lstrip().startswith("@"):
        lines = [line for line in lines if line.lstrip().startswith(("def ", "async def "))] or lines
    line = lines[0].strip() if lines else ""
    for remark in ("  # type: ", "  # noqa"):  # for machines
        line = line.partition(remark)[0]
    return "".join(each if each.isprintable() else " " for each in line)


def summary(frames: Sequence[Frame]) -> str:
    """How many there are, and whose: `5 frames: 2 library, 2 microwsgi, 1 yours`."""
    counts = ", ".join(f"{count} {owner}" for owner, count in Counter(map(owner_name, frames)).items())
    return f"{len(frames)} frame{'' if len(frames) == 1 else 's'}: {counts}"


# --- For a terminal -----------------------------------------------------------------------------------------------------


def text(frames: Sequence[Frame], *, width: int = 80, color: bool = False) -> str:
    """Two lines for each frame, none longer than `width`: whose, what and where it is, and how it calls the next."""
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
    """One line for each stack: its name, its depth, and a letter for each frame."""
    names = max(map(len, stacks), default=0)
    lines = []
    for title, frames in stacks.items():
        letters = "".join(colored(LETTERS[kind(frame)], STYLES[kind(frame)], color=color) for frame in frames)
        lines.append(f"{title:<{names}}  {len(frames):>3}  {letters}")
    key = (colored(f"{LETTERS[each]} {MEANINGS[each]}", STYLES[each], color=color) for each in drawn(stacks))
    return "\n".join([*lines, f"{'':<{names}}       {', '.join(key)}"])


def drawn(stacks: Mapping[str, Sequence[Frame]]) -> list[str]:
    """The kinds that there are."""
    found = {kind(frame) for frames in stacks.values() for frame in frames}
    return [each for each in STYLES if each in found]


def colored(line: str, style: str, *, color: bool) -> str:
    """In a style of ANSI terminals."""
    return f"\033[{style}m{line}\033[0m" if color else line


def truncate_end(line: str, room: int) -> str:
    """As much of its beginning as there is room for."""
    return line if len(line) <= room else f"{line[: room - 3]}..."


def truncate_start(line: str, room: int) -> str:
    """As much of its end as there is room for."""
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
"""What `html` and `html_comparison` need; it styles nothing outside of .stack and .stacks."""


def html(frames: Sequence[Frame]) -> str:
    """A list of the frames, `<ol class="stack">`, the thread's first frame first; escaped, and for use with STYLE."""
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
    """A whole page in one file: the stacks side by side if there are several, then each with its frames."""
    parts = [
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}{STYLE}</style><h1>{escape(title)}</h1><p>{escape(note)}</p>",
        html_comparison(stacks) if len(stacks) > 1 else "",
    ]
    for server, frames in stacks.items():
        parts += [f"<h2>{escape(server)}: {escape(summary(frames))}</h2>", html(frames)]
    return "\n".join([*parts, "</html>", ""])


def html_comparison(stacks: Mapping[str, Sequence[Frame]]) -> str:
    """A table with a line for each stack: its name, its depth, and a bar with a box for each frame."""
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
