"""microwsgi/framework/crosssite.py: what a page of another site may not have a browser send."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

from microwsgi import App, Request
from microwsgi.framework.crosssite import require_same_site, same_site_only
from microwsgi.testing import Client
from tests.running import Running

NAME = socket.gethostname().lower()


def application() -> Client:
    app = App()
    app.before(same_site_only)
    for method in ("get", "post", "delete"):
        getattr(app, method)("/")(lambda request: "done")

    @app.get("/probe")
    def probe(request: Request) -> str:
        require_same_site(request)
        return "probed"

    return Client(app)


OURS: dict[str, tuple[str, ...]] = {"microwsgi.allow_host": ()}
"""The environ of our server without --allow-host."""


def test_who_may_post() -> None:
    """The rows are the fields of a request, and the status of a POST."""
    lan = {"Host": "192.0.2.7:8000"}
    rows: list[tuple[dict[str, str], int]] = [
        ({}, 200),  # curl, a program
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"User-Agent": "Mozilla/5.0"}, 403),  # a browser, and the page has had all other fields left out
        ({"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "none"}, 200),
        ({"User-Agent": "curl/8.5.0"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),  # typed into the address bar
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of this machine
        (
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
            200,
        ),  # Sec-Fetch-Site can't be forged by a page
        (
            {**lan, "Origin": "http://192.0.2.7:8000"},
            200,
        ),  # plain http on a LAN address: no Sec-Fetch fields are sent there
        ({**lan, "Origin": "http://evil.example"}, 403),
        ({**lan, "Origin": "http://192.0.2.7:9000"}, 403),
        ({**lan, "Origin": "http://192.0.2.70:8000"}, 403),
        ({**lan, "Origin": "null"}, 403),
        ({**lan, "Origin": "http://[::1"}, 403),
        ({**lan, "Origin": "http://192.0.2.7:99999"}, 403),
        ({**lan, "Referer": "http://192.0.2.7:8000/page?a=b"}, 200),
        ({**lan, "Referer": "http://evil.example/192.0.2.7:8000/"}, 403),
        ({**lan, "Origin": "http://evil.example", "Referer": "http://192.0.2.7:8000/"}, 403),
        ({"Host": "192.0.2.7", "Origin": "http://192.0.2.7:80"}, 200),
        ({"Host": "[::1]:8000", "Origin": "http://[::1]:8000"}, 200),
        ({"Host": "LOCALHOST", "Origin": "http://localhost"}, 200),
        ({"Host": f"{NAME}:8000", "Origin": f"http://{NAME}:8000"}, 200),
        ({"Host": f"{NAME.partition('.')[0]}.local"}, 200),
        ({"Host": "a.localhost"}, 200),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # DNS rebinding: it has our address by now
        ({"Host": "evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Host": "router.example"}, 403),
    ]
    client = application()
    found = [(fields, client.post("/", headers=fields, environ=OURS).status_int, status) for fields, status in rows]
    assert [row for row in found if row[1] != row[2]] == []


def test_a_safe_method_is_only_checked_where_that_is_asked_for() -> None:
    client = application()
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert [client.get("/", headers=foreign).status_int, client.get("/probe", headers=foreign).status_int] == [200, 403]
    assert client.get("/", headers={"Host": "evil.example"}, environ=OURS).status_int == 403, (
        "a page could read by DNS rebinding"
    )
    assert client.delete("/", headers=foreign).status_int == 403


def test_on_another_server_any_name_may_be_its_own() -> None:
    same = {"Host": "todo.example", "Origin": "http://todo.example"}
    assert application().post("/", headers=same).status_int == 200
    assert application().post("/", headers={**same, "Origin": "http://evil.example"}).status_int == 403


def test_our_server_passes_the_names_of_allow_host(command: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from microwsgi import App\nfrom microwsgi.framework.crosssite import same_site_only\n"
        'app = App()\napp.before(same_site_only)\n@app.get("/")\ndef view(request):\n    return "served"\n'
    )
    for options, status in (((), 403), (("--allow-host", "lab.example"), 200)):
        running = command("serve", "--host", "0.0.0.0", "-p", "0", *options, cwd=tmp_path)
        running.line("Ctrl-C stops")
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", running.output)[0])
        client = HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", "/", headers={"Host": "lab.example"})
        assert client.getresponse().status == status, options
        client.close()
        running.stop()


def test_the_names_of_allow_host_are_this_machines() -> None:
    client = application()
    for names, status in (
        ((), 403),
        (("Lab.Example.",), 200),
        (("*",), 200),
        ((".example",), 200),
        (("other.example",), 403),
    ):
        environ = {"microwsgi.allow_host": names}
        assert client.post("/", headers={"Host": "lab.example"}, environ=environ).status_int == status, names
