"""apps/probe.py: what it shows is what the network does, whoever runs it, also when something breaks."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps.probing.config import ConfigError
from apps.probing.outcome import Outcome, Reason
from apps.probing.rounds import Round
from microwsgi.testing import Client, live
from tests.apps.browsers import WIDEST, chromium, faults
from tests.apps.probing.loading import loaded
from tests.apps.probing.peers import Peer, says, silent
from tests.apps.probing.test_probes import certificate
from tests.lab import FAR, NOBODY, ROUTER, Lab, fetch, socket_path
from tests.programs import need, need_package
from tests.running import LIMIT, Running, microwsgi, python

need_package("cryptography", "trustme")

import trustme  # noqa: E402
from cryptography import x509  # noqa: E402

pytestmark = pytest.mark.slow  # networks of network namespaces, whose probes wait

DELAY = 0.010
"""Seconds each way: a round trip is twice that."""
TOLERANCE = 0.25
"""Share by which the best time may be off, on machines that do much else."""
REASONS = {
    "connect": ("tcp", f"{FAR}:8000", ""),
    "page": ("http", f"{FAR}:8000", ""),
    "closed": ("tcp", f"{FAR}:8001", f"connection refused by {FAR}"),
    "dropped": ("tcp", f"{FAR}:8002", "no answer"),
    "reset": ("tcp", f"{FAR}:8003", f"connection refused by {FAR}"),
    "rejected": ("tcp", f"{FAR}:8004", f"host unreachable (ICMP from {FAR})"),
    "prohibited": ("tcp", f"{FAR}:8005", f"administratively prohibited (ICMP from {FAR})"),
    "no neighbour": ("tcp", "10.97.1.99:80", "no ARP or ND reply"),
    "no neighbour 6": ("icmp", "fd97:1::99", "no ARP or ND reply"),
    "no network": ("icmp", "10.97.2.200", f"network unreachable (ICMP from {ROUTER})"),
    "no network 6": ("icmp", "2001:db8::1", "network unreachable (ICMP from fd97:1::2)"),
    "no route": ("tcp", "10.99.1.1:80", "no route"),
    "blackhole": ("icmp", "10.99.2.1", "no route"),
    "prohibit": ("tcp", "10.99.3.1:80", "no route"),
    "no server": ("dns", FAR, f"port unreachable (ICMP from {FAR})"),
}
"""Module, target, and the reason of the failure with the device that reports it; "" passes."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(DELAY) as made:
        made.filter("drop", 8002)
        made.filter("reject with tcp reset", 8003)
        made.filter("reject with icmp type host-unreachable", 8004)
        made.filter("reject with icmp type admin-prohibited", 8005)
        made.do(made.near, "ip addr add fd97:1::1/64 dev v0 nodad")
        made.do(made.router, "ip addr add fd97:1::2/64 dev v1 nodad")
        made.do(made.router, "sysctl -qw net.ipv6.conf.all.forwarding=1")
        made.do(made.near, "ip -6 route add default via fd97:1::2")
        for number, kind in enumerate(("unreachable", "blackhole", "prohibit"), 1):
            made.do(made.near, f"ip route add {kind} 10.99.{number}.0/24")
        command = microwsgi("serve", "apps.echo:app", "--bind", f"{FAR}:8000", "--access-log", "off")
        made.start(made.far, command).line("8000")
        yield made


def configuration(targets: dict[str, tuple[str, str, str]], **values: object) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for name, (module, target, _) in targets.items():
        lines.append(f'[[target]]\nname = "{name}"\nmodule = "{module}"\ntarget = "{target}"')
    return "\n".join(lines)


def serve_probe(lab: Lab, folder: Path, config: str, user: int = 0) -> Running:
    (folder / "probe.toml").write_text(config, encoding="utf-8")
    folder.chmod(0o777)
    words = microwsgi("serve", "apps.probe:app", "--bind", socket_path(folder), "--access-log", "off")
    running = lab.start(lab.near, words, user=user, PROBE_CONFIG=str(folder / "probe.toml"))
    running.line("unix:")
    return running


def api(folder: Path) -> dict[str, Any]:
    status, body = fetch(socket_path(folder), "/api")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def until(folder: Path, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The figures when there is enough of them."""
    end = time.monotonic() + 6 * LIMIT
    while True:
        found = api(folder)
        if enough(found):
            return found
        assert time.monotonic() < end, f"not enough in {6 * LIMIT} s: {found}"
        time.sleep(0.25)  # between two looks


def page(folder: Path, path: str = "/part/all") -> str:
    status, body = fetch(socket_path(folder), path)
    assert status == 200, body
    return body.decode()


def test_each_fault_has_its_reason(lab: Lab, tmp_path: Path) -> None:
    """As user nobody, and nobody visits before the second round is over: it starts with the server. Ping says the same."""
    targets = {"ping": ("icmp", FAR, ""), **REASONS}
    before = echos(lab)
    serve_probe(lab, tmp_path, configuration(targets, interval=4, probes=2, timeout=1.5), NOBODY)
    end = time.monotonic() + LIMIT
    while echos(lab) < before + 4:
        assert time.monotonic() < end, "no probe before the first visitor"
        time.sleep(0.25)  # between two looks
    found = until(tmp_path, lambda each: all(target["rounds"] >= 2 for target in each.values()))
    pinged = lab.do(lab.near, f"ping -q -c 10 -i 0.02 {FAR}")
    best = float(re.search(r"= ([\d.]+)/", pinged)[1]) / 1000  # type: ignore[index]
    for name in ("ping", "connect"):
        assert min(found[name]["seconds"]) == pytest.approx(best, rel=TOLERANCE)
        assert min(found[name]["seconds"]) >= 2 * DELAY
    assert min(found["page"]["seconds"]) == pytest.approx(2 * best, rel=TOLERANCE), "a connection, and a request on it"
    said = {name: each["text"].split("; rejections after ")[0] for name, each in found.items()}
    assert said == {name: row[2] for name, row in targets.items()}
    assert {found[name]["loss"] for name in ("closed", "reset", "rejected", "no server")} == {0.0}, "answered: not lost"
    shown = page(tmp_path)
    assert "13 of 16 targets have a problem" in shown
    refused = re.search(r">closed</a>.*?</tr>", shown)
    assert refused
    cells = dict(re.findall(r'data-label="(reason|packet loss|median)">([^<]*)', refused[0]))
    assert re.fullmatch(rf"connection refused by {FAR}; rejections after [\d.]+ ms", cells["reason"])
    assert (cells["packet loss"], cells["median"]) == ("-", "-"), "no figures as of good answers beside a failure"
    assert "median of the rejections" in page(tmp_path, "/part/target/closed")
    assert 0 < shown.index("no answer") < shown.index(">ok<"), "the worst first"


def echos(lab: Lab) -> int:
    return int(lab.do(lab.far, "nstat -az IcmpInEchos").split()[-2])


@pytest.mark.parametrize("seconds", [7, pytest.param(40, marks=pytest.mark.soak)])
def test_an_outage_is_seen_with_its_time_and_nothing_old_looks_new(seconds: int, lab: Lab, tmp_path: Path) -> None:
    """The link is down, and up again; then the server is suspended: a gap, and not a straight line."""
    targets = {"far": ("icmp", FAR, ""), "router": ("icmp", ROUTER, "")}
    running = serve_probe(lab, tmp_path, configuration(targets, interval=1, probes=4, timeout=0.5), NOBODY)
    until(tmp_path, lambda each: each["far"].get("passed", 0) >= 4)
    lab.do(lab.router, "ip link set line down")
    broken = time.time()
    found = until(tmp_path, lambda each: each["far"]["state"] == "failing")
    assert found["far"]["since"] == pytest.approx(broken, abs=4)
    # In the round in which the link goes down, the first packets may have been lost before the router knew.
    assert re.match(r"(\d of \d )?(network unreachable|no answer)", found["far"]["text"])
    assert found["router"]["state"] != "failing"
    assert "1 of 2 targets has a problem.<br>far has been failing since" in page(tmp_path)
    lab.do(lab.router, "ip link set line up")
    lab.do(lab.router, f"ip route replace {FAR} dev line")
    repaired = time.time()
    found = until(tmp_path, lambda each: each["far"]["state"] != "failing")
    assert found["far"]["since"] == pytest.approx(repaired, abs=4)
    running.send_signal(signal.SIGSTOP)
    stopped = time.time()
    time.sleep(seconds)  # what is tested is a suspension of more than two intervals and a timeout
    resumed = time.time()
    running.send_signal(signal.SIGCONT)
    until(tmp_path, lambda each: each["far"]["age"] < 1)
    status, metrics = fetch(socket_path(tmp_path), "/metrics")
    assert status == 200
    ages = samples(metrics.decode(), "probe_age_seconds")
    assert max(ages.values()) < 4
    with contextlib.closing(sqlite(tmp_path / "probe.db")) as connection:
        times = [at for (at,) in connection.execute("SELECT at FROM sample WHERE series = 'far' ORDER BY at")]
    (gap,) = [(a, b) for a, b in pairwise(times) if b - a > 4]
    assert gap == (pytest.approx(stopped, abs=2), pytest.approx(resumed, abs=2))
    assert "no data" in page(tmp_path, "/part/target/far")
    running.end()
    again = serve_probe(lab, tmp_path, configuration(targets, interval=1, probes=4, timeout=0.5), NOBODY)
    assert api(tmp_path)["far"]["rounds"] >= len(times), "a restart loses nothing"
    again.end()


EXPIRED = """
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = socket.create_server((sys.argv[2], 8443))
print("ready", flush=True)
def serve(connection):
    try:
        context.wrap_socket(connection, server_side=True).recv(1)
    except OSError:
        pass
while True:
    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"""


def test_the_first_lines_say_what_is_wrong_and_since_when(tmp_path: Path) -> None:
    """Four faults at once: a lossy link, an expired certificate, a name server that is silent, and a link that goes down."""
    authority, folder = trustme.CA(), tmp_path / "etc"
    folder.mkdir()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate(tmp_path, [x509.IPAddress(ipaddress.ip_address(FAR))], -3, authority)
    targets = {
        "office": ("icmp", FAR, ""), "shop": ("tls", f"{FAR}:8443", ""), "intranet": ("tcp", "intranet.example:80", ""),
        "backup": ("icmp", "10.97.3.2", ""),
    }  # fmt: skip
    with Lab(0.001) as lab:
        branch = lab.space("branch")
        own_end, other_end = lab.link(lab.near, "10.97.3.1/24", branch, "10.97.3.2/24")
        lab.start(lab.far, python("-c", EXPIRED, str(tmp_path / "peer.pem"), FAR)).line("ready")
        lab.filter("drop", 53, "udp")
        lab.resolve(FAR)
        (tmp_path / "probe.toml").write_text(
            configuration(targets, interval=1, probes=20, timeout=0.4), encoding="utf-8"
        )
        words = microwsgi("serve", "apps.probe:app", "--bind", socket_path(tmp_path), "--access-log", "off")
        files = {"PROBE_CONFIG": str(tmp_path / "probe.toml"), "SSL_CERT_FILE": str(tmp_path / "authority.pem")}
        lab.start(lab.near, words, user=0, **files).line("unix:")
        until(tmp_path, lambda each: each["office"]["state"] == each["backup"]["state"] == "ok")
        lab.lose(10)
        lab.do(branch, f"ip link set {other_end} down")
        broken = time.time()
        found = until(
            tmp_path, lambda each: (each["office"]["state"], each["backup"]["state"]) == ("degraded", "failing")
        )
        shown = re.search(r'<p class="summary failing" role="status">(.*?)</p>', page(tmp_path))
    assert shown
    lines = dict(line.split(" has been ", 1) for line in shown[1].split("<br>")[1:])
    at = {name: time.strftime("%T", time.localtime(found[name]["since"])) for name in targets}
    for name, state, reason in (
        ("office", "degraded", r"\d+% packet loss"), ("shop", "failing", r"certificate expired \([^)]*\)"),
        ("intranet", "failing", "name server timeout"), ("backup", "failing", f"interface down: {own_end}, no carrier"),
    ):  # fmt: skip
        assert re.fullmatch(
            rf"{state} since {at[name]} \([^)]*\): (.*, )?(\d+ of \d+ )?({reason})(, .*)?\.", lines[name]
        ), lines[name]
    for name in ("office", "backup"):
        assert found[name]["since"] == pytest.approx(broken, abs=4)


def sqlite(path: Path) -> Any:
    import sqlite3

    return sqlite3.connect(path)


def samples(text: str, family: str) -> dict[str, float]:
    """The values of a metric by the target's name."""
    families = {each.name: each for each in text_string_to_metric_families(text)}
    return (
        {sample.labels.get("name", ""): sample.value for sample in families[family].samples}
        if family in families
        else {}
    )


def test_loss_is_shown_as_it_is_and_fping_says_the_same(tmp_path: Path) -> None:
    """Each tenth packet is dropped: 10 %, which is a degraded target, whatever a single round says."""
    fping = need("fping")
    with Lab(0.001) as lab:
        lab.lose(10)
        config = configuration({"far": ("icmp", FAR, "")}, interval=1, probes=50, timeout=0.1)
        running = serve_probe(lab, tmp_path, config)
        found = until(tmp_path, lambda each: each["far"].get("probes", 0) >= 200)["far"]
        running.end()  # alone, fping loses exactly each tenth packet
        said = subprocess.run(
            lab.command(lab.near, fping, "-q", "-c", "100", "-p", "10", "-t", "1000", FAR),
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    loss = float(re.search(r"/(\d+)%", said)[1]) / 100  # type: ignore[index]
    assert loss == 0.1
    assert found["loss"] == pytest.approx(loss, abs=0.01), "a round begins at any of ten packets"
    assert (found["state"], found["text"]) == ("degraded", "10% packet loss")


def test_a_user_who_may_not_ping_is_told_how_to_allow_it(lab: Lab) -> None:
    lab.do(lab.far, "sysctl -qw 'net.ipv4.ping_group_range=1 0'")
    code = (
        "import asyncio; from apps.probing.probes import *\n"
        "print(asyncio.run(run(Check('icmp', '127.0.0.1'), Policy(), Resolver(), 1)))"
    )
    command = lab.command(lab.far, *python("-c", code), user=NOBODY)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Reason.LOCAL" in done.stdout
    assert "sysctl -w net.ipv4.ping_group_range" in done.stdout


# --- Pages ------------------------------------------------------------------------------------------------------------

ODD = 'a <b>/ü?#"'
ODD_CONFIG = configuration({ODD.replace('"', '\\"'): ("tcp", "127.0.0.1:1", "")}, interval=1, probes=2, history="")


def wait_for_rounds(module: Any) -> None:
    end = time.monotonic() + LIMIT
    while not module.prober.update():
        assert time.monotonic() < end
        time.sleep(0.01)  # between two looks


def test_without_a_script_it_is_all_there(tmp_path: Path) -> None:
    with loaded("apps.probe", ODD_CONFIG, tmp_path) as module:
        wait_for_rounds(module)
        client = Client(module.app)
        first = client.get("/").expect(text="connection refused")
        assert "default-src 'none'" in first.headers["Content-Security-Policy"]
        link = re.search(r'href="(target/[^"]+)"', first.text)
        assert link
        assert "connection refused" in client.get(f"/{link[1]}").expect().text
        assert "<svg" in client.get(f"/part/{link[1]}?range=24h").expect().text
        assert "no rows" not in client.get("/?filter=REFUSED&sort=-median").expect().text
        assert "target/" not in client.get("/part/all?filter=nothing").expect().text
        for path, status in (
            ("/part/target/b", 404),
            ("/target/b", 404),
            ("/?range=1y", 400),
            ("/probe?target=a&module=b", 400),
        ):
            client.get(path).expect(status)


def test_an_old_value_is_no_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded("apps.probe", ODD_CONFIG, tmp_path) as module:
        wait_for_rounds(module)
        module.prober.background.stop()
        client = Client(module.app)
        assert samples(client.get("/metrics").text, "probe_success") == {ODD: 0.0}
        assert samples(client.get("/metrics").text, "probe_packet_loss_ratio") == {ODD: 0.0}
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 60)
        text = client.get("/metrics").text
        assert samples(text, "probe_success") == {}
        assert samples(text, "probe_age_seconds")[ODD] >= 60
        shown = client.get("/part/all").text
        assert "1 of 1 has no data" in shown
        assert re.search(r"Last round <time[^>]*>[\d:]{8}, 6\d s ago", shown)


def test_a_hundred_browsers_hold_no_threads_and_slow_nobody(tmp_path: Path) -> None:
    with (
        loaded("apps.probe", ODD_CONFIG, tmp_path) as module,
        live(module.app, threads=4) as server,
        contextlib.ExitStack() as stack,
    ):
        streams = []
        for _ in range(100):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LIMIT))
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"text/event-stream" in stream.recv(65536)
            streams.append(stream)
        for _ in range(20):
            with urlopen(f"{server.url}/api") as response:  # noqa: S310 - ours
                assert response.status == 200
        for stream in streams:
            received = b""
            while received.count(b'"now"') < 2:
                received += stream.recv(65536)


def test_the_page_is_live_keeps_its_place_and_says_when_the_server_is_lost(command: Any, tmp_path: Path) -> None:
    """Keyboard and screen reader: axe's rules that this page could break; a phone's width; and a killed server."""
    (tmp_path / "probe.toml").write_text(ODD_CONFIG, encoding="utf-8")
    running = command("serve", "apps.probe:app", "--port", "0", PROBE_CONFIG=str(tmp_path / "probe.toml"))
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 360, "height": 700})
        problems: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        url = running.url()
        tab.goto(url)
        tab.wait_for_selector("text=connection refused")
        assert tab.inner_text("tbody th") == "failing"
        assert ODD in tab.inner_text("tbody")
        assert faults(tab) == []
        assert tab.evaluate(WIDEST) <= 360, "a phone need not scroll sideways"
        tab.focus("tbody a")
        tab.evaluate("getSelection().selectAllChildren(document.querySelector('tbody a'))")
        for _ in range(2):
            with tab.expect_response(lambda response: "/part/" in response.url) as found:
                pass
            assert found.value.status == 200
        assert tab.evaluate("document.activeElement.textContent") == ODD
        assert tab.evaluate("getSelection().toString()") == ODD
        tab.click("tbody a")
        tab.wait_for_selector("svg .lost")
        assert tab.evaluate("document.querySelector('svg .lost').getBoundingClientRect().height") > 0
        assert "connection refused" in (tab.text_content("svg .hover title") or "")
        assert faults(tab) == []
        assert {each.split("/")[2] for each in asked if not each.startswith("data:")} == {url.removeprefix("http://")}
        assert problems == []
        running.process.kill()
        tab.wait_for_selector("#lost:not([hidden])", timeout=3500)
        assert "No connection to the server since" in tab.inner_text("#lost")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_and_colours_are_readable_on_a_phone(
    scheme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes of 150 ms, also in a round that lost half: labels are whole, and smoke, median and placeholder are seen."""
    monkeypatch.setattr("apps.background.Background.start", lambda self: None)
    now = time.time()
    with loaded("apps.probe", ODD_CONFIG, tmp_path) as module, chromium() as browser:
        for at in range(int(now) - 600, int(now), 10):
            outcomes = [Outcome(Reason.OK, 0.1 + 0.01 * n, received=True) for n in range(5)]
            lost = [Outcome(Reason.NO_ANSWER)] * 5 if at > now - 100 else []
            module.prober.history.add(ODD, float(at), Round.of(float(at), outcomes + lost)._asdict())
        module.prober.history.flush(now)
        with live(module.app) as server:
            tab = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme=scheme)
            tab.goto(server.url)
            assert faults(tab) == []
            tab.click("tbody a")
            tab.wait_for_selector(".lost")
            assert {"200 ms", "100 ms", "0"} < set(tab.locator("svg text").all_text_contents())
            assert faults(tab) == []
            assert tab.evaluate("getComputedStyle(document.querySelector('.median')).fill") in {
                "rgb(0, 0, 0)", "rgb(255, 255, 255)",
            }  # fmt: skip


# --- Metrics ----------------------------------------------------------------------------------------------------------

ALLOW = 'allow = ["127.0.0.0/8"]\nhistory = ""\n'
SAME = ("probe_success", "probe_http_status_code", "probe_ip_protocol", "probe_http_ssl", "probe_http_version")


def parsed(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_probe_on_demand_is_that_of_blackbox_exporter(command: Any, tmp_path: Path) -> None:
    """The same values as the exporter has beside it, and no name that it has not."""
    exporter = need("prometheus-blackbox-exporter")
    (tmp_path / "blackbox.yml").write_text(
        "modules:\n  http: {prober: http, http: {follow_redirects: false, preferred_ip_protocol: ip4}}\n"
        "  tcp: {prober: tcp}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    other = Running([exporter, f"--config.file={tmp_path / 'blackbox.yml'}", f"--web.listen-address=127.0.0.1:{port}"])
    not_found = says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    page = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    try:
        other.line("listening|Listening")
        with Peer(page) as well, Peer(not_found) as bad, Peer(silent) as quiet:
            ports = [well.port, bad.port, quiet.port, 1]
            with loaded("apps.probe", f"{ALLOW}ports = {ports}\n", tmp_path) as module:
                client = Client(module.app)
                for kind, target in (
                    ("http", f"127.0.0.1:{well.port}"), ("http", f"127.0.0.1:{bad.port}"), ("http", "127.0.0.1:1"),
                    ("tcp", f"127.0.0.1:{quiet.port}"), ("tcp", "127.0.0.1:1"),
                    ("tcp", "nosuch.invalid:1"),
                ):  # fmt: skip
                    ours = parsed(client.get(f"/probe?target={target}&module={kind}").expect().text)
                    scheme = "http://" if kind == "http" else ""
                    where = f"http://127.0.0.1:{port}/probe?target={quote(scheme + target)}&module={kind}"
                    with urlopen(where) as response:
                        theirs = parsed(response.read().decode())
                    assert [ours.get(name) for name in SAME if name in theirs and name in ours] == [
                        theirs[name] for name in SAME if name in theirs and name in ours
                    ], (kind, target)
                    assert ours["probe_success"] == theirs["probe_success"]
                    phases = {"probe_tls_version_info", "probe_dns_duration_seconds"}
                    assert {name for name in ours if name not in theirs} - phases == set(), (kind, target)
    finally:
        other.end()


def test_an_icmp_probe_on_demand_is_that_of_blackbox_exporter(lab: Lab, tmp_path: Path) -> None:
    """In the lab, where a user may ping: one host that answers, one that does not."""
    exporter = need("prometheus-blackbox-exporter")
    (tmp_path / "blackbox.yml").write_text(
        "modules:\n  icmp: {prober: icmp, timeout: 1s, icmp: {preferred_ip_protocol: ip4}}\n"
    )
    words = (f"--config.file={tmp_path / 'blackbox.yml'}", "--web.listen-address=127.0.0.1:9115")
    lab.start(lab.near, [exporter, *words]).line("listening|Listening")
    serve_probe(lab, tmp_path, 'allow = ["10.97.0.0/16"]\nhistory = ""\n')
    for target in (FAR, "10.97.1.99"):
        ours = parsed(fetch(socket_path(tmp_path), f"/probe?target={target}&module=icmp")[1].decode())
        theirs = parsed(lab.do(lab.near, f"curl -s --noproxy * 127.0.0.1:9115/probe?target={target}&module=icmp"))
        assert ours["probe_success"] == theirs["probe_success"] == float(target == FAR)
        assert ours["probe_ip_protocol"] == theirs["probe_ip_protocol"]
        assert ours.keys() <= theirs.keys()


def test_prometheus_is_not_shut_out(tmp_path: Path) -> None:
    with loaded("apps.probe", f"{ALLOW}ports = [1]\n", tmp_path) as module:
        client = Client(module.app)
        assert {client.get("/probe?target=127.0.0.1:1").status_int for _ in range(200)} == {200}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("interval = 'a'", "interval is 'a'"),
        ("interval = nan", "interval is nan"),
        ("interval = 0.1", "expected 1 to 3600"),
        ("intervall = 1", "unknown key intervall"),
        ("allow = ['1.2.3.4/8']", "has host bits set"),
        ("[[target]]\nname = 'a'", "has no module, target"),
        ("[[target]]\nname = 'a'\nmodule = 'b'\ntarget = 'c'", "unknown module b"),
        ("[[target]]\nname = 'a'\nmodule = 'tcp'\ntarget = 'http://c'", "A target is a name or an address"),
        ("[[target]]\nname = 'a'\nmodule = 'tcp'\ntarget = 'c'\npath = '/'", "unknown key path for the module tcp"),
        ("[[target]]\nname = 'a'\nmodule = 'http'\ntarget = 'c'\npath = '/ü'", "percent-encode"),
        ("[[target]]\nname = 'a'\nmodule = 'http'\ntarget = 'c'\nstatus = ['x']", "invalid literal"),
        ("a = [", "is not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(config: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)), loaded("apps.probe", config, tmp_path):
        pass
