"""Provoke six common mistakes under five development servers, and write docs/mistakes.md.

    python -m benchmarks.mistakes > docs/mistakes.md

Each server gets a folder with an application written for its framework, and is started as its documentation recommends. The
page shows the server's output and the browser's response. Paths, times, ports and colours are replaced or removed.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from html import unescape
from http.client import HTTPConnection, HTTPException, IncompleteRead, RemoteDisconnected
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

LIMIT = 20.0
"""Seconds to wait for a response, or for output."""
QUIET_TIME = 1.0
"""Seconds without output after which a server's output is taken as complete."""
MAX_LINES = 24
"""Lines of output to show."""
MAX_CHARACTERS = 300
"""Characters of a response to show."""
IMPORT_SECONDS = 4
"""Seconds that the slow import takes."""
BIN = Path(sys.executable).parent
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

WSGI = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    {body}
"""
FLASK = """\
from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    {body}
"""
ASGI = """\
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        {body}
"""
DJANGO = """\
from django.http import HttpResponse
from django.urls import path


def hello(request):
    {body}


urlpatterns = [path("", hello)]
"""
MANAGE = """\
from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(DEBUG=True, ROOT_URLCONF="{module}", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
execute_from_command_line()
"""
"""Django's manage.py and settings.py in one."""
HANDLER = """\
from http.server import HTTPServer, BaseHTTPRequestHandler


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        {body}


if __name__ == "__main__":
    import sys
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"""


class Server(NamedTuple):
    """A server: its command with the placeholders {port} and {module}, its application, and function bodies for {body}."""

    name: str
    command: tuple[str, ...]
    package: str
    source: str
    right: str
    nothing: str
    """The body without its return statement, or without the call that sends the response."""
    fails: str


SERVERS = (
    Server(
        "microwsgi dev", ("microwsgi", "dev", "{module}:app", "-p", "{port}"), "microwsgi", WSGI,
        'return [b"hello"]', '[b"hello"]', 'return [b"hello" + 1]',
    ),
    Server(
        "flask run", ("flask", "--app", "{module}", "run", "--debug", "-p", "{port}"), "flask", FLASK,
        'return "hello"', '"hello"', 'return "hello" + 1',
    ),
    Server(
        "uvicorn --reload", ("uvicorn", "{module}:app", "--reload", "--port", "{port}"), "uvicorn", ASGI,
        'await send({"type": "http.response.body", "body": b"hello"})', 'b"hello"',
        'await send({"type": "http.response.body", "body": b"hello" + 1})',
    ),
    Server(
        "runserver", ("python", "manage.py", "runserver", "{port}"), "django", DJANGO,
        'return HttpResponse("hello")', 'HttpResponse("hello")', 'return HttpResponse("hello" + 1)',
    ),
    Server(
        "http.server", ("python", "{module}.py", "{port}"), "python", HANDLER,
        'self.send_response(200); self.end_headers(); self.wfile.write(b"hello")', "pass",
        'self.send_response(200); self.end_headers(); self.wfile.write(b"hello" + 1)',
    ),
)  # fmt: skip


NO_RESPONSE: dict[type[Exception], str] = {
    ConnectionRefusedError: "the connection is refused",
    RemoteDisconnected: "the connection is closed without a response",
    IncompleteRead: "the connection is closed before the response is complete",
    TimeoutError: f"no response within {LIMIT:g} s",
    Exception: "no valid response",
}
"""Descriptions of a missing response, by exception class; the first match counts."""
TOKEN = re.compile(r"\?token=([0-9a-f]{32})")


class Observation(NamedTuple):
    """The output in the terminal, and the responses in the browser."""

    command: str
    printed: list[str]
    answered: str = ""
    repaired: str = ""
    """The browser's response after the mistake is repaired."""


class Running:
    """A started server."""

    def __init__(self, server: Server, folder: Path, port: int, module: str = "hello") -> None:
        words = [word.format(port=port, module=module) for word in server.command]
        self.command_text = " ".join([*words[:-1], words[-1].replace(str(port), "8000")])
        self.folder, self.port = folder, port
        self.token = ""  # from the address that microwsgi prints; with it, the browser gets the details of errors
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("MICROWSGI", "FLASK", "PYTHON"))
        }
        environ |= {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1"}
        environ["XDG_STATE_HOME"] = str(folder)
        self.process = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]], cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.token = (TOKEN.findall(line) or [self.token])[0]
            self.lines.put(line.rstrip("\n"))

    def printed(self, limit: float = LIMIT, quiet: float = QUIET_TIME) -> list[str]:
        """Return the lines that the server prints until it is quiet or has ended."""
        found: list[str] = []
        stop = time.monotonic() + limit
        while time.monotonic() < stop:
            try:
                found.append(self.lines.get(timeout=quiet))
            except queue.Empty:
                if found or self.process.poll() is not None:
                    break
        return found

    def get(self) -> str:
        """Send a browser's request, and return the status and the text of the response, or a description of the failure."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            client.request("GET", "/", headers={"Accept": "text/html,*/*;q=0.8", "Microwsgi-Token": self.token})
            response = client.getresponse()
            body = response.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            return next(text for kind, text in NO_RESPONSE.items() if isinstance(error, kind))
        finally:
            client.close()
        text = re.sub(r"(?s)<(script|style|title).*?</\1>|<p [^>]*hidden>.*?</p>", " ", body)
        text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text))).strip()
        text = clean(self, [text[: 2 * MAX_CHARACTERS]])[0]
        text = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
        return f"{response.status}: {text}" if text else f"{response.status}, an empty page"

    def until_up(self) -> None:
        """Wait until the server accepts connections or has ended."""
        stop = time.monotonic() + LIMIT
        while time.monotonic() < stop and self.process.poll() is None:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and all processes of its session."""
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.reader.join(3)
        if self.process.stdout is not None and not self.reader.is_alive():
            self.process.stdout.close()


@contextmanager
def started(server: Server, body: str, *, module: str = "hello", port: int = 0, before: str = "") -> Iterator[Running]:
    """Write the application and start the server; end it after the `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="mistakes-"))
    (folder / "hello.py").write_text(before + server.source.format(body=body))
    (folder / "manage.py").write_text(MANAGE.format(module=module))
    running = Running(server, folder, port or free_port(), module)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
    return port


# --- The mistakes -------------------------------------------------------------------------------------------------------


def typo(server: Server) -> Observation:
    """The module is `hello`, but `helo` is typed: on the command line, or for Django in ROOT_URLCONF."""
    with started(server, server.right, module="helo") as running:
        printed = running.printed(quiet=2)
        running.until_up()
        answered = running.get() if running.process.poll() is None else ""
        return Observation(running.command_text, clean(running, printed + running.printed(2)), answered)


def no_return(server: Server) -> Observation:
    """The view has no return statement; under uvicorn the body is never sent, under http.server the handler sends nothing."""
    return request_page(server, server.nothing)


def exception(server: Server) -> Observation:
    """A line of the view raises TypeError."""
    return request_page(server, server.fails)


def request_page(server: Server, body: str) -> Observation:
    """Start a server, request its page, and return the output and the response."""
    with started(server, body) as running:
        running.until_up()
        running.printed()
        answered = running.get()
        return Observation("", clean(running, running.printed(4)), answered)


def port_in_use(server: Server) -> Observation:
    """The port is already in use: the script that starts the servers listens on it."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        started(server, server.right, port=taken.getsockname()[1]) as running,
    ):
        return Observation("", clean(running, running.printed(quiet=2)))


def slow_import(server: Server) -> Observation:
    """The module takes some seconds to import."""
    with started(server, server.right, before=f"import time\n\ntime.sleep({IMPORT_SECONDS})\n") as running:
        start = time.monotonic()
        running.until_up()
        accepted = time.monotonic() - start
        answered = running.get()
        text = "before the import had finished" if accepted < IMPORT_SECONDS - 1 else "after the import"
        # A parent and its child may print at the same time: put the access log line, if there is one, last.
        printed = sorted(clean(running, running.printed()), key=lambda line: '"GET / ' in line)
        return Observation("", printed, f"{answered} (the server accepted connections {text})")


def broken_save(server: Server) -> Observation:
    """A file without a colon is saved while the server is running, and the page is requested; then the file is repaired."""
    with started(server, server.right) as running:
        running.until_up()
        running.printed()
        running.get()
        running.printed()
        path = running.folder / "hello.py"
        right = path.read_text()
        path.write_text(f"{right}\n\ndef broken()\n    pass\n")
        printed = running.printed(20, quiet=8)  # a reloader may poll, and its child may take seconds to start
        answered = running.get() if running.process.poll() is None else ""
        path.write_text(right)
        running.printed(20, quiet=8)
        repaired = running.get() if running.process.poll() is None else ""
        # http.server does not reload the file: its response stays the same.
        return Observation("", clean(running, printed), answered, repaired if repaired != answered else "")


MISTAKES: dict[str, Callable[[Server], Observation]] = {
    "A typo in the module's name": typo,
    "A missing return": no_return,
    "An exception": exception,
    "A port in use": port_in_use,
    "A slow import": slow_import,
    "A broken save": broken_save,
}


# --- The page -----------------------------------------------------------------------------------------------------------


def clean(running: Running, lines: list[str]) -> list[str]:
    """Return the lines with everything replaced that differs between machines or runs: paths, times, ports, ids, sizes."""
    found = []
    for line in lines:
        text = ESCAPES.sub("", line)
        for path in (os.path.realpath(running.folder), str(running.folder)):
            text = text.replace(path, "~/project")
        text = re.sub(r"(?<![\w.~])(/[\w.+-]+)+/(site-packages|lib/python3\.\d+)/", r".../", text)
        text = text.replace(str(BIN), "~/venv/bin").replace(str(Path(__file__).parents[1]), "...")
        text = TOKEN.sub("?token=346c03c20e4452203dd5a5344e874d57", text)
        text = text.replace(str(running.port), "8000").replace(sys.prefix, "~/venv").replace(sys.base_prefix, "...")
        text = re.sub(
            r"127\.0\.0\.1:\d{4,5}", lambda found: found[0] if "8000" in found[0] else "127.0.0.1:50000", text
        )
        text = re.sub(r"\b(?:PID|pid|process) ?\[?\d+\]?|\[\d{3,}\]", "PID 1234", text)
        text = re.sub(
            r"\b\d\d/\w{3}/\d{4}[: ]+\d\d:\d\d:\d\d(?: [+-]\d{4})?|\w+ \d\d, \d{4} - \d\d:\d\d:\d\d", "TIME", text
        )
        text = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", text)
        text = re.sub(r"\b[0-9a-f]{8}\b", "1a2b3c4d", text)
        text = re.sub(r"\bkill \d+ +", "kill 1234   ", re.sub(r"\d{5} is free|(?<= -p )\d{5}", replace_port, text))
        text = re.sub(r"in use by PID 1234 \(.*\)(?=;)", "in use by PID 1234 (python other.py)", text)
        text = re.sub(r"\('127\.0\.0\.1', \d+\)", "('127.0.0.1', 50000)", text)
        text = re.sub(r"0x[0-9a-f]{6,}", "0x7f00", text)
        text = re.sub(r"\b\d{3}-\d{3}-\d{3}\b", "123-456-789", text)
        text = re.sub(r"after \d+ ms", "after 20 ms", text)
        text = re.sub(r"(?<=\" )(\d{3}) (\d+) \"-\" \"-\" \d+$", r"\1 \2", text)
        text = re.sub(r"(?<=\" 500 )\d+", "10000", text)  # the size of an error page depends on the length of paths
        found.append(text.rstrip())
    return found


def replace_port(found: re.Match[str]) -> str:
    """Replace the number of a free port."""
    return re.sub(r"\d+", "8001", found[0])


def render(observation: Observation) -> str:
    """Return the output as a code block, shortened in its middle if it is long, and the responses."""
    lines = observation.printed
    if len(lines) > MAX_LINES:
        left_out = len(lines) - MAX_LINES
        lines = [*lines[: MAX_LINES // 3], f"... {left_out} more lines ...", *lines[-(MAX_LINES - MAX_LINES // 3) :]]
    parts = ["```", *([f"$ {observation.command}"] if observation.command else []), *(lines or ["(nothing)"]), "```"]
    if observation.answered:
        parts += ["", f"The browser gets: {escape_markdown(observation.answered)}"]
    if observation.repaired:
        parts += ["", f"After the repair: {escape_markdown(observation.repaired)}"]
    return "\n".join(parts)


def escape_markdown(text: str) -> str:
    """Return a text with Markdown's special characters escaped."""
    return re.sub(r"([*_`<>|\[\]])", r"\\\1", text)


def versions() -> str:
    found = [f"{server.package} {version(server.package)}" for server in SERVERS if server.package != "python"]
    return ", ".join([*found, f"Python {'.'.join(map(str, sys.version_info[:3]))}"])


HEAD = """\
# Six common problems under five servers

What you see in the terminal and in the browser. Each server runs the same small application, written for its framework, and is
started as its documentation recommends for development. `python -m benchmarks.mistakes` ran all of this and wrote the page.
Paths, times, ports, process numbers, tokens, ids and the sizes of error pages are replaced. Long outputs, and the texts of
pages, are cut where marked. The browser is a program that sends the fields of a browser, and the token for microwsgi.

{versions}
"""


def main() -> int:
    """Write the page to standard output. Arguments select servers by the beginning of their names."""
    chosen = [server for server in SERVERS if not sys.argv[1:] or server.name.startswith(tuple(sys.argv[1:]))]
    print(HEAD.format(versions=versions()))
    for title, make in MISTAKES.items():
        print(f"## {title}\n\n{make.__doc__}\n")
        for server in chosen:
            print(f"### {server.name}\n\n{render(make(server))}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
