"""One declaration of every option, and what the environment, `serve()` and the documentation make of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from microwsgi.errors import ListenError, UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME, OPTIONS
from microwsgi.options.document import documentation, keywords
from microwsgi.options.environment import from_environment, merged
from microwsgi.options.kinds import parse_size
from tests.tables import Rows

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "options.md"
UNSET = " If not: unset MICROWSGI_THREAD"


def refusal(**given: object) -> str:
    with pytest.raises(UsageError) as caught:
        Options.from_mapping(given)
    return str(caught.value)


def test_the_defaults_are_values_that_can_be_given() -> None:
    for option in OPTIONS:
        assert option.parse(option.default) == option.default
        assert option.parse(option.format(option.default)) == option.default


def test_each_option_is_an_attribute_with_its_default() -> None:
    options = Options()
    assert vars(options) == {option.name: option.default for option in OPTIONS}
    assert not any(hasattr(Options, name) for name in vars(options)), "access to the value would be slower"


def test_the_keyword_arguments_are_made_from_the_declaration() -> None:
    stub = ROOT / "microwsgi" / "options" / "keywords.pyi"
    assert stub.read_text(encoding="utf-8") == keywords(), "python -m microwsgi.options keywords > " + stub.name


def test_the_documentation_is_made_from_the_declaration() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == documentation(), "python -m microwsgi.options > docs/options.md"


@pytest.mark.parametrize(
    ("text", "value"), [("65536", 65536), ("64K", 65536), ("64k", 65536), ("1G", 1024**3), ("0", 0), (7, 7)]
)
def test_sizes(text: str | int, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_header_size": "4X"}, "invalid --max-header-size 4X: expected a number of bytes, like 65536, 64K or 1G."),
        ({"max_header_size": -1}, "invalid --max-header-size -1: expected a number of bytes, like 65536, 64K or 1G."),
        ({"max_header_size": "K"}, "invalid --max-header-size K: expected a number of bytes, like 65536, 64K or 1G."),
        ({"max_header_size": "٣"}, "invalid --max-header-size ٣: expected a number of bytes, like 65536, 64K or 1G."),
        ({"header_timeout": "soon"}, "invalid --header-timeout soon: expected a number of seconds, like 10 or 0.5."),
        ({"header_timeout": "nan"}, "invalid --header-timeout nan: expected a number of seconds, like 10 or 0.5."),
        ({"header_timeout": "inf"}, "invalid --header-timeout inf: expected a number of seconds, like 10 or 0.5."),
        ({"header_timeout": None}, "invalid --header-timeout None: expected a number of seconds, like 10 or 0.5."),
        ({"threads": 0}, "invalid --threads 0: expected a whole number, 1 or more."),
        ({"threads": "1.5"}, "invalid --threads 1.5: expected a whole number, 1 or more."),
        ({"port": "http"}, "invalid --port http: expected a port from 0 to 65535."),
        ({"color": "red"}, "invalid --color red: expected one of auto, always, never."),
        ({"full_traceback": "perhaps"}, "invalid --full-traceback perhaps: expected on or off."),
        ({"bind": 8000}, "invalid --bind 8000: expected a string, or a list of strings."),
        ({"bind": [""]}, "invalid --bind '': expected a value that is not empty."),
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
        Options.from_mapping({"port": port})
    assert str(caught.value) == f"invalid port {port}: expected 0 to 65535 (0 picks a free one)."


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
    assert Options.from_mapping(given).addresses == addresses


def test_variables_are_converted_and_the_empty_ones_are_not_set() -> None:
    environ = {
        "MICROWSGI_MAX_HEADER_SIZE": "4K",
        "MICROWSGI_FULL_TRACEBACK": "yes",
        "MICROWSGI_THREADS": "",
        "PATH": "/bin",
    }
    assert from_environment(environ) == {"max_header_size": 4096, "full_traceback": True}


def test_port_has_two_variables_and_ours_comes_first() -> None:
    assert from_environment({"PORT": "5"}) == {"port": 5}
    assert from_environment({"PORT": "5", "MICROWSGI_PORT": "6"}) == {"port": 6}


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("MICROWSGI_THREADS", "invalid MICROWSGI_THREADS=x: expected a whole number, 1 or more."),
        ("PORT", "invalid PORT=x: expected a port from 0 to 65535."),
        ("MICROWSGI_THREAD", f"MICROWSGI_THREAD is not an option; did you mean MICROWSGI_THREADS?{UNSET}"),
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


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MICROWSGI_SERVICE_HOST", "10.0.0.1"),
        ("MICROWSGI_SERVICE_PORT_HTTP", "80"),
        ("MICROWSGI_PORT", "tcp://10.0.0.1:80"),
        ("MICROWSGI_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("MICROWSGI_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("MICROWSGI_ADMIN_PORT", "tcp://10.0.0.1:80"),
        ("MICROWSGI_SECRET_KEY", "x"),
    ],
)
def test_variables_of_other_programs_are_ignored(variable: str, value: str) -> None:
    assert from_environment({variable: value, "PORT": "5"}) == {"port": 5}


def test_variables_are_read_for_the_options_that_a_command_has() -> None:
    assert from_environment({"PORT": "abc"}, [BY_NAME["pid_file"]]) == {}


def test_host_names_are_as_they_can_stand_in_a_host_field() -> None:
    given = "Example.ORG.,.example.org,b\u00fccher.example,.b\u00fccher.example,[::1],FE80::1,127.0.0.1,a_b,*"
    expected = "example.org,.example.org,xn--bcher-kva.example,.xn--bcher-kva.example,::1,fe80::1,127.0.0.1,a_b,*"
    assert Options(allow_host=given).allow_host == tuple(expected.split(","))


def test_a_host_name_that_can_never_match_is_refused() -> None:
    bare = "a host name without a scheme, port or path, like"
    rows = [
        ("https://example.org", f"{bare} example.org"),
        ("example.org:8000", f"{bare} example.org"),
        ("example.org/path", f"{bare} example.org"),
        ("https://[::1]:80/", f"{bare} ::1"),
        ("[::1]:80", f"{bare} ::1"),
        ("*.example.org", ".example.org for a domain and its subdomains"),
        *(
            (name, "a host name, like example.org")
            for name in ("a..b", "a b", "-*", ".", "a" * 64, "b\u00fc..c", "a.b?")
        ),
    ]
    with Rows() as table:
        for name, expected in rows:
            with table(name):
                assert refusal(allow_host=[name]) == f"invalid --allow-host {name}: expected {expected}."


def test_an_unknown_option_can_not_be_replaced() -> None:
    with pytest.raises(UsageError, match="there is no option porrt; did you mean port"):
        Options().replaced(porrt=1)
