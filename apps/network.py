"""The network examples as one site: `PROBE_CONFIG=probe.toml microwsgi serve apps.network:app`.

Each is an application of its own, mounted under a path; their pages link to each other.
"""

from __future__ import annotations

from apps import inspect, netmon, path, probe
from apps.look.page import SIBLINGS
from microwsgi import App, Request, Response, redirect

MOUNTED = {"Probes": ("/probe", probe.app), "Routes": ("/path", path.app), "This machine": ("/netmon", netmon.app)}
INSPECT = "/inspect"

path.states = probe.states
app = App()
for prefix, application in MOUNTED.values():
    app.mount(prefix, application)
app.mount(INSPECT, inspect.app)


@app.before
def add_siblings(request: Request) -> None:
    """Put the paths of all applications into the environ, for the links between them."""
    places = {name: f"{request.script_name}{prefix}/" for name, (prefix, _) in MOUNTED.items()}
    request.environ[SIBLINGS] = places | {"Requests": f"{request.script_name}{INSPECT}/-/"}


@app.get("/")
def start(request: Request) -> Response:
    """The page of the targets."""
    return redirect(f"{request.script_name}/probe/", 302)
