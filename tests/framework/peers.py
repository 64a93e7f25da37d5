"""Other people's servers, as their users start them: an application of ours must do the same on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.programs import absent
from tests.running import Running, microwsgi, python

THREADS = 6
PEERS = {
    "microwsgi": microwsgi("serve", "--port", "0"),
    "waitress": python("-m", "waitress", f"--threads={THREADS}", "--listen=127.0.0.1:0"),
    "gunicorn": python("-m", "gunicorn", "--worker-class", "gthread", f"--threads={THREADS}", "--bind", "127.0.0.1:0"),
}


@contextmanager
def serving(name: str, folder: Path, application: str) -> Iterator[str]:
    """The URL of a server of this name, which runs an application of this folder."""
    if name != "microwsgi" and find_spec(name) is None:
        absent(name, f"{name} is not installed")
    running = Running([*PEERS[name], application], cwd=folder, HOME=str(folder))  # gunicorn makes files in one's home
    try:
        yield running.url()
    finally:
        running.end()
