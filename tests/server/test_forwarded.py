"""microwsgi/server/forwarded.py: what a trusted proxy reports is believed, and what another client sends changes nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from microwsgi.errors import UsageError
from microwsgi.server.environ import base_environ
from microwsgi.server.forwarded import FIELDS, TrustedProxies
from microwsgi.server.hosts import Hosts
from microwsgi.server.log import AccessLog
from tests.server.exchange import Running
from tests.tables import Rows

PROXY, OTHER, CLIENT, FORGED = "10.0.0.1", "10.0.0.2", "203.0.113.7", "1.2.3.4"


def seen(peer: str = PROXY, *, names: Iterable[str] = tuple(FIELDS), **sent: str) -> dict[str, object]:
    """The values that an application gets; `sent` are fields, X_Forwarded_For=..."""
    proxies = TrustedProxies(["10.0.0.0/8", "fd00::/8"], names)
    fields = {"HTTP_HOST": "localhost"} | {f"HTTP_{name.upper()}": value for name, value in sent.items()}
    base = base_environ(("127.0.0.1", 8000), None, multithread=False)
    assert proxies.trusts(peer)
    before = fields.copy(), base.copy()
    (address, port), made, changed = proxies.apply(fields, (peer, "1"), base)
    assert (fields, base) == before, "other requests share the arguments"
    return {
        "client": f"{address} {port}".strip(),
        "scheme": made["wsgi.url_scheme"],
        "host": changed["HTTP_HOST"],
        "server": f"{made['SERVER_NAME']}:{made['SERVER_PORT']}",
        "prefix": made["SCRIPT_NAME"],
    }


UNCHANGED = {"client": f"{PROXY} 1", "scheme": "http", "host": "localhost", "server": "127.0.0.1:8000", "prefix": ""}

CHAINS = (
    (CLIENT, CLIENT),
    (f"{FORGED}, {CLIENT}", CLIENT),  # what the client has sent itself stands to the left
    (f"{CLIENT}, {OTHER}", CLIENT),
    (f"{FORGED}, {CLIENT},{OTHER}", CLIENT),
    (f"{PROXY}, {CLIENT}", CLIENT),  # a client that calls itself a proxy
    (f"{CLIENT}:4711", f"{CLIENT} 4711"),
    ("2001:db8::1", "2001:db8::1"),
    ("[2001:db8::1]:4711", "2001:db8::1 4711"),
    ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
    (f"{CLIENT}, ::ffff:{OTHER}", CLIENT),
    ("nonsense", f"{PROXY} 1"),
    (f"{CLIENT}, nonsense", f"{PROXY} 1"),
    (f"nonsense, {OTHER}", OTHER),
    ("", f"{PROXY} 1"),
    (",,", f"{PROXY} 1"),
    (OTHER, OTHER),
    (f"{OTHER}, {OTHER}", OTHER),
    ("0x7f.1", f"{PROXY} 1"),
    ("203.0.113.7 \t", CLIENT),
)


def test_the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy() -> None:
    with Rows() as rows:
        for chain, client in CHAINS:
            with rows(chain):
                assert seen(X_Forwarded_For=chain) == {**UNCHANGED, "client": client}


REPORTED: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
    ({"Proto": "https"}, {"scheme": "https"}),
    ({"Proto": "HTTPS"}, {"scheme": "https"}),
    ({"Proto": "wss"}, {"scheme": "https"}),
    ({"Proto": "ws"}, {"scheme": "http"}),
    ({"Host": "shop.example"}, {"host": "shop.example", "server": "shop.example:80"}),
    ({"Host": "shop.example", "Proto": "https"}, {"host": "shop.example", "server": "shop.example:443"}),
    ({"Host": "shop.example:444", "Proto": "https"}, {"host": "shop.example:444", "server": "shop.example:444"}),
    ({"Host": "shop.example", "Port": "8443"}, {"host": "shop.example:8443", "server": "shop.example:8443"}),
    (
        {"Host": "shop.example:1", "Port": "443", "Proto": "https"},
        {"host": "shop.example", "server": "shop.example:443"},
    ),
    ({"Host": "[2001:db8::1]:444"}, {"host": "[2001:db8::1]:444", "server": "2001:db8::1:444"}),
    ({"Port": "8443"}, {"host": "localhost:8443", "server": "localhost:8443"}),
    ({"Prefix": "/a%20b/"}, {"prefix": "/a b"}),
    ({"Prefix": "/"}, {}),
    ({"Prefix": "/a/b"}, {"prefix": "/a/b"}),
    # Malformed values change nothing.
    ({"Proto": "javascript"}, {}),
    ({"Proto": ""}, {}),
    ({"Host": "a/b"}, {}),
    ({"Host": "a@b"}, {}),
    ({"Host": "a b"}, {}),
    ({"Host": ""}, {}),
    ({"Host": "a:123456"}, {}),
    ({"Port": "x"}, {}),
    ({"Port": "\u0663"}, {}),
    ({"Port": "123456"}, {}),
    ({"Prefix": "//evil.example"}, {}),
    ({"Prefix": "x"}, {}),
    ({"Prefix": "/a b"}, {}),
    ({"Prefix": "/a\r\nb"}, {}),
)


def test_scheme_host_port_and_prefix_are_those_of_the_clients_connection() -> None:
    with Rows() as rows:
        for sent, changed in REPORTED:
            fields = {f"X_Forwarded_{name}": value for name, value in sent.items()}
            scheme = {"scheme": changed["scheme"]} if "scheme" in changed else {}
            with rows(sent):
                want = UNCHANGED | ({"scheme": "https"} if sent.get("Proto") == "https" else {}) | scheme | changed
                assert seen(X_Forwarded_For=CLIENT, **fields) == {**want, "client": CLIENT}
                assert seen(**fields) == want, "without an address"


HOPS = (
    (f"{CLIENT}, {OTHER}", "https, http", "https"),  # two proxies: the outer one speaks with the client
    (f"{CLIENT}, {OTHER}", "https", "https"),  # the inner one passes the value on
    (f"{FORGED}, {CLIENT}", "https, http", "http"),  # what stands left of the outer one is the client's own
    (CLIENT, "https, http", "http"),
    (CLIENT, "http, https", "https"),
)


def test_each_proxy_is_believed_as_far_as_the_one_before_it_is_trusted() -> None:
    with Rows() as rows:
        for chain, schemes, scheme in HOPS:
            with rows(chain, schemes):
                assert seen(X_Forwarded_For=chain, X_Forwarded_Proto=schemes) == {
                    **UNCHANGED,
                    "client": CLIENT,
                    "scheme": scheme,
                }


STANDARD: tuple[tuple[str, dict[str, str]], ...] = (
    (f"for={CLIENT}", {"client": CLIENT}),
    (f"For={CLIENT};Proto=https, for={OTHER}", {"client": CLIENT, "scheme": "https"}),
    (f"for={FORGED};proto=https,for={CLIENT}", {"client": CLIENT}),
    ('for="[2001:db8::1]:4711"', {"client": "2001:db8::1 4711"}),
    (f'for="{CLIENT}:80"', {"client": f"{CLIENT} 80"}),
    (r'for="203.0.113\.7"', {"client": CLIENT}),
    (f"for={CLIENT};host=shop.example", {"client": CLIENT, "host": "shop.example", "server": "shop.example:80"}),
    ("for=_hidden;proto=https", {"scheme": "https"}),
    ("for=unknown", {}),
    (f"for={CLIENT}, for=_hidden", {}),
    (f"for={CLIENT}; proto", {}),  # malformed: nothing of it is believed
    (f'for="{CLIENT}', {}),
    (f"for={CLIENT};;", {}),
    (f"for={CLIENT},,for={OTHER}", {}),
    ("by=10.0.0.9", {}),
    ("prefix=/x;port=80", {}),
    ("", {}),
)


def test_the_forwarded_field_of_rfc_7239() -> None:
    with Rows() as rows:
        for value, changed in STANDARD:
            with rows(value):
                assert seen(names=["forwarded"], Forwarded=value) == UNCHANGED | changed


def test_only_the_fields_that_the_proxies_set_are_believed() -> None:
    """A proxy passes on a field that it does not know: its value comes from the client."""
    got = seen(
        names=["For", "proto"],
        X_Forwarded_For=CLIENT,
        X_Forwarded_Host="evil.example",
        X_Forwarded_Prefix="/evil",
        Forwarded="host=evil",
    )
    assert got == {**UNCHANGED, "client": CLIENT}
    got = seen(names=["forwarded"], Forwarded=f"for={CLIENT}", X_Forwarded_For=FORGED, X_Forwarded_Proto="https")
    assert got == {**UNCHANGED, "client": CLIENT}


TRUSTED: tuple[tuple[list[str], str, bool], ...] = (
    (["10.0.0.1"], PROXY, True),
    (["10.0.0.1"], OTHER, False),
    (["10.0.0.0/8"], OTHER, True),
    (["10.0.0.0/8"], f"::ffff:{OTHER}", True),
    (["10.0.0.0/8"], CLIENT, False),
    (["fe80::/10"], "fe80::1%eth0", True),
    (["10.0.0.0/8"], "", False),
    (["10.0.0.0/8"], "nonsense", False),
    (["unix"], "", True),
    (["unix"], "127.0.0.1", False),
    (["*"], "", True),
    (["*"], CLIENT, True),
    (["*"], "2001:db8::1", True),
    ([], "127.0.0.1", False),
)


def test_an_address_a_network_or_unix_is_trusted() -> None:
    with Rows() as rows:
        for addresses, peer, trusted in TRUSTED:
            with rows(addresses, peer):
                proxies = TrustedProxies(addresses)
                assert [proxies.trusts(peer), proxies.trusts(peer)] == [trusted, trusted]


@pytest.mark.parametrize(
    ("addresses", "names"),
    [
        (["10.0.0.1/8"], []),
        (["proxy"], []),
        (["10.0.0.1"], ["ssl"]),
        (["10.0.0.1"], ["forwarded", "for"]),
    ],
)
def test_an_address_or_a_field_that_does_not_exist_is_refused(addresses: list[str], names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8|proxy|ssl|forwarded"):
        TrustedProxies(addresses, names)


# --- Over sockets -------------------------------------------------------------------------------------------------------


def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer with what the client's connection is."""
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME")
    start_response("200 OK", [])
    return [json.dumps([environ[key] for key in keys]).encode()]


FORWARDED = [
    f"X-Forwarded-For: {CLIENT}",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "X-Forwarded-Prefix: /shop",
]


def ask(running: Running, *lines: str) -> list[str]:
    response = running.get("/", *lines)
    assert response.status == 200, response.body
    found: list[str] = json.loads(response.body)
    return found


def test_environ_and_access_log_have_the_client_of_each_request_of_a_kept_connection() -> None:
    log = io.StringIO()
    arguments = {"access_log": AccessLog(log, "json")}
    options: dict[str, Any] = {"forwarded_allow_ips": "127.0.0.1", "forwarded_fields": ",".join(FIELDS)}
    with Running(told, arguments=arguments, **options) as running:
        first = "\r\n".join(["GET / HTTP/1.1", "Host: inner", *FORWARDED, "", ""]).encode()
        responses = running.send(first + b"GET / HTTP/1.1\r\nHost: inner\r\n\r\n" + first, half_close=True)
    assert [json.loads(each.body) for each in responses] == [
        [CLIENT, "", "https", "shop.example", "shop.example", "443", "/shop"],
        ["127.0.0.1", json.loads(responses[1].body)[1], "http", "inner", "127.0.0.1", str(running.address[1]), ""],
        [CLIENT, "", "https", "shop.example", "shop.example", "443", "/shop"],
    ]
    assert [json.loads(line)["client"] for line in log.getvalue().splitlines()] == [CLIENT, "127.0.0.1", CLIENT]


def test_the_error_log_has_the_client_too() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("the bug")

    with Running(application, forwarded_allow_ips="127.0.0.1") as running:
        assert running.get("/", *FORWARDED).status == 500
    assert f'{CLIENT} "GET / HTTP/1.1" failed' in running.errors.text.getvalue()


def test_from_another_address_the_fields_are_plain_fields() -> None:
    seen: list[str] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ["HTTP_X_FORWARDED_FOR"])
        return told(environ, start_response)

    with Rows() as rows:
        for trusted in ("", "192.0.2.1", "10.0.0.0/8,unix"):
            with rows(trusted), Running(application, forwarded_allow_ips=trusted) as running:
                address, _, *rest = ask(running, *FORWARDED)
                assert [address, *rest] == ["127.0.0.1", "http", "a", "127.0.0.1", str(running.address[1]), ""]
    assert seen == [CLIENT] * 3


def test_the_list_of_hosts_is_asked_for_the_clients_host() -> None:
    """DNS rebinding: a script of a hostile site could send X-Forwarded-Host itself, if it were believed by default."""
    arguments = {"hosts": Hosts(["shop.example"])}
    forged = "X-Forwarded-Host: localhost"
    believing: dict[str, Any] = {"forwarded_allow_ips": "127.0.0.1", "forwarded_fields": ",".join(FIELDS)}
    with Rows() as rows:
        for options, host, lines, status in (
            (believing, "upstream", FORWARDED, 200),
            (believing, "upstream", ["X-Forwarded-Host: evil.example"], 421),
            ({"forwarded_allow_ips": "127.0.0.1"}, "evil.example", [forged], 421),
            ({}, "upstream", FORWARDED, 421),
        ):
            with rows(options, lines), Running(told, arguments=arguments, **options) as running:
                head = "\r\n".join(["GET / HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""])
                (response,) = running.send(head.encode())
                assert response.status == status
                assert status == 200 or b"--forwarded-allow-ips" in response.body


def test_a_handler_class_has_the_client_in_the_access_log() -> None:
    class Hello(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

    log = io.StringIO()
    with Running(
        None, Hello, arguments={"access_log": AccessLog(log, "json")}, forwarded_allow_ips="127.0.0.1"
    ) as running:
        assert running.send(f"GET / HTTP/1.1\r\nHost: a\r\n{FORWARDED[0]}\r\n\r\n".encode())
    assert json.loads(log.getvalue())["client"] == CLIENT


def test_a_wrong_option_is_one_sentence() -> None:
    cases: list[dict[str, Any]] = [
        {"forwarded_allow_ips": "proxy"},
        {"forwarded_allow_ips": "unix", "forwarded_fields": "real-ip"},
    ]
    with Rows() as rows:
        for options in cases:
            with rows(options), pytest.raises(UsageError, match="--forwarded-allow-ips"):
                Running(told, **options)
