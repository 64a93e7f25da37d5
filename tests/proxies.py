"""nginx and HAProxy of Debian as proxies of our server; their workers run as www-data and haproxy."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.background import eventually
from tests.programs import absent, need
from tests.running import LIMIT

NGINX = """\
daemon off;
user www-data;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
{modules}
events {{ }}
http {{
    log_format short escape=none '$request_method $request_uri $upstream_status';
    access_log {folder}/access.log short;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream application {{
        server {upstream};
        keepalive 8;
    }}
    {site}
}}
{more}
"""
HAPROXY = """\
global
    user haproxy
    group haproxy
    log stdout len 65535 format raw local0
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout tunnel 20s
frontend site
    bind 127.0.0.1:{port}
    log-format "%HM %HU %ST"
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    default_backend application
backend application
    http-reuse always
    server one {upstream} {send}
"""


class Proxy:
    """A running proxy. `folder` may be entered by its workers."""

    def __init__(self, folder: Path, port: int, log: str) -> None:
        self.folder, self.port, self.log = folder, port, log
        self.url = f"http://127.0.0.1:{port}"

    def forwarded(self) -> list[str]:
        """The method and target of each request that the proxy has passed on, and that was answered with 200."""
        lines = (self.folder / self.log).read_bytes().decode("latin-1").split("\n")
        found = [re.fullmatch(r"(\S+ \S+) 200", line) for line in lines]
        return [unescaped(match[1]) if self.log == "haproxy.log" else match[1] for match in found if match]


def unescaped(text: str) -> str:
    """A text of HAProxy's log, which has #XX for special characters."""
    return re.sub("#([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; those of pytest are its user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="microwsgi-proxy-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started(command: list[str], folder: Path, port: int, output: str, log: str) -> Iterator[Proxy]:
    """A proxy until the end of the block; its master takes its workers with it."""
    with (folder / output).open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: process.poll() is not None or listens(port), f"nothing listens on {port}")
        assert process.poll() is None, (folder / output).read_text()
        yield Proxy(folder, port, log)
    finally:
        process.terminate()
        process.wait(LIMIT)


def listens(port: int) -> bool:
    """Whether a connection to the port succeeds."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT):
        return True
    return False


def need_root(name: str) -> str:
    """The path of a program that has to be started by root: its workers are other users."""
    path = need(name)
    if os.geteuid() != 0:
        absent(name, f"{name} needs root to have its own user")
    return path


@contextlib.contextmanager
def nginx(folder: Path, port: int, upstream: str, site: str, *, more: str = "") -> Iterator[Proxy]:
    """Nginx with these blocks; `upstream` is an address as nginx writes it."""
    program = need_root("nginx")
    stream = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    modules = f"load_module {stream};" if more and stream.exists() else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream, site=site, more=more, modules=modules))
    with started([program, "-p", str(folder), "-c", str(config)], folder, port, "output.log", "access.log") as proxy:
        yield proxy


@contextlib.contextmanager
def haproxy(folder: Path, port: int, upstream: str, send: str = "") -> Iterator[Proxy]:
    """HAProxy; `send` are options of the server line: send-proxy, send-proxy-v2."""
    program = need_root("haproxy")
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, upstream=upstream, send=send))
    with started([program, "-db", "-f", str(config)], folder, port, "haproxy.log", "haproxy.log") as proxy:
        yield proxy
