"""Find the route for a path and a method, and build the path of a route.

    Converter   a type of parameter: a regular expression and functions to read and write its value
    Pattern     a parsed pattern like "/users/{id:int}"; builds paths
    Route       a pattern with its methods and its view
    Router      a tree of path segments: `find` walks down the tree, `add` refuses ambiguous patterns

In each segment the most specific pattern wins: literal text, then the pattern with more literal text, then uuid, int, float,
custom converters, str, path. If two routes of the same method may match the same path, one of them must be more specific in
every segment in which they differ; otherwise `add` raises RouteError. So the first match in the tree is the right one, whatever
the order of the definitions. If a parameter of one pattern matches the rest of the path (files, mounts), the segments before
it decide; the rest itself is compared only if all of these are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from uuid import UUID

from microwsgi.errors import RouteError
from microwsgi.framework.values import FLOAT, INT, UUID_TEXT, read_float, read_int, read_uuid

PARAMETER = re.compile(r"\{([A-Za-z_]\w*)(?::(\w+))?\}", re.ASCII)
FOREIGN_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>|(?<=/):(\w+)", re.ASCII)
"""A parameter in the syntax of Flask and Django (<converter:name>), of Bottle (<name:filter>), or of Express (:name)."""
FOREIGN_CONVERTERS = {"string": "str", "slug": "str", "re": "str"}
"""Converters of Flask and Django, and filters of Bottle, that have another name here."""
PCHAR = "!$&'()*+,;=:@"
"""Characters that need no quoting in a segment (RFC 3986 3.3), in addition to those that `quote` never quotes."""
ANY = "*"
"""Stands for every method: a mounted WSGI application receives requests of all methods."""
NARROWER, SAME, WIDER, UNDECIDED, APART = "<=>?/"
"""How one step (a segment) of a pattern relates to a step of another.

NARROWER: the first is more specific. UNDECIDED: a text may match both, neither is more specific. APART: no text matches both.
"""


class Converter(NamedTuple):
    """A type of parameter. If `read` raises ValueError the text does not match."""

    expression: str
    type: type = str
    read: Callable[[str], Any] = str
    write: Callable[[Any], str] = str
    rank: int = 3
    """The most specific converter has the lowest rank. Custom converters have the same rank, and are not ordered."""
    slashes: bool = False
    """Whether the value may contain slashes."""


CONVERTERS: Mapping[str, Converter] = {
    "uuid": Converter(UUID_TEXT, UUID, read_uuid, rank=0),
    "int": Converter(INT, int, read_int, rank=1),
    "float": Converter(FLOAT, float, read_float, rank=2),
    "str": Converter("[^/]+", rank=4),
    # The value has no slash at its beginning: os.path.join would discard the folder before an absolute path.
    "path": Converter("[^/](?s:.*)", rank=5, slashes=True),
}
MOUNT_REST = Converter("(?s:.*)", rank=6, slashes=True)
"""The rest of the path for a mounted application."""


class Parameter(NamedTuple):
    """A parameter of a pattern: {name:converter}."""

    name: str
    converter: Converter


Part = str | Parameter


class Segment:
    """A segment with parameters. If one of them may contain slashes, the segment is the rest of the pattern."""

    def __init__(self, parts: Sequence[Part]) -> None:
        literals = [part for part in parts if isinstance(part, str)]
        self.converters = [part.converter for part in parts if isinstance(part, Parameter)]
        self.matches_rest = any(converter.slashes for converter in self.converters)
        self.plain = all(converter.read is str for converter in self.converters)
        self.rank = (-sum(map(len, literals)), [converter.rank for converter in self.converters])
        self.begin, self.reversed_end = literals[0], literals[-1][::-1]
        self.expression = re.compile(
            "".join(re.escape(part) if isinstance(part, str) else f"({part.converter.expression})" for part in parts)
        )

    def match(self, text: str) -> list[object] | None:
        """Return the values of the parameters; None if the text does not match."""
        found = self.expression.fullmatch(text)
        if found is None:
            return None
        if self.plain:
            return list(found.groups())
        try:
            return [converter.read(value) for converter, value in zip(self.converters, found.groups(), strict=True)]
        except ValueError:
            return None


Step = str | Segment


class Pattern:
    """A path with parameters: {name}, which is a str, or {name:converter}. Raises RouteError."""

    def __init__(self, text: str, converters: Mapping[str, Converter] = CONVERTERS) -> None:
        if not text.startswith("/"):
            raise RouteError(f"the pattern {text!r} does not begin with a slash.")
        if found := FOREIGN_PARAMETER.search(text):
            kind, name = found[1], found[2] or found[3]
            if kind and kind not in {*converters, *FOREIGN_CONVERTERS} and name in {*converters, *FOREIGN_CONVERTERS}:
                kind, name = name, kind  # Bottle writes the name first
            kind = FOREIGN_CONVERTERS.get(kind, kind)
            meant = f"{{{name}:{kind}}}" if kind and kind != "str" else f"{{{name}}}"
            raise RouteError(f"in the pattern {text!r}, {found[0]} is not a valid parameter; write {meant}.")
        self.text = text
        self.parts = list(parse(text, converters))
        self.begin, self.reversed_end = str(self.parts[0]), str(self.parts[-1])[::-1]
        """The literal text before the first parameter, and the reversed text after the last."""
        self.converters = dict(part for part in self.parts if isinstance(part, Parameter))
        if len(self.converters) < sum(isinstance(part, Parameter) for part in self.parts):
            raise RouteError(f"the pattern {text!r} has two parameters with the same name.")
        self.steps: list[Step] = []
        pieces = text.split("/")[1:]
        for number, piece in enumerate(pieces):
            step = Segment(list(parse(piece, converters))) if "{" in piece else piece
            if isinstance(step, Segment) and step.matches_rest:
                self.steps.append(Segment(list(parse("/".join(pieces[number:]), converters))))
                break
            self.steps.append(step)

    def build(self, values: Mapping[str, object]) -> str:
        """Return the quoted path for these values. Values without a parameter become the query, unless they are None.

        Raises RouteError if a value does not match its parameter.
        """
        path = ""
        for part in self.parts:
            if isinstance(part, str):
                path += quote(part, safe=PCHAR + "/")
                continue
            text = part.converter.write(values[part.name])
            # Dot segments are refused: clients and proxies remove them, which results in another path (RFC 3986 5.2.4).
            if not re.fullmatch(part.converter.expression, text) or not {".", ".."}.isdisjoint(text.split("/")):
                raise RouteError(f"{part.name}={values[part.name]!r} does not match its parameter in {self.text}.")
            path += quote(text, safe=PCHAR + "/" if part.converter.slashes else PCHAR)
        rest = {name: value for name, value in values.items() if name not in self.converters and value is not None}
        return f"{path}?{urlencode(rest, doseq=True)}" if rest else path


def parse(text: str, converters: Mapping[str, Converter]) -> Iterator[Part]:
    """Yield literal text and parameters alternately. Literal text, possibly empty, comes first and last. Raises RouteError."""
    pieces = PARAMETER.split(text)
    for number, literal in enumerate(pieces[0::3]):
        if number:
            name, kind = pieces[3 * number - 2], pieces[3 * number - 1] or "str"
            if kind not in converters:
                raise RouteError(
                    f"in the pattern {text!r}, {kind} is not one of the converters {', '.join(converters)}."
                )
            yield Parameter(name, converters[kind])
        if "{" in literal or "}" in literal:
            raise RouteError(
                f"in the pattern {text!r}, a brace does not belong to a parameter; write {{name}} or {{name:converter}}."
            )
        yield literal


class Route(NamedTuple):
    """A pattern with its methods and its target: a view, or a mounted WSGI application."""

    methods: tuple[str, ...]
    pattern: Pattern
    name: str
    view: Callable[..., Any]
    location: str
    """The file and the line of the view."""
    prefix_length: int = 0
    """The number of segments in the prefix of a mounted application, including the empty one before the first slash; else 0."""

    def __str__(self) -> str:
        return f"{' '.join(self.methods)} {self.pattern.text} ({self.name}, {self.location})"


class Match(NamedTuple):
    """A route and the values of its parameters."""

    route: Route
    values: dict[str, Any]


class Node:
    """A node of the tree: the steps and routes that may follow."""

    __slots__ = ("literals", "routes", "segments", "tails")

    def __init__(self) -> None:
        self.literals: dict[str, Node] = {}
        self.segments: list[tuple[Segment, Node]] = []
        self.tails: list[tuple[Segment, Node]] = []  # segments that match the rest of the path
        self.routes: dict[str, Route] = {}

    def child(self, step: Step) -> Node:
        """Return the node after one more step. Add it if it does not exist."""
        if isinstance(step, str):
            return self.literals.setdefault(step, Node())
        siblings = self.tails if step.matches_rest else self.segments
        for other, node in siblings:
            if compare_steps(step, other) == SAME:
                return node
        siblings.append((step, made := Node()))
        siblings.sort(key=lambda sibling: sibling[0].rank)
        return made

    def find(self, path: list[str], index: int, method: str, values: list[object], allowed: set[str]) -> Match | None:
        """Return the most specific route for the path from `index` on.

        `values` are those of the parameters before `index`. If a route matches the path but not the method, its methods are
        added to `allowed`.
        """
        if index == len(path):
            if (route := self.routes.get(method) or self.routes.get(ANY)) is not None:
                return Match(route, dict(zip(route.pattern.converters, values, strict=True)))
            allowed.update(self.routes)
            return None
        node = self.literals.get(path[index])
        if node is not None and (found := node.find(path, index + 1, method, values, allowed)):
            return found
        for segment, node in self.segments:
            matched = segment.match(path[index])
            if matched is not None and (found := node.find(path, index + 1, method, values + matched, allowed)):
                return found
        for segment, node in self.tails:
            matched = segment.match("/".join(path[index:]))
            if matched is not None and (found := node.find(path, len(path), method, values + matched, allowed)):
                return found
        return None


class Router:
    """A tree of routes. Routes without parameters are also in a dict, because most requests are for them."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.names: dict[str, list[Route]] = {}
        self.literals: dict[str, dict[str, Route]] = {}
        self.root = Node()

    def add(self, route: Route) -> None:
        """Add a route. Raises RouteError if one with the same method may match the same path, and neither is more specific."""
        for other in self.routes:
            shared = ANY in (*route.methods, *other.methods) or not set(route.methods).isdisjoint(other.methods)
            if shared and conflicts(route.pattern, other.pattern):
                raise RouteError(f"{route} may match the same path as {other}, and neither is more specific.")
        node, steps = self.root, route.pattern.steps
        for step in steps:
            node = node.child(step)
        node.routes.update(dict.fromkeys(route.methods, route))
        if "GET" in route.methods:  # a GET route answers HEAD as well (RFC 9110 9.3.2)
            node.routes.setdefault("HEAD", route)
        if not route.pattern.converters:
            self.literals[route.pattern.text] = node.routes
        self.routes.append(route)
        self.names.setdefault(route.name, []).append(route)

    def find(self, path: str, method: str, allowed: set[str]) -> Match | None:
        """Return the route for a path and a method. If there is none, add the methods of the path to `allowed`."""
        routes = self.literals.get(path)
        if routes is not None and method in routes:
            return Match(routes[method], {})
        return self.root.find(path.split("/"), 1, method, [], allowed)


def conflicts(one: Pattern, other: Pattern) -> bool:
    """Return whether a path may match both patterns, and neither is more specific in all segments in which they differ."""
    # Test this first: it is fast, and most pairs differ here.
    if not (may_overlap(one.begin, other.begin) and may_overlap(one.reversed_end, other.reversed_end)):
        return False
    seen: set[str] = set()
    for mine, its in zip_longest(one.steps, other.steps):
        if mine is None or its is None:  # one has more segments: no path matches both
            return False
        found = compare_steps(mine, its)
        if found == APART:
            return False
        whole = matches_rest(mine) or matches_rest(its)
        if not whole or seen <= {SAME}:  # the segments before the rest of the path decide
            seen.add(found)
        if whole:
            break
    return UNDECIDED in seen or (NARROWER in seen) == (WIDER in seen)


def compare_steps(one: Step, other: Step) -> str:
    """Return how the step `one` relates to `other`: NARROWER, SAME, WIDER, UNDECIDED or APART."""
    if matches_rest(one) != matches_rest(other):
        if not may_overlap(literal_start(one), literal_start(other)):
            return APART
        return WIDER if matches_rest(one) else NARROWER
    if isinstance(one, str):
        if isinstance(other, str):
            return SAME if one == other else APART
        return NARROWER if other.match(one) is not None else APART
    if isinstance(other, str):
        return WIDER if one.match(other) is not None else APART
    if one.expression == other.expression and one.converters == other.converters:
        return SAME
    if not (may_overlap(one.begin, other.begin) and may_overlap(one.reversed_end, other.reversed_end)):
        return APART
    return UNDECIDED if one.rank == other.rank else NARROWER if one.rank < other.rank else WIDER


def matches_rest(step: Step) -> bool:
    """Return whether a step matches the rest of the path."""
    return isinstance(step, Segment) and step.matches_rest


def literal_start(step: Step) -> str:
    """Return the literal text at the beginning of a step."""
    return step if isinstance(step, str) else step.begin


def may_overlap(one: str, other: str) -> bool:
    """Return whether a text may begin with both. For reversed ends: whether a text may end with both."""
    return one.startswith(other) or other.startswith(one)
