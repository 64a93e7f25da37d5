"""Stack depth: the real frames of a request over a real socket, counted by the request itself.

For each subject a view says its own stack, fails and shows the traceback's frames, and has every line noted that runs
from the client's `connect` to the view's first. The client is plain sockets, a new connection for each request.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Server, Unavailable
from benchmarks.servers import SERVERS, versions
from microwsgi.devtools.stack import OWNERS, Frame, short_path

WSGI, WEBOB = "benchmarks.subjects.probe_wsgi:app", "benchmarks.subjects.probe_webob:app"
FOLDER = "benchmarks/subjects"
WARM_REQUESTS = 3  # so that what is imported or made on the first request is not on the counted one's way
TRIES = 3  # of counting lines: which thread meets the request is up to the system
QUIET_TIME = 0.03  # seconds until a server is done with what follows a response


class Subject:
    """One way to a view: a server, a framework perhaps, and the command that starts them."""

    def __init__(self, name: str, distribution: str | None, command: Callable[[str], list[str]]) -> None:
        self.name, self.distribution, self.command = name, distribution, command


def server_subject(name: str, kind: str, app: str, distribution: str | None = None) -> Subject:
    """A subject of the throughput part, with another application."""
    return Subject(
        name,
        distribution or SERVERS[kind].distribution,
        lambda python: SERVERS[kind].command(python, app, "0", 0, os.devnull),
    )


def script_subject(name: str, distribution: str | None, *arguments: str) -> Subject:
    """A script, or `-m` and a module, that the user runs."""
    return Subject(name, distribution, lambda python: [python, *arguments])


SUBJECTS = (
    server_subject("microwsgi", "microwsgi", WSGI),
    server_subject("microwsgi, App", "microwsgi", "benchmarks.subjects.probe_microwsgi:app", "webob"),
    server_subject("microwsgi, wsgify", "microwsgi", WEBOB, "webob"),
    script_subject("httpsrv.py on HTTPServer", None, f"{FOLDER}/httpsrv.py", "0"),
    script_subject("httpsrv.py on ThreadingHTTPServer", None, f"{FOLDER}/httpsrv.py", "0", "threading"),
    server_subject("wsgiref", "wsgiref", WSGI),
    server_subject("wsgiref, wsgify", "wsgiref", WEBOB, "webob"),
    server_subject("waitress", "waitress", WSGI),
    server_subject("cheroot", "cheroot", WSGI),
    server_subject("gunicorn gthread", "gunicorn gthread", WSGI),
    server_subject("gunicorn sync", "gunicorn sync", WSGI),
    server_subject("granian", "granian", WSGI),
    server_subject("bjoern", "bjoern", WSGI),
    server_subject("Werkzeug", "werkzeug", WSGI),
    server_subject("Werkzeug, wsgify", "werkzeug", WEBOB, "webob"),
    script_subject("Werkzeug, debugger", "werkzeug", f"{FOLDER}/peers.py", "werkzeug_debugger", WSGI, "0"),
    script_subject("Flask", "flask", "-m", "flask", "--app", "benchmarks.subjects.probe_flask", "run", "--port", "0"),
    script_subject(
        "Flask, debugger", "flask",
        "-m", "flask", "--app", "benchmarks.subjects.probe_flask", "run", "--port", "0", "--debug", "--no-reload",
    ),
    script_subject("Bottle", "bottle", f"{FOLDER}/probe_bottle.py", "0"),
    script_subject("Django", "django", f"{FOLDER}/probe_django.py", "runserver", "--noreload", "127.0.0.1:0"),
)  # fmt: skip


def get(port: int, target: str, *, limit: float = 10.0) -> tuple[int, str]:
    """One request on a new connection: the status, or 0 when the server closed without a response, and the body."""
    with socket.create_connection(("127.0.0.1", port), limit) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        response = b""
        while data := connection.recv(65536):
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = dechunk(body)
    return int(head[9:12] or 0), body.decode()


def dechunk(chunks: bytes) -> bytes:
    """The body of a chunked response."""
    body = b""
    while size := int(chunks.partition(b"\r\n")[0].partition(b";")[0], 16):
        chunks = chunks.partition(b"\r\n")[2]
        body, chunks = body + chunks[:size], chunks[size + 2 :]
    return body


class Depth:
    """What one subject's view said."""

    def __init__(self, name: str, frames: list[Frame], traceback: list[Frame], lines: dict[str, Any] | None) -> None:
        self.name, self.frames, self.traceback, self.lines = name, frames, traceback, lines

    def owners(self) -> dict[str, int]:
        """How many of the frames are whose."""
        count = Counter(frame.owner for frame in self.frames)
        return {owner: count[owner] for owner in OWNERS}

    def as_json(self) -> dict[str, Any]:
        return {
            "depth": len(self.frames),
            "owners": self.owners(),
            "frames": [frame._asdict() for frame in self.frames],
            "traceback": [frame._asdict() for frame in self.traceback],
            "lines": self.lines,
        }

    @classmethod
    def from_json(cls, name: str, found: dict[str, Any]) -> Depth:
        return cls(
            name,
            [Frame(**each) for each in found["frames"]],
            [Frame(**each) for each in found["traceback"]],
            found["lines"],
        )


def measure(subject: Subject, python: str) -> Depth:
    """Start the subject, ask its view, stop it."""
    if subject.distribution and subject.distribution not in versions(python):
        raise Unavailable(f"not installed: python -m pip install {subject.distribution}")
    with Server(subject.command(python)) as server:
        for _ in range(WARM_REQUESTS):
            get(server.port, "/ready")
        frames = parse_frames(get(server.port, "/stack"), server)
        get(server.port, "/raise")
        traceback = parse_frames(get(server.port, "/traceback"), server)
        return Depth(subject.name, frames, traceback, count_lines(server))


def parse_frames(answer: tuple[int, str], server: Server) -> list[Frame]:
    status, body = answer
    if status != HTTPStatus.OK:
        raise Unavailable(f"its view answered {status}: {server.error_line()}")
    return [without_local_paths(Frame(**each)) for each in json.loads(body)]


def without_local_paths(frame: Frame) -> Frame:
    """The frame with its file named from the tree, the packages or the library on; no directory of this machine."""
    file = short_path(frame.file, str(ROOT))
    return frame._replace(file=Path(file).name if file.startswith(os.sep) else file)


def count_lines(server: Server) -> dict[str, Any] | None:
    """The lines from the socket to the view, the middle of some tries; None if the view can't count them."""
    tries = []
    for _ in range(TRIES):
        status, _ = get(server.port, "/arm")
        if status != HTTPStatus.OK:
            return None
        get(server.port, "/ready")  # frames that were running when it was armed begin to be noted in this one
        time.sleep(QUIET_TIME)
        status, body = get(server.port, f"/lines?since={time.monotonic_ns()}")
        if status != HTTPStatus.OK:
            return None
        tries.append(json.loads(body))
    found: dict[str, Any] = sorted(tries, key=lambda each: each["lines"])[TRIES // 2]
    found["files"] = [without_local_paths(Frame("", "", file, 0, "")).file for file in found["files"]]
    return found
