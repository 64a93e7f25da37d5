"""apps/probe.py: what it shows is what the network does, whoever runs it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from microwsgi.testing import Client, live
from tests.apps.probing.loading import loaded
from tests.lab import FAR, NEAR, NOBODY, Lab, fetch, socket_path
from tests.programs import need
from tests.running import LIMIT, Running, microwsgi, python

DELAY = 0.010
"""Seconds each way: a round trip is twice that."""
TOLERANCE = 0.25
"""Share by which a median may be off, on machines that do much else."""
CONFIG = f"""
interval = 1
probes = 20
timeout = 0.5
target = [
    {{name = "ping", module = "icmp", target = "{FAR}"}},
    {{name = "connect", module = "tcp", target = "{FAR}:8000"}},
    {{name = "page", module = "http", target = "{FAR}:8000", path = "/"}},
    {{name = "closed", module = "tcp", target = "{FAR}:8001"}},
    {{name = "dropped", module = "tcp", target = "{FAR}:8002"}},
    {{name = "reset", module = "tcp", target = "{FAR}:8003"}},
    {{name = "forbidden", module = "tcp", target = "{FAR}:8004"}},
    {{name = "absent", module = "tcp", target = "{NEAR.rpartition(".")[0]}.99:80"}},
]
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(DELAY) as made:
        made.filter("drop", 8002)
        made.filter("reject with tcp reset", 8003)
        made.filter("reject with icmp type host-unreachable", 8004)
        server = made.start(
            made.far, microwsgi("serve", "apps.echo:app", "--bind", f"{FAR}:8000", "--access-log", "off")
        )
        server.line(r"8000")
        made.do(made.near, "sysctl -qw 'net.ipv4.ping_group_range=0 65534'")
        yield made


def figures(path: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the application says when there is enough of it."""
    end = time.monotonic() + 6 * LIMIT
    while time.monotonic() < end:
        status, body = fetch(path, "/api")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        if enough(found):
            return found
        time.sleep(0.05)  # between two looks
    raise AssertionError(f"not enough in {6 * LIMIT} s: {found}")


def serve_probe(lab: Lab, folder: Path, config: str, user: int = 0, command: list[str] | None = None) -> Running:
    (folder / "probe.toml").write_text(config, encoding="utf-8")
    folder.chmod(0o777)
    words = command or microwsgi("serve", "apps.probe:app", "--bind", socket_path(folder), "--access-log", "off")
    running = lab.start(lab.near, words, user=user, PROBE_CONFIG=str(folder / "probe.toml"))
    running.line("unix:")
    return running


def test_a_link_is_shown_as_it_is(lab: Lab, tmp_path: Path) -> None:
    """20 ms there and back; the five ways in which a connection does not come about, told apart; and ping says the same."""
    running = serve_probe(lab, tmp_path, CONFIG)
    found = figures(socket_path(tmp_path), lambda each: all(target["sent"] for target in each.values()))
    said = lab.do(lab.near, f"ping -q -c 20 -i 0.02 {FAR}")
    running.end()
    average = float(re.search(r"= [\d.]+/([\d.]+)/", said)[1]) / 1000  # type: ignore[index]
    for name in ("ping", "connect"):
        assert found[name]["median"] == pytest.approx(2 * DELAY, rel=TOLERANCE)
        assert found[name]["median"] == pytest.approx(average, rel=TOLERANCE)
        assert found[name]["loss"] == 0
    assert found["page"]["median"] == pytest.approx(4 * DELAY, rel=TOLERANCE), "a connection, and a request on it"
    results = {name: max(found[name]["results"], key=found[name]["results"].get) for name in found}
    assert results == {
        "ping": "answered",
        "connect": "answered",
        "page": "answered",
        "closed": "refused",
        "dropped": "dropped",
        "reset": "refused",
        "forbidden": "unreachable",
        "absent": "no neighbour",
    }


@pytest.mark.slow
def test_loss_is_shown_as_it_is(tmp_path: Path) -> None:
    """Each twentieth packet is dropped: 5 %."""
    with Lab(0.001) as lab:
        lab.lose(20)
        config = f'interval = 1\nprobes = 100\ntimeout = 0.1\ntarget = [{{name = "ping", module = "icmp", target = "{FAR}"}}]\n'
        serve_probe(lab, tmp_path, config)
        found = figures(socket_path(tmp_path), lambda each: each["ping"]["sent"] >= 200)
        assert found["ping"]["loss"] == pytest.approx(0.05, abs=0.01)


def test_nobody_can_probe(lab: Lab, tmp_path: Path) -> None:
    command = microwsgi("serve", "apps.probe:app", "--bind", socket_path(tmp_path), "--access-log", "off")
    serve_probe(lab, tmp_path, CONFIG, user=NOBODY, command=command)
    found = figures(socket_path(tmp_path), lambda each: all(each[name]["sent"] for name in ("ping", "connect")))
    assert found["ping"]["results"] == {"answered": 20}
    assert found["connect"]["results"] == {"answered": 20}


def test_who_may_not_ping_is_told_how_to_allow_it(lab: Lab, tmp_path: Path) -> None:
    lab.do(lab.far, "sysctl -qw 'net.ipv4.ping_group_range=1 0'")
    code = (
        "from apps.probing.icmp import echo; from apps.probing.policy import Policy\n"
        "print(echo(Policy(['127.0.0.0/8']).resolve('127.0.0.1'), 1))"
    )
    command = lab.command(lab.far, *python("-c", code), user=NOBODY)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "not allowed" in done.stdout
    assert "sysctl -w net.ipv4.ping_group_range" in done.stdout


@pytest.mark.slow
def test_the_page_is_live_and_loads_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = need("chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - a second that other tests need not wait

    config = 'interval = 1\nprobes = 2\n[[target]]\nname = "a <b>"\nmodule = "tcp"\ntarget = "127.0.0.1:1"\n'
    module: Any = loaded("apps.probe", config, tmp_path, monkeypatch)
    with live(module.app) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page()
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto(server.url)
        tab.wait_for_selector("text=refused")
        assert tab.inner_text("h2") == "a <b>"
        assert tab.evaluate("document.querySelector('svg .lost').getBoundingClientRect().height") > 0
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        with tab.expect_response(lambda response: "/part/" in response.url) as found:
            pass
        assert found.value.status == 200
        assert {url.partition("/part/")[0] for url in asked} == {server.url.rstrip("/")}
        assert problems == []
        browser.close()
    module.prober.stop()


def test_without_a_script_it_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = '[[target]]\nname = "a"\nmodule = "tcp"\ntarget = "127.0.0.1:1"\n'
    module: Any = loaded("apps.probe", config, tmp_path, monkeypatch)
    client = Client(module.app)
    page = client.get("/")
    assert "not probed yet" in page.text or "refused" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert client.get("/part/b").status_int == 404
    module.prober.stop()


def test_prometheus_reads_both_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    config = 'allow = ["127.0.0.0/8"]\nports = [1]\n[[target]]\nname = "a"\nmodule = "tcp"\ntarget = "127.0.0.1:1"\n'
    module: Any = loaded("apps.probe", config, tmp_path, monkeypatch)
    module.config.probes = 1
    module.prober.round(module.watched["a"])
    client = Client(module.app)
    families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    (sample,) = families["probe_loss_ratio"].samples
    assert (sample.labels, sample.value) == ({"name": "a", "module": "tcp", "target": "127.0.0.1:1"}, 1.0)
    families = {
        each.name: each for each in text_string_to_metric_families(client.get("/probe?target=127.0.0.1:1").text)
    }
    assert families["probe_success"].samples[0].value == 0
    module.prober.stop()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("interval = 'a'", "interval is 'a'"),
        ("intervall = 1", "there is no intervall"),
        ("allow = ['1.2.3.4/8']", "has host bits set"),
        ("[[target]]\nname = 'a'", "has no module, target"),
        ("[[target]]\nname = 'a'\nmodule = 'b'\ntarget = 'c'", "no module b"),
        ("[[target]]\nname = 'a'\nmodule = 'tcp'\ntarget = 'http://c'", "A target is a name or an address"),
        ("[[target]]\nname = 'a'\nmodule = 'tcp'\ntarget = 'c'\npath = '/'", "a target of tcp has no path"),
        ("a = [", "is no TOML"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(
    config: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        loaded("apps.probe", config, tmp_path, monkeypatch)


def test_a_hundred_browsers_hold_no_threads_and_slow_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = 'target = [{name = "a", module = "tcp", target = "127.0.0.1:1"}]\n'
    module: Any = loaded("apps.probe", config, tmp_path, monkeypatch)
    browsers = 100
    with live(module.app, threads=4) as server, contextlib.ExitStack() as stack:
        streams = []
        for _ in range(browsers):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT))
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"text/event-stream" in stream.recv(65536)
            streams.append(stream)
        assert len(module.told) == browsers
        for number in range(20):
            module.told.send(f"event {number}", event="part")
            with urlopen(f"{server.url}/api") as response:  # noqa: S310 - ours
                assert response.status == 200
        for stream in streams:
            received = b""
            while b"event 19" not in received:
                received += stream.recv(65536)
            assert [f"data: event {number}\n".encode() in received for number in range(20)] == [True] * 20
        assert len(server.server.threads) <= 5
    module.prober.stop()
    assert len(module.told) == 0
