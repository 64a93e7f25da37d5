"""Bottle's `run(server=…)` with a ServerAdapter for microwsgi, as its users would write one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.compat.client import Site
from tests.compat.servers import free_port

PACKAGES = ["bottle"]
SERVERS = ["serve"]
PROGRAM = """
import sys, threading, urllib.request, os, signal
import bottle, microwsgi

class Microwsgi(bottle.ServerAdapter):
    def run(self, handler):
        microwsgi.serve(handler, host=self.host, port=self.port, **self.options)

def ask():
    url = f"http://127.0.0.1:{port}/"
    for _ in range(200):
        try:
            print("answer", urllib.request.urlopen(url).read().decode(), flush=True)
            break
        except OSError:
            threading.Event().wait(0.05)
    os.kill(os.getpid(), signal.SIGINT)

port = int(sys.argv[1])
bottle.route("/")(lambda: "adapted")
threading.Thread(target=ask).start()
bottle.run(server=Microwsgi, host="127.0.0.1", port=port, quiet=True, threads=4)
print("stopped")
"""


def application(folder: Path) -> Any:
    import bottle

    return bottle.Bottle()


def check_adapter(site: Site) -> Any:
    command = [sys.executable, "-c", PROGRAM, str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "answer adapted" in done.stdout, done.stderr
    assert done.stdout.endswith("stopped\n"), done.stdout
    return "adapted"
