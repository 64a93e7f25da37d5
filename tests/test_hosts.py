"""deploy/: two hosts behind a proxy in network namespaces, as docs/deploy.md says. Under load one is killed, drained, cut off.

client 10.99.0.2 -- 10.99.0.1 edge (proxy, Redis) 10.99.1.1 -- 10.99.1.2 one
10.99.2.1 -- 10.99.2.2 two
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.background import eventually
from tests.lab import Lab
from tests.programs import need, need_package
from tests.proxies import open_folder
from tests.running import ROOT, Running, environment, python
from tests.test_deploy_document import PAGE

pytestmark = pytest.mark.slow
DEPLOY = ROOT / "deploy"
LONG = 60.0
"""Seconds for what takes many seconds by its nature."""
SSH = """\
#!{python}
import os, subprocess, sys, time
host, *command = [word.replace("/run/tally", "{folder}/" + sys.argv[1]) for word in sys.argv[1:]]
if command[:2] == ["systemctl", "restart"]:
    pid = int(open("{folder}/" + host + "/pid").read())
    os.kill(pid, 15)
    while os.path.exists(f"/proc/{{pid}}"):
        time.sleep(0.01)
else:
    os.execvp("ip", ["ip", "netns", "exec", "{prefix}" + host, *command])
"""
SERVICE = "while :; do TALLY_VERSION=$(cat {folder}/version) {command} & echo $! > {folder}/{host}/pid; wait $!; done"


def commands(language: str, section: str) -> list[str]:
    """The commands of a section of docs/deploy.md."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [line for block in found for line in block.replace("\\\n", " ").splitlines()]


class Site:
    """The hosts and the edge."""

    def __init__(self, lab: Lab, folder: Path, engine: str) -> None:
        self.lab, self.folder, self.engine = lab, folder, engine
        self.client, self.edge = lab.space("client"), lab.space("edge")
        self.hosts = {name: lab.space(name) for name in ("one", "two")}
        lab.link(self.client, "10.99.0.2/24", self.edge, "10.99.0.1/24")
        self.cables = {
            name: lab.link(self.edge, f"10.99.{number}.1/24", self.hosts[name], f"10.99.{number}.2/24")[1]
            for number, name in enumerate(("one", "two"), 1)
        }
        for name in self.hosts:
            (folder / name).mkdir()
        (folder / "version").write_text("1")
        need_package("trustme")
        import trustme

        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        authority.issue_cert("tally.example").private_key_and_cert_chain_pem.write_to_path(str(folder / "tally.pem"))
        self.services: dict[str, Running] = {}

    def start_redis(self) -> None:
        where = ["--bind", "10.99.1.1", "10.99.2.1", "--protected-mode", "no", "--dir", str(self.folder)]
        running = self.lab.start(self.edge, [need("redis-server"), *where, "--save", "", "--appendonly", "no"])
        running.line("[Rr]eady to accept connections")

    def start_host(self, name: str) -> None:
        """Start the service, which is started again when it ends, as by systemd."""
        (command,) = [each for each in commands("sh", "Several hosts") if each.startswith(f"{self.engine} ")]
        words = shlex.split(command)
        command = shlex.join(python("-m", *words))
        script = SERVICE.format(folder=self.folder, host=name, command=command)
        number = 1 + [*self.hosts].index(name)
        self.services[name] = self.lab.start(
            self.hosts[name],
            ["sh", "-c", f"cd {DEPLOY} && {script}"],
            TALLY_HOST=name,
            TALLY_DRAINING=f"{self.folder}/{name}-draining",
            EVENTS_REDIS_URL=f"redis://10.99.{number}.1",
            HOME=str(self.folder),
            PYTHONPATH=f"{ROOT}:{DEPLOY}",
            PYTHONDONTWRITEBYTECODE="1",
        )
        eventually(lambda: self.is_ready(name), f"{name} is not ready")

    def is_ready(self, name: str) -> bool:
        where = f"http://10.99.{1 + [*self.hosts].index(name)}.2:8000/ready"
        command = ["curl", "--silent", "--fail", "--max-time", "2", "--header", "Host: tally.example", where]
        done = subprocess.run(self.lab.command(self.edge, *command), check=False, capture_output=True)
        return done.returncode == 0

    def kill_host(self, name: str) -> None:
        """End everything that runs there, at once."""
        found = subprocess.run(
            [need("ip"), "netns", "pids", self.hosts[name]], capture_output=True, text=True, check=True
        )
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def roll(self) -> None:
        """Run the script of the documentation, with an ssh that enters the namespaces."""
        (self.folder / "bin").mkdir()
        ssh = self.folder / "bin" / "ssh"
        prefix = self.hosts["one"].removesuffix("one")
        ssh.write_text(SSH.format(python=sys.executable, folder=self.folder, prefix=prefix))
        ssh.chmod(0o755)
        (command,) = [each for each in commands("sh", "Several hosts") if each.startswith("deploy/roll ")]
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        subprocess.run(shlex.split(command), cwd=ROOT, env=environment(PATH=path), check=True, timeout=4 * LONG)

    def cut(self, name: str, state: str) -> None:
        """Cut the cable of a host (`down`), or mend it (`up`)."""
        self.lab.do(self.hosts[name], f"ip link set {self.cables[name]} {state}")
        if state == "up":
            self.lab.do(self.hosts[name], "true")

    def start_haproxy(self) -> Running:
        config = (DEPLOY / "haproxy.cfg").read_text().replace("/etc/haproxy/tally.pem", f"{self.folder}/tally.pem")
        (self.folder / "haproxy.cfg").write_text(config)
        return self.lab.start(self.edge, [need("haproxy"), "-db", "-f", f"{self.folder}/haproxy.cfg"])


@contextmanager
def site(engine: str) -> Iterator[Site]:
    need("curl")
    need_package(engine)
    with open_folder() as folder, Lab() as lab:
        made = Site(lab, folder, engine)
        made.start_redis()
        for name in made.hosts:
            made.start_host(name)
        yield made


@contextmanager
def load(made: Site, connections: str = "kept") -> Iterator[Callable[[], dict[str, list[list[object]]]]]:
    """Clients of the edge, once it serves; the function ends them, and returns what they got."""
    resolve = ["--cacert", f"{made.folder}/ca.pem", "--resolve", "tally.example:443:10.99.0.1"]
    curl = made.lab.command(made.client, "curl", "--silent", "--fail", *resolve, "https://tally.example/")
    eventually(lambda: not subprocess.run(curl, check=False, capture_output=True).returncode, "the edge does not serve")
    running = made.lab.start(
        made.client,
        python("-m", "tests.edge_load", "10.99.0.1", f"{made.folder}/ca.pem", connections),
        PYTHONPATH=str(ROOT),
    )
    running.line("answered", LONG)

    def end() -> dict[str, list[list[object]]]:
        running.send_signal(signal.SIGTERM)
        found: dict[str, list[list[object]]] = json.loads(running.line("^{", LONG))
        return found

    yield end


def check_logs(edge: Running, services: dict[str, Running]) -> None:
    """Each record of a host has the client's true address, and the number that the edge's log has for the request."""
    edge.read_lines += drained(edge)
    numbers = {line.split()[1] for line in edge.read_lines if line.startswith("10.99.0.2 ")}
    assert numbers
    for service in services.values():
        records = [json.loads(line) for line in drained(service) if line.startswith('{"id"')]
        assert records
        assert {each["client"] for each in records} == {"10.99.0.2"}
        unknown = [each["id"] for each in records if each["id"] not in numbers]
        assert len(unknown) < len(records) / 10, "more than HAProxy drops, which waits for no reader of its log"


def drained(running: Running) -> list[str]:
    found = []
    while not running.lines.empty():
        found.append(running.lines.get() or "")
    return found


@pytest.mark.parametrize("engine", ["gunicorn", "microwsgi"])
def test_haproxy_before_two_hosts(engine: str) -> None:
    need("haproxy")
    with site(engine) as made:
        edge = made.start_haproxy()
        with load(made) as end:
            killed = time.time()
            made.kill_host("one")
            edge.line("Server hosts/one is DOWN", LONG)
            made.start_host("one")
            edge.line("Server hosts/one is UP", LONG)
            rolled = time.time()
            (made.folder / "version").write_text("2")
            made.roll()
            for name in made.hosts:
                edge.line(f"Server hosts/{name} is DOWN", LONG)
                edge.line(f"Server hosts/{name} is UP", LONG)
            cut = time.time()
            made.cut("two", "down")
            edge.line("Server hosts/two is DOWN", LONG)
            made.cut("two", "up")
            edge.line("Server hosts/two is UP", LONG)
            found = end()
        assert {"one 1", "two 1", "one 2", "two 2"} <= {*found["hosts"]}
        failures = found["failures"]
        assert [each for each in failures if each[1] == "GET"] == [], found["failures"]
        assert [each for each in failures if rolled <= float(str(each[0])) < cut] == [], "in the rolling update"
        for begin, until in ((killed, rolled), (cut, time.time())):
            in_flight = [each for each in failures if begin <= float(str(each[0])) <= until]
            assert len(in_flight) <= 2, "more than were in flight: there are two clients that send POST"
        assert len({*map(str, found["counts"])}) == len(found["counts"]), "the hosts count in one place"
        check_logs(edge, made.services)


def test_nginx_before_two_hosts() -> None:
    """It has no readiness checks: a host that drains is marked in the configuration, which is loaded before the host stops."""
    need("nginx")
    with site("microwsgi") as made:
        config = made.folder / "nginx.conf"
        text = (DEPLOY / "nginx.conf").read_text()
        for path, mine in (("/etc/nginx/tally.pem", "tally.pem"), ("/run/nginx.pid", "nginx.pid")):
            assert path in text
            text = text.replace(path, f"{made.folder}/{mine}")
        config.write_text(f"daemon off;\n{text}")
        edge = made.lab.start(made.edge, [need("nginx"), "-c", str(config)])
        eventually((made.folder / "nginx.pid").exists)

        def workers() -> set[str]:
            """Return the pids of nginx's workers, those with an older configuration too."""
            pid = (made.folder / "nginx.pid").read_text().strip()
            return {*Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

        def replace(old: str, new: str) -> None:
            """Change the configuration; both hosts answer, or the other one, when new workers have it."""
            assert old in config.read_text()
            config.write_text(config.read_text().replace(old, new))
            before = workers()
            subprocess.run(made.lab.command(made.edge, need("nginx"), "-c", str(config), "-s", "reload"), check=True)
            eventually(lambda: not before & workers(), "workers with the old configuration serve")

        with load(made, "fresh") as end:  # nginx closes idle connections of clients when it loads a new configuration
            killed = time.time()
            made.kill_host("one")
            passes(edge, "10.99.1.2:8000, 10.99.2.2:8000")
            made.start_host("one")
            passes(edge, "10.99.1.2:8000")
            drained_at = time.time()
            replace("10.99.1.2:8000 max_fails", "10.99.1.2:8000 down max_fails")
            passes(edge, "10.99.2.2:8000", 300)
            (made.folder / "version").write_text("2")
            pid = int((made.folder / "one" / "pid").read_text())
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: (made.folder / "one" / "pid").read_text().strip() not in {"", str(pid)})
            eventually(lambda: made.is_ready("one"))
            replace("10.99.1.2:8000 down max_fails", "10.99.1.2:8000 max_fails")
            passes(edge, "10.99.1.2:8000")
            cut = time.time()
            made.cut("two", "down")
            passes(edge, "10.99.2.2:8000, 10.99.1.2:8000")
            made.cut("two", "up")
            passes(edge, "10.99.2.2:8000")
            found = end()
        assert {"one 1", "two 1", "one 2"} <= {*found["hosts"]}
        errors = [line for line in [*edge.read_lines, *drained(edge)] if "[error]" in line or "[warn]" in line]
        failed = [each for each in found["failures"] if each[1] == "GET" or drained_at <= float(str(each[0])) < cut]
        assert failed == [], "\n".join(errors[-20:])
        for begin, until in ((killed, drained_at), (cut, time.time())):
            assert len([each for each in found["failures"] if begin <= float(str(each[0])) <= until]) <= 2
        check_logs(edge, made.services)


def passes(edge: Running, upstream: str, count: int = 1) -> None:
    """Wait until so many requests in a row have been answered with 200 by this host, or after another had failed."""
    row = 0
    end = time.monotonic() + LONG
    while row < count:
        assert time.monotonic() < end, f"no {count} requests in a row that {upstream} answers"
        row = row + 1 if edge.line(limit=LONG).endswith(f" 200 {upstream}") else 0
