"""An http.server application, the program that microwsgi grew from: GET returns a form, POST returns its values.

`python httpsrv.py PORT [threading]`. It also serves the paths of the probe, so that its stack frames can be counted.
"""

from __future__ import annotations

import sys
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from benchmarks.subjects.probe import respond

FORM = "<!doctype html><title>echo</title><form method=post><input name=text><button>Send</button></form>"


class EchoHandler(BaseHTTPRequestHandler):
    """The application."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.send(FORM if parts.path == "/" else respond(parts.path, parts.query, sys._getframe()))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        rows = "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in parse_qsl(body))
        self.send(f"<!doctype html><title>echo</title><dl>{rows}</dl>")

    def send(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer if "threading" in sys.argv else HTTPServer
    server(("127.0.0.1", int(sys.argv[1])), EchoHandler).serve_forever()
