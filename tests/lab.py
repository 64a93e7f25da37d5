"""A network in separate namespaces: a link whose delay, loss and rate are known, to check measurements.

    near --- veth --- router --- delay line --- far
    10.97.1.1   10.97.1.2   10.97.2.1    10.97.2.2

The delay line (tests/delayline.py) is a pair of TUN devices: many kernels have no netem. Loss is nftables', the rate is tbf's.
It needs root; a test that asks for a lab where there can be none is skipped, and says why.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.programs import absent, need
from tests.running import LIMIT, ROOT, Running, python

NEAR, ROUTER, ROUTER_FAR, FAR = "10.97.1.1", "10.97.1.2", "10.97.2.1", "10.97.2.2"
BRANCHED = "10.98.9.9"
NOBODY = 65534
numbers = itertools.count()


class Lab:
    """The namespaces, until the end of the `with`. `delay` is in seconds, each way; a packet takes up to `jitter` more."""

    def __init__(self, delay: float = 0.0, jitter: float = 0.0) -> None:
        self.delay, self.jitter = delay, jitter
        prefix = f"mw{os.getpid()}x{next(numbers)}"
        self.near, self.router, self.far = self.spaces = [f"{prefix}{name}" for name in ("near", "router", "far")]
        self.ip = need("ip")
        self.started: list[Running] = []
        self.names: Path | None = None

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            absent("namespaces", "only root can make network namespaces")
        try:
            self.build()
        except BaseException:
            self.tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tear_down()

    def build(self) -> None:
        """Namespaces, links, addresses, routes."""
        for space in self.spaces:
            done = subprocess.run([self.ip, "netns", "add", space], capture_output=True, text=True, check=False)
            if done.returncode:
                absent("namespaces", f"no namespace can be made here: {done.stderr.strip()}")
            self.do(space, "ip link set lo up")
            self.do(space, "sysctl -qw net.ipv4.ip_forward=1 'net.ipv4.ping_group_range=0 65534'")
        self.do(self.near, f"ip link add v0 type veth peer name v1 netns {self.router}")
        for space, device, address in ((self.near, "v0", NEAR), (self.router, "v1", ROUTER)):
            self.do(space, f"ip addr add {address}/24 dev {device}")
            self.do(space, f"ip link set {device} up")
        self.started.append(
            Running(python("-m", "tests.delayline", self.router, self.far, str(self.delay), str(self.jitter)))
        )
        self.started[0].line("ready")
        for space, address, peer in ((self.router, ROUTER_FAR, FAR), (self.far, FAR, ROUTER_FAR)):
            self.do(space, f"ip addr add {address} peer {peer} dev line")
            self.do(space, "ip link set line up")
        self.do(self.near, f"ip route add default via {ROUTER}")
        self.do(self.far, f"ip route add default via {ROUTER_FAR}")

    def tear_down(self) -> None:
        """All of it, with what still runs in it."""
        if self.names is not None:
            shutil.rmtree(self.names, ignore_errors=True)
        for running in reversed(self.started):
            running.end()
        for space in self.spaces:
            found = subprocess.run([self.ip, "netns", "pids", space], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run([self.ip, "netns", "del", space], check=False, capture_output=True)

    def command(self, space: str, *command: str, user: int = 0) -> list[str]:
        """A command as it runs in a namespace, as this user."""
        # An interpreter may live where only root can read: that is all that the user can beyond a common one.
        reads = [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reads] if user else []
        return [self.ip, "netns", "exec", space, *as_user, *command]

    def do(self, space: str, command: str) -> str:
        """Run a command in a namespace, and what it printed."""
        words = shlex.split(command)
        words[0] = shutil.which(words[0]) or need(words[0])
        done = subprocess.run(
            self.command(space, *words), capture_output=True, text=True, check=False, timeout=6 * LIMIT, cwd=ROOT
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done.stdout

    def start(self, space: str, command: Sequence[str], user: int = 0, **settings: str) -> Running:
        """A command that goes on in a namespace, until the lab ends if nobody ends it before."""
        self.started.append(Running(self.command(space, *command, user=user), ROOT, **settings))
        return self.started[-1]

    def space(self, name: str) -> str:
        """One more namespace, with the loopback interface up; it forwards packets."""
        made = f"{self.near.removesuffix('near')}{name}"
        self.spaces.append(made)
        subprocess.run([self.ip, "netns", "add", made], check=True)
        self.do(made, "ip link set lo up")
        self.do(made, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        return made

    def link(self, one: str, one_address: str, other: str, other_address: str) -> tuple[str, str]:
        """A veth pair between two namespaces, and the names of its ends."""
        number = next(numbers)
        names = (f"a{number}", f"b{number}")
        self.do(one, f"ip link add {names[0]} type veth peer name {names[1]} netns {other}")
        for space, name, address in ((one, names[0], one_address), (other, names[1], other_address)):
            self.do(space, f"ip addr add {address} dev {name} {'nodad' if ':' in address else ''}")
            self.do(space, f"ip link set {name} up")
        return names

    def branch(self) -> None:
        """Make two ways of unlike lengths from router to 10.98.9.9, balanced by flow.

        router -- left 10.98.1.2 -------------------------- end
        router -- right 10.98.2.2 -- beyond 10.98.3.2 ----- end
        """
        left, right, beyond, end = (self.space(name) for name in ("left", "right", "beyond", "end"))
        self.link(self.router, "10.98.1.1/24", left, "10.98.1.2/24")
        self.link(self.router, "10.98.2.1/24", right, "10.98.2.2/24")
        self.link(right, "10.98.3.1/24", beyond, "10.98.3.2/24")
        self.link(left, "10.98.4.1/24", end, "10.98.4.2/24")
        self.link(beyond, "10.98.5.1/24", end, "10.98.5.2/24")
        self.do(end, f"ip addr add {BRANCHED}/32 dev lo")
        self.do(self.router, "sysctl -qw net.ipv4.fib_multipath_hash_policy=1")
        self.do(self.router, f"ip route add {BRANCHED} nexthop via 10.98.1.2 nexthop via 10.98.2.2")
        self.do(left, f"ip route add {BRANCHED} via 10.98.4.2")
        self.do(right, f"ip route add {BRANCHED} via 10.98.3.2")
        self.do(beyond, f"ip route add {BRANCHED} via 10.98.5.2")
        for space, gateway in ((left, "10.98.1.1"), (right, "10.98.2.1"), (beyond, "10.98.3.1"), (end, "10.98.4.1")):
            self.do(space, f"ip route add default via {gateway}")

    def resolve(self, server: str) -> None:
        """Have programs that are started in near ask this name server (ip-netns(8): /etc/netns)."""
        self.names = Path("/etc/netns", self.near)
        self.names.mkdir(parents=True)
        (self.names / "resolv.conf").write_text(f"nameserver {server}\n", encoding="ascii")

    def lose(self, share: int) -> None:
        """Drop every so manieth packet that goes from near to far: exactly, not by chance."""
        need("nft")
        self.do(self.router, "nft add table ip lab")
        self.do(self.router, "nft add chain ip lab way { type filter hook forward priority 0 ; }")
        self.do(self.router, f"nft add rule ip lab way iifname v1 numgen inc mod {share} 0 counter drop")

    def limit(self, rate: str) -> None:
        """Let no more than this through, as tc spells it, on each side of the delay line."""
        for space in (self.router, self.far):
            self.do(space, f"tc qdisc add dev line root tbf rate {rate} burst 32kbit latency 400ms")

    def filter(self, verdict: str, port: int | str, protocol: str = "tcp") -> None:
        """What far does with a port, or with ports as nft spells them: drop, reject with tcp reset, with icmp type ..."""
        need("nft")
        self.do(self.far, "nft add table ip lab")
        self.do(self.far, "nft add chain ip lab here { type filter hook input priority 0 ; }")
        self.do(self.far, f"nft add rule ip lab here {protocol} dport {port} {verdict}")


def socket_path(folder: Path) -> str:
    """Where a server in a namespace listens for the tests: files are in no network."""
    return f"unix:{folder / 'app.sock'}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self.path = path.removeprefix("unix:")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def fetch(path: str, target: str, **fields: str) -> tuple[int, bytes]:
    """Status and body of a GET from a server in a namespace."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", target, headers=fields)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
