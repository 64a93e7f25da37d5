"""The pictures in docs/apps: `python -m tests.pictures docs/apps` makes them, as root, in a network of its own (tests/lab.py).

With names of applications behind it, only theirs. The link is 20 ms long with some jitter. For the first minutes all is well;
then a database stops, and the link loses each tenth packet: the pictures must show both, and since when.
"""

from __future__ import annotations

import http.server
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.lab import FAR, Lab, socket_path
from tests.programs import need
from tests.running import Running, microwsgi

WELL, BROKEN = 100, 80
"""Seconds before and after the faults."""
SIZE = {"width": 1080, "height": 720}
CONFIG = f"""
interval = 2
probes = 20
timeout = 0.5
target = [
    {{name = "far", module = "icmp", target = "{FAR}"}},
    {{name = "web", module = "http", target = "{FAR}:8000", path = "/"}},
    {{name = "database", module = "tcp", target = "{FAR}:8001"}},
]
"""
PAGES = {"probe": "/", "path": "/to?target=far", "netmon": "/", "inspect": "/-/requests/1"}


class Relay(http.server.ThreadingHTTPServer):
    """What a browser asks of a port is asked of a Unix socket: a server in a namespace has no port here."""

    def __init__(self, path: str) -> None:
        self.path = path.removeprefix("unix:")
        super().__init__(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Both ways, until one side ends."""
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self.path)
            there = threading.Thread(target=copy, args=(request, other))
            there.start()
            copy(other, request)
            there.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """All that comes."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def main(folder: Path, *names: str) -> None:
    """Make them."""
    folder.mkdir(parents=True, exist_ok=True)
    with Lab(0.010, 0.008) as lab, tempfile.TemporaryDirectory() as name:
        _, database = (serve(lab, port) for port in (8000, 8001))
        relays = {}
        for app in names or PAGES:
            place = Path(name) / app
            place.mkdir()
            (place / "probe.toml").write_text(CONFIG, encoding="utf-8")
            command = microwsgi("serve", f"apps.{app}:app", "--bind", socket_path(place), "--access-log", "off")
            inspected = app == "inspect"  # over the link, by a request from its other end
            if inspected:
                command += ["--bind", f"{FAR}:8080"]
            space = lab.far if inspected else lab.near
            lab.start(space, command, PROBE_CONFIG=str(place / "probe.toml")).line("8080" if inspected else "unix:")
            if inspected:
                lab.do(lab.near, f"curl --silent --noproxy * http://{FAR}:8080/hello?name=Ada")
            relays[app] = Relay(socket_path(place))
            threading.Thread(target=relays[app].serve_forever, daemon=True).start()
        iperf3 = need("iperf3")
        lab.start(lab.far, [iperf3, "-s", "--forceflush"]).line("listening")
        lab.start(lab.near, [iperf3, "-c", FAR, "-b", "4M", "-t", "600"])

        def break_network() -> None:
            database.end()
            lab.lose(10)

        pages = {app: f"http://127.0.0.1:{relay.server_port}{PAGES[app]}" for app, relay in relays.items()}
        shoot(folder, pages, break_network)


def serve(lab: Lab, port: int) -> Running:
    """A server at the far end."""
    command = microwsgi("serve", "apps.echo:app", "--bind", f"{FAR}:{port}", "--access-log", "off")
    server = lab.start(lab.far, command)
    server.line(str(port))
    return server


def shoot(folder: Path, pages: dict[str, str], break_network: Callable[[], None]) -> None:
    """Open the pages, break the network while they are open, and keep what is seen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        tabs = {}
        for app, url in pages.items():
            tabs[app] = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]  # a dict of two int
            tabs[app].goto(url)
        time.sleep(WELL)
        break_network()
        time.sleep(BROKEN)
        for app, tab in tabs.items():
            tab.screenshot(path=folder / f"{app}.png", full_page=app in {"probe", "path"})
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
