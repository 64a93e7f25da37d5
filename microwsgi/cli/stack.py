"""`microwsgi stack`: serve an application on a real socket in this process, send one request, and draw the stack.

stack_command
  visit           one request on one server; the calls are recorded by microwsgi.devtools.tracer
    running       run the server in a thread
  print_result            print text or JSON, or write a page: microwsgi.devtools.render
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import make_server

from microwsgi.devtools import render
from microwsgi.devtools.stack import Frame
from microwsgi.devtools.tracer import Tracer
from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.options.declaration import BY_NAME
from microwsgi.server.handler import WSGIRequestHandler
from microwsgi.server.server import WSGIServer
from microwsgi.serving.console import colored, is_terminal
from microwsgi.serving.loader import load_named

LIMIT = 10.0
"""Seconds within which the application must respond."""
SCRIPT = "<your script>"
"""The file name of the frame that starts a server. Frames outside it belong to this command, and are not shown."""
FORM = "application/x-www-form-urlencoded"
Serving = tuple[int, Callable[[], object], Callable[[], object]]
"""A listening server: its port, the function that serves, and the function that stops it."""


def stack_command(words: list[str], given: dict[str, Any]) -> int:
    """Run `microwsgi stack`. Return 1 if no function of the application was called. Raises UsageError."""
    options = Options.from_mapping({name: value for name, value in given.items() if name in BY_NAME})
    path = words.pop() if words and words[-1].startswith("/") else "/"
    if len(words) > 1:
        raise UsageError(f"expected one application, and a path that begins with a slash, not {' '.join(words)}.")
    name, application = load_named(words[0] if words else None, options.app_dir)
    servers = dict(SERVERS) if given["compare"] else {"microwsgi": ours}
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler) and len(servers) > 1:
        raise UsageError(f"{name} is a handler class, not a WSGI application: leave out --compare.")
    request = Request(given["method"], path, given["data"])
    visits = []
    for server, make in servers.items():
        try:
            visits.append(visit(server, make, application, request, given["to"]))
        except ImportError:  # only servers that are installed are compared
            continue
    print_result(name, request, visits, given, options)
    return 0 if visits[0].yours else 1


class Request:
    """The request to send. Raises UsageError."""

    def __init__(self, method: str, path: str, data: str) -> None:
        self.method = method or ("POST" if data else "GET")
        if not self.method.replace("-", "").isalnum():
            raise UsageError(f"invalid -X {self.method}: expected one word, like GET.")
        self.path = quote(path, safe="/?&=%:@!$'()*+,;~#[]").partition("#")[0]
        self.body = data.encode() if data else None
        self.fields = {"Content-Type": FORM} if data and self.method == "POST" else {}

    def send(self, port: int) -> tuple[int, str]:
        """Return status and reason; 0 and the error if there is no response."""
        client = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        try:
            client.request(self.method, self.path, self.body, self.fields)
            response = client.getresponse()
            response.read()
        except TimeoutError:
            return 0, f"nothing was received within {LIMIT:g} seconds"
        except (HTTPException, OSError) as error:
            return 0, str(error)
        finally:
            client.close()
        return response.status, response.reason


class Visit:
    """The result of a request on one server: the status, the frames up to the function, and the other called functions."""

    def __init__(self, server: str, status: tuple[int, str], tracer: Tracer, to: str) -> None:
        self.server = server
        self.status, self.reason = status
        try:
            frames = tracer.frames(to)
        except LookupError:
            entered = ", ".join(dict.fromkeys(call.function.function for call in tracer.all()))
            raise UsageError(f"{to} was not called. Your functions that were called: {entered or 'none'}.") from None
        begun = [number for number, frame in enumerate(frames) if frame.file == SCRIPT]
        self.frames: list[Frame] = frames[begun[0] :] if begun else frames
        self.yours = bool(to) or tracer.maker() is not None
        self.others = list(
            dict.fromkeys(f.function for f in (call.function for call in tracer.all()) if f not in self.frames)
        )


def visit(server: str, make: Callable[[Any], Serving], application: object, request: Request, to: str) -> Visit:
    """Send the request. The output of other servers is discarded: ours has printed the same."""
    quiet = nullcontext() if server == "microwsgi" else redirect_stderr(io.StringIO())
    with quiet, Tracer() as tracer, running(make, application) as port:
        status = request.send(port)
    return Visit(server, status, tracer, to)


@contextmanager
def running(make: Callable[[Any], Serving], application: object) -> Iterator[int]:
    """Run a server in a thread, as a one-line script would. Yield its port."""
    port, serve, stop = make(application)
    script = compile("serve()", SCRIPT, "exec")
    thread = threading.Thread(target=exec, args=(script, {"serve": serve, "__name__": "__main__"}), daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stop()
        thread.join(LIMIT)


# --- Servers ------------------------------------------------------------------------------------------------------------


def ours(application: Any, errors: io.TextIOBase | None = None) -> Serving:
    """Return our server. A handler class is its own application."""
    if isinstance(application, type) and issubclass(application, BaseHTTPRequestHandler):
        server = WSGIServer(("127.0.0.1", 0), application, errors=errors, access_log=lambda *_: None)
    else:
        server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, application=application, errors=errors)
    return of_socketserver(server)


def of_socketserver(server: Any) -> Serving:
    """Return a server with the interface of the standard library's."""

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return server.server_address[1], server.serve_forever, stop


def wsgiref(application: Any) -> Serving:
    """Return the server of wsgiref."""
    return of_socketserver(make_server("127.0.0.1", 0, application))


def werkzeug(application: Any) -> Serving:
    """Return the server of `flask run`. Raises ImportError."""
    from werkzeug.serving import make_server as make

    return of_socketserver(make("127.0.0.1", 0, application, threaded=True))


def waitress(application: Any) -> Serving:
    """Return the server of waitress. Raises ImportError."""
    from waitress.server import create_server

    server = create_server(application, host="127.0.0.1", port=0)

    def stop() -> None:
        server.trigger.pull_trigger(server.close)  # its loop ends when it has no more sockets

    return server.effective_port, server.run, stop


def cheroot(application: Any) -> Serving:
    """Return the server of cheroot. Raises ImportError."""
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", 0), application)
    server.prepare()
    return server.bind_addr[1], server.serve, server.stop


SERVERS: dict[str, Callable[[Any], Serving]] = {
    "microwsgi": ours,
    "cheroot": cheroot,
    "waitress": waitress,
    "wsgiref": wsgiref,
    "Werkzeug": werkzeug,
}
"""Servers that run in this process. `python -m benchmarks stacks` counts the frames of servers that fork."""


# --- The result ---------------------------------------------------------------------------------------------------------


def print_result(name: str, request: Request, visits: list[Visit], given: dict[str, Any], options: Options) -> None:
    """Print the result, and write the page. Raises UsageError."""
    first, stacks = visits[0], {each.server: each.frames for each in visits}
    asked = f"{request.method} {request.path} of {name}: {first.status or 'no response:'} {first.reason}"
    if given["html"]:
        try:
            with open(given["html"], "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(render.page(asked, note(first), stacks))
        except OSError as error:
            raise UsageError(f"--html {given['html']} can't be written: {error.strerror}.") from None
    if given["json"]:
        say(json.dumps({"application": name, "method": request.method, "path": request.path,
            "stacks": [{"server": each.server, "status": each.status, "depth": len(each.frames), "others": each.others,
                "frames": [frame._asdict() for frame in each.frames]} for each in visits]}, indent=2))  # fmt: skip
        return
    color = colored(options.color, sys.stdout)
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 80
    say(f"{asked}\n{first.server}, {render.summary(first.frames)}\n")
    say(render.text(first.frames, width=width, color=color))
    if text := note(first):
        say(f"\n{text}")
    if len(visits) > 1:
        say(f"\n{render.comparison(stacks, color=color)}")


def note(visit: Visit) -> str:
    """Return a remark on the drawing, or ""."""
    if not visit.yours:
        return "None of your functions made this response. These are the frames up to the caller of start_response."
    return f"Also called, and drawn with --to NAME: {', '.join(visit.others)}" if visit.others else ""


def say(text: str) -> None:
    """Print a text, with escapes for characters that the standard output can't encode."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
