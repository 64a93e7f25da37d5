"""microwsgi/framework/markup.py: HTML in which what is interpolated is escaped."""

from __future__ import annotations

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


def test_a_template_string() -> None:
    """Python 3.14 makes such objects (PEP 750): as many strings as values, and one more."""

    def value(value: object, conversion: str | None = None, format_spec: str = "") -> SimpleNamespace:
        return SimpleNamespace(value=value, conversion=conversion, format_spec=format_spec)

    template = SimpleNamespace(
        strings=("<p>", " ", " ", "</p>"), interpolations=(value("<"), value("<", "r"), value(1.25, None, ".1f"))
    )
    assert html(template) == "<p>&lt; &#x27;&lt;&#x27; 1.2</p>"


def test_views_responses_and_other_libraries_take_it_for_html() -> None:
    app = App()
    app.get("/{name}")(lambda request, name: html("<p>{name}", name=name))
    answer = Client(app).get("/%3Cb%3E")
    assert (answer.content_type, answer.text) == ("text/html", "<p>&lt;b&gt;")
    assert Response(html("<p>{a}", a="<")).body == b"<p>&lt;"
    assert html("{a}", a="<").__html__() == "&lt;"
