"""The pages' frame: a stylesheet, a script of some sixty lines, and a policy that lets a browser load nothing else.

A page is whole without the script. A section with `data-part` is fetched again when the server's tick, one a second, has
another version for it; a page that gets no tick for 2.5 seconds says so, since its figures are old then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from microwsgi import App, Request, Response, abort, html
from microwsgi.events import Stream
from microwsgi.framework.markup import Markup

FILES = str(Path(__file__).parent / "files")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'"
)
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="{base}/look/look.css">{script}</head>
<body data-base="{base}"><header class="top"><nav aria-label="Pages">{nav}</nav><p class="clock">{clock}</p></header>
<p id="lost" role="alert" hidden></p>
<main><h1>{title}</h1>
{content}
</main></body></html>
"""
SCRIPT = '<script src="{base}/look/look.js" defer></script>'
SIBLINGS = "apps.network"
"""Key of the environ: names and paths of applications that are mounted beside this one (apps/network.py)."""
MOST_DRAWN = 100
"""Parts that are cached."""
TICK = 1.0
"""Seconds between two ticks."""
Drawing = Callable[[Request, str], str]
"""Draws a section as HTML: for a request, and the rest of the section's name."""
RANGES = {"10m": (600.0, "10 minutes"), "1h": (3600.0, "1 hour"), "24h": (86400.0, "24 hours")}


class Site:
    """An application whose pages have sections that follow their data.

    Each section is answered as `part/NAME`, too; `events` says once a second which version each has. A section is drawn once
    for each version of its data, so that a hundred viewers cost one drawing. `start` begins the background work.
    """

    def __init__(self, links: Mapping[str, str], start: Callable[[], None] = lambda: None) -> None:
        self.links = links
        self.parts: dict[str, Drawing] = {}
        self.versions: Callable[[], Mapping[str, object]] = lambda: {"*": time.time() // 1}
        """The version of each part; "*" stands for all others."""
        self.drawn: dict[str, tuple[object, str]] = {}
        self.lock = threading.Lock()  # protects `drawn`; held while a part is drawn, so that one thread draws
        self.app = App()
        self.app.static("/look", FILES)
        # Again with each request: a server may have forked after the import, and threads do not survive a fork.
        self.app.before(lambda request: start())
        self.app.get("/part/{name:path}")(self.draw)
        self.app.get("/events")(self.events)
        start()

    def part(self, kind: str) -> Callable[[Drawing], Drawing]:
        """Register the function that draws the sections `kind` and `kind/...`."""

        def register(drawing: Drawing) -> Drawing:
            self.parts[kind] = drawing
            return drawing

        return register

    def draw(self, request: Request, name: str) -> str:
        """A section with the query of this request, as HTML."""
        range_of(request)  # raises 400
        kind, _, rest = name.partition("/")
        if kind not in self.parts:
            abort(404, f"There is no {name}.")
        versions = self.versions()
        version, key = versions.get(kind, versions["*"]), f"{request.script_name} {name} {request.query_string}"
        with self.lock:
            if key not in self.drawn or self.drawn[key][0] != version:
                if len(self.drawn) >= MOST_DRAWN:
                    self.drawn.clear()
                self.drawn[key] = version, self.parts[kind](request, rest)
            return self.drawn[key][1]

    def events(self, request: Request) -> Response:
        """A stream of events, one a second: the server's time, and the version of each part."""
        return Stream(request, poll=lambda: {"now": time.time(), "versions": self.versions()}, every=TICK).response

    def section(self, request: Request, name: str, label: str = "") -> str:
        query = f"?{request.query_string}" if request.query_string else ""
        part, label = escape(quote(name, safe="") + query), escape(label or name)
        return f'<section data-part="{part}" aria-label="{label}">{self.draw(request, name)}</section>'

    def page(self, request: Request, title: str, content: str, *, live: bool = True, base: str = "") -> Response:
        """A whole page; a live one has the script. `content` is HTML; `base` is where the application has mounted this."""
        root = request.script_name + base
        others: Mapping[str, str] = request.environ.get(SIBLINGS, {})
        paths = {path: text for text, path in others.items()}
        for text, path in self.links.items():
            paths.setdefault(root + path, text)
        current = max((path for path in paths if request.path.startswith(path)), key=len, default="")
        marks = {current: f' aria-current="{"page" if current == request.path else "true"}"'}
        nav = "".join(
            f'<a href="{escape(path)}"{marks.get(path, "")}>{escape(name)}</a>' for path, name in paths.items()
        )
        clock = f'as of <time datetime="{time.time():.3f}">{clock_time(time.time())}</time>'
        script = SCRIPT.format(base=root) if live else ""
        text = PAGE.format(title=escape(title), content=content, base=root, script=script, nav=nav, clock=clock)
        response = Response(text, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        return response


def prefers(request: Request, wanted: str, other: str) -> bool:
    """Whether a client asks for the type `wanted`; one that takes any type, as curl does, gets the other one."""
    return request.accept.acceptable_offers([other, wanted])[:1] == [(wanted, 1.0)]


def clock_time(at: float, *, day: bool = False) -> str:
    """The time of day, as this machine's time zone has it."""
    return time.strftime("%F %T" if day else "%T", time.localtime(at))


def state(name: str, text: str = "") -> Markup:
    return html('<span class="state {name}">{text}</span>', name=name, text=text or name)


def summary(name: str, *sentences: str) -> str:
    """The first lines of a page: what is wrong, and since when."""
    return f'<p class="summary {name}" role="status">{"<br>".join(map(escape, sentences))}</p>'


def link(path: str, text: str) -> Markup:
    return html('<a href="{path}">{text}</a>', path=path, text=text)


def moment(at: float) -> Markup:
    """A time as HTML, with its age, which the script keeps right."""
    text = f"{clock_time(at)}, {duration(time.time() - at)} ago"
    return html('<time datetime="{at:.3f}" data-age>{text}</time>', at=at, text=text)


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h, 5 d, rounded down."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0) // 1:.0f} s"


def since(at: float, *, day: bool = False) -> str:
    return f" since {clock_time(at, day=day)} (for {duration(time.time() - at)})"


def counted(count: int, noun: str) -> str:
    """1 target, 2 targets."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(facts: Mapping[str, object]) -> str:
    rows = (f"<div><dt>{escape(name)}</dt><dd>{cell(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def table(
    caption: str, names: Sequence[str], rows: Iterable[Sequence[object]], head: Callable[[str], str] = escape
) -> str:
    """Rows as HTML; the first cell of a row is its header. On a phone the cells of a row are below each other, with labels."""
    heads = "".join(f'<th scope="col">{head(name)}</th>' for name in names)
    labels = [f'<td data-label="{escape(name)}">' for name in names[1:]]
    body = ""
    for first, *others in rows:
        cells = "".join(f"{label}{cell(value)}</td>" for label, value in zip(labels, others, strict=True))
        body += f'<tr><th scope="row">{cell(first)}</th>{cells}</tr>'
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(value: object) -> str:
    return value if isinstance(value, Markup) else escape(str(value))


class Column(NamedTuple):
    """A column of a listing: its name, the value of an item, by which rows are sorted and filtered, and the text of a value."""

    name: str
    value: Callable[[Any], Any]
    text: Callable[[Any], object] = str


def listing(request: Request, caption: str, columns: Sequence[Column], items: Iterable[Any], most: int) -> str:
    """A table with at most so many rows. `filter` in the query is a text that a row must contain, `sort` is a column.

    Numbers are sorted with the largest first, text in alphabetical order; "-" before the name reverses both.
    """
    wanted, sort = request.GET.get("filter", "").lower(), request.GET.get("sort", "")
    found = list(items)
    if wanted:
        found = [each for each in found if wanted in " ".join(str(column.value(each)) for column in columns).lower()]
    for column in columns:
        if column.name == sort.removeprefix("-") and found:
            is_number = isinstance(column.value(found[0]), int | float)
            found.sort(key=column.value, reverse=is_number != sort.startswith("-"))

    def head(name: str) -> str:
        query = urlencode({**request.GET, "sort": f"-{name}" if sort == name else name})
        arrow = " ▼" if sort == name else " ▲" if sort == f"-{name}" else ""
        return f'<a href="?{escape(query)}">{escape(name)}{arrow}</a>'

    rows = [[column.text(column.value(each)) for column in columns] for each in found[:most]]
    count = f", {most} of {len(found)}" if len(found) > most else ""
    return table(caption + count, [column.name for column in columns], rows, head)


def filter_form(request: Request, label: str) -> str:
    others = {key: value for key, value in request.GET.items() if key != "filter"}
    hidden = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in others.items())
    value = escape(request.GET.get("filter", ""))
    field = f'<label>{escape(label)} <input type="search" name="filter" value="{value}"></label>'
    return f'<form role="search">{hidden}{field}<button>Filter</button></form>'


def range_of(request: Request) -> float:
    """The seconds of the period that the query chooses. Raises 400."""
    name = request.GET.get("range", "10m")
    if name not in RANGES:
        abort(400, f"Unknown range {name}; expected {', '.join(RANGES)}.")
    return RANGES[name][0]


def range_links(request: Request) -> str:
    """Links to the same page with each of the periods."""
    texts = {name: text for name, (_, text) in RANGES.items()}
    return choice(request, "range", texts, request.GET.get("range", "10m"))


def choice(request: Request, name: str, texts: Mapping[str, str], chosen: str) -> str:
    """Links to the same page with each value of a parameter of the query."""
    links = ""
    for value, text in texts.items():
        current = ' aria-current="true"' if value == chosen else ""
        links += f'<a href="?{escape(urlencode({**request.GET, name: value}))}"{current}>{escape(text)}</a>'
    return f'<nav class="ranges" aria-label="{escape(name.title())}">{links}</nav>'


def form(title: str, action: str, target: str, select: str, options: Iterable[str], button: str) -> str:
    """A form that asks for a target, and one of several options."""
    choices = "".join(f"<option>{escape(each)}</option>" for each in options)
    return (
        f'<h2>{title}</h2><form action="{action}"><label>Target <input name="target" placeholder="{target}" required></label>'
        f'<label>{select} <select name="{select.lower()}">{choices}</select></label><button>{button}</button></form>'
    )
