"""apps/probing/policy.py, and what the pages make of it: nobody reaches through them what the operator has not allowed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from apps.probing.names import Resolver, literal
from apps.probing.policy import Budget, Found, Policy, Refused, Target, faces, parse
from apps.probing.probes import MODULES
from microwsgi.testing import Client
from tests.apps.probing.loading import loaded

HERE = (
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "127.000.000.001", "2130706433", "0x7f000001", "0x7F.0.0.1"),
    *(
        "0x7f.1",
        "0x7f.0x1",
        "017700000001",
        "0177.0.0.1",
        "0177.1",
        "0177.0.0.01",
        "localhost",
        "LOCALHOST",
        "localhost.",
    ),
    *("0", "0.0.0.0", "00", "0x0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::FFFF:7F00:0001]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]"),
    *("[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:1::1]", "[2001:0:7f00:1::]", "[2001::80ff:fffe]"),
    *("[fe80::5efe:7f00:1]", "[2001:db8::5efe:7f00:1]", "[2001:db8::200:5efe:7f00:1]"),
)
"""This machine, as it can be written."""
ELSEWHERE = (
    *("169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[fe80::1]"),
    *("[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]", "224.0.0.1", "255.255.255.255", "[ff02::1]", "240.0.0.1", "10.0.0.1"),
    *("192.0.2.1", "[2001:db8::1]", "[fec0::1]", "0.0.0.1"),
)
"""Where a cloud answers for its machines' secrets, everybody at once, and networks that are not in the configuration."""
TRICKS = (
    *(
        "127.0.0.2@127.0.0.1",
        "127.0.0.1@127.0.0.2",
        "user:pass@127.0.0.1",
        "http://127.0.0.1",
        "//127.0.0.1",
        "127.0.0.1/",
    ),
    *("127.0.0.2#@127.0.0.1", "127.0.0.1#.127.0.0.2", "127.0.0.2\\@127.0.0.1", "127.0.0.1 127.0.0.2", " 127.0.0.1"),
    *("127.0.0.1\t", "127.0.0.1\r\nHost: a", "127.0.0.1\0.127.0.0.2", "127.0.0.1%00", "[::1%lo]", "[127.0.0.1]", "::1"),
    *("①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1:80:127.0.0.2", "127.0.0.2,127.0.0.1", "127.0.0.1;", "file:///etc/passwd"),
    *("unix:/tmp/a", "gopher://127.0.0.1", "127.0.0.2:99999", "", ".", "-", "[", "[]", "[::1", "::ffff:127.0.0.1"),
)
"""What other parsers take for two things, and ours for none."""


class Listener:
    """Somebody whom nobody may reach: on both loopbacks, TCP and UDP, with one port."""

    def __init__(self) -> None:
        self.sockets = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        self.sockets[0].bind(("127.0.0.1", 0))
        self.port: int = self.sockets[0].getsockname()[1]
        self.sockets[1].bind(("127.0.0.1", self.port))
        self.sockets[0].listen()
        for each in self.sockets:
            each.setblocking(False)

    def visitors(self) -> list[object]:
        """Who has come so far; the kernel keeps them until they are asked for."""
        found: list[object] = []
        with contextlib.suppress(BlockingIOError):
            connection, address = self.sockets[0].accept()
            connection.close()
            found.append(address)
        with contextlib.suppress(BlockingIOError):
            found.append(self.sockets[1].recvfrom(100))
        return found

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest.fixture
def forbidden() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


Ask = Callable[[str, str], int]


def status_of(client: Client, path: str, target: str, kind: str) -> int:
    return client.get(f"{path}?target={quote(target)}&module={kind}").status_int


@pytest.fixture
def asks(forbidden: Listener, tmp_path: Path) -> Iterator[dict[str, Ask]]:
    """The two pages, with 127.0.0.2 allowed, and each port: status of a request for a target."""
    config = (
        f"history = ''\nallow = ['127.0.0.2/32']\nports = [1, {forbidden.port}]\ntimeout = 0.2\nper_minute = 100000\n"
    )
    with contextlib.ExitStack() as stack:
        found: dict[str, Ask] = {}
        for name, path in (("apps.probe", "/probe"), ("apps.path", "/to")):
            module = stack.enter_context(loaded(name, config, tmp_path))
            found[path] = partial(status_of, Client(module.app), path)
        yield found


@pytest.mark.parametrize("path", ["/probe", "/to"])
def test_visitors_reach_only_what_is_allowed(path: str, asks: dict[str, Ask], forbidden: Listener) -> None:
    """Spellings, other networks, parser tricks; by each module and with and without the port."""
    kinds = MODULES if path == "/probe" else ("",)
    asked = [
        (text, kind, asks[path](text, kind))
        for target in (*HERE, *ELSEWHERE, *TRICKS)
        for kind in kinds
        for text in (target, f"{target}:{forbidden.port}")
    ]
    assert [each for each in asked if each[2] not in {400, 403}] == []
    assert forbidden.visitors() == []


def test_the_listener_would_have_noticed(
    asks: dict[str, Ask], forbidden: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "permits", lambda *_, **__: True)
    assert asks["/probe"](f"127.0.0.1:{forbidden.port}", "tcp") == 200
    assert asks["/probe"](f"127.0.0.1:{forbidden.port}", "dns") == 200
    assert len(forbidden.visitors()) == 2


def answering(*answers: list[str]) -> Callable[..., Any]:
    """A resolver that gives one answer after the other; asked once more, it fails the test."""
    left = iter(answers)

    async def lookup(self: object, host: str, deadline: float) -> list[Found]:
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [Found(families[":" in each], each) for each in next(left)]

    return lookup


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:127.0.0.1"], ["127.0.0.2", "::1"],
    ],
)  # fmt: skip
def test_a_name_is_judged_by_each_of_its_addresses(
    addresses: list[str], asks: dict[str, Ask], forbidden: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resolver, "lookup", answering(addresses, addresses))
    assert asks["/probe"](f"innocent.example:{forbidden.port}", "tcp") == 403
    assert asks["/to"]("innocent.example", "") == 403
    assert forbidden.visitors() == []


@pytest.mark.parametrize("kind", ["tcp", "http", "tls", "https", "dns", "icmp"])
def test_an_answer_is_pinned(
    kind: str, asks: dict[str, Ask], forbidden: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the name server says something harmless first, and loopback to a second query. There is none."""
    monkeypatch.setattr(Resolver, "lookup", answering(["127.0.0.2"]))
    assert asks["/probe"](f"rebound.example:{forbidden.port}", kind) == 200
    assert forbidden.visitors() == []


def test_a_redirect_is_not_followed(asks: dict[str, Ask], forbidden: Listener, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        config = f"history = ''\nallow = ['127.0.0.2/32']\nports = [{port}]\n"

        def redirect() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                where = f"http://127.0.0.1:{forbidden.port}/".encode()
                connection.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n")

        thread = threading.Thread(target=redirect)
        thread.start()
        with loaded("apps.probe", config, tmp_path) as module:
            response = Client(module.app).get(f"/probe?module=http&target=127.0.0.2:{port}")
        thread.join()
    assert "probe_http_status_code 302.0" in response.text
    assert "probe_success 0.0" in response.text
    assert forbidden.visitors() == []


def judged(host: str, *, configured: bool, policy: Policy | None = None) -> list[Target]:
    """The targets of an address as it is written."""
    found = literal(host)
    assert found
    return (policy or Policy()).targets(host, 80, [found], configured=configured)


def test_a_configured_target_may_be_anywhere_but_where_nobody_may() -> None:
    assert judged("127.0.0.1", configured=True)[0].address == "127.0.0.1", "written as it is, loopback is meant"
    assert Policy().targets("localhost", 80, [Found(socket.AF_INET, "127.0.0.1")], configured=True)
    assert judged("fe80::1%lo", configured=True)[0].scope == socket.if_nametoindex("lo")
    assert Policy().permits(ip_address("192.0.2.1"), configured=True)
    for text in ("127.1", "169.254.169.254", "0.0.0.0", "::", "224.0.0.1"):
        with pytest.raises(Refused):
            judged(text, configured=True)
    with pytest.raises(Refused):  # a name that moved to loopback
        Policy().targets("db.example", 5432, [Found(socket.AF_INET, "127.0.0.1")], configured=True)


def test_ports_are_those_of_the_configuration() -> None:
    policy = Policy(["192.0.2.0/24"], [80])
    policy.check_port(80)
    policy.check_port(0)
    with pytest.raises(Refused, match="Port 22"):
        policy.check_port(22)
    with pytest.raises(Refused, match="no port 70000"):
        parse("192.0.2.1:70000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", ("a.example", 7)),
        ("a.example:1", ("a.example", 1)),
        ("[2001:db8::1]", ("2001:db8::1", 7)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("2001:db8::1", ("2001:db8::1", 7)),
        ("fe80::1%eth0", ("fe80::1%eth0", 7)),
        ("[fe80::1%eth0.5]:22", ("fe80::1%eth0.5", 22)),
        ("bücher.example:80", ("xn--bcher-kva.example", 80)),
    ],
)
def test_a_target_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse(text, 7) == expected


def test_the_faces_of_an_address() -> None:
    assert [str(face) for face in faces(ip_address("::ffff:192.0.2.1"))] == ["192.0.2.1"]
    assert [str(face) for face in faces(ip_address("64:ff9b::192.0.2.1"))] == ["64:ff9b::c000:201", "192.0.2.1"]
    assert [str(face) for face in faces(ip_address("2002:c000:201::"))] == ["2002:c000:201::", "192.0.2.1"]
    assert [str(face) for face in faces(ip_address("2001:db8::1"))] == ["2001:db8::1"]


def test_a_viewer_has_so_many_probes_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 600.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    budget = Budget(2)
    assert [budget.take("a") for _ in range(3)] == [True, True, False]
    assert budget.take("b")
    now += 60
    assert budget.take("a")
    assert list(budget.spent) == ["a"], "what is remembered is bounded"


BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        # Plain http to a LAN address: no Sec-Fetch-Site, for an image no Origin, and the other page can suppress the Referer.
        ({**BROWSER, "Origin": "http://evil.example"}, 403),
        ({**BROWSER, "Referer": "http://evil.example/"}, 403),
        ({**BROWSER, "Referer": "http://localhost.evil.example/"}, 403),
        ({**BROWSER, "Referer": "http://localhost/"}, 200),
        (BROWSER, 403),
    ],
)
def test_another_sites_page_may_not_probe(fields: dict[str, str], status: int, tmp_path: Path) -> None:
    config = "history = ''\nallow = ['127.0.0.2/32']\nports = [1]\n"
    with loaded("apps.probe", config, tmp_path) as module:
        assert Client(module.app).get("/probe?target=127.0.0.2:1", headers=fields).status_int == status
    if status == 403:  # the tracer asks the same guard, before anything is sent
        with loaded("apps.path", config, tmp_path) as module:
            assert Client(module.app).get("/to?target=127.0.0.2", headers=fields).status_int == status


def test_a_viewer_who_asks_too_often_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.probing.policy.MINUTE", 1e9)  # the three requests are of one minute
    config = "history = ''\nper_minute = 2\nallow = ['127.0.0.2/32']\nports = [1]\n"
    with loaded("apps.probe", config, tmp_path) as module:
        client = Client(module.app)
        assert [client.get("/probe?target=127.0.0.2:1").status_int for _ in range(3)] == [200, 200, 429]
