"""The servers: how each is started, and the packages it needs beside the product's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START = 60
"""Seconds until a server must accept connections."""
STOP = 20
"""Seconds after TERM until a server is killed."""
TARGET = "tests.compat.served:application"


class Server(NamedTuple):
    """A command line, in which {port} is the port and {target} the application."""

    words: str
    package: str = ""
    ours: bool = False
    debian: str = ""
    """A Debian package: without it the server is left out."""


OURS = {
    "serve": Server("-m microwsgi serve {target} -p {port}", ours=True),
    "dev": Server("-m microwsgi dev {target} -p {port}", ours=True),
    "workers": Server("-m microwsgi serve {target} -p {port} --workers 2", ours=True),
    "tls": Server("-m microwsgi serve {target} -p {port} --tls", "cryptography", ours=True),
}
PEERS = {
    "gthread": Server("-m gunicorn -k gthread --threads 16 -b 127.0.0.1:{port} {target}", "gunicorn"),
    "waitress": Server("-m waitress --threads 16 --listen 127.0.0.1:{port} {target}", "waitress"),
}
OTHERS = {
    "gunicorn-sync": Server("-m gunicorn -k sync --workers 2 -b 127.0.0.1:{port} {target}", "gunicorn"),
    "uwsgi": Server(
        "-m tests.compat.servers uwsgi {port}",
        "pyuwsgi",
    ),
    "granian": Server("-m granian --interface wsgi --host 127.0.0.1 --port {port} {target}", "granian"),
    "cheroot": Server("-m cheroot --bind 127.0.0.1:{port} {target}", "cheroot"),
    "gevent": Server("-m tests.compat.servers gevent {port}", "gevent"),
    "wsgiref": Server("-m tests.compat.servers wsgiref {port}"),
    "werkzeug": Server("-m tests.compat.servers werkzeug {port}", "werkzeug"),
    "mod_wsgi": Server("-m tests.compat.servers mod_wsgi {port}", debian="libapache2-mod-wsgi-py3"),
}
SERVERS = OURS | PEERS | OTHERS
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix {folder}/wsgi
WSGIDaemonProcess compat threads=16 python-path={path}
WSGIProcessGroup compat
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / {script}
WSGIChunkedRequest On
<Directory {script.parent}>
Require all granted
</Directory>
"""


def free_port() -> int:
    """Return a port that is free on loopback now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(server: Server, python: Path, environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run a server, and yield its URL once it accepts connections. Its output is in the log."""
    port = free_port()
    words = server.words.format(target=TARGET, port=port).split()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *words],
            cwd=environment["COMPAT_FOLDER"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the group is killed below
        )
        try:
            wait_until_open(process, port, log)
            yield f"{'https' if '--tls' in words else 'http'}://localhost:{port}"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def debian_version(package: str) -> str:
    """Return the version of a Debian package; "" if it is not installed."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    found = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which(command[0]) else None
    return found.stdout if found else ""


def run_apache(port: int) -> None:
    """Replace this process by Apache with mod_wsgi. The Python in it is Debian's; packages are those of the venv.

    Apache does not run an application as root: it gets a user namespace with another number for the same user.
    """
    folder = Path(os.environ["COMPAT_FOLDER"]) / f"apache-{port}"
    folder.mkdir()
    path = ":".join([os.environ["PYTHONPATH"], sysconfig.get_path("purelib")])
    script, modules = Path(__file__).with_name("served.py"), "/usr/lib/apache2/modules"
    configuration = folder / "apache.conf"
    configuration.write_text(APACHE.format(port=port, folder=folder, modules=modules, path=path, script=script))
    other_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    command = [*other_user, "/usr/sbin/apache2", "-f", str(configuration), "-D", "FOREGROUND"]
    os.execvp(command[0], command)  # noqa: S606 - all words are ours


def wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a connection is accepted; RuntimeError if the server ends or takes too long."""
    end = time.monotonic() + START
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    last = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise RuntimeError(f"does not serve: {' | '.join(last)}")


def main() -> None:
    """Run a server that has no command line of its own."""
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "uwsgi":
        import pyuwsgi  # type: ignore[import-not-found, unused-ignore]

        options = f"--http-socket 127.0.0.1:{port} --master --processes 2 --threads 4 --die-on-term --need-app"
        pyuwsgi.run([*options.split(), "--add-header", "Connection: close", "--module", TARGET])  # it does close
    if name == "mod_wsgi":
        run_apache(port)
    from tests.compat.served import application

    if name == "gevent":
        from gevent.pywsgi import WSGIServer  # type: ignore[import-not-found, unused-ignore]

        WSGIServer(("127.0.0.1", port), application).serve_forever()
    elif name == "wsgiref":
        from wsgiref.simple_server import make_server

        make_server("127.0.0.1", port, application).serve_forever()
    elif name == "werkzeug":
        from werkzeug import run_simple

        run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    main()
