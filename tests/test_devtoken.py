"""microwsgi/serving/devtoken.py: the details of an exception reach only a client with the token that the terminal prints."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest

from microwsgi.serving.devtoken import DevToken
from tests.background import free_port
from tests.programs import need
from tests.proxies import nginx, open_folder
from tests.running import LIMIT, Running
from tests.tables import Rows
from tests.tls.authority import Authority

APPLICATION = """
def app(environ, start_response):
    password, treasure = "2retnuh"[::-1], "gold"
    raise ValueError("the bug")
"""
Command = Callable[..., Running]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "failing.py").write_text(APPLICATION)
    return tmp_path


def get(
    port: int, path: str = "/", context: ssl.SSLContext | None = None, /, **fields: str
) -> tuple[HTTPResponse, str]:
    """A response and its text."""
    connection = (
        HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        if context is None
        else HTTPSConnection("127.0.0.1", port, timeout=LIMIT, context=context)
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read().decode()


def started(command: Command, folder: Path, *options: str) -> tuple[Running, int, str]:
    """A development server, its port and the token."""
    running = command("dev", "failing:app", "-p", "0", *options, cwd=folder, XDG_STATE_HOME=str(folder / "state"))
    port = int(running.url().rpartition(":")[2])
    return running, port, running.token()


def cookie_of(response: HTTPResponse) -> str:
    """The cookie that a response sets, as a browser sends it."""
    return (response.headers["Set-Cookie"] or "").partition(";")[0]


def test_the_printed_address_gives_a_browser_the_cookie_and_leaves_no_token_in_the_address(
    command: Command, folder: Path
) -> None:
    running, port, token = started(command, folder)
    response, _ = get(port, f"//evil.example/x?a=1&token={token}&b=2", Accept="text/html")
    assert (response.status, response.headers["Location"]) == (303, "/evil.example/x?a=1&b=2")
    assert token not in running.line("303")
    attributes = {part.strip() for part in response.headers["Set-Cookie"].split(";")[1:]}
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= attributes
    assert "Secure" not in attributes
    cookie = cookie_of(response)
    response, page = get(port, "/", Accept="text/html", Cookie=f"other=1; {cookie}")
    assert (response.status, "gold" in page, token in page) == (500, True, False)
    assert "hunter2" not in page
    running.line("ValueError: the bug")


def test_all_others_get_the_number_and_the_terminal_has_the_traceback(command: Command, folder: Path) -> None:
    running, port, token = started(command, folder)
    name = cookie_of(get(port, f"/?token={token}")[0]).partition("=")[0]
    requests: list[tuple[str, dict[str, str]]] = [
        ("/", {}),
        ("/", {"Accept": "text/html"}),
        ("/", {"Accept": "application/json"}),
        ("/", {"Cookie": f"{name}=" + "0" * 32}),
        ("/", {"Cookie": f"{name}="}),
        ("/", {"Cookie": f"another={token}"}),
        ("/", {"Microwsgi-Token": ""}),
        ("/", {"Microwsgi-Token": token[:-1]}),
        ("/", {"Microwsgi-Token": "\u00e9" * 32}),
        ("/?token=" + "0" * 32, {}),
        ("/?token=", {}),
        (f"/?tokens={token}", {}),
    ]
    with Rows() as rows:
        for path, fields in requests:
            with rows(path, fields):
                response, text = get(port, path, None, **fields)
                assert response.status == 500
                assert "the traceback is in the server's log (id " in text
                assert "Microwsgi-Token" in text
                assert [word for word in ("gold", "the bug", token) if word in text] == []
                running.line("ValueError: the bug")


def test_a_program_sends_the_token_in_a_field(command: Command, folder: Path) -> None:
    _, port, token = started(command, folder)
    response, text = get(port, "/", Microwsgi_Token=token)
    assert (response.status, response.headers.get_content_type()) == (500, "text/plain")
    assert "failing.py:4, in app: ValueError: the bug" in text


def test_the_token_is_kept_for_the_project_in_a_file_of_the_user_alone(command: Command, folder: Path) -> None:
    running, port, token = started(command, folder)
    cookie = cookie_of(get(port, f"/?token={token}")[0])
    running.stop()
    _, port, again = started(command, folder)
    assert again == token
    assert "gold" in get(port, "/", Accept="text/html", Cookie=cookie)[1]
    (kept,) = (folder / "state" / "microwsgi" / "tokens").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert token not in str(kept), "its name is that of the project"
    other = folder / "other"
    other.mkdir()
    (other / "failing.py").write_text(APPLICATION)
    running = command("dev", "failing:app", "-p", "0", cwd=other, XDG_STATE_HOME=str(folder / "state"))
    port = int(running.url().rpartition(":")[2])
    assert running.token() != token
    assert "gold" not in get(port, "/", Accept="text/html", Cookie=cookie)[1], "the cookie of another project"


def test_without_a_folder_for_the_token_nobody_is_shown_details(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "state").write_text("a file")
    running = command("dev", "failing:app", "-p", "0", cwd=folder, XDG_STATE_HOME=str(folder / "state"))
    port = int(running.url().rpartition(":")[2])
    for fields in ({}, {"Microwsgi_Token": ""}):
        text = get(port, "/?token=", None, **fields)[1]
        assert "XDG_STATE_HOME" in text
        assert "the bug" not in text
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    mine = DevToken(str(folder))
    Path(mine.path).chmod(0o644)
    assert DevToken(str(folder)).token == "", "another user may have read it"


def test_a_handler_class_of_http_server_has_the_same(command: Command, folder: Path) -> None:
    (folder / "handler.py").write_text(
        "from http.server import BaseHTTPRequestHandler\n\n\nclass Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n        treasure = 'gold'\n        raise ValueError('the bug')\n"
    )
    running = command("dev", "handler:Handler", "-p", "0", cwd=folder, XDG_STATE_HOME=str(folder / "state"))
    port = int(running.url().rpartition(":")[2])
    response, _ = get(port, f"/x?token={running.token()}")
    assert (response.status, response.headers["Location"]) == (303, "/x")
    assert running.token() not in running.line("303")
    assert "gold" in get(port, "/x", Accept="text/html", Cookie=cookie_of(response))[1]
    assert "gold" not in get(port, "/x", Accept="text/html")[1]


def test_over_tls_the_cookie_is_for_https_alone(command: Command, folder: Path) -> None:
    authority = Authority(folder)
    _, port, token = started(command, folder, "--tls-cert", authority.leaf("127.0.0.1"))
    context = authority.client()
    response, _ = get(port, f"/?token={token}", context)
    assert "Secure" in response.headers["Set-Cookie"]
    assert "gold" in get(port, "/", context, Accept="text/html", Cookie=cookie_of(response))[1]
    assert "gold" not in get(port, "/", context, Accept="text/html")[1]


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[int]:
    """A port whose connections lead to another one, as with ssh -L."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def attend() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port), LIMIT)
                for pair in ((near, far), (far, near)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()
                ends.extend((near, far))

    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attending = threading.Thread(target=attend)
        attending.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            attending.join(LIMIT)
            for thread in threads:
                thread.join(LIMIT)
            for end in ends:
                end.close()


def test_through_a_tunnel_the_same_holds(command: Command, folder: Path) -> None:
    _, port, token = started(command, folder)
    with tunnel(port) as near:
        response, _ = get(near, f"/?token={token}")
        assert "gold" in get(near, "/", Accept="text/html", Cookie=cookie_of(response))[1]
        assert "gold" not in get(near, "/", Accept="text/html")[1]


SITES = {
    "by default": "",
    "with the Host field": "proxy_set_header Host $host;",
    "with X-Real-IP and X-Forwarded-Proto": "proxy_set_header X-Real-IP $remote_addr; "
    "proxy_set_header X-Forwarded-Proto $scheme;",
    "with X-Forwarded-For": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
}


@pytest.mark.slow
def test_behind_nginx_only_the_browser_with_the_token_sees_anything(command: Command, folder: Path) -> None:
    """All of nginx's clients come from 127.0.0.1."""
    need("nginx")
    _, port, token = started(command, folder)
    front = free_port()
    blocks = [
        f"location /{number}/ {{ proxy_pass http://127.0.0.1:{port}/; {fields} }}"
        for number, fields in enumerate(SITES.values())
    ]
    with (
        open_folder() as place,
        nginx(place, front, f"127.0.0.1:{port}", f"server {{ listen 127.0.0.1:{front}; {' '.join(blocks)} }}"),
    ):
        with Rows() as rows:
            for number, name in enumerate(SITES):
                with rows(name):
                    for accept in ("text/html", "*/*", "application/json"):
                        response, text = get(front, f"/{number}/", Accept=accept)
                        assert (response.status, "gold" in text, "the bug" in text) == (500, False, False)
                    response, _ = get(front, f"/{number}/?token={token}")
                    assert response.status == 303
                    assert "gold" in get(front, f"/{number}/", Accept="text/html", Cookie=cookie_of(response))[1]
