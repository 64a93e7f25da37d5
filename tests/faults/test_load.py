"""Changes of code and of workers under mixed load over HTTP, over TLS, and over both on one port: no request fails."""

from __future__ import annotations

import http.client
import os
import random
import signal
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.running import LIMIT, Server, pids, wait_until
from tests.programs import need

APPLICATION = """
import time
VERSION = {version}

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        time.sleep(0.05)
    body = environ["wsgi.input"].read()
    answer = b"%d %d %s" % (VERSION, len(body), environ["QUERY_STRING"].encode())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""
OPTIONS = {"HTTP": (), "TLS": ("--tls",), "both": ("--tls", "--no-https-redirect")}


class Load:
    """Clients of several kinds, in threads: what they were answered, and what failed."""

    def __init__(self, port: int, secure: list[bool], clients: int = 1) -> None:
        self.port = port
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.over = threading.Event()
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()  # protects the two
        kinds = (self.new, self.kept, self.upload, self.slow_head)
        self.threads = [
            threading.Thread(target=self.run, args=(kind, tls)) for kind in kinds for tls in secure * clients
        ]
        for thread in self.threads:
            thread.start()

    def run(self, kind: Callable[[http.client.HTTPConnection, str], bool], tls: bool) -> None:
        """Ask again and again; a new connection when the last one has ended."""
        number, connection = 0, None
        while not self.over.wait(0.005):
            number += 1
            connection = connection or self.connect(tls)
            tag = f"{kind.__name__}-{tls}-{threading.get_ident()}-{number}"
            try:
                ends = kind(connection, tag)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with self.lock:
                    self.failures.append(f"{tag}: {error!r}")
                ends = True
            with self.lock:
                self.answered[kind.__name__] += 1
            if ends:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def connect(self, tls: bool) -> http.client.HTTPConnection:
        if tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=LIMIT, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def answer(self, connection: http.client.HTTPConnection, tag: str, size: int = 0) -> bool:
        """Read a response; whether the connection ends with it."""
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, response.status
        assert body.split()[1:] == [str(size), tag], body
        return response.will_close

    def new(self, connection: http.client.HTTPConnection, tag: str) -> bool:
        connection.request("GET", f"/?{tag}", headers={"Connection": "close"})
        return self.answer(connection, tag)

    def kept(self, connection: http.client.HTTPConnection, tag: str) -> bool:
        connection.request("GET", f"{random.choice(['/', '/wait'])}?{tag}")
        return self.answer(connection, tag)

    def upload(self, connection: http.client.HTTPConnection, tag: str) -> bool:
        connection.putrequest("POST", f"/?{tag}")
        connection.putheader("Content-Length", "50000")
        connection.endheaders()
        for _ in range(5):
            connection.send(b"z" * 10000)
            self.over.wait(0.005)
        return self.answer(connection, tag, 50000)

    def slow_head(self, connection: http.client.HTTPConnection, tag: str) -> bool:
        connection.connect()
        assert connection.sock is not None
        for part in (f"GET /?{tag} HT", "TP/1.1\r\nHost: 127.0.0.1\r\nX-A:", " 1\r\n", "\r\n"):
            connection.sock.sendall(part.encode())
            self.over.wait(0.02)
        response = http.client.HTTPResponse(connection.sock, method="GET")
        response.begin()
        assert response.read().split()[1:] == [b"0", tag.encode()]
        return True

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(LIMIT)


def change_under_load(
    folder: Path, how: str, options: tuple[str, ...], times: int, term_each: int = 0, clients: int = 1
) -> str:
    """Save, send HUP, or send TERM to a worker, so many times, with TERM to a worker in between; what was counted."""
    if options:
        need("openssl")
    (folder / "main.py").write_text(APPLICATION.format(version=0))
    mode = ("--reload",) if how == "save" else ("--workers", "2")
    server = Server(folder, "serve", *mode, *options, "--pid-file", "x.pid")
    load = None
    try:
        assert server.starts(), server.output()
        load = Load(server.port, {0: [False], 1: [True], 2: [False, True]}[len(options)], clients)
        for number in range(1, times + 1):
            before = server.output().count("; serving main:app after")
            if how == "save":
                (folder / "main.py").write_text(APPLICATION.format(version=number))
            elif how == "HUP":
                server.send(signal.SIGHUP)
            if how != "TERM":
                assert wait_until(lambda before=before: server.output().count("; serving main:app after") > before)  # type: ignore[misc]
            if how == "TERM" or (term_each and not number % term_each):
                terminate_one(server, 1 if how == "save" else 2)
        load.stop()
        assert load.failures == [], server.output()
        terms = times if how == "TERM" else times // term_each
        assert server.output().count("received TERM; a new worker starts.") == terms
        assert " in 0.5 s" not in server.output(), "a worker that was told to end has not crashed"
        assert min(load.answered.values()) > times / 10
        assert server.stop() == ""
        lines = (folder / "access").read_text().splitlines()
        assert len(lines) == sum(load.answered.values()), "one line for each request"
        return f"{times} times {how}, {len(lines)} requests and lines, {len(load.failures)} failures"
    finally:
        if load is not None:
            load.stop()
        server.end()


def terminate_one(server: Server, workers: int) -> None:
    """Send TERM to a worker, and wait until another serves in its place."""
    assert wait_until(lambda: len(pids(server)) == workers), server.output()
    victim = pids(server)[0]
    os.kill(victim, signal.SIGTERM)
    assert wait_until(lambda: victim not in pids(server) and len(pids(server)) == workers), server.output()


def test_term_to_a_worker_fails_no_request_and_there_is_always_another(tmp_path: Path) -> None:
    change_under_load(tmp_path, "TERM", (), 10, 1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["save", "HUP", "TERM"])
@pytest.mark.parametrize("protocol", OPTIONS)
def test_no_request_fails_while_code_and_workers_change(tmp_path: Path, how: str, protocol: str) -> None:
    change_under_load(tmp_path, how, OPTIONS[protocol], 5, 2)


@pytest.mark.soak
@pytest.mark.parametrize(("how", "times"), [("save", 200), ("HUP", 100), ("TERM", 100)])
@pytest.mark.parametrize("protocol", OPTIONS)
def test_no_request_fails_over_hundreds_of_changes(tmp_path: Path, how: str, times: int, protocol: str) -> None:
    print(protocol, change_under_load(tmp_path, how, OPTIONS[protocol], times, 5, 3), sep=": ")  # pytest -s shows it
