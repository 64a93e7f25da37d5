"""An application that transfers data: `/file` sends the file `BENCHMARK_FILE`, `/upload` reads, `/chunks` sends chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

PIECE = 64 * 1024  # bytes per call of read, and block size of the file wrapper
CHUNK = b"0123456789"
CHUNKS = 100_000


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    fields = [("Content-Type", "application/octet-stream")]
    match environ["PATH_INFO"]:
        case "/file":
            file = open(os.environ["BENCHMARK_FILE"], "rb")  # the server closes the file wrapper, which closes the file
            start_response("200 OK", [*fields, ("Content-Length", str(os.fstat(file.fileno()).st_size))])
            wrapper: Callable[..., Iterable[bytes]] = environ["wsgi.file_wrapper"]
            return wrapper(file, PIECE)
        case "/upload":
            # Under some servers, reading beyond Content-Length blocks forever.
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
