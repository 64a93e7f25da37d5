"""The page, text or problem document (RFC 9457) that describes an exception to the developer, chosen by Accept.

`ErrorPage` is called where the exception is caught, so that it can show the whole stack: from the start of the thread to the
line that raised. The page contains local values: `allows` decides which requests get it; all others get only the id of the log
record. It works without scripts; the only script reloads the page when new code serves. There is no console in the page: the
debugger's prompt is in the terminal, where no client can reach it.
"""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import groupby
from urllib.parse import quote

from webob.acceptparse import create_accept_header

from microwsgi.devtools import render
from microwsgi.devtools.exceptioninfo import (
    CAUSED,
    DURING,
    HIDDEN,
    SECRET,
    ExceptionInfo,
    FrameInfo,
    exception_info,
    values_of,
)
from microwsgi.devtools.livereload import LiveReload
from microwsgi.devtools.stack import YOURS, full_stack

Environ = Mapping[str, object]
Answer = tuple[list[tuple[str, str]], bytes]
"""The headers and the body."""

PLAIN, HTML, PROBLEM, JSON = "text/plain", "text/html", "application/problem+json", "application/json"
EDITORS = {
    "vscode": "vscode://file{file}:{line}",
    "pycharm": "pycharm://open?file={file}&line={line}",
    "sublime": "subl://open?url=file://{file}&line={line}",
    "emacs": "org-protocol://open-file?file={file}&line={line}",
    "zed": "zed://file{file}:{line}",
}
"""Templates of links by the names that --editor knows. Any other value of --editor is a template itself."""
ORIGINS = (
    ("The request line", ("REQUEST_", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "SERVER_PROTOCOL", "RAW_URI")),
    ("The header fields", ("HTTP_", "CONTENT_")),
    ("The connection", ("REMOTE_", "SERVER_NAME", "SERVER_PORT", "HTTPS", "SSL_", "wsgi.url_scheme")),
    ("The server", ("",)),
)
"""The origins of the keys of an environ, by the beginning of the key."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
LISTEN = """const news = new EventSource("http://127.0.0.1:%d");
news.onmessage = () => { news.close(); %s };
news.onerror = () => { news.close(); %s };"""
AGAIN = "location.reload()"
SAVED = 'document.getElementById("saved").hidden = false'
SOON = f"setTimeout(() => {AGAIN}, 1000)"
RELOAD_NOTICE = (
    '<p id="saved" class="said" hidden>Other code serves by now. What you sent is not sent again by itself: reload.</p>'
)
CAUSES = {CAUSED: "Caused by", DURING: "Raised while handling"}
"""The headings of earlier exceptions, which follow the later one on the page."""
WITHOUT_DETAILS = (
    "500 Internal Server Error\n\nThe application failed; the traceback is in the server's log (id {number}).\n{hint}"
)
LOAD_ERROR = "The application can't be loaded"
BEGINNING = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
HINT = "To inspect the state where it failed, write breakpoint() there: the debugger's prompt opens in the server's terminal."
ENDING = '<p class="quiet">{} Only browsers that have opened the address with the token can see this page.</p>'
STYLE = """\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; --line: #8886; --mark: #e5484d40; --here: #e5484d1c }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
pre, code, table { font: .85rem/1.5 ui-monospace, monospace } pre { white-space: pre-wrap; margin: 0 }
.said { font-size: 1.1rem; white-space: pre-wrap } .quiet, .place { opacity: .7 }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0 }
summary { padding: .4rem .7rem; cursor: pointer } details pre { padding: .4rem .7rem }
.source { padding: .3rem 0; border-top: 1px solid var(--line); overflow-x: auto }
.source div { white-space: pre; padding: 0 .7rem }
.source i { display: inline-block; width: 3.5em; font-style: normal; opacity: .5; user-select: none }
.here { background: var(--here) } mark { background: var(--mark); color: inherit; border-radius: .2rem }
table { border-collapse: collapse; width: 100% }
td { vertical-align: top; padding: .15rem .7rem; border-top: 1px solid var(--line) }
td:first-child { width: 12rem; opacity: .8 }
@media (max-width: 32rem) { td, td:first-child { display: block; width: auto } td + td { border: 0; padding-top: 0 }
.source div { white-space: pre-wrap; padding-left: 4.2em; text-indent: -3.5em } .source i { text-indent: 0 } }
.group { margin-left: 1.5rem }
.others > summary { opacity: .7 } .others > details { margin: .4rem .7rem }
h3 { font-size: .9rem; margin: 1rem 0 .2rem; opacity: .8 }
"""


class ErrorPage:
    """Creates the headers and the body that describe an exception; `editor` is a name of EDITORS or a template.

    With `livereload`, a page that is open in a browser reloads when new code serves.
    """

    def __init__(
        self,
        editor: str = "",
        livereload: LiveReload | None = None,
        *,
        allows: Callable[[Environ], bool] | None = None,
        hint: str = "",
    ) -> None:
        self.editor = EDITORS.get(editor, editor)
        self.livereload = livereload
        self.allows = allows
        self.hint = hint

    def __call__(self, error: BaseException, environ: Environ, number: str) -> Answer:
        """Return the headers and the body. `number` identifies the traceback in the log."""
        if self.allows is not None and not self.allows(environ):
            return make_answer(PLAIN, WITHOUT_DETAILS.format(number=number, hint=self.hint))
        info = exception_info(error)
        kind = preferred_type(environ)
        if kind == PLAIN:
            return make_answer(kind, as_text(info, number))
        if kind != HTML:
            return make_answer(kind, json.dumps(as_problem(info, number)))
        asked = f"{environ.get('REQUEST_METHOD')} {environ.get('REQUEST_URI', '')}"
        parts = [
            f'<h1>{escape(info.kind)}</h1><p class="quiet">{escape(asked)}, {number} in the log</p>',
            RELOAD_NOTICE,
            self.exception_html(info),
            "<h2>The request</h2>",
            f"<details><summary>As a curl command</summary><pre>{escape(as_curl(environ))}</pre></details>",
            *(f"<h3>{origin}</h3>{table_html(values)}" for origin, values in environ_by_origin(environ)),
            f"<h2>From the socket to here: {escape(render.summary(full_stack(error)))}</h2>",
            render.html(full_stack(error)),
            "<h2>As text</h2>",
            f"<details><summary>To copy</summary><pre>{escape(as_text(info, number))}</pre></details>",
            ENDING.format("" if isinstance(error, SyntaxError) else HINT),
        ]
        return self.page(info.kind, parts, self.script(AGAIN if environ.get("REQUEST_METHOD") == "GET" else SAVED))

    def at_start(self, error: BaseException, text: str, environ: Environ) -> Answer:
        """Describe an application that can't be loaded; `text` is the message of the terminal. The page reloads itself."""
        kind = preferred_type(environ)
        if self.allows is not None and not self.allows(environ):
            headers, body = make_answer(PLAIN, f"{LOAD_ERROR}; the terminal says why.\n\n{self.hint}")
            return [*headers, ("Refresh", "1")], body
        if kind == PLAIN:
            headers, body = make_answer(
                kind, f"{text}\n\nThis page reloads itself when a saved file repairs the application.\n"
            )
            return [*headers, ("Refresh", "1")], body
        if kind != HTML:
            return make_answer(kind, json.dumps({"title": LOAD_ERROR, "status": 500, "detail": text}))
        yours = [each for each in exception_info(error).frames if each.frame.owner == YOURS]
        parts = [
            '<noscript><meta http-equiv="refresh" content="1"></noscript>',
            f'<h1>{LOAD_ERROR}</h1><p class="quiet">This page reloads itself when a saved file repairs the application.</p>',
            f"<pre>{escape(text)}</pre>",
            *(self.frame_html(each, opened=each is yours[-1]) for each in reversed(yours)),
            ENDING.format(""),
        ]
        return self.page(LOAD_ERROR, parts, self.script(AGAIN, lost=SOON))

    def script(self, lit: str, *, lost: str = "") -> tuple[str, int]:
        """Return the script that runs `lit` when new code serves, or `lost` if it can't connect, and the port to connect to."""
        try:
            port = self.livereload.port if self.livereload is not None else 0
        except OSError:  # no port is free: the page has to be reloaded by hand
            port = 0
        return (LISTEN % (port, lit, lost) if port else ""), port

    # --- The page -----------------------------------------------------------------------------------------------------

    def page(self, title: str, parts: list[str], script: tuple[str, int]) -> Answer:
        """Return the page with a Content-Security-Policy that allows its own script only."""
        code, port = script
        policy = POLICY
        if code:
            digest = b64encode(sha256(code.encode()).digest()).decode()
            policy += f"; script-src 'sha256-{digest}'; connect-src http://127.0.0.1:{port}"
            parts = [*parts, f"<script>{code}</script>"]
        head = f"{BEGINNING}<title>{escape(title)}</title><style>{STYLE}{render.STYLE}</style>"
        headers, body = make_answer(HTML, "\n".join([head, *parts, "</html>\n"]))
        return [*headers, ("Content-Security-Policy", policy)], body

    def exception_html(self, info: ExceptionInfo) -> str:
        """Return an exception as HTML, followed by its causes."""
        main = main_frame(info)
        parts = [f'<p class="said">{escape(info.text)}</p>']
        if main is not None:
            parts.append(self.frame_html(main, opened=True))
        # The innermost frame of the user's code comes first. The frames that it called, mostly of a library, follow in a group.
        for owned, group in groupby(reversed(info.frames), key=lambda each: each.frame.owner == YOURS):
            frames = [each for each in group if each is not main]
            notes = [f'<p class="quiet">... {escape(each.note)}</p>' if each.note else "" for each in frames]
            drawn = [self.frame_html(each, opened=False) + note for each, note in zip(frames, notes, strict=True)]
            if owned or not frames:
                parts += drawn
            else:
                title = f"{counted_frames(frames)}"
                parts.append(f'<details class="others"><summary>{escape(title)}</summary>{"".join(drawn)}</details>')
        for member in info.members:
            parts.append(f'<div class="group">{self.exception_html(member)}</div>')
        for before, how in info.before:
            parts.append(f"<h2>{CAUSES[how]} {escape(before.kind)}</h2>{self.exception_html(before)}")
        return "\n".join(parts)

    def frame_html(self, frame: FrameInfo, *, opened: bool) -> str:
        """Return a frame as HTML, with its source and its local values."""
        where = escape(render.location(frame.frame))
        if self.editor and not frame.frame.file.startswith("<"):
            link = self.editor.format(file=quote(frame.frame.file), line=frame.frame.line)
            where = f'<a href="{escape(link)}">{where}</a>'
        source = "".join(
            f'<div class="{"here" if line.number == frame.frame.line else ""}"><i>{line.number}</i>{line_html(line)}</div>'
            for line in frame.lines
        )
        return (
            f"<details{' open' if opened else ''}><summary><b>{escape(render.name(frame.frame))}</b> "
            f'<span class="place">{where} {escape(render.owner_name(frame.frame))}</span></summary>'
            f'<div class="source"><code>{source}</code></div>{table_html(frame.values)}</details>'
        )


def line_html(line: tuple[int, str, int, int]) -> str:
    """Return a source line as HTML."""
    _, text, start, end = line
    if not start < end:
        return escape(text)
    return f"{escape(text[:start])}<mark>{escape(text[start:end])}</mark>{escape(text[end:])}"


def table_html(values: Mapping[str, str]) -> str:
    """Return names and values as HTML."""
    return f"<table>{''.join(f'<tr><td>{escape(name)}<td>{escape(text)}' for name, text in values.items())}</table>"


# --- Content negotiation --------------------------------------------------------------------------------------------------


def preferred_type(environ: Environ) -> str:
    """Return the media type that the client prefers (RFC 9110 12.5.1); text if it has no preference."""
    accept = create_accept_header(str(environ.get("HTTP_ACCEPT", "*/*")))
    return next((offer for offer, _ in accept.acceptable_offers([PLAIN, HTML, PROBLEM, JSON])), PLAIN)


def make_answer(kind: str, text: str) -> Answer:
    """Return a response that must not be cached."""
    kind = PROBLEM if kind == JSON else f"{kind}; charset=utf-8" if kind in {PLAIN, HTML} else kind
    headers = [
        ("Content-Type", kind),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return headers, text.encode("utf-8", "backslashreplace")


# --- As text, as a problem, as a command --------------------------------------------------------------------------------


def as_text(info: ExceptionInfo, number: str) -> str:
    """Return the exception as text: first the line of the user's code, then a traceback in Python's order."""
    main = main_frame(info)
    where = f"{render.location(main.frame)}, in {render.name(main.frame)}: " if main is not None else ""
    summary = f"{where}{info.text.splitlines()[0] if info.text else info.kind}"
    return "\n".join([f"500 Internal Server Error ({number} in the log)", summary, "", *text_lines(info), ""])


def main_frame(info: ExceptionInfo) -> FrameInfo | None:
    """Return the innermost frame of the user's code, or else the innermost of all; None if there is no frame."""
    yours = [each for each in info.frames if each.frame.owner == YOURS]
    return yours[-1] if yours else info.frames[-1] if info.frames else None


def counted_frames(frames: Sequence[FrameInfo]) -> str:
    """Return how many frames there are, and of which packages: "3 frames of json, microwsgi"."""
    owners = ", ".join(dict.fromkeys(render.package(each.frame) for each in frames))
    return f"{len(frames)} frame{'' if len(frames) == 1 else 's'} of {owners}"


def text_lines(info: ExceptionInfo) -> list[str]:
    """Return the lines for an exception, after those for its causes."""
    lines: list[str] = []
    for before, how in info.before:
        lines += [*text_lines(before), "", f"{how}:", ""]
    for owned, group in groupby(info.frames, key=lambda each: each.frame.owner == YOURS):
        frames = list(group)
        if not owned:
            lines.append(f"  ... {counted_frames(frames)}")
            continue
        for each in frames:
            lines += [f"  ... {each.note}"] if each.note else []
            lines.append(f"  {render.location(each.frame)}, in {render.name(each.frame)}")
            lines += [f"    {line.text.strip()}" for line in each.lines if line.number == each.frame.line]
    lines.append(info.text)
    for member in info.members:
        lines += [f"  | {line}" for line in text_lines(member)]
    return lines


def as_problem(info: ExceptionInfo, number: str) -> dict[str, object]:
    """Return a problem document (RFC 9457)."""
    where = [f"{render.location(each.frame)} {render.name(each.frame)}" for each in info.frames]
    return {"title": info.kind, "status": 500, "detail": info.text, "number": number, "frames": where}


def environ_by_origin(environ: Environ) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the environ by the origin of its keys, without secrets."""
    left = dict(environ)
    for origin, begins in ORIGINS:
        theirs = {key: left.pop(key) for key in sorted(left) if key.startswith(begins)}
        if theirs:
            yield origin, values_of(theirs)


def as_curl(environ: Environ) -> str:
    """Return a command that repeats the request, without its body, which has been read, and without secrets."""
    scheme, host = (
        environ.get("wsgi.url_scheme", "http"),
        environ.get("HTTP_HOST", environ.get("SERVER_NAME", "localhost")),
    )
    words = ["curl", "-i", "-X", str(environ.get("REQUEST_METHOD"))]
    for key, item in sorted(environ.items()):
        name = key.removeprefix("HTTP_").replace("_", "-").title()
        if key == "CONTENT_TYPE" or (key.startswith("HTTP_") and key not in {"HTTP_HOST", "HTTP_CONNECTION"}):
            words += ["-H", f"{name}: {HIDDEN if SECRET.search(key) else item}"]
    return shlex.join([*words, f"{scheme}://{host}{environ.get('REQUEST_URI', '/')}"])
