"""microwsgi/framework/forwarded.py: what a trusted proxy says is believed, what anybody else says is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from webob import Request

from microwsgi.framework.forwarded import Forwarded

PROXY, OTHER, CLIENT, FORGED = "10.0.0.1", "10.0.0.2", "203.0.113.7", "1.2.3.4"
ALL = ("for", "proto", "host", "port", "prefix")


def seen(peer: str = PROXY, *, standard: bool = False, fields: Iterable[str] = ALL, **sent: str) -> dict[str, Any]:
    """The environ that an application gets; `sent` are fields, X_Forwarded_For=..."""
    got: dict[str, Any] = {}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        got.update(environ)
        start_response("200 OK", [])
        return []

    app = Forwarded(application, trusted=["10.0.0.0/8", "fd00::/8"], fields=fields, standard=standard)
    headers = {name.replace("_", "-"): value for name, value in sent.items()}
    request = Request.blank("/page", headers=headers)
    request.environ["REMOTE_ADDR"], request.environ["REMOTE_PORT"] = peer, "1"
    request.get_response(app)
    return got


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (CLIENT, CLIENT),
        (f"{FORGED}, {CLIENT}", CLIENT),  # the client's own word stands to the left
        (f"{CLIENT}, {OTHER}", CLIENT),
        (f"{FORGED}, {CLIENT},{OTHER}", CLIENT),
        (f"{PROXY}, {CLIENT}", CLIENT),  # a client that calls itself a proxy
        (f"{CLIENT}:4711", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("nonsense", PROXY),
        (f"{CLIENT}, nonsense", PROXY),
        (f"nonsense, {OTHER}", OTHER),
        ("", PROXY),
        (OTHER, OTHER),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(chain: str, client: str) -> None:
    assert seen(X_Forwarded_For=chain)["REMOTE_ADDR"] == client


def test_who_is_no_proxy_is_not_believed_and_its_fields_are_taken_out() -> None:
    got = seen(
        CLIENT,
        X_Forwarded_For=FORGED,
        X_Forwarded_Proto="https",
        X_Forwarded_Host="evil.example",
        X_Forwarded_Prefix="/x",
        Forwarded=f"for={FORGED}",
    )
    assert (got["REMOTE_ADDR"], got["REMOTE_PORT"]) == (CLIENT, "1")
    assert (got["wsgi.url_scheme"], got["SCRIPT_NAME"]) == ("http", "")
    assert "evil" not in got["HTTP_HOST"]
    assert not [key for key in got if "FORWARDED" in key]


def test_only_the_fields_that_the_proxies_set_are_believed() -> None:
    """A proxy passes on what it does not know: it is the client's word."""
    got = seen(fields=("for", "proto"), X_Forwarded_For=CLIENT, X_Forwarded_Host="evil.example", Forwarded="host=evil")
    assert got["REMOTE_ADDR"] == CLIENT
    assert "evil" not in str(got)


def test_the_standard_field_and_the_others_are_never_mixed() -> None:
    got = seen(standard=True, Forwarded=f"for={CLIENT}", X_Forwarded_For=FORGED, X_Forwarded_Proto="https")
    assert (got["REMOTE_ADDR"], got["wsgi.url_scheme"]) == (CLIENT, "http")


def test_scheme_host_port_and_prefix_are_the_clients() -> None:
    got = seen(
        X_Forwarded_For=CLIENT,
        X_Forwarded_Proto="https",
        X_Forwarded_Host="shop.example",
        X_Forwarded_Port="8443",
        X_Forwarded_Prefix="/a%20b/",
    )
    assert Request(got).url == "https://shop.example:8443/a%20b/page"
    assert got["SCRIPT_NAME"] == "/a b"


def test_with_two_proxies_the_outer_ones_word_counts() -> None:
    got = seen(X_Forwarded_For=f"{CLIENT}, {OTHER}", X_Forwarded_Proto="https, http")
    assert got["wsgi.url_scheme"] == "https"


def test_what_stands_left_of_the_outer_proxy_is_the_clients_own() -> None:
    got = seen(X_Forwarded_For=f"{FORGED}, {CLIENT}", X_Forwarded_Proto="https, http")
    assert got["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("X_Forwarded_Proto", "javascript"),
        ("X_Forwarded_Host", "a/b"),
        ("X_Forwarded_Host", "a@b"),
        ("X_Forwarded_Host", "a b"),
        ("X_Forwarded_Port", "x"),
        ("X_Forwarded_Port", "\u0663"),
        ("X_Forwarded_Prefix", "//evil.example"),
        ("X_Forwarded_Prefix", "x"),
        ("X_Forwarded_Prefix", "/a b"),
    ],
)
def test_no_link_is_made_of_what_is_no_host_scheme_or_path(field: str, value: str) -> None:
    got = seen(**{"X_Forwarded_For": CLIENT, field: value.encode().decode("latin-1")})  # type: ignore[arg-type]
    assert Request(got).url == "http://localhost/page"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};Proto=https, for={OTHER}", CLIENT),
        (f"for={FORGED},for={CLIENT}", CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        (f'for="{CLIENT}:80"', CLIENT),
        (r'for="203.0.113\.7"', CLIENT),
        ("for=_hidden", PROXY),
        ("for=unknown", PROXY),
        (f"for={CLIENT}, for=_hidden", PROXY),
        (f"for={CLIENT}; proto", PROXY),  # malformed: nothing of it is believed
        (f'for="{CLIENT}', PROXY),
        (f"for={CLIENT};;", PROXY),
        ("by=10.0.0.9", PROXY),
        ("", PROXY),
    ],
)
def test_the_forwarded_field_of_rfc_7239(value: str, client: str) -> None:
    assert seen(standard=True, Forwarded=value)["REMOTE_ADDR"] == client


@pytest.mark.parametrize(("trusted", "client"), [("unix", CLIENT), ("10.0.0.0/8", "")])
def test_a_unix_socket_is_trusted_by_its_name(trusted: str, client: str) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_ADDR"].encode()]

    request = Request.blank("/", headers={"X-Forwarded-For": CLIENT})
    request.environ["REMOTE_ADDR"] = ""
    assert request.get_response(Forwarded(application, trusted=[trusted])).text == client


def test_an_ipv4_address_within_ipv6_is_that_address() -> None:
    assert seen(f"::ffff:{PROXY}", X_Forwarded_For=CLIENT)["REMOTE_ADDR"] == CLIENT


@pytest.mark.parametrize("options", [{"trusted": ["10.0.0.1/8"]}, {"trusted": ["proxy"]}, {"fields": ["ssl"]}])
def test_what_can_not_be_meant_is_told_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8|proxy|ssl"):
        Forwarded(lambda environ, start_response: [], **options)
