"""Applications that move bytes: `/file` sends the file `BENCHMARK_FILE`, `/upload` reads, `/chunks` streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

PIECE = 64 * 1024  # bytes: what the application asks for at a time, and the block of the file wrapper
CHUNK = b"0123456789"
CHUNKS = 100_000


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    fields = [("Content-Type", "application/octet-stream")]
    match environ["PATH_INFO"]:
        case "/file":
            file = open(os.environ["BENCHMARK_FILE"], "rb")  # the server closes what it is given
            start_response("200 OK", [*fields, ("Content-Length", str(os.fstat(file.fileno()).st_size))])
            wrapper: Callable[..., Iterable[bytes]] = environ["wsgi.file_wrapper"]
            return wrapper(file, PIECE)
        case "/upload":
            # Some servers let an application that reads past the announced length wait for ever.
            read, announced, length = environ["wsgi.input"].read, int(environ.get("CONTENT_LENGTH") or -1), 0
            while length != announced and (piece := read(PIECE)):
                length += len(piece)
            body = str(length).encode()
            start_response("200 OK", [*fields, ("Content-Length", str(len(body)))])
            return [body]
        case "/chunks":
            start_response("200 OK", fields)
            return (CHUNK for _ in range(CHUNKS))
    start_response("200 OK", [*fields, ("Content-Length", "0")])
    return []
