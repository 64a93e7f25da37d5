"""Clients of an edge: `python -m tests.edge_load ADDRESS CA kept` sends requests until TERM, then prints what they got.

With `fresh` instead of `kept` each request has a connection of its own.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter

CLIENTS = {"GET": 6, "POST": 2}
NAME = "tally.example"


class Connection(http.client.HTTPConnection):
    """A TLS connection to an address, for a host name."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        super().__init__(NAME, timeout=20)
        self.address = address
        self.context = context

    def connect(self) -> None:
        plain = socket.create_connection((self.address, 443), self.timeout)
        self.sock = self.context.wrap_socket(plain, server_hostname=NAME)


class Load:
    """What the clients got."""

    def __init__(self, address: str, authority: str, connections: str) -> None:
        self.fresh = connections == "fresh"
        self.address = address
        self.context = ssl.create_default_context(cafile=authority)
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.failures: list[tuple[float, str, str]] = []
        self.hosts: Counter[str] = Counter()
        self.counts: list[int] = []

    def run(self, method: str) -> None:
        connection = Connection(self.address, self.context)
        while not self.stopped.is_set():
            try:
                connection.request(method, "/", headers={"X-Forwarded-For": "6.6.6.6", "X-Request-ID": "forged"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise ValueError(f"{response.status} {body[:80]!r}")
                answer = json.loads(body)
            except Exception as error:
                connection.close()
                with self.lock:
                    self.failures.append((time.time(), method, repr(error)))
                continue
            if self.fresh:
                connection.close()
            with self.lock:
                first = not self.hosts
                self.hosts[f"{answer['host']} {answer['version']}"] += 1
                if method == "POST":
                    self.counts.append(answer["count"])
            if first:
                print("answered", flush=True)
            time.sleep(0.005)
        connection.close()


def main() -> None:
    load = Load(*sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: load.stopped.set())
    threads = [
        threading.Thread(target=load.run, args=(method,)) for method, count in CLIENTS.items() for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    while not load.stopped.wait(0.1):
        pass
    for thread in threads:
        thread.join()
    print(json.dumps({"failures": load.failures, "hosts": load.hosts, "counts": load.counts}), flush=True)


if __name__ == "__main__":
    main()
