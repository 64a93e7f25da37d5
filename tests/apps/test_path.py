"""apps/path.py: the way that it shows is the one that packets take, and nobody needs privileges for it."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.probing.policy import Policy, Target
from apps.probing.trace import EXTENDED, parse_error, path_mtu, probe
from microwsgi.testing import live
from tests.apps.probing.loading import loaded
from tests.lab import FAR, NOBODY, ROUTER, Lab, fetch, socket_path
from tests.programs import need
from tests.running import LIMIT, microwsgi

DELAY = 0.010
TOLERANCE = 0.25
MTU = 1300


def traced(path: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the application says of the way to far, when there is enough of it."""
    end = time.monotonic() + 6 * LIMIT
    while time.monotonic() < end:
        status, body = fetch(path, "/to?target=far", Accept="application/json")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        if enough(found):
            return found
        time.sleep(0.05)  # between two looks
    raise AssertionError(f"not enough in {6 * LIMIT} s: {found}")


@pytest.mark.slow
def test_the_way_is_shown_as_it_is(tmp_path: Path) -> None:
    """As user nobody: two hops, of which the second is 20 ms away, and 1,300 bytes get through; traceroute says the same."""
    config = f'target = [{{name = "far", module = "tcp", target = "{FAR}:80"}}]\n'
    (tmp_path / "probe.toml").write_text(config, encoding="utf-8")
    tmp_path.chmod(0o777)
    with Lab(DELAY) as lab:
        for space in (lab.router, lab.far):
            lab.do(space, f"ip link set line mtu {MTU}")
        command = microwsgi("serve", "apps.path:app", "--bind", socket_path(tmp_path), "--access-log", "off")
        running = lab.start(lab.near, command, user=NOBODY, PROBE_CONFIG=str(tmp_path / "probe.toml"))
        running.line("unix:")
        found = traced(socket_path(tmp_path), lambda each: each["rounds"] >= 3)
        said = lab.do(lab.near, f"traceroute -n {FAR}")
    hops = re.findall(r"^ *\d+  ([\d.]+)", said, re.MULTILINE)
    assert [list(hop["addresses"]) for hop in found["hops"]] == [[hop] for hop in hops] == [[ROUTER], [FAR]]
    assert found["hops"][0]["median"] < DELAY
    assert found["hops"][1]["median"] == pytest.approx(2 * DELAY, rel=TOLERANCE)
    assert found["mtu"] == MTU
    assert all(hop["lost"] == 0 for hop in found["hops"])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_way_to_oneself_is_short(host: str) -> None:
    target = Policy(["127.0.0.0/8", "::1/128"]).resolve(host)
    hop = probe(target, 1)
    assert (hop.address, hop.arrived) == (target.address, True)
    assert (path_mtu(target) or 0) > 1500


def test_a_socket_that_answers_is_the_end_too() -> None:
    """Where somebody does listen on the port, and says something."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        target = Target("127.0.0.1", 0, socket.AF_INET, "127.0.0.1")
        assert probe(target, 1, timeout=0.01).address == "127.0.0.1"


def test_what_the_error_queue_says_is_read() -> None:
    ipv4 = EXTENDED.pack(113, 2, 11, 0, 0, 0, 0) + struct.pack("=HH4s8x", socket.AF_INET, 0, bytes([192, 0, 2, 1]))
    ipv6 = EXTENDED.pack(113, 3, 3, 0, 0, 0, 0) + struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, bytes(15) + b"\1", 0)
    assert parse_error(ipv4).offender == "192.0.2.1"
    assert parse_error(ipv6).offender == "::1"
    assert parse_error(EXTENDED.pack(90, 1, 0, 0, 0, 1300, 0)).info == 1300


def test_nobody_looks_and_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.probing.paths.UNSEEN", 0.0)
    monkeypatch.setattr("apps.probing.paths.PAUSE", 0.01)
    config = 'target = [{name = "here", module = "tcp", target = "127.0.0.1:80"}]\n'
    module: Any = loaded("apps.path", config, tmp_path, monkeypatch)
    way = module.way_to("here", "a")
    for rounds in (1, 2):
        way.look()
        thread = way.thread
        if thread is not None:
            thread.join(LIMIT)
        assert way.thread is None
        assert way.rounds >= rounds


@pytest.mark.slow
def test_the_page_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = need("chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - a second that other tests need not wait

    monkeypatch.setattr("apps.probing.paths.UNSEEN", 3.0)
    config = 'target = [{name = "here", module = "tcp", target = "127.0.0.1:80"}]\n'
    module: Any = loaded("apps.path", config, tmp_path, monkeypatch)
    with live(module.app) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page()
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto(server.url)
        tab.click("text=here")
        with tab.expect_response(lambda response: "/part/here" in response.url) as found:
            pass
        assert found.value.status == 200
        tab.wait_for_selector("td >> text=127.0.0.1")
        assert problems == []
        browser.close()
