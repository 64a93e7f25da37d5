"""Bodies that are received before the application is called: in memory, then in files, with totals."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from microwsgi import App, Request
from microwsgi.server import body_storage
from tests.running import Running as Command
from tests.running import microwsgi
from tests.server.exchange import TIME, Environ, Running, StartResponse, parse, receive, receive_until, wait_until
from tests.tls.authority import Authority, Secure

CONTENT = bytes(range(256)) * 12_000  # 3 MB
HEAD = b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def chunked(content: bytes, size: int = 70_000) -> bytes:
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def digest(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer with the framing in the environ and the digest of the body, read by its length as PEP 3333 has it."""
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(*([int(length)] if length else []))
    rest = environ["wsgi.input"].read()
    words = [
        str(length),
        environ.get("HTTP_TRANSFER_ENCODING", ""),
        str(environ["wsgi.input_terminated"]),
        str(len(rest)),
    ]
    start_response("200 OK", [])
    return [" ".join([*words, hashlib.sha256(body).hexdigest()]).encode()]


def storage_of(running: Running) -> body_storage.BodyStorage:
    """The counters of a server, which are reset when it begins to serve."""
    assert running.get().status == 200
    return running.server.context.bodies


def answer(content: bytes) -> bytes:
    return f"{len(content)}  True 0 {hashlib.sha256(content).hexdigest()}".encode()


@pytest.mark.parametrize("tls", [False, True])
def test_every_body_arrives_whole_with_its_length(tls: bool, tmp_path: Path) -> None:
    """RFC 3875 4.2: CONTENT_LENGTH is that of the data, and the application need not know the chunked coding."""
    rows = {"empty": b"", "short": b"hello", "memory": CONTENT[:300_000], "file": CONTENT}
    faults = []
    with Secure(Authority(tmp_path), digest) if tls else Running(digest) as running:
        for name, content in rows.items():
            for framing, body in (
                (CHUNKED, chunked(content)),
                (CHUNKED + b"\r\nExpect: 100-continue", chunked(content)),
                (b"Content-Length: %d" % len(content), content),
                (b"Content-Length: %d\r\nExpect: 100-continue" % len(content), content),
            ):
                with running.secure() if isinstance(running, Secure) else running.connect() as client:
                    client.sendall(HEAD % (b"/", framing) + body + HEAD % (b"/", b"Connection: close"))
                    responses = parse(receive(client))
                if [response.body for response in responses] != [
                    answer(content),
                    answer(b"").replace(b"0 ", b"None ", 1),
                ]:
                    faults.append((name, framing, responses))
    assert not faults
    assert not running.errors.text.getvalue()


def test_a_client_that_waits_to_send_chunks_is_told_to_continue_after_the_head_is_checked() -> None:
    with Running(digest) as running, running.connect() as client:
        client.sendall(HEAD % (b"/", CHUNKED + b"\r\nExpect: 100-continue"))
        assert receive_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(chunked(b"hello") + HEAD % (b"/", CHUNKED + b"\r\nExpect: more"))
        client.shutdown(socket.SHUT_WR)
        assert [response.status for response in parse(receive(client))] == [200, 417]


def test_chunks_are_streamed_where_that_is_asked_for() -> None:
    """By the option, or by an attribute of the application, which middleware may hide: then they are received first."""
    begun = threading.Event()

    class Streaming:
        stream_chunked = True

        def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
            begun.set()
            data = environ["wsgi.input"].read()
            start_response("200 OK", [])
            return [b"%b %b" % (data, environ.get("CONTENT_LENGTH", "streamed").encode())]

    def middleware(environ: Environ, start_response: StartResponse) -> list[bytes]:
        return Streaming()(environ, start_response)

    rows: list[tuple[Any, dict[str, Any], bytes]] = [
        (Streaming(), {}, b"hello streamed"),
        (middleware, {"stream_chunked": True}, b"hello streamed"),
        (middleware, {}, b"hello 5"),
    ]
    for application, options, expected in rows:
        begun.clear()
        with Running(application, **options) as running, running.connect() as client:
            client.sendall(HEAD % (b"/", CHUNKED + b"\r\nConnection: close") + b"3\r\nhel\r\n")
            if expected.endswith(b"streamed"):
                assert begun.wait(TIME)
            client.sendall(b"2\r\nlo\r\n0\r\n\r\n")
            assert parse(receive(client))[0].body == expected


def test_an_app_saves_chunks_while_they_arrive_and_behind_middleware_after_that(tmp_path: Path) -> None:
    app = App()

    @app.put("/{name}")
    def save(request: Request, name: str) -> dict[str, Any]:
        size = request.save(str(tmp_path / name), 10**7)
        return {"size": size, "chunked": "HTTP_TRANSFER_ENCODING" in request.environ}

    def middleware(environ: Environ, start_response: StartResponse) -> Any:
        return app(environ, start_response)

    for application, streamed in ((app, b"true"), (middleware, b"false")):
        path = tmp_path / "file"
        with Running(application) as running:
            content = CONTENT[: len(streamed) * 400_000]
            response = running.get("/file", CHUNKED.decode(), method="PUT", body=chunked(content))
            assert response.body.replace(b" ", b"").strip() == b'{"size":%d,"chunked":%b}' % (len(content), streamed)
            assert path.read_bytes() == content
            with running.connect() as client:  # a body that is not complete replaces nothing
                client.sendall(HEAD.replace(b"POST", b"PUT") % (b"/file", CHUNKED) + chunked(b"less")[:-5])
            running.wait_for_connections(0)
            assert path.read_bytes() == content
            assert list(tmp_path.iterdir()) == [path]


# --- Slow clients -------------------------------------------------------------------------------------------------------


def test_slow_uploads_delay_no_others() -> None:
    """As many bodies of each kind as would hold all threads are begun; every kind of request is answered meanwhile."""
    heads = [HEAD % (b"/", CHUNKED), *(HEAD % (b"/", b"Content-Length: %d" % size) for size in (100_000, 9_000_000))]
    heads += [HEAD % (b"/", b"Content-Length: 9000000\r\nExpect: 100-continue")]
    expected = [answer(content) for content in (CONTENT[:10_000], CONTENT[:100_000], CONTENT, CONTENT)]
    with Running(digest, loops=1, threads=4) as running, contextlib.ExitStack() as stack:
        for head in heads * 6:
            stack.enter_context(running.connect()).sendall(head + b"5\r\nhello" * (b"Expect" not in head))
        running.wait_for_connections(len(heads) * 6)
        found = [
            running.get("/", f"Content-Length: {len(content)}", method="POST", body=content).body
            for content in (CONTENT[:10_000], CONTENT[:100_000], CONTENT)
        ]
        length = [f"Content-Length: {len(CONTENT)}", "Expect: 100-continue"]
        found.append(running.get("/", *length, method="POST", body=CONTENT).body)
        assert found == expected
        assert running.get().status == 200
        assert len(running.pool) <= 5
    assert not [line for line in running.errors.text.getvalue().splitlines() if "failed" in line]


@pytest.mark.parametrize("framing", [CHUNKED, b"Content-Length: 3000000"])
def test_a_body_that_trickles_into_a_file_is_ended_by_body_rate(framing: bytes) -> None:
    with Running(digest, body_timeout=0.3, min_body_rate=10**9, body_buffer_size=10, threads=2) as running:
        running.server.context.permits.free = 0
        with running.connect() as client:
            client.sendall(HEAD % (b"/", framing) + b"fffff\r\n" * (framing == CHUNKED) + b"x" * 100)
            end = time.monotonic() + TIME
            client.settimeout(0.01)
            data = b""
            while not data and time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    data = client.recv(1000)
                    break
                client.sendall(b"x")
        assert data.startswith(b"HTTP/1.1 408 ")
        running.wait_for_connections(0)
        assert running.server.context.bodies.in_files == 0


def test_a_client_that_leaves_while_its_body_is_received_into_a_file_is_one_line_of_the_log() -> None:
    with Running(digest, body_buffer_size=10) as running:
        with running.connect() as client:
            client.sendall(HEAD % (b"/", CHUNKED) + b"ff\r\n" + b"x" * 100)
            wait_until(lambda: running.server.context.bodies.in_files == 100)
        running.wait_for_connections(0)
        text = running.errors.wait_for("before the end of the body")
        assert text.count("\n") == 1
        assert running.server.context.bodies.in_files == 0


# --- Totals -------------------------------------------------------------------------------------------------------------


def test_what_exceeds_the_total_in_memory_goes_to_files() -> None:
    with Running(digest) as running, contextlib.ExitStack() as stack:
        storage = storage_of(running)
        storage.max_in_memory = 50_000
        clients = [stack.enter_context(running.connect()) for _ in range(4)]
        for client in clients:
            client.sendall(HEAD % (b"/", b"Content-Length: 40000\r\nConnection: close") + CONTENT[:20_000])
        wait_until(lambda: storage.in_memory + storage.in_files == 80_000)
        assert storage.in_files >= 40_000
        for client in clients:
            client.sendall(CONTENT[20_000:40_000])
        assert [parse(receive(client))[0].body for client in clients] == [answer(CONTENT[:40_000])] * 4
        running.wait_for_connections(0)
        assert (storage.in_memory, storage.in_files) == (0, 0)


def test_beyond_the_total_in_files_is_a_503_that_is_logged_once() -> None:
    with Running(digest, loops=1, body_buffer_size=10, max_temp_files_size=100_000) as running:
        storage = storage_of(running)
        with running.connect() as first:
            first.sendall(HEAD % (b"/", CHUNKED) + chunked(CONTENT[:70_000])[:-5])
            wait_until(lambda: storage.in_files == 70_000)
            for _ in range(3):
                response = running.get("/", CHUNKED.decode(), method="POST", body=chunked(CONTENT[:40_000]))
                assert (response.status, response.field("Retry-After")) == (503, "10")
            first.sendall(b"0\r\n\r\n")
            receive_until(first, answer(CONTENT[:70_000]))
            wait_until(lambda: storage.in_files == 0)
        assert running.get("/", CHUNKED.decode(), method="POST", body=chunked(CONTENT[:40_000])).status == 200
        running.wait_for_connections(0)
        assert storage.in_files == 0
        assert running.errors.text.getvalue().count("max_temp_files_size") == 1


class FullFile(io.FileIO):
    """A file on a disk that becomes full."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_ends_that_request_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def open_full() -> io.FileIO:
        return FullFile(tmp_path / str(time.monotonic_ns()), "x+")

    monkeypatch.setattr("microwsgi.server.request_body.open_file", open_full)
    with Running(digest, body_buffer_size=10) as running:
        statuses = []
        for size in (50_000, 300_000, 300_000, 50_000):
            statuses.append(running.get("/", CHUNKED.decode(), method="POST", body=chunked(CONTENT[:size])).status)
            statuses.append(running.get().status)
        assert statuses == [200, 200, 507, 200, 507, 200, 200, 200]
        running.wait_for_connections(0)
        assert running.server.context.bodies.in_files == 0
    assert running.errors.text.getvalue().count("507") == 1, running.errors.text.getvalue()


@pytest.mark.parametrize(("number", "status"), [(errno.ENOENT, 507), (errno.EMFILE, 503)])
def test_without_a_temporary_file_the_body_is_refused(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with Running(digest, body_buffer_size=10) as running:
        assert running.get("/", CHUNKED.decode(), method="POST", body=chunked(CONTENT)).status == status
        assert running.get().status == 200


def test_a_file_without_a_name_is_left_to_nobody(tmp_path: Path) -> None:
    """Not after SIGKILL in the middle of a body either."""
    (tmp_path / "app.py").write_text("def app(environ, start_response):\n    environ['wsgi.input'].read()\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = microwsgi("serve", "app:app", "--port", "0")
    running = Command(command, tmp_path, TMPDIR=str(temporary), MICROWSGI_BODY_BUFFER_SIZE="10")
    try:
        port = int(running.url().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), TIME) as client:
            client.sendall(
                HEAD.replace(b"Host: a", b"Host: localhost") % (b"/", CHUNKED) + b"fffff\r\n" + bytes(500_000)
            )
            files = Path(f"/proc/{running.pid}/fd")

            def unnamed() -> int:
                # The first one in a process comes after the tempfile module's test file, which has a name for a moment.
                links = []
                for each in files.iterdir():
                    with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                        links.append(os.readlink(each))
                return sum(link.startswith(str(temporary)) and link.endswith(" (deleted)") for link in links)

            wait_until(lambda: unnamed() == 1)
            assert not list(temporary.iterdir())
            running.send_signal(signal.SIGKILL)
            running.wait()
        assert not list(temporary.iterdir())
    finally:
        running.end()


def test_temporary_files_are_real_files() -> None:
    file = body_storage.open_file()
    with file:
        assert type(file) is io.FileIO
