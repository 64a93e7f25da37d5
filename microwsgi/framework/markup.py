"""HTML from templates, with everything that is interpolated escaped.

    html("<p>Hello, {name}!", name=name)      all versions of Python: the syntax of str.format
    html(t"<p>Hello, {name}!")                Python 3.14 and newer: a template string (PEP 750)

Attribute values must be in quotes in the template. Escaping does not make a URL from outside safe for `href`.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from string import Formatter
from typing import Any


class Markup(str):
    """HTML text: `html` inserts it as it is. Wrap only text that contains nothing from outside."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the HTML (the protocol that MarkupSafe, Jinja2 and Django share)."""
        return self


class Escaping(Formatter):
    """str.format that escapes each value."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Format a value, then escape it, except HTML; the items of a list, tuple or iterator follow each other."""
        if isinstance(value, (list, tuple, Iterator)) and not format_spec:
            return "".join(self.format_field(item, "") for item in value)
        if hasattr(value, "interpolations"):  # a template string within another one
            return html(value)
        return str(value.__html__()) if hasattr(value, "__html__") else escape(format(value, format_spec))


ESCAPING = Escaping()


def html(template: Any, /, **values: object) -> Markup:  # Template exists from Python 3.14 on
    """Return a template with the escaped values. Raises TypeError if the values are already inserted, as in an f-string."""
    if isinstance(template, str):
        if not values:
            raise TypeError('html() escapes values, and got none: write html("<p>{name}", name=name), not an f-string.')
        return Markup(ESCAPING.vformat(template, (), values))
    parts = [template.strings[0]]
    for field, text in zip(template.interpolations, template.strings[1:], strict=True):
        value = ESCAPING.convert_field(field.value, field.conversion)
        parts += [ESCAPING.format_field(value, field.format_spec), text]
    return Markup("".join(parts))
