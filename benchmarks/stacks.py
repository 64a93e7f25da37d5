"""Stack depth: the frames of a request over a socket, counted by the view.

The view of each subject returns its stack, raises an exception and returns the frames of the traceback, and records all lines
that run from the client's `connect` to its own first line. The client uses plain sockets, and a new connection for each
request.
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
WARM_REQUESTS = 3  # uncounted requests first: the first one imports modules and creates objects
TRIES = 3  # for counting lines: the number depends on the thread that handles the request
QUIET_TIME = 0.03  # seconds until a server has finished its work after a response


class Subject:
    """A server, possibly with a framework: its name, the distribution that it needs, and the command that starts it."""

    def __init__(self, name: str, distribution: str | None, command: Callable[[str], list[str]]) -> None:
        self.name, self.distribution, self.command = name, distribution, command


def server_subject(name: str, kind: str, app: str, distribution: str | None = None) -> Subject:
    """Return a subject that starts a server of `servers.py` with a probe application."""
    return Subject(
        name,
        distribution or SERVERS[kind].distribution,
        lambda python: SERVERS[kind].command(python, app, "0", 0, os.devnull),
    )


def script_subject(name: str, distribution: str | None, *arguments: str) -> Subject:
    """Return a subject that starts a script, or a module with `-m`."""
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
    """Send a request on a new connection. Return the status, or 0 if the server closes without a response, and the body."""
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
    """Return the body of a chunked response."""
    body = b""
    while size := int(chunks.partition(b"\r\n")[0].partition(b";")[0], 16):
        chunks = chunks.partition(b"\r\n")[2]
        body, chunks = body + chunks[:size], chunks[size + 2 :]
    return body


class Depth:
    """The result of a subject: its stack frames, the frames of a traceback, and the lines that ran before the view."""

    def __init__(self, name: str, frames: list[Frame], traceback: list[Frame], lines: dict[str, Any] | None) -> None:
        self.name, self.frames, self.traceback, self.lines = name, frames, traceback, lines

    def owners(self) -> dict[str, int]:
        """Return the number of frames of each owner."""
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
    """Start a subject, measure its depth, and stop it. Raise Unavailable if it cannot be measured."""
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
        raise Unavailable(f"the view responded with status {status}: {server.error_line()}")
    return [without_local_paths(Frame(**each)) for each in json.loads(body)]


def without_local_paths(frame: Frame) -> Frame:
    """Return a frame whose file is relative to this tree, site-packages or the standard library."""
    file = short_path(frame.file, str(ROOT))
    return frame._replace(file=Path(file).name if file.startswith(os.sep) else file)


def count_lines(server: Server) -> dict[str, Any] | None:
    """Count the lines from the client's `connect` to the view: the median of some tries. Return None if that fails."""
    tries = []
    for _ in range(TRIES):
        status, _ = get(server.port, "/arm")
        if status != HTTPStatus.OK:
            return None
        get(server.port, "/ready")  # frames that were running at /arm are recorded from the next request on
        time.sleep(QUIET_TIME)
        status, body = get(server.port, f"/lines?since={time.monotonic_ns()}")
        if status != HTTPStatus.OK:
            return None
        tries.append(json.loads(body))
    found: dict[str, Any] = sorted(tries, key=lambda each: each["lines"])[TRIES // 2]
    found["files"] = [without_local_paths(Frame("", "", file, 0, "")).file for file in found["files"]]
    return found
