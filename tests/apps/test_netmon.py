"""apps/netmon.py: what it shows is what the network does, whoever runs it and however many look."""

from __future__ import annotations

import gc
import http.client
import json
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps import netmon
from apps.kernel import counters, interfaces, routes, sockets
from apps.kernel.interfaces import Traffic
from apps.kernel.sampler import KEPT, History, Sampler
from microwsgi.testing import Client, Live, live
from tests.apps.browsers import chromium
from tests.lab import FAR, NOBODY, Lab, fetch, socket_path
from tests.programs import need
from tests.running import LIMIT, Running, microwsgi, python

DELAY = 0.010
"""Seconds each way: a round trip is twice that."""
RATE = 10e6
CALL = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 8000)
for _ in range(10):
    connection.request("GET", "/"); connection.getresponse().read()
print("connected", flush=True)
sys.stdin.read() or __import__("signal").pause()
"""


def serve_netmon(lab: Lab, folder: Path, user: int = 0) -> str:
    folder.chmod(0o777)
    words = microwsgi("serve", "apps.netmon:app", "--bind", socket_path(folder), "--access-log", "off")
    lab.start(lab.near, words, user=user).line("unix:")
    return socket_path(folder)


def api(path: str) -> dict[str, Any]:
    status, body = fetch(path, "/api")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def iperf(lab: Lab, *words: str) -> dict[str, Any]:
    """What iperf3 says of a transfer from near to far."""
    iperf3 = need("iperf3")
    lab.start(lab.far, [iperf3, "-s", "--one-off", "--forceflush"]).line("listening")
    found: dict[str, Any] = json.loads(lab.do(lab.near, f"{iperf3} -c {FAR} -J {' '.join(words)}"))
    return found["end"]  # type: ignore[no-any-return]  # JSON


def test_a_link_is_shown_as_it_is(tmp_path: Path) -> None:
    """20 ms there and back, 10 Mbit/s, by user nobody; iperf3 says the same."""
    with Lab(DELAY) as lab:
        server = lab.start(lab.far, microwsgi("serve", "apps.echo:app", "--bind", f"{FAR}:8000", "--access-log", "off"))
        server.line("8000")
        path = serve_netmon(lab, tmp_path, user=NOBODY)
        lab.start(lab.near, python("-c", CALL, FAR)).line("connected")
        found = api(path)
        (ours,) = [each for each in found["sockets"] if each["remote"] == [FAR, 8000]]
        assert ours["info"]["rtt"] == pytest.approx(2 * DELAY, rel=0.25)
        assert ours["process"] == "user 0", "the own processes are all that nobody sees"
        assert list(found["missing"]) == ["some processes' names"]
        assert {(each["network"], each["interface"]) for each in found["routes"]} >= {("0.0.0.0/0", "v0")}
        assert "10.97.1.2" in {each["address"] for each in found["neighbours"]}
        lab.limit("10mbit")
        said = iperf(lab, "-t", "5")
        rates = [8 * rate for rate in api(path)["interfaces"]["v0"]["rates"]["bytes_out"]]
    # The first second fills the queue, the last is not a whole one.
    full = sorted(rates)[-4:-1]
    assert sum(full) / len(full) == pytest.approx(RATE, rel=0.2)
    assert sum(full) / len(full) == pytest.approx(said["sum_received"]["bits_per_second"], rel=0.2)


@pytest.mark.slow
def test_loss_is_shown_as_it_is(tmp_path: Path) -> None:
    """Each twentieth packet is dropped: 5 % are sent again, which is what the rule that drops them counts.

    A few less are sent again: neighbours may leave as one, and an acknowledgement is made good by the next. iperf3 counts
    until it has handed over its last byte, and so a few less still.
    """
    with Lab(0.001) as lab:
        lab.do(lab.near, "ip link set v0 gso_max_segs 1")  # or what is dropped is sixty packets in one
        path = serve_netmon(lab, tmp_path)
        lab.lose(20)
        before = api(path)["counters"]
        said = iperf(lab, "-n", "4M")["sum_sent"]["retransmits"]
        counted = re.search(r"packets (\d+)", lab.do(lab.router, "nft list table ip lab"))
        assert counted
        dropped, end = int(counted[1]), time.monotonic() + LIMIT
        while True:
            after = api(path)["counters"]
            again, sent = (after[name] - before[name] for name in ("Tcp.RetransSegs", "Tcp.OutSegs"))
            if again >= max(said, 0.7 * dropped) or time.monotonic() > end:
                break
            time.sleep(0.1)  # between two looks; it looks once a second itself
    assert again == pytest.approx(dropped, rel=0.3)
    assert 0.5 * again < said <= again
    assert again / (sent + again) == pytest.approx(0.05, abs=0.02)


def test_rates_are_differences_and_never_negative() -> None:
    history = History(Traffic(*[100] * 8))
    history.add(Traffic(*[350] * 8), 0.5)
    history.add(Traffic(*[0] * 8), 1.0)
    assert list(history.rates["packets_in"]) == [500.0, 0.0]
    assert history.bits("bytes_out") == [4000.0, 0.0]
    for _ in range(2 * KEPT):
        history.add(Traffic(*[0] * 8), 1.0)
    assert {len(rates) for rates in history.rates.values()} == {KEPT}


def test_where_the_kernel_is_not_linux_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: no /proc, no netlink; and the page says what is missing."""

    def absent(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    for module, name in (
        (interfaces, "interfaces"), (counters, "counters"), (sockets, "sockets"), (sockets, "waiting"),
        (routes, "neighbours"), (routes, "routes"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, absent)
    sampler = Sampler(lambda _: None, lambda: 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sampler.look()
        sampler.look_at_sockets()
        assert listening.getsockname() in {each.local for each in sampler.tcp if each.state == "listen"}
    assert sampler.histories["lo"].traffic.bytes_in > 0
    assert {"round-trip times", "counters", "neighbours", "routes"} <= sampler.missing.keys()


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(netmon.app) as running:
        yield running
    netmon.sampler.stop()


def listener(port: int) -> socket.socket:
    """A page that listens: its connection, with the response's head read."""
    connection = socket.create_connection(("127.0.0.1", port), LIMIT)
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def quickest(port: int) -> float:
    """Seconds of the quickest of 50 requests."""
    client, times = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT), []
    for _ in range(50):
        begun = time.perf_counter()
        client.request("GET", "/part/counters")
        assert client.getresponse().read()
        times.append(time.perf_counter() - begun)
    client.close()
    return min(times)


def test_a_hundred_pages_hold_no_thread_and_slow_nobody(server: Live) -> None:
    alone, threads = quickest(server.port), threading.active_count()
    with ExitStack() as stack:
        pages = [stack.enter_context(listener(server.port)) for _ in range(100)]
        assert len(netmon.told) == 100
        assert quickest(server.port) < 5 * alone
        for page in pages:
            told = b""
            while b"data: counters\n" not in told:
                told += (more := page.recv(65536))
                assert more, "the stream has ended"
        assert threading.active_count() - threads < 5
    wait_for(lambda: len(netmon.told) == 0)


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)  # between two looks


@pytest.mark.slow
def test_open_pages_take_no_more_memory_with_time(server: Live) -> None:
    """A short soak: so many seconds' looks as fill the history three times over, and what follows is free."""
    Client(netmon.app).get("/").expect()
    with ExitStack() as stack:
        pages = [stack.enter_context(listener(server.port)) for _ in range(10)]

        def look(times: int) -> int:
            for number in range(times):
                netmon.sampler.look()
                netmon.tell("interfaces")
                Client(netmon.app).get("/part/interfaces").expect()
                if number % 10 == 0:
                    for page in pages:
                        page.recv(1 << 20)
            # A busy machine may have left the server no time to tell the pages.
            wait_for(lambda: not any(stream.pending for stream in list(netmon.told.streams)))
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            look(2 * KEPT)
            grown = -look(10) + look(KEPT)
        finally:
            tracemalloc.stop()
    assert grown < 100_000


def test_metrics_are_prometheus(server: Live) -> None:
    families = {each.name: each for each in text_string_to_metric_families(Client(netmon.app).get("/metrics").text)}
    values = {sample.labels["device"]: sample.value for sample in families["node_network_receive_bytes"].samples}
    assert values["lo"] > 0
    assert families["node_netstat_Tcp_InSegs"].samples[0].value > 0
    assert {sample.labels["state"] for sample in families["netmon_tcp_sockets"].samples} >= {"listen"}


def test_without_a_script_it_is_all_there(server: Live) -> None:
    page = Client(netmon.app).get("/").expect()
    for text in ("lo", "Listening", f"127.0.0.1:{server.port}", "segments sent again", "Routes"):
        assert text in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    Client(netmon.app).get("/part/none").expect(404)


@pytest.mark.slow
def test_the_page_is_live_and_loads_nothing_else(command: Callable[..., Running]) -> None:
    url = command("serve", "apps.netmon:app", "--port", "0").url()
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 360, "height": 700})
        problems: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(url)
        for _ in range(2):
            with tab.expect_response(lambda response: response.url.endswith("/part/interfaces")):
                pass
        tab.wait_for_selector("polyline.in[points*=' ']", state="attached")  # a line of two points
        with tab.expect_response(lambda response: response.url.endswith("/part/sockets")):
            pass
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, "a phone need not scroll sideways"
        assert {each.split("/")[2] for each in asked if not each.startswith("data:")} == {url.removeprefix("http://")}
        assert problems == []
