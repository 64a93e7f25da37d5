"""microwsgi/framework/markup.py: HTML in which what is interpolated is escaped."""

from __future__ import annotations

import sys
from string import Formatter
from types import SimpleNamespace
from typing import Any

import pytest
from webob import Response

from microwsgi import App, html
from microwsgi.framework.markup import Markup
from microwsgi.testing import Client

SCRIPT = "<script>alert('1')</script>&\""
ESCAPED = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;"


def test_what_is_interpolated_is_escaped() -> None:
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("<p>{a}", {"a": SCRIPT}, f"<p>{ESCAPED}"),
        ('<a title="{a}">', {"a": SCRIPT}, f'<a title="{ESCAPED}">'),
        ("{a!r}", {"a": "<"}, "&#x27;&lt;&#x27;"),
        ("{a:>5}|{b:.1f}", {"a": "<", "b": 2.25}, "    &lt;|2.2"),
        ("{a.name} {b[key]}", {"a": SimpleNamespace(name="<"), "b": {"key": ">"}}, "&lt; &gt;"),
        ("{a}", {"a": html("<b>{b}</b>", b="<")}, "<b>&lt;</b>"),
        ("{a}", {"a": Markup("<br>")}, "<br>"),
        ("<ul>{a}", {"a": [html("<li>{b}", b=b) for b in "<>"]}, "<ul><li>&lt;<li>&gt;"),
        ("{a}", {"a": (c for c in "<>")}, "&lt;&gt;"),
        ("{a}", {"a": ["<", ("&", Markup("<hr>"))]}, "&lt;&amp;<hr>"),
        ("{a} {b}", {"a": None, "b": 0}, "None 0"),
        ("{{{a}}}", {"a": "{b}"}, "{{b}}"),
    ]
    wrong = [
        (template, str(found)) for template, values, expected in rows if (found := html(template, **values)) != expected
    ]
    assert wrong == []


def test_an_f_string_is_refused() -> None:
    with pytest.raises(TypeError, match="not an f-string"):
        html(f"<p>{SCRIPT}")


def value_of(expression: str, names: dict[str, object]) -> Any:
    return eval(expression, names)  # noqa: S307 - of this file


def template(source: str, **names: object) -> Any:
    """Return a template string (PEP 750): a real one from Python 3.14 on, before that an object with its interface."""
    if sys.version_info >= (3, 14):
        return value_of(f"t{source!r}", names)  # the syntax is new
    strings, interpolations = [""], []
    for text, expression, format_spec, conversion in Formatter().parse(source):
        strings[-1] += text
        if expression is not None:
            value = value_of(expression, names)
            interpolations.append(
                SimpleNamespace(value=value, expression=expression, conversion=conversion, format_spec=format_spec)
            )
            strings.append("")
    return SimpleNamespace(strings=tuple(strings), interpolations=tuple(interpolations))


def test_a_template_string() -> None:
    rows: list[tuple[str, dict[str, object], str]] = [
        ("<p>{a}</p>", {"a": SCRIPT}, f"<p>{ESCAPED}</p>"),
        ("{a} {a!r} {b:.1f}", {"a": "<", "b": 1.25}, "&lt; &#x27;&lt;&#x27; 1.2"),
        ("{a:>5}", {"a": "<"}, "    &lt;"),
        ("{a.name}{b[0]}{b[1]}", {"a": SimpleNamespace(name="<"), "b": "&>"}, "&lt;&amp;&gt;"),
        ("<p>", {}, "<p>"),
        ("{{{a}}}", {"a": "<"}, "{&lt;}"),
        ("{a}", {"a": html("<b>{b}</b>", b="<")}, "<b>&lt;</b>"),
        ("<ul>{a}", {"a": template("<li>{b}", b="<")}, "<ul><li>&lt;"),
        ("<ul>{a}", {"a": [template("<li>{b}", b=b) for b in "<>"]}, "<ul><li>&lt;<li>&gt;"),
    ]
    wrong = [
        (source, found, expected)
        for source, names, expected in rows
        if (found := html(template(source, **names))) != expected
    ]
    assert wrong == []


def test_views_responses_and_other_libraries_take_it_for_html() -> None:
    app = App()
    app.get("/{name}")(lambda request, name: html("<p>{name}", name=name))
    answer = Client(app).get("/%3Cb%3E")
    assert (answer.content_type, answer.text) == ("text/html", "<p>&lt;b&gt;")
    assert Response(html("<p>{a}", a="<")).body == b"<p>&lt;"
    assert html("{a}", a="<").__html__() == "&lt;"
