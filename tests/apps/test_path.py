"""apps/path.py: the route that it shows is the one that packets take, also when it breaks; and nobody needs privileges."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from apps.probing.icmp import EXTENDED, parse_error
from apps.probing.paths import COLUMN, INTERVAL, Traced, Tracer, as_rounds, branches, changes
from apps.probing.policy import Target
from apps.probing.smoke import picture
from apps.probing.trace import Flow, Reply
from microwsgi.testing import Client, live
from tests.apps.browsers import WIDEST, chromium, faults
from tests.apps.probing.loading import loaded
from tests.lab import BRANCHED, FAR, NOBODY, ROUTER, Lab, fetch, socket_path
from tests.programs import need
from tests.running import LIMIT, python

pytestmark = pytest.mark.slow  # networks of network namespaces, whose probes wait

DELAY = 0.010
TOLERANCE = 0.25
MTU = 1300


class Pages:
    """The application as user nobody in a lab."""

    def __init__(self, lab: Lab, folder: Path, interval: float = 0.5) -> None:
        self.path = socket_path(folder)
        folder.chmod(0o777)
        config = (
            f'allow = ["10.97.0.0/16"]\ntarget = [{{name = "far", module = "icmp", target = "{FAR}"}},'
            f' {{name = "branched", module = "icmp", target = "{BRANCHED}"}}]\n'
        )
        (folder / "probe.toml").write_text(config, encoding="utf-8")
        code = (
            f"from apps.probing import paths; paths.INTERVAL = {interval}\n"
            "import microwsgi, sys; microwsgi.serve('apps.path:app', bind=sys.argv[1:], access_log='off')"
        )
        command = python("-c", code, self.path)
        self.running = lab.start(lab.near, command, user=NOBODY, PROBE_CONFIG=str(folder / "probe.toml"))
        self.running.line("unix:")

    def traced(self, target: str, method: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the application says of the route to a target, when there is enough of it."""
        end = time.monotonic() + 6 * LIMIT
        while True:
            status, body = fetch(self.path, f"/to?target={target}&method={method}", Accept="application/json")
            assert status == 200, body
            found: dict[str, Any] = json.loads(body)
            if enough(found):
                return found
            assert time.monotonic() < end, f"not enough in {6 * LIMIT} s: {found}"
            time.sleep(0.25)  # between two looks

    def summary(self, target: str, method: str = "icmp") -> str:
        status, body = fetch(self.path, f"/part/route?target={target}&method={method}")
        assert status == 200
        found = re.search(r'<p class="summary[^>]*>(.*?)</p>', body.decode())
        assert found
        return found[1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(DELAY) as made:
        for space in (made.router, made.far):
            made.do(space, f"ip link set line mtu {MTU}")
        made.branch()
        for space in made.spaces:  # tests follow each other more quickly than routers answer
            made.do(space, "sysctl -qw net.ipv4.icmp_ratelimit=0")
        yield made


@pytest.fixture
def pages(lab: Lab, tmp_path: Path) -> Iterator[Pages]:
    found = Pages(lab, tmp_path)
    yield found
    found.running.end()


def rounds(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda found: found["rounds"] >= count


def addresses(branch: dict[str, Any]) -> list[list[str]]:
    return [list(hop["addresses"]) for hop in branch["hops"]]


@pytest.mark.parametrize("method", ["icmp", "udp"])
def test_the_route_is_shown_as_it_is(method: str, lab: Lab, pages: Pages) -> None:
    """Two hops, of which the second is 20 ms away, and 1,300 bytes get through; traceroute and tracepath say the same."""
    found = pages.traced("far", method, rounds(6))
    said = lab.do(lab.near, f"traceroute -n {'-I' if method == 'icmp' else ''} {FAR}")
    mtu = re.findall(r"pmtu (\d+)", lab.do(lab.near, f"tracepath -n {FAR}"))[-1]
    (branch,) = found["branches"]
    hops = re.findall(r"^ *\d+  ([\d.]+)", said, re.MULTILINE)
    assert addresses(branch) == [[hop] for hop in hops] == [[ROUTER], [FAR]]
    assert branch["hops"][0]["best"] < DELAY
    assert branch["hops"][1]["best"] == pytest.approx(2 * DELAY, rel=TOLERANCE), "a busy machine delays some"
    assert [hop["lost"] for hop in branch["hops"]] == [0, 0]
    assert found["mtu"] == int(mtu) == MTU


def test_no_loss_is_invented_and_nothing_is_sent_beyond_the_target(tmp_path: Path) -> None:
    """One hop away, where routers answer once a second; mtr sees no loss either."""
    mtr = need("mtr")
    with Lab() as lab:  # a new one, whose router has not sent an ICMP message yet: it may send six at once
        command = lab.command(lab.near, mtr, "-u", "-n", "-j", "-c", "3", "-m", "1", ROUTER)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before = unreachables(lab)
        udp = Pages(lab, tmp_path, INTERVAL).traced(ROUTER, "udp", rounds(8))
        after = unreachables(lab)
    assert json.loads(done.stdout)["report"]["hubs"][-1]["Loss%"] == 0
    assert after - before <= 8 + 2, "one answer a round, and that for the path's MTU"
    (branch,) = udp["branches"]
    assert addresses(branch) == [[ROUTER]], "and no hop behind it"
    assert branch["hops"][0]["lost"] == 0


def unreachables(lab: Lab) -> int:
    return int(lab.do(lab.router, "nstat -az IcmpOutDestUnreachs").split()[-2])


@pytest.mark.parametrize("method", ["udp", "icmp"])
def test_branches_of_unlike_lengths_are_told_apart(method: str, lab: Lab, pages: Pages) -> None:
    """A flow keeps to one way: no hop has addresses of both, and each branch ends at the target."""
    found = pages.traced("branched", method, rounds(9))
    ways = [[ROUTER, "10.98.1.2", BRANCHED], [ROUTER, "10.98.2.2", "10.98.3.2", BRANCHED]]
    for branch in found["branches"]:
        assert [only for (only,) in addresses(branch)] in ways
        assert [hop["lost"] for hop in branch["hops"]] == [0] * len(branch["hops"])
    assert found["changes"] == []
    assert 1 <= len(found["branches"]) <= 2, "in one of eight cases all four flows take the same way"
    assert len({flow for branch in found["branches"] for flow in branch["flows"]}) == 4


def test_an_outage_keeps_the_rows_and_says_where_and_since_when(lab: Lab, pages: Pages) -> None:
    before = pages.traced("far", "icmp", rounds(6))["branches"][0]["hops"][1]["sent"]
    assert "answers ICMP, 2 hops away" in pages.summary("far")
    lab.do(lab.router, "ip link set line down")
    broken = time.time()
    pages.traced("far", "icmp", lambda found: found["branches"][0]["hops"][1]["lost"] >= 2)
    said = pages.summary("far")
    lab.do(lab.router, "ip link set line up")
    lab.do(lab.router, f"ip route replace {FAR} dev line")
    assert re.search(r"has not answered ICMP since [\d:]{8}", said)
    assert f"{ROUTER} reports: network unreachable" in said or f"The last hop that answers is 1, {ROUTER}" in said
    assert (
        time.strftime("%H:%M", time.localtime(broken)) in said
        or time.strftime("%H:%M", time.localtime(broken - 5)) in said
    )
    count = pages.traced("far", "icmp", rounds(1))["rounds"]
    after = pages.traced("far", "icmp", rounds(count + 3))["branches"][0]
    assert addresses(after) == [[ROUTER], [FAR]]
    assert after["hops"][1]["sent"] > before, "the history goes on"


def test_a_host_that_is_not_on_the_link_is_told_from_a_route_that_breaks(pages: Pages) -> None:
    pages.traced(
        "10.97.1.99", "icmp", lambda found: any(hop["reason"] for each in found["branches"] for hop in each["hops"])
    )
    assert "This machine reports: no ARP or ND reply." in pages.summary("10.97.1.99")


def test_an_interface_of_this_machine_that_is_down_is_named(lab: Lab, pages: Pages) -> None:
    pages.traced("far", "icmp", rounds(4))
    lab.do(lab.router, "ip link set v1 down")
    try:
        pages.traced("far", "icmp", lambda found: bool(found["trouble"]))
        said = pages.summary("far")
    finally:
        lab.do(lab.router, "ip link set v1 up")
    assert re.fullmatch(r"Not reached since [\d:]{8} \(for \d+ s\): interface down: v0, no carrier\.", said)


def test_a_target_that_drops_udp_is_no_row_of_empty_hops(lab: Lab, pages: Pages) -> None:
    lab.filter("drop", "33434-33534", "udp")
    try:
        found = pages.traced("far", "udp", rounds(6))
        status, body = fetch(pages.path, "/part/route?target=far&method=udp")
    finally:
        lab.do(lab.far, "nft delete table ip lab")
    assert status == 200
    assert "has not answered UDP in this period" in body.decode()
    assert body.decode().count('<th scope="row">') <= 3
    assert addresses(found["branches"][0])[0] == [ROUTER]
    assert pages.traced("far", "icmp", rounds(2))["branches"][0]["hops"][-1]["lost"] == 0, "by ICMP it answers"


# --- Without a network ------------------------------------------------------------------------------------------------


def test_the_error_queue_is_read() -> None:
    ipv4 = EXTENDED.pack(113, 2, 11, 0, 0, 0, 0) + struct.pack("=HH4s8x", socket.AF_INET, 0, bytes([192, 0, 2, 1]))
    ipv6 = EXTENDED.pack(113, 3, 3, 0, 0, 0, 0) + struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, bytes(15) + b"\1", 0)
    assert parse_error(ipv4).sender == "192.0.2.1"
    assert parse_error(ipv4).is_hop
    assert parse_error(ipv6).sender == "::1"
    assert parse_error(ipv6).is_hop
    assert parse_error(EXTENDED.pack(90, 1, 0, 0, 0, 1300, 0)).info == 1300


def test_an_answer_that_quotes_too_little_is_for_the_first_packet_without_one() -> None:
    target = Target("a", 0, socket.AF_INET, "192.0.2.1")
    flow = Flow(target, "udp", 0)
    flow.sent_at = {1: 0.0, 2: 0.0, 3: 0.0}
    flow.add(1, "192.0.2.9", reached=False, reason="")
    assert flow.ttl_of(b"") == 2
    assert flow.ttl_of(struct.pack("!HH", 3, 0xFFFC)) == 3
    assert Flow(target, "icmp", 0).ttl_of(struct.pack("!BBHHH", 8, 0, 0, 1, 7)) == 7


def reply(address: str, *, reached: bool = False, reason: str = "") -> Reply:
    return Reply(address, 0.01, reached, reason)


def test_a_route_that_changes_is_told_with_its_time() -> None:
    def traced(at: float, flow: int, *hops: Reply | None, address: str = "z") -> Traced:
        return Traced(at, flow, address, list(hops), None, "")

    a, b, z = reply("a"), reply("b"), reply("z", reached=True)
    found = [
        traced(1, 0, a, z), traced(2, 0, a, None), traced(3, 0, a, reply("a", reason="host unreachable")), traced(4, 0, a, z),
        traced(5, 0, b, z), traced(6, 0, b, z), traced(7, 0, b, reply("y", reached=True), address="y"),
    ]  # fmt: skip
    assert changes(found) == [(5, "hop 1 changed from a to b"), (7, "the address changed from z to y")]
    (branch,) = branches(found[:6])
    assert [(hop.sent, hop.lost) for hop in branch.hops] == [(6, 0), (6, 2)]
    two = [traced(1, 0, a, z), traced(2, 1, b, reply("c"), z), traced(3, 2, a, z), traced(4, 3, None, z)]
    assert [each.flows for each in branches(two)] == [[0, 2, 3], [1]], "a silent hop is no other branch"
    lost = [traced(at, 0, a, z) for at in range(5)] + [traced(5, 0, a, None, z)]
    assert [len(each.hops) for each in branches(lost)] == [2], (
        "the answer to a packet for a hop beyond the target is no hop"
    )
    down = reply("a", reason="host unreachable")
    outage = [traced(1, 0, a, z), traced(2, 0, a, None), traced(3, 8, None, None, None), traced(4, 9, a, down, down)]
    assert [(each.flows, len(each.hops)) for each in branches(outage)] == [([0, 8, 9], 2)], (
        "an outage is no other branch"
    )
    longer = [traced(at, 0, a, z) for at in range(5)] + [traced(at, 0, a, b, z) for at in range(5, 8)]
    assert [len(each.hops) for each in branches(longer)] == [3]


def test_a_lost_packet_is_a_share_of_its_column() -> None:
    """Each tenth is lost, as wide as others: a tenth of the height; an outage is the whole height."""
    answer = reply("z", reached=True)
    lossy = [Traced(at, 0, "z", [None if at % 20 == 10 else answer], None, "") for at in range(0, 400, 2)]
    down = [Traced(at, 0, "z", [None], None, "interface down: a1, no carrier") for at in range(400, 440, 2)]
    found = as_rounds(lossy + down)
    assert [(each.probes, each.bad) for each in found] == [(10, pytest.approx(0.1))] * 20 + [(10, 1.0)] * 2
    assert found[-1].reasons == {"interface down: a1, no carrier": 10}
    chart = picture(found, 0.0, 600.0, COLUMN, "round trips")
    bars = re.findall(r'class="lost" x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', chart)
    whole = max(float(height) for _, height in bars)
    assert [float(height) / whole for _, height in bars] == pytest.approx([0.1] * 20 + [1.0] * 2, abs=0.01)
    assert "Empty: before the first round" in chart


def test_the_first_sentence_says_when_packets_were_lost(tmp_path: Path) -> None:
    answer = reply("z", reached=True)

    def sentence(lost: tuple[int, ...]) -> tuple[str, str]:
        rounds = [Traced(at, 0, "z", [None if at in lost else answer], None, "") for at in range(0, 400, 2)]
        state, text = module.condition(rounds, branches(rounds), 399.0, "icmp")
        return state, text.removeprefix("z answers ICMP, 1 hop away. Packet loss in the last minute: ")

    at = [time.strftime("%T", time.localtime(each)) for each in (100, 350)]
    with loaded("apps.path", CONFIG, tmp_path) as module:
        assert sentence(()) == ("ok", "0%.")
        assert sentence((100,)) == ("ok", f"0%; the last lost packet was at {at[0]}.")
        assert sentence((100, 350, 380)) == ("degraded", f"7%; packets have been lost since {at[1]}.")


CONFIG = 'target = [{name = "a/b ü", module = "tcp", target = "localhost:80"}]\nhistory = ""\n'


def test_nobody_looks_and_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.probing.paths.UNSEEN", 1.0)
    with loaded("apps.path", CONFIG, tmp_path) as module:
        tracer: Tracer = module.tracer
        tracer.watch("a/b ü", "udp")
        end = time.monotonic() + LIMIT
        counts = [0]
        while not (counts[-1] and len(counts) > 25 and counts[-25] == counts[-1]):  # 2.5 seconds without a round
            assert time.monotonic() < end
            time.sleep(0.25)  # between two looks
            counts.append(len(tracer.rounds("a/b ü", "udp", time.time() - 60, time.time())))


def test_a_moved_name_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded("apps.path", CONFIG, tmp_path) as module:
        where = ["127.0.0.1"]

        async def resolve(text: str) -> list[Target]:
            return [Target("a", 0, socket.AF_INET, where[0])]

        monkeypatch.setattr(module.tracer, "resolve", resolve)
        end = time.monotonic() + LIMIT
        seen: list[str] = []
        while set(seen) != {"127.0.0.1", "127.0.0.2"}:
            assert time.monotonic() < end
            module.tracer.watch("a/b ü", "udp")
            time.sleep(0.25)  # between two looks
            seen = [each.address for each in module.tracer.rounds("a/b ü", "udp", time.time() - 60, time.time())]
            if seen:
                where[0] = "127.0.0.2"
        client = Client(module.app)
        assert (
            "the address changed from 127.0.0.1 to 127.0.0.2"
            in client.get(f"/part/route?target={quote('a/b ü')}&method=udp").text
        )


def test_the_page_goes_on_by_itself(tmp_path: Path) -> None:
    with loaded("apps.path", CONFIG, tmp_path) as module, live(module.app) as server, chromium() as browser:
        tab = browser.new_page(viewport={"width": 360, "height": 700})
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto(server.url)
        assert faults(tab) == []
        tab.click("text=a/b ü")
        tab.click("text=by udp")
        with tab.expect_response(lambda response: "/part/route" in response.url) as found:
            pass
        assert found.value.status == 200
        tab.wait_for_selector("td >> text=/127.0.0.1|::1/")
        assert tab.evaluate(WIDEST) <= 360
        assert faults(tab) == []
        assert problems == []
