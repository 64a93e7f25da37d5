"""microwsgi/framework/routing.py: which route a path is for, which can't be told apart, and the way back to a path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from microwsgi.errors import RouteError
from microwsgi.framework.routing import Pattern, Route, Router


def view(request: object, **values: object) -> str:
    return ""


def router(*patterns: str, methods: tuple[str, ...] = ("GET",)) -> Router:
    found = Router()
    for pattern in patterns:
        found.add(Route(methods, Pattern(pattern), "view", view, f"place of {pattern}"))
    return found


def match(found: Router, path: str, method: str = "GET") -> tuple[str, dict[str, Any]] | None:
    """The pattern, and the values."""
    result = found.find(path, method, set())
    return None if result is None else (result.route.pattern.text, result.values)


def test_parameters_of_other_frameworks_are_told_how_to_write_them() -> None:
    rows = {
        "/u/<int:id>": "write {id:int}",
        "/u/<id>": "write {id}",
        "/u/<string:id>/x": "write {id}",
        "/u/<uuid:id>": "write {id:uuid}",
        "/u/:id": "write {id}",
        "/u/<id:int>": "write {id:int}",  # Bottle
        "/u/<id:re>": "write {id}",
        "/u/<int:uuid>": "write {uuid:int}",
        "/u/<name:other>": "write {other:name}",
    }
    said = {}
    for text in rows:
        with pytest.raises(RouteError) as caught:
            Pattern(text)
        said[text] = str(caught.value)
    assert [
        text for text, hint in rows.items() if not said[text].endswith(f" is not a valid parameter; {hint}.")
    ] == [], said


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("/", "/", {}),
        ("/a/b", "/a/b", {}),
        ("/a/b", "/a/b/", None),
        ("/a/b", "/a", None),
        ("/{a}", "/x y", {"a": "x y"}),
        ("/{a}", "/", None),
        ("/{a}", "/x/y", None),
        ("/{a}/{b}", "/x/y", {"a": "x", "b": "y"}),
        ("/{a:int}", "/-7", {"a": -7}),
        ("/{a:int}", "/007", {"a": 7}),
        ("/{a:int}", "/7.0", None),
        ("/{a:int}", "/٧", None),  # noqa: RUF001 - a digit that int() takes
        ("/{a:int}", "/1_0", None),
        ("/{a:int}", "/+1", None),
        ("/{a:float}", "/1.5", {"a": 1.5}),
        ("/{a:float}", "/1", {"a": 1.0}),
        ("/{a:float}", "/nan", None),
        ("/{a:float}", "/1e5", None),
        ("/{a:float}", f"/{'9' * 400}.0", None),  # beyond a float's range
        ("/{a:int}", f"/{'9' * 5000}", None),  # more digits than int() takes
        ("/{a:uuid}", "/12345678-1234-5678-1234-567812345678", {"a": UUID("12345678-1234-5678-1234-567812345678")}),
        ("/{a:uuid}", "/12345678123456781234567812345678", None),
        ("/{a:path}", "/x/y/z", {"a": "x/y/z"}),
        ("/{a:path}", "/x/", {"a": "x/"}),
        ("/{a:path}", "/", None),
        ("/{a:path}", "//etc/passwd", None),
        ("/{a:path}/end", "/x/y/end", {"a": "x/y"}),
        ("/{a:path}/{b:int}", "/x/y/5", {"a": "x/y", "b": 5}),
        ("/v{a:int}.{b:int}", "/v1.20", {"a": 1, "b": 20}),
        ("/{name}.json", "/a.b.json", {"name": "a.b"}),
        ("/{name}.json", "/a.xml", None),
        ("/ä/{b}", "/ä/ü", {"b": "ü"}),
        ("/{a}", "/x\ny", {"a": "x\ny"}),
    ],
)
def test_what_a_pattern_matches(pattern: str, path: str, values: dict[str, Any] | None) -> None:
    assert match(router(pattern), path) == (None if values is None else (pattern, values))


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/users/me", "/users/me"),
        ("/users/7", "/users/{id:int}"),
        ("/users/7.5", "/users/{id:float}"),
        ("/users/ann", "/users/{name}"),
        ("/users/ann.json", "/users/{name}.json"),
        ("/users/a/b", "/users/{rest:path}"),
        ("/users/", None),
    ],
)
def test_the_narrower_wins_whatever_the_order(path: str, pattern: str | None) -> None:
    patterns = [
        *("/users/{rest:path}", "/users/{name}", "/users/{name}.json", "/users/{id:float}", "/users/{id:int}"),
        "/users/me",
    ]
    for order in (patterns, patterns[::-1]):
        found = match(router(*order), path)
        assert (found and found[0]) == pattern


def test_what_the_narrower_one_does_not_have_the_wider_may() -> None:
    found = router("/a/b/c", "/a/{x}")
    assert match(found, "/a/b") == ("/a/{x}", {"x": "b"})
    found = router("/{x:int}/a", "/{y:float}/b")
    assert match(found, "/1/b") == ("/{y:float}/b", {"y": 1.0})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/{a}", "/{b}"),
        ("/{a}/x", "/x/{b}"),
        ("/x/{b}", "/{a}/x"),
        ("/{a:int}/{b}", "/{a}/{b:int}"),
        ("/a{x}", "/{x}a"),
        ("/{a:path}", "/{b:path}"),
        ("/{a}/1/{c}", "/{a:int}/{b}/c"),
        ("/{a}/{b}/c", "/{a}/b/{c}"),
        ("/{a:path}.txt", "/{b:path}.txt"),
    ],
)
def test_ambiguous_routes_are_refused_with_both_places(first: str, second: str) -> None:
    with pytest.raises(RouteError) as caught:
        router(first, second)
    assert f"place of {first}" in str(caught.value)
    assert f"place of {second}" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/{a}"),
        ("/{a:int}", "/{a}"),
        ("/a/{x}", "/b/{x}"),
        ("/{a}/x", "/{a}/y"),
        ("/{a}/x", "/{b}/{c}"),
        ("/{a:int}/x", "/x/{b}"),
        ("/{user}/settings", "/static/{rest:path}"),
        ("/a{x}", "/b{x}"),
        ("/{a}.txt", "/{a}.html"),
        ("/{a}/x/y", "/x/{b}"),
        ("/y/{a}", "/x-{p:path}"),
        ("/f/{p:path}", "/f/{p:path}.txt"),
        ("/{p:path}.txt", "/{x}/b-{p:path}"),
    ],
)
def test_what_can_be_told_apart_is_not(first: str, second: str) -> None:
    assert len(router(first, second).routes) == 2
    assert len(router(second, first).routes) == 2


def test_one_pattern_may_have_a_view_for_each_method() -> None:
    found = Router()
    for method in ("GET", "POST"):
        found.add(Route((method,), Pattern("/a"), method, view, method))
    assert [found.find("/a", method, set()).route.name for method in ("GET", "POST", "HEAD")] == ["GET", "POST", "GET"]  # type: ignore[union-attr]
    allowed: set[str] = set()
    assert found.find("/a", "PUT", allowed) is None
    assert allowed == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a", "does not begin with a slash"),
        ("/{a", "a brace"),
        ("/{}", "a brace"),
        ("/{a:b}", "not one of the converters"),
        ("/{a}/{a}", "two parameters with the same name"),
        ("/{1}", "a brace"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(RouteError, match=said):
        Pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "values", "path"),
    [
        ("/", {}, "/"),
        ("/{a}", {"a": "x/y?z#ä %"}, None),
        ("/{a}", {"a": "x?z#ä %"}, "/x%3Fz%23%C3%A4%20%25"),
        ("/{a:path}", {"a": "x/y z"}, "/x/y%20z"),
        ("/{a:int}", {"a": 5}, "/5"),
        ("/{a:int}", {"a": "b"}, None),
        ("/{a}", {"a": ".."}, None),
        ("/{a:path}", {"a": "x/../y"}, None),
        ("/{a:path}", {"a": "/etc"}, None),
        ("/a", {"q": "x y&z", "n": [1, 2], "no": None}, "/a?q=x+y%26z&n=1&n=2"),
        ("/ä", {}, "/%C3%A4"),
    ],
)
def test_the_way_back(pattern: str, values: dict[str, Any], path: str | None) -> None:
    if path is None:
        with pytest.raises(RouteError, match="does not match its parameter in"):
            Pattern(pattern).build(values)
    else:
        assert Pattern(pattern).build(values) == path


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs: what does not depend on how busy the machine is."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("pattern", ["/part{}/{{id:int}}/edit", "/part{}", "/{{name}}/part{}"])
def test_a_thousand_routes_take_no_more_work_than_ten(pattern: str) -> None:
    work = []
    for size in (10, 1000):
        found = router(*(pattern.format(number) for number in range(size)))
        path = pattern.format(size - 1).replace("{id:int}", "7").replace("{name}", "x")
        assert match(found, path)
        work.append(lines_run(lambda found=found, path=path: found.find(path, "GET", set())))  # type: ignore[misc]
    assert work[1] <= 2 * work[0]


def test_a_value_that_can_not_be_read_is_no_match() -> None:
    assert match(router("/{number:int}"), "/" + "9" * (sys.get_int_max_str_digits() + 1)) is None
