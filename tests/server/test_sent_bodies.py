"""Bodies that are files, or lists of blocks: which of them go to the kernel, and that none is copied whole."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microwsgi import App, FileResponse
from tests.server.exchange import Environ, Running, StartResponse
from tests.tls.authority import Authority, Secure

CONTENT = bytes(range(256)) * 1000


def made(path: Path, opened: Callable[..., Any]) -> Path:
    with opened(path, "wb") as file:
        file.write(CONTENT)
    return path


class Upper(io.FileIO):
    """A file whose content is not that of its descriptor."""

    def read(self, size: int | None = -1, /) -> bytes:
        return (super().read(-1 if size is None else size) or b"").replace(b"a", b"A")


class Kernel:
    """Counts the calls of os.sendfile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.sendfile = os.sendfile
        monkeypatch.setattr(os, "sendfile", self)

    def __call__(self, *arguments: Any) -> int:
        self.calls += 1
        return self.sendfile(*arguments)


def test_only_plain_files_go_to_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made(tmp_path / "plain", open)
    kernel = Kernel(monkeypatch)
    rows: dict[str, tuple[Callable[[], Any], bytes | None, bool]] = {
        "FileIO": (lambda: open(plain, "rb", buffering=0), CONTENT, True),
        "BufferedReader": (lambda: open(plain, "rb"), CONTENT, True),
        "BufferedRandom": (lambda: open(plain, "r+b"), CONTENT, True),
        "gzip": (lambda: gzip.open(made(tmp_path / "gz", gzip.open)), CONTENT, False),
        "bz2": (lambda: bz2.open(made(tmp_path / "bz2", bz2.open)), CONTENT, False),
        "lzma": (lambda: lzma.open(made(tmp_path / "xz", lzma.open)), CONTENT, False),
        "a class of its own": (lambda: Upper(plain), CONTENT.replace(b"a", b"A"), False),
        "a buffered one of that": (lambda: io.BufferedReader(Upper(plain)), None, False),
    }
    faults = []
    for name, (opened, content, by_kernel) in rows.items():

        def application(environ: Environ, start_response: StartResponse, opened: Any = opened) -> Any:
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](opened())

        kernel.calls = 0
        with Running(application) as running:
            body = running.get().body
        if (content is not None and body != content) or bool(kernel.calls) != by_kernel:
            faults.append((name, len(body), kernel.calls))
    assert not faults


def test_file_responses_and_their_ranges_go_to_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "plain", open)
    kernel = Kernel(monkeypatch)
    app = App()

    @app.get("/")
    def index(request: Any) -> Any:
        return FileResponse(path)

    with Running(app) as running:
        assert running.get().body == CONTENT
        assert kernel.calls
        kernel.calls = 0
        assert running.get("/", "Range: bytes=100-200099").body == CONTENT[100:200_100]
        assert kernel.calls


@pytest.mark.parametrize("tls", [False, True])
def test_a_list_of_blocks_arrives_whole_and_is_not_copied(tls: bool, tmp_path: Path) -> None:
    rows = {
        "large blocks": [bytes([number]) * 4_000_000 for number in range(5)],
        "small blocks": [bytes([number % 256]) * 1000 for number in range(20_000)],
        "both": [b"x" * (10 if number % 2 else 200_000) for number in range(100)],
        "empty ones": [b"", b"x" * 70_000, b"", b"y" * 10, b""],
    }

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return rows[environ["QUERY_STRING"].replace("+", " ")]

    with Secure(Authority(tmp_path), application) if tls else Running(application) as running:
        for name, blocks in rows.items():
            size = sum(map(len, blocks))
            with running.secure() if isinstance(running, Secure) else running.connect() as client:
                client.sendall(
                    f"GET /?{name.replace(' ', '+')} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
                )
                tracemalloc.start()
                first = client.recv(100)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                data = bytearray(first)
                while piece := client.recv(1 << 18):
                    data += piece
            head, _, body = bytes(data).partition(b"\r\n\r\n")
            assert f"Content-Length: {size}\r\n".encode() in head + b"\r\n"
            assert body == b"".join(blocks), name
            if name == "large blocks":
                assert peak < size / 2, "the blocks were copied"
    assert not running.errors.text.getvalue()


def test_a_list_with_a_fault_is_a_500_however_long_it_is() -> None:
    rows: dict[str, list[Any]] = {
        "text": [b"x" * 100_000, "text"],
        "number": [b"x" * 100_000, 5],
        "none": [None, b"x" * 100_000],
    }

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "7")] if environ["QUERY_STRING"] == "length" else [])
        return rows.get(environ["QUERY_STRING"], [b"x" * 100_000, b"y"])

    with Running(application) as running:
        assert {name: running.get(f"/?{name}").status for name in [*rows, "length"]} == dict.fromkeys(
            [*rows, "length"], 500
        )
        assert running.get("/?fine", method="HEAD").body == b""
        assert "returned 100001 bytes, and its Content-Length is 7" in running.errors.text.getvalue()


@pytest.mark.parametrize("tls", [False, True])
def test_a_file_that_is_truncated_breaks_off_at_once_and_is_named(tls: bool, tmp_path: Path) -> None:
    """The client is not waited for, and not blamed."""
    app = App()

    @app.get("/{name}")
    def file(request: Any, name: str) -> Any:
        return FileResponse(tmp_path / name)

    def plain(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"]((tmp_path / environ["PATH_INFO"][1:]).open("rb"))

    for number, application in enumerate((app, plain)):
        path = tmp_path / f"file{number}"
        path.write_bytes(bytes(30_000_000))
        with Secure(Authority(tmp_path), application) if tls else Running(application) as running:
            with running.connect(window=10_000) as tcp:
                client = (
                    running.authority.client().wrap_socket(tcp, server_hostname="localhost")
                    if isinstance(running, Secure)
                    else tcp
                )
                client.sendall(f"GET /{path.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert client.recv(10)
                path.write_bytes(b"")
                with contextlib.suppress(OSError):
                    while client.recv(1 << 16):
                        pass
                client.close()
            text = running.errors.wait_for("was truncated")
        assert f"{path} was truncated while it was being sent" in text
        assert "The client" not in text
