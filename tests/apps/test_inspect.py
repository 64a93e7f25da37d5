"""apps/inspect.py: what was sent is what is shown, what is asked for is answered, and nobody can have it do more than that."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps import inspect
from apps.inspecting import BODY, TEXT
from microwsgi.testing import Client, live
from tests.apps.browsers import chromium
from tests.running import LIMIT, Running
from tests.tls.authority import Authority, Secure, alert_after


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    inspect.seen.clear()
    yield
    inspect.seen.clear()


def exchange(port: int, request: bytes) -> dict[str, Any]:
    """What is answered to these very bytes, as JSON."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        found: dict[str, Any] = json.loads(response.read())
        return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with live(inspect.app) as server:
        yield server.port


def test_every_part_of_a_request_as_it_was_sent(port: int) -> None:
    found = exchange(
        port,
        b"PURGE /a%20b//c?x=1&x=%C3%A9 HTTP/1.1\r\nHost: a.localhost\r\nX-Last: z\r\nX-First: <b>\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nk=1&k=%23",
    )
    assert found["line"] == "PURGE /a%20b//c?x=1&x=%C3%A9"
    names = ["Host", "X-Last", "X-First", "Content-Type", "Content-Length"]
    assert [name for name, _ in found["fields"]] == names, "in their order"
    assert dict(found["fields"])["X-First"] == "<b>"
    assert found["values"] == [["query", "x", "1"], ["query", "x", "é"], ["form", "k", "1"], ["form", "k", "#"]]
    assert (found["body"], found["body_length"]) == ("k=1&k=%23", 9)
    environ = dict(found["environ"])
    assert environ["PATH_INFO"] == "/a b//c"
    assert environ["HTTP_X_LAST"] == "z"


def test_the_kernel_tells_of_the_visitors_connection(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    found = exchange(port, request)
    assert found["connection"]["received"] == len(request)
    assert 0 < found["connection"]["rtt"] < LIMIT


def test_the_facts_of_tls(tmp_path: Path) -> None:
    with Secure(Authority(tmp_path), inspect.app) as server, server.secure() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = json.loads(alert_after(connection).partition(b"\r\n\r\n")[2])
    assert found["tls"]["SSL_PROTOCOL"] == "TLSv1.3"
    assert found["tls"]["SSL_TLS_SNI"] == "localhost"
    assert found["connection"]["received"] > 0, "of the connection below"


def test_a_request_to_upgrade_keeps_its_connection(port: int) -> None:
    """A look at its socket would take it from the server."""
    found = exchange(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert found["connection"] == {}


@pytest.mark.parametrize("method", ["GET", "POST", "PURGE", "OPTIONS", "x"])
@pytest.mark.parametrize("path", ["/", "/status/200", "/a/b/c", "//evil.example/"])
def test_any_method_and_path_is_caught(method: str, path: str) -> None:
    before = len(inspect.seen)
    assert Client(inspect.app).request(method, path).status_int in {200, 204}
    assert len(inspect.seen) == before + 1


def test_a_path_that_is_not_utf8_is_seen_too(port: int) -> None:
    Client(inspect.app).get("/%ff").expect(200)
    assert [each.line for each in inspect.seen.values()] == ["GET /\xff"]


@pytest.mark.parametrize(
    ("path", "status", "length"),
    [
        ("/status/418", 418, 0), ("/status/204", 204, 0), ("/status/599", 599, 0), ("/status/100", 400, None),
        ("/status/600", 400, None), ("/bytes/1048576", 200, 1048576), ("/bytes/0", 200, 0), ("/bytes/999999999", 400, None),
        ("/-/requests/0", 404, None),
    ],
)  # fmt: skip
def test_answers_on_demand(path: str, status: int, length: int | None) -> None:
    response = Client(inspect.app).get(path, environ={"REMOTE_ADDR": "192.0.2.1"}).expect(status)
    assert length is None or len(response.body) == length


def test_redirects_lead_nowhere_else() -> None:
    client = Client(inspect.app)
    for path in ("//evil.example/-", "/-//evil.example", "//evil.example/status/302", "/-/look//evil.example"):
        location = client.get(path).headers.get("Location", "")
        assert not location.startswith("//"), path
        assert "evil.example" not in location.split("/")[:3], path


def test_delays_hold_no_thread(port: int) -> None:
    """A hundred at once end together, and while they wait there are no more threads than there were."""
    connections = [socket.create_connection(("127.0.0.1", port), LIMIT) for _ in range(100)]
    try:
        for connection in connections:
            connection.sendall(b"GET /delay/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        wait_for(lambda: sum(each.line == "GET /delay/1" for each in list(inspect.seen.values())) == 100)
        wait_for(lambda: threading.active_count() < 50)  # several loops have more threads, but not one for each delay
        assert exchange(port, b"GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n")["line"] == "GET /now"
        answers = [connection.recv(15) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert answers == [b"HTTP/1.1 200 OK"] * 100


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)  # between two looks


def test_what_is_kept_is_bounded() -> None:
    client = Client(inspect.app)
    body = b"\xff" * (3 * BODY)
    for _ in range(inspect.KEPT + 5):
        client.post("/" + "a" * (2 * TEXT), body=body, headers={"X-Long": "b" * (2 * TEXT)})
    assert len(inspect.seen) == inspect.KEPT
    found = inspect.seen[max(inspect.seen)]
    assert len(found.body) == BODY
    assert found.body_length == len(body)
    assert len(found.line) == TEXT
    assert max(len(value) for _, value in found.environ) < TEXT + 50


def test_secrets_are_not_kept() -> None:
    fields = {
        "Authorization": "Basic c2VjcmV0", "Cookie": "a=c2VjcmV0", "X-Api-Key": "c2VjcmV0", "X-Auth-Token": "c2VjcmV0",
        "Referer": "http://localhost/?access_token=c2VjcmV0",
    }  # fmt: skip
    response = Client(inspect.app).post("/?token=c2VjcmV0&a=1", form={"password": "c2VjcmV0", "b": "2"}, headers=fields)
    text = response.text + Client(inspect.app).get(f"/-/requests/{max(inspect.seen)}").text
    assert "c2VjcmV0" not in text
    assert "(14 characters)" in text
    assert ["query", "a", "1"] in response.json["values"]
    assert ["form", "b", "2"] in response.json["values"]


def test_a_body_without_a_length_is_counted_whole(port: int) -> None:
    """Chunked: nothing but the body says how long it is."""
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert exchange(port, head + 19 * chunk + b"0\r\n\r\n")["body_length"] == 19 * 0x4000


def test_a_multipart_form_is_read() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="n.txt"\r\n\r\nabc\r\n--x--\r\n'
    )
    sent = Client(inspect.app).post("/", body=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert sent.json["values"] == [["form", "a", "1"], ["form", "f", "file 'n.txt', 3 bytes"]]


@pytest.mark.parametrize("cwd", [None, "elsewhere"])
def test_its_name_hides_nothing(command: Callable[..., Running], tmp_path: Path, cwd: str | None) -> None:
    """apps.inspect is not the standard library's inspect, which the framework uses, wherever the server is started."""
    settings = {"cwd": tmp_path} if cwd else {}
    url = command("serve", "apps.inspect:app", "--port", "0", **settings).url()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
    connection.request("GET", "/")
    assert json.loads(connection.getresponse().read())["line"] == "GET /"
    connection.close()


def test_a_page_misses_nothing_between_its_drawing_and_its_events(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        connection.sendall(b"GET /-/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = b""
        while b'"versions"' not in told:
            told += (more := connection.recv(65536))
            assert more, "the stream has ended"
            assert told.count(b"data:") < 3, "an event without versions"


@pytest.mark.slow
def test_the_page_is_live_and_loads_nothing_else(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with chromium() as browser:
        tab = browser.new_page()
        problems: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"http://127.0.0.1:{port}/-/")
        client.request("DELETE", "/new", headers={"User-Agent": "<script>alert(1)</script>" + "x" * 200})
        assert client.getresponse().status == 200
        tab.wait_for_selector("text=DELETE /new")
        assert "<script>alert(1)</script>" in tab.inner_text("tbody")
        tab.click("tbody a")
        assert "DELETE /new" in tab.inner_text("h1")
        assert tab.inner_text("text=Fields, in the order of the request")
        tab.set_viewport_size({"width": 360, "height": 700})
        hidden = "table => table.scrollWidth > table.clientWidth"
        assert not tab.eval_on_selector(".wrap .table", hidden), "the fields' values are seen whole"
        assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {f"127.0.0.1:{port}"}
        tab.click("nav >> text=Requests")
        tab.wait_for_selector("text=The last requests")
        assert problems == []
    client.close()
