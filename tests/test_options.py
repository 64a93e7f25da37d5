"""One declaration of every option, and what the environment, `serve()` and the documentation make of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from microwsgi.errors import ListenError, UsageError
from microwsgi.options import BY_NAME, OPTIONS, Options, documentation, from_environment, merged, size

DOCUMENT = Path(__file__).parent.parent / "docs" / "options.md"

UNSET = "\n  Try:  unset MICROWSGI_THREAD   (variables that begin with MICROWSGI_ are options)"


def refusal(**given: object) -> str:
    with pytest.raises(UsageError) as caught:
        Options(**given)
    return str(caught.value)


def test_the_defaults_are_values_that_can_be_given() -> None:
    for option in OPTIONS:
        assert option.take(option.default) == option.default
        assert option.take(option.shown_default) == option.default


def test_each_option_is_an_attribute_with_a_type_and_no_other_is() -> None:
    assert set(Options.__annotations__) == set(BY_NAME)


def test_the_documentation_is_made_from_the_declaration() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == documentation(), "python -m microwsgi.options > docs/options.md"


@pytest.mark.parametrize(
    ("text", "value"), [("65536", 65536), ("64K", 65536), ("64k", 65536), ("1G", 1024**3), ("0", 0), (7, 7)]
)
def test_sizes(text: str | int, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head_size": "4X"}, "Invalid --head-size 4X: expected a number of bytes, like 65536, 64K or 1G."),
        ({"head_size": -1}, "Invalid --head-size -1: expected a number of bytes, like 65536, 64K or 1G."),
        ({"head_size": "K"}, "Invalid --head-size K: expected a number of bytes, like 65536, 64K or 1G."),
        ({"head_size": "٣"}, "Invalid --head-size ٣: expected a number of bytes, like 65536, 64K or 1G."),
        ({"head_time": "soon"}, "Invalid --head-time soon: expected a number of seconds, like 10 or 0.5."),
        ({"head_time": "nan"}, "Invalid --head-time nan: expected a number of seconds, like 10 or 0.5."),
        ({"head_time": "inf"}, "Invalid --head-time inf: expected a number of seconds, like 10 or 0.5."),
        ({"head_time": None}, "Invalid --head-time None: expected a number of seconds, like 10 or 0.5."),
        ({"threads": 0}, "Invalid --threads 0: expected a whole number from 1 on."),
        ({"threads": "1.5"}, "Invalid --threads 1.5: expected a whole number from 1 on."),
        ({"port": "http"}, "Invalid --port http: expected a port from 0 to 65535."),
        ({"color": "red"}, "Invalid --color red: expected one of auto, always, never."),
        ({"traceback": "perhaps"}, "Invalid --traceback perhaps: expected on or off."),
        ({"bind": 8000}, "Invalid --bind 8000: expected a text, or a list of texts."),
        ({"bind": [""]}, "Invalid --bind '': expected a value that is not empty."),
        ({"prot": 1}, "there is no option prot; did you mean port?"),
        ({"zzz": 1}, "there is no option zzz."),
        ({"bind": "a:1", "port": 1}, "--bind has host and port in it: leave out --host and --port, or --bind."),
    ],
)
def test_what_can_not_be_is_one_sentence_with_the_cure(given: dict[str, object], message: str) -> None:
    assert refusal(**given) == message


@pytest.mark.parametrize("port", [99999, "65536", -1, "-1"])
def test_a_port_out_of_range_cannot_be_listened_on(port: object) -> None:
    with pytest.raises(ListenError) as caught:
        Options(port=port)
    assert str(caught.value) == f"Invalid port {port}: expected 0 to 65535 (0 picks a free one)."


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ({}, ("127.0.0.1:8000",)),
        ({"host": "::1", "port": 0}, ("[::1]:0",)),
        ({"host": "[::1]"}, ("[::1]:8000",)),
        ({"bind": "unix:/x,a:1"}, ("unix:/x", "a:1")),
        ({"bind": ["unix:/x,y"]}, ("unix:/x,y",)),
    ],
)
def test_where_to_listen(given: dict[str, object], addresses: tuple[str, ...]) -> None:
    assert Options(**given).addresses == addresses


def test_variables_are_converted_and_the_empty_ones_are_not_set() -> None:
    environ = {"MICROWSGI_HEAD_SIZE": "4K", "MICROWSGI_TRACEBACK": "yes", "MICROWSGI_THREADS": "", "PATH": "/bin"}
    assert from_environment(environ) == {"head_size": 4096, "traceback": True}


def test_port_has_two_variables_and_ours_comes_first() -> None:
    assert from_environment({"PORT": "5"}) == {"port": 5}
    assert from_environment({"PORT": "5", "MICROWSGI_PORT": "6"}) == {"port": 6}


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("MICROWSGI_THREADS", "Invalid MICROWSGI_THREADS=x: expected a whole number from 1 on."),
        ("PORT", "Invalid PORT=x: expected a port from 0 to 65535."),
        ("MICROWSGI_THREAD", f"there is no variable MICROWSGI_THREAD; did you mean MICROWSGI_THREADS?{UNSET}"),
    ],
)
def test_a_wrong_variable_is_named_as_it_is_written(variable: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_environment({variable: "x"})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layers", "result"),
    [
        ([{"threads": 1, "port": 2}, {"threads": 3}], {"threads": 3, "port": 2}),
        ([{"port": 1, "host": "a"}, {"bind": ("b:1",)}], {"bind": ("b:1",)}),
        ([{"bind": ("b:1",)}, {"port": 1}], {"port": 1}),
        ([{"port": 1}, {"bind": ("b:1",), "port": 2}], {"bind": ("b:1",), "port": 2}),
    ],
)
def test_an_address_is_replaced_as_a_whole(layers: list[dict[str, object]], result: dict[str, object]) -> None:
    assert merged(*layers) == result


def test_in_the_environment_bind_is_more_than_port() -> None:
    assert from_environment({"PORT": "5", "MICROWSGI_BIND": "a:1"}) == {"bind": ("a:1",)}


def test_options_of_a_group_stand_together() -> None:
    groups = [group for group, _ in itertools.groupby(option.group for option in OPTIONS)]
    assert len(groups) == len(set(groups))
