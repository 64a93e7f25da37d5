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
from benchmarks.servers import KINDS, versions
from microwsgi.devtools.stack import OWNERS, Frame, short_path

WSGI, WEBOB = "benchmarks.subjects.probe_wsgi:app", "benchmarks.subjects.probe_webob:app"
SUBJECTS = "benchmarks/subjects"
WARM_REQUESTS = 3  # so that what is imported or made on the first request is not on the counted one's way
TRIES = 3  # of counting lines: which thread meets the request is up to the system
QUIET_TIME = 0.03  # seconds until a server is done with what follows a response


class Subject:
    """One way to a view: a server, a framework perhaps, and the command that starts them."""

    def __init__(self, name: str, distribution: str | None, command: Callable[[str], list[str]]) -> None:
        self.name, self.distribution, self.command = name, distribution, command


def served(name: str, kind: str, app: str, distribution: str | None = None) -> Subject:
    """A subject of the throughput part, with another application."""
    return Subject(
        name,
        distribution or KINDS[kind].distribution,
        lambda python: KINDS[kind].command(python, app, "0", 0, os.devnull),
    )


def script(name: str, distribution: str | None, *arguments: str) -> Subject:
    """A script, or `-m` and a module, that the user runs."""
    return Subject(name, distribution, lambda python: [python, *arguments])


ALL = (
    served("microwsgi", "microwsgi", WSGI),
    served("microwsgi, App", "microwsgi", "benchmarks.subjects.probe_microwsgi:app", "webob"),
    served("microwsgi, wsgify", "microwsgi", WEBOB, "webob"),
    script("httpsrv.py on HTTPServer", None, f"{SUBJECTS}/httpsrv.py", "0"),
    script("httpsrv.py on ThreadingHTTPServer", None, f"{SUBJECTS}/httpsrv.py", "0", "threading"),
    served("wsgiref", "wsgiref", WSGI),
    served("wsgiref, wsgify", "wsgiref", WEBOB, "webob"),
    served("waitress", "waitress", WSGI),
    served("cheroot", "cheroot", WSGI),
    served("gunicorn gthread", "gunicorn gthread", WSGI),
    served("gunicorn sync", "gunicorn sync", WSGI),
    served("granian", "granian", WSGI),
    served("bjoern", "bjoern", WSGI),
    served("Werkzeug", "werkzeug", WSGI),
    served("Werkzeug, wsgify", "werkzeug", WEBOB, "webob"),
    script("Werkzeug, debugger", "werkzeug", f"{SUBJECTS}/peers.py", "werkzeug_debugger", WSGI, "0"),
    script("Flask", "flask", "-m", "flask", "--app", "benchmarks.subjects.probe_flask", "run", "--port", "0"),
    script(
        "Flask, debugger", "flask",
        "-m", "flask", "--app", "benchmarks.subjects.probe_flask", "run", "--port", "0", "--debug", "--no-reload",
    ),
    script("Bottle", "bottle", f"{SUBJECTS}/probe_bottle.py", "0"),
    script("Django", "django", f"{SUBJECTS}/probe_django.py", "runserver", "--noreload", "127.0.0.1:0"),
)  # fmt: skip


def ask(port: int, target: str, *, limit: float = 10.0) -> tuple[int, str]:
    """One request on a new connection: the status, or 0 when the server closed without a response, and the body."""
    with socket.create_connection(("127.0.0.1", port), limit) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        response = b""
        while data := connection.recv(65536):
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = joined(body)
    return int(head[9:12] or 0), body.decode()


def joined(chunks: bytes) -> bytes:
    """The body of a chunked response."""
    body = b""
    while size := int(chunks.partition(b"\r\n")[0].partition(b";")[0], 16):
        chunks = chunks.partition(b"\r\n")[2]
        body, chunks = body + chunks[:size], chunks[size + 2 :]
    return body


class Depth:
    """What one subject's view said."""

    def __init__(self, name: str, frames: list[Frame], trail: list[Frame], lines: dict[str, Any] | None) -> None:
        self.name, self.frames, self.trail, self.lines = name, frames, trail, lines

    def owners(self) -> dict[str, int]:
        """How many of the frames are whose."""
        count = Counter(frame.owner for frame in self.frames)
        return {owner: count[owner] for owner in OWNERS}

    def as_json(self) -> dict[str, Any]:
        return {
            "depth": len(self.frames),
            "owners": self.owners(),
            "frames": [frame._asdict() for frame in self.frames],
            "traceback": [frame._asdict() for frame in self.trail],
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
            ask(server.port, "/ready")
        frames = frames_of(ask(server.port, "/stack"), server)
        ask(server.port, "/raise")
        trail = frames_of(ask(server.port, "/trail"), server)
        return Depth(subject.name, frames, trail, lines_of(server))


def frames_of(answer: tuple[int, str], server: Server) -> list[Frame]:
    status, body = answer
    if status != HTTPStatus.OK:
        raise Unavailable(f"its view answered {status}: {server.complaint()}")
    return [without_machine(Frame(**each)) for each in json.loads(body)]


def without_machine(frame: Frame) -> Frame:
    """The frame with its file named from the tree, the packages or the library on; no directory of this machine."""
    file = short_path(frame.file, str(ROOT))
    return frame._replace(file=Path(file).name if file.startswith(os.sep) else file)


def lines_of(server: Server) -> dict[str, Any] | None:
    """The lines from the socket to the view, the middle of some tries; None if the view can't count them."""
    tries = []
    for _ in range(TRIES):
        status, _ = ask(server.port, "/arm")
        if status != HTTPStatus.OK:
            return None
        ask(server.port, "/ready")  # frames that were running when it was armed begin to be noted in this one
        time.sleep(QUIET_TIME)
        status, body = ask(server.port, f"/lines?since={time.monotonic_ns()}")
        if status != HTTPStatus.OK:
            return None
        tries.append(json.loads(body))
    found: dict[str, Any] = sorted(tries, key=lambda each: each["lines"])[TRIES // 2]
    found["files"] = [without_machine(Frame("", "", file, 0, "")).file for file in found["files"]]
    return found
