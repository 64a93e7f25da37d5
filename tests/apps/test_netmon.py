"""apps/netmon.py: what it shows is what the network does, whoever runs it and however many look."""

from __future__ import annotations

import gc
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps import netmon
from apps.kernel import counters, links
from apps.kernel import sampler as kernel_sampler
from apps.kernel.links import Interface, Traffic
from apps.kernel.netlink import Netlink
from apps.kernel.sampler import RECENT, Sampler
from microwsgi.testing import Client, Live, live
from tests.apps.browsers import WIDEST, chromium, faults
from tests.lab import FAR, NOBODY, ROUTER, Lab, fetch, socket_path
from tests.programs import need
from tests.running import LIMIT, ROOT, Running, environment, microwsgi, python

pytestmark = pytest.mark.slow  # networks of network namespaces, whose probes wait

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
    """20 ms there and back, 10 Mbit/s, by user nobody; iperf3, ss and ip say the same."""
    with Lab(DELAY) as lab:
        server = lab.start(lab.far, microwsgi("serve", "apps.echo:app", "--bind", f"{FAR}:8000", "--access-log", "off"))
        server.line("8000")
        lab.do(lab.near, "ip addr add fd97:1::1/64 dev v0 nodad")
        for route in (
            "unreachable 10.99.1.0/24", "blackhole 10.99.2.0/24", "prohibit 10.99.3.0/24",
            "10.99.5.0/24 via inet6 fd97:1::2 dev v0",
            f"10.99.4.0/24 nexthop via {ROUTER} weight 2 nexthop dev v0",
        ):  # fmt: skip
            lab.do(lab.near, f"ip route add {route}")
        path = serve_netmon(lab, tmp_path, user=NOBODY)
        lab.start(lab.near, python("-c", CALL, FAR)).line("connected")
        found = wait_for_api(path, lambda each: any(s["remote"] == [FAR, 8000] for s in each["sockets"]))
        (ours,) = [each for each in found["sockets"] if each["remote"] == [FAR, 8000]]
        said = lab.do(lab.near, f"ss -tin dst {FAR}")
        assert ours["info"]["min_rtt"] == pytest.approx(2 * DELAY, rel=0.25)
        assert ours["info"]["rtt"] == pytest.approx(float(re.search(r" rtt:([\d.]+)", said)[1]) / 1000, rel=0.1)  # type: ignore[index]
        assert ours["process"] == "user 0", "the own processes are all that nobody sees"
        assert found["missing"] == {}
        by_ip = {each["ifname"]: each for each in json.loads(lab.do(lab.near, "ip -j -s addr"))}
        for name in ("v0", "lo"):
            each = found["interfaces"][name]
            assert each["mtu"] == by_ip[name]["mtu"]
            assert each["link_address"] == by_ip[name]["address"]
            assert set(each["addresses"]) == {f"{a['local']}/{a['prefixlen']}" for a in by_ip[name]["addr_info"]}
        assert (found["interfaces"]["v0"]["speed"], found["interfaces"]["v0"]["state"]) == (10**10, "up")
        ways = {each["network"]: (each["kind"], each["hops"]) for each in found["routes"]}
        assert ways["0.0.0.0/0"] == ("", f"via {ROUTER} dev v0")
        assert [ways[f"10.99.{number}.0/24"][0] for number in (1, 2, 3)] == ["unreachable", "blackhole", "prohibit"]
        assert ways["10.99.4.0/24"] == ("", f"via {ROUTER} dev v0 weight 2, dev v0 weight 1")
        assert ways["10.99.5.0/24"] == ("", "via fd97:1::2 dev v0")
        assert ROUTER in {each["address"] for each in found["neighbours"]}
        lab.limit("10mbit")
        end = iperf(lab, "-t", "5")
        rates = [8 * rates[4] for _, rates in api(path)["interfaces"]["v0"]["rates"]]
    # The first second fills the queue, the last is not a whole one.
    full = sorted(rates)[-3:-1]
    assert sum(full) / len(full) == pytest.approx(RATE, rel=0.2)
    assert sum(full) / len(full) == pytest.approx(end["sum_received"]["bits_per_second"], rel=0.2)


def wait_for_api(path: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 2 * LIMIT
    while not enough(found := api(path)):
        assert time.monotonic() < end, found
        time.sleep(0.25)  # between two looks
    return found


def test_a_link_that_fails_is_seen_with_its_time_and_ipv6_is_counted(tmp_path: Path) -> None:
    """Nstat counts the same datagrams; a cable that is pulled is a sentence on the page; a suspension is a gap."""
    send = (
        "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        "r = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); r.bind(('::1', 0))\n"
        "for _ in range(1000): s.sendto(b'a', r.getsockname())\n"
        "for _ in range(50): s.sendto(b'a', ('::1', 9))"
    )
    with Lab() as lab:
        path = serve_netmon(lab, tmp_path)
        before = wait_for_api(path, lambda each: bool(each["counters"]))["counters"]
        lab.do(lab.near, " ".join([*python("-c"), f'"{send}"']))
        after = wait_for_api(
            path, lambda each: each["counters"]["Udp6.OutDatagrams"] - before["Udp6.OutDatagrams"] >= 1050
        )
        said = {line.split()[0]: int(line.split()[1]) for line in lab.do(lab.near, "nstat -as").splitlines()[1:]}
        grown = {name: after["counters"][name] - before[name] for name in ("Udp6.NoPorts", "Udp6.OutDatagrams")}
        assert grown == {"Udp6.NoPorts": 50, "Udp6.OutDatagrams": 1050}
        assert after["counters"]["Udp6.NoPorts"] == said["Udp6NoPorts"]
        lab.do(lab.router, "ip link set v1 down")
        broken = time.time()
        found = wait_for_api(path, lambda each: each["interfaces"]["v0"]["state"] == "no carrier")
        assert found["changes"][-1]["at"] == pytest.approx(broken, abs=4)
        shown = fetch(path, "/part/interfaces")[1].decode()
        assert "v0 (10.97.1.1/24) is down: no carrier since" in shown
        assert 'class="summary failing"' in shown


def test_a_suspended_server_shows_a_gap(tmp_path: Path) -> None:
    with Lab() as lab:
        path = serve_netmon(lab, tmp_path)
        wait_for_api(path, lambda each: len(each["interfaces"]["lo"]["rates"]) >= 3)
        lab.started[-1].send_signal(signal.SIGSTOP)
        time.sleep(5)  # what is tested is a suspension of more than two seconds and a half
        lab.started[-1].send_signal(signal.SIGCONT)
        found = wait_for_api(path, lambda each: len(each["interfaces"]["lo"]["rates"]) >= 6)
        times = [at for at, _ in found["interfaces"]["lo"]["rates"]]
        assert max(b - a for a, b in pairwise(times)) >= 4
        assert "no data" in fetch(path, "/part/interface/lo")[1].decode()


def test_names_and_values_are_those_of_node_exporter(tmp_path: Path) -> None:
    exporter = need("prometheus-node-exporter")
    with Lab() as lab:
        path = serve_netmon(lab, tmp_path)
        words = ("--web.listen-address=127.0.0.1:9100", "--collector.disable-defaults")
        collectors = (
            "--collector.netdev",
            "--collector.netclass",
            "--collector.netstat",
            "--collector.netclass.netlink",
        )
        other = lab.start(lab.near, [exporter, *words, *collectors[:3], r"--collector.netstat.fields=.*"])
        other.line("(?i)listening")
        theirs = families(lab.do(lab.near, "curl --silent --noproxy * http://127.0.0.1:9100/metrics"))
        wait_for_api(path, lambda each: bool(each["counters"]))
        ours = families(fetch(path, "/metrics")[1].decode())
    names = {name for name in ours if name.startswith("node_")}
    assert len(names) > 25
    assert names <= theirs.keys()
    assert {name: ours[name][0] for name in names} == {name: theirs[name][0] for name in names}, "the same kinds"
    for name in ("node_network_receive_bytes_total", "node_network_transmit_packets_total", "node_network_mtu_bytes"):
        assert ours[name][1]["v0"] == pytest.approx(theirs[name][1]["v0"], abs=1000), name


def families(text: str) -> dict[str, tuple[str, dict[str, float]]]:
    """From a metric's name to its kind and its values by device."""
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, (family.type, {}))[1][sample.labels.get("device", "")] = sample.value
    return found


# --- The sampler ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    """One without a thread."""
    made = Sampler()
    yield made
    made.stop()


def seeing(sampler: Sampler, *states: str) -> Callable[[int, int], None]:
    """A function that has a sampler see an interface with these counters."""

    def see(second: int, value: int) -> None:
        state = states[second] if second < len(states) else "up"
        sampler.compare([Interface(1, "a", state, 1500, "", Traffic(*[value] * 8))], float(second), 1.0)

    return see


def test_rates_are_differences_and_never_negative(sampler: Sampler) -> None:
    see = seeing(sampler)
    for second, value in enumerate((100, 600, 0, 0)):
        see(second, value)
    assert [rates[0] for _, rates in sampler.points("a", 0, 10)] == [500.0, 0.0, 0.0]
    for second in range(4, 3 * RECENT):
        see(second, 0)
    assert len(sampler.recent["a"]) == RECENT


def test_changes_are_told_once_with_their_times(sampler: Sampler) -> None:
    see = seeing(sampler, "up", "no carrier", "no carrier", "up")
    for second in range(4):
        see(second, 0)
    sampler.compare([], 4.0, 1.0)
    assert [(each.at, each.text) for each in sampler.changes] == [
        (1.0, "a: up → no carrier"), (3.0, "a: no carrier → up"), (4.0, "a was removed"),
    ]  # fmt: skip


def test_a_lack_of_descriptors_stops_nothing() -> None:
    """In a process of its own: the sampler goes on counting while nothing can be opened."""
    code = (
        "import resource, os, socket, threading, time\n"
        "from apps.kernel.sampler import Sampler\n"
        "s = Sampler(); s.tick(); s.tick(); s.counting.close()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "before = s.read_at, s.interfaces['lo'].traffic, s.counters\n"
        "def others():\n"  # a server has connections to accept: what is closed here is open there
        "    while True:\n"
        "        try: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "        except OSError: time.sleep(0.001)\n"
        "threading.Thread(target=others, daemon=True).start()\n"
        "for _ in range(5): time.sleep(0.02); s.tick(); s.watch()\n"
        "print(s.read_at > before[0], sorted(s.missing), flush=True)\n"
        "os._exit(0)\n"  # at the end of the interpreter the thread would need a library, which can't be opened either
    )
    done = subprocess.run(python("-c", code), capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    assert done.stdout.strip() == "True ['counters']", done.stdout + done.stderr


def test_without_proc_net_the_rest_is_shown(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(counters, "FOLDER", "/proc/absent")
    sampler.tick()
    assert sampler.missing == {"counters": "No such file or directory"}
    assert "lo" in sampler.interfaces
    monkeypatch.undo()
    sampler.tick()
    assert sampler.missing == {}
    assert sampler.counters["Tcp.InSegs"] > 0
    monkeypatch.setattr(links, "interfaces", absent)
    sampler.tick()
    assert list(sampler.missing) == ["interfaces"]


def test_ten_scrapes_at_once_look_once(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    original = links.interfaces

    def slow(route: Netlink) -> list[Interface]:
        if route is sampler.route:  # not the application's own sampler, which runs beside this one
            looks.append(1)
        time.sleep(0.05)  # long enough for all ten to come
        return original(route)

    monkeypatch.setattr(links, "interfaces", slow)
    monkeypatch.setattr(kernel_sampler, "EVERY", 60.0)  # a busy machine may take longer than a second for ten threads
    threads = [threading.Thread(target=sampler.refresh) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks) == 1


def test_many_sockets_are_looked_at_less_often(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> dict[int, str]:
        time.sleep(0.25)  # as if there were ten thousands of sockets
        return {}

    monkeypatch.setattr("apps.kernel.processes.owners", slow)
    sampler.read_sockets()
    assert sampler.sockets_due - time.monotonic() > 4, "a twentieth of the time, however many there are"


def test_a_page_of_two_hundred_interfaces_is_short(sampler: Sampler) -> None:
    with pytest.MonkeyPatch.context() as patch:
        many = [Interface(n, f"veth{n}", "up", 1500, "02:fc:00:00:00:05", Traffic(*[n] * 8)) for n in range(201)]
        for second in range(60):
            grown = [each._replace(traffic=Traffic(*[second * 1000] * 8)) for each in many]
            sampler.compare(grown, time.time() - 60 + second, 1.0)
        patch.setattr(netmon, "sampler", sampler)
        netmon.site.drawn.clear()
        text = Client(netmon.app).get("/part/interfaces").expect().text
        assert len(text) < 70_000
        assert "<br>And 398 others.</p>" in text
        assert "Interfaces, 50 of 201" in text
        assert "veth199" in Client(netmon.app).get("/part/interfaces?filter=veth199").expect().text


def test_loss_is_shown_as_it_is(tmp_path: Path) -> None:
    """Each twentieth packet is dropped: 5 % are retransmitted, which is what the rule that drops them counts.

    A few less are retransmitted: neighbours may leave as one, and a lost acknowledgement is covered by the next. iperf3 counts
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
        dropped, nstat = int(counted[1]), ["TcpRetransSegs", "TcpOutSegs"]

        def counts(each: dict[str, Any]) -> bool:
            said_now = {
                line.split()[0]: int(line.split()[1]) for line in lab.do(lab.near, "nstat -as").splitlines()[1:]
            }
            return [each["counters"][f"Tcp.{name[3:]}"] for name in nstat] == [said_now[name] for name in nstat]

        after = wait_for_api(path, counts)["counters"]
        again, sent = (after[name] - before[name] for name in ("Tcp.RetransSegs", "Tcp.OutSegs"))
    assert again >= max(said, 0.7 * dropped), "and perhaps some that were not lost, where the machine is slow"
    assert said >= 0.3 * again
    assert again / (sent + again) > 0.03


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
        assert quickest(server.port) < 5 * alone + 0.01
        for page in pages:
            told = b""
            while told.count(b'"now"') < 2:
                told += (more := page.recv(65536))
                assert more, "the stream has ended"
        wait_for(lambda: threading.active_count() - threads < 5)


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)  # between two looks


@pytest.mark.soak
def test_open_pages_take_no_more_memory_with_time(sampler: Sampler) -> None:
    """Minutes, compressed: so many looks as fill the ten minutes in memory, and what follows costs only rows of the history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(netmon, "sampler", sampler)
        clock, here, wall = [time.time()], threading.get_ident(), time.time
        # For this thread only: the application's own sampler has another one.
        patch.setattr(time, "time", lambda: clock[0] if threading.get_ident() == here else wall())

        def look(seconds: int) -> int:
            for second in range(seconds):
                clock[0] += 1
                sampler.read()
                if second % 10 == 0:
                    sampler.record()
                if second % 100 == 0:
                    Client(netmon.app).get("/part/interfaces?range=1h").expect()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        look(1500)
        tracemalloc.start()
        try:
            grown = -look(100) + look(600)
        finally:
            tracemalloc.stop()
    assert grown < 300_000


def test_metrics_say_what_is_not_available(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old value is left out, and its age is there."""

    def absent(*_: object) -> None:
        raise OSError(24, "Too many open files")

    sampler.tick()
    monkeypatch.setattr(netmon, "sampler", sampler)
    assert "node_network_receive_bytes_total" in families(Client(netmon.app).get("/metrics").text)
    monkeypatch.setattr(links, "interfaces", absent)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    found = families(Client(netmon.app).get("/metrics").text)
    assert "node_network_receive_bytes_total" not in found
    assert found["netmon_age_seconds"][1][""] >= 60
    assert "No figures for 60 s" in Client(netmon.app).get("/part/interfaces").text


def test_without_a_script_it_is_all_there(server: Live) -> None:
    client = Client(netmon.app)
    wait_for(lambda: bool(netmon.sampler.interfaces))
    page = client.get("/").expect(text="retransmitted segments")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert f"<title>Network of {socket.gethostname()}</title>" in page.text
    assert f"127.0.0.1:{server.port}" in client.get("/sockets?sort=-rtt").expect(text="Listening").text
    assert f"127.0.0.1:{server.port}" not in client.get("/sockets?filter=nothing").expect().text
    client.get("/routes").expect(text="Neighbours")
    client.get("/interface/lo?range=24h").expect(text="127.0.0.1/8")
    for path in ("/part/none", "/interface/none", "/part/interface/none"):
        client.get(path).expect(404)


def test_the_page_is_live_and_loads_nothing_else(command: Callable[..., Running]) -> None:
    url = command("serve", "apps.netmon:app", "--port", "0").url()
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 700, "height": 700})  # the widest one whose tables scroll
        problems: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(url)
        tab.wait_for_selector("path.receive[d*=L]", state="attached")  # a line of two points
        tab.evaluate("document.querySelector('.table').scrollLeft = 100")
        for _ in range(2):
            with tab.expect_response(lambda response: "/part/interfaces" in response.url):
                pass
        assert tab.evaluate("document.querySelector('.table').scrollLeft") == 100, "an update keeps the place"
        tab.set_viewport_size({"width": 360, "height": 700})
        assert tab.evaluate(WIDEST) <= 360, "a phone need not scroll sideways"
        assert faults(tab) == []
        for link in ("Sockets", "Routes and neighbours"):
            tab.click(f"nav >> text={link}")
            with tab.expect_response(lambda response: "/part/" in response.url):
                pass
            assert faults(tab) == []
        assert {each.split("/")[2] for each in asked if not each.startswith("data:")} == {url.removeprefix("http://")}
        assert problems == []
