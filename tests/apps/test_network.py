"""apps/network.py and apps/ping.py: the four examples as one site, and a monitor in a hundred lines."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import apps
from apps.look.page import duration
from microwsgi.testing import Client
from tests.lab import FAR, NOBODY, Lab, fetch, socket_path
from tests.running import LIMIT, ROOT, microwsgi

CONFIG = 'history = ""\ntarget = [{name = "a/b", module = "tcp", target = "127.0.0.1:1"}]\n'


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "probe.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("PROBE_CONFIG", str(tmp_path / "probe.toml"))
    names = ("apps.network", "apps.probe", "apps.path", "apps.netmon", "apps.inspect")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(apps, name.removeprefix("apps."), raising=False)
    network: Any = import_module("apps.network")
    yield network.app
    network.probe.prober.background.stop()
    network.path.tracer.background.stop()
    network.netmon.sampler.stop()
    for each in (network.probe.prober, network.path.tracer):
        each.history.close()
    for name in names:
        sys.modules.pop(name, None)


def test_all_links_lead_somewhere(app: Any) -> None:
    """From the start page to every page, with all that a page names."""
    client = Client(app)
    waiting, seen = ["/"], set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        response = client.get(path, follow=True).expect()
        if "html" not in (response.content_type or ""):
            continue
        base = re.sub(r"[^/]*$", "", response.url.removeprefix("http://localhost").split("?")[0])
        for link in re.findall(r'(?:href|src)="([^"#]+)"', response.text):
            target = link.replace("&amp;", "&")
            target = target if target.startswith(("/", "data:")) else base + target
            if not target.startswith("data:") and "?" not in target and target not in seen:
                waiting.append(target)
    assert {"/probe/", "/path/", "/netmon/", "/inspect/-/", "/netmon/interface/lo", "/probe/target/a%2Fb"} <= seen
    assert "/path/to?target=a%2Fb" in client.get("/probe/target/a%2Fb").text


def test_the_navigation_has_one_order_and_marks_the_current_page(app: Any) -> None:
    client, pages = (
        Client(app),
        {"/probe/": "page", "/probe/target/a%2Fb": "true", "/path/": "page", "/netmon/sockets": "page"},
    )
    for path, mark in pages.items():
        nav = re.search('<nav aria-label="Pages">(.*?)</nav>', client.get(path).expect().text)
        assert nav
        links = re.findall('<a href="([^"]*)"( aria-current="(?:page|true)")?>', nav[1])
        assert [link for link, _ in links][:4] == ["/probe/", "/path/", "/netmon/", "/inspect/-/"]
        place = path if mark == "page" else "/probe/"
        assert [(link, current) for link, current in links if current] == [(place, f' aria-current="{mark}"')]


@pytest.mark.parametrize(
    ("seconds", "text"), [(274, "4 min"), (119.9, "119 s"), (7199, "119 min"), (90000, "25 h"), (-1, "0 s")]
)
def test_durations_are_rounded_down(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_route_that_is_well_says_that_its_service_fails(app: Any) -> None:
    """The route is traced by ICMP or UDP; the service refuses connections."""
    client, end = Client(app), time.monotonic() + LIMIT
    while (
        "ago" not in (text := client.get("/path/to?target=a%2Fb&method=udp").expect().text) or ">failing<" not in text
    ):
        assert time.monotonic() < end, text
        time.sleep(0.1)  # between two looks
    assert "127.0.0.1 answers UDP, 1 hop away." in text
    line = re.search(r'<p><a href="/probe/target/a%2Fb">The probe of a/b</a>: (.*?)</p>', text)
    assert line
    assert 'class="state failing"' in line[1]
    assert "connection refused by 127.0.0.1" in line[1]
    client.get("/probe/target/a%2Fb").expect()


def test_a_whole_monitor_in_a_hundred_lines(tmp_path: Path) -> None:
    """A host that answers, one that does not, a name that does not exist; by user nobody."""
    assert len((ROOT / "apps" / "ping.py").read_text().splitlines()) <= 100
    tmp_path.chmod(0o777)
    with Lab(0.005) as lab:
        command = microwsgi("serve", "apps.ping:app", "--bind", socket_path(tmp_path), "--access-log", "off")
        lab.start(lab.near, command, user=NOBODY, PING=f"{FAR},10.97.1.99,no.invalid.").line("unix:")
        end = time.monotonic() + 3 * LIMIT
        while (text := fetch(socket_path(tmp_path), "/")[1].decode()).count("!") < 4:
            assert time.monotonic() < end, text
            time.sleep(0.25)  # between two looks
    rows = {each[0]: each[1:] for each in re.findall(r"<tr><td>(.*?)<td>(.*?)<td>(.*?)<td><code>(.*?)</code>", text)}
    assert float(rows[FAR][1].removesuffix(" ms")) >= 10
    assert "." in rows[FAR][2]
    assert rows["10.97.1.99"][:2] == rows["no.invalid."][:2] == ("100%", "-")


def test_with_two_workers_one_probes(command: Callable[..., Any], tmp_path: Path) -> None:
    """From the start on, without a visitor; each worker shows the same."""
    config = 'interval = 1\nprobes = 1\ntarget = [{name = "a", module = "tcp", target = "127.0.0.1:1"}]\n'
    (tmp_path / "probe.toml").write_text(config, encoding="utf-8")
    path = f"unix:{tmp_path / 'app.sock'}"
    running = command(
        "serve", "apps.probe:app", "--bind", path, "--workers", "2", PROBE_CONFIG=str(tmp_path / "probe.toml")
    )
    running.line("unix:")
    began = time.monotonic()
    end, found = began + 3 * LIMIT, {"a": {"rounds": 0}}
    while found["a"]["rounds"] < 5:
        assert time.monotonic() < end
        time.sleep(0.2)  # between two looks
        found = json.loads(fetch(path, "/api")[1])
    assert found["a"]["rounds"] <= time.monotonic() - began + 3, "one round a second, not two"
    assert {json.loads(fetch(path, "/api")[1])["a"]["rounds"] >= 5 for _ in range(10)} == {True}
