"""The pages' frame: one stylesheet, one script of a few lines, and a policy that lets a browser load nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from microwsgi import Request, Response
from microwsgi.framework.crosssite import require_same_site

FILES = str(Path(__file__).parent / "files")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'"
)
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="{base}/look/look.css">{script}
<h1>{title}</h1>
{content}
"""
SCRIPT = '<script src="{base}/look/look.js" defer></script>'


def page(request: Request, title: str, content: str, *, live: bool = False, base: str | None = None) -> Response:
    """A whole page; a live one has the script. `content` is HTML; `base` is where the look is mounted."""
    base = request.script_name if base is None else base
    text = PAGE.format(title=escape(title), content=content, base=base, script=SCRIPT.format(base=base) if live else "")
    response = Response(text, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response


def listed(facts: Mapping[str, object]) -> str:
    """Names and values as HTML."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as HTML, in a box of their own that scrolls where the window is narrow."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def of_this_site(request: Request) -> None:
    """Refuse what a page of another site has a browser ask for: it must not probe in its visitors' names. Raises 403."""
    require_same_site(request)
