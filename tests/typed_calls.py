"""Calls that a type checker accepts, and calls that it refuses: `make check` fails if one of these comments is not needed.

Nothing here is run: mypy reads it with the rest of tests/, and reports comments that suppress no error.
"""

from __future__ import annotations

from microwsgi import serve
from microwsgi.options import Options
from microwsgi.testing import Client, live


def accepted() -> None:
    """Options in the forms that they have in a program."""
    serve("app:app", port=0, host="::1", max_body_size="4K", header_timeout=0.5, bind=["unix:/x"], log_format="json")
    Client(len).post("/", json={"a": 1}, headers={"A": "b"}, follow=True)  # type: ignore[arg-type]
    port: int = Options().port
    names: tuple[str, ...] = Options(allow_host="a,b").allow_host
    timeout: float = Options().header_timeout
    with live(len, port=port, allow_host=names, header_timeout=timeout):  # type: ignore[arg-type]
        pass


def refused() -> None:
    """A wrong name, a wrong type, and a wrong word."""
    serve("app:app", prot=1)  # type: ignore[call-arg]
    serve("app:app", reload="yes")  # type: ignore[arg-type]
    serve("app:app", log_format="xml")  # type: ignore[arg-type]
    Options(threads=1.5)  # type: ignore[arg-type]
    client = Client(lambda _, __: [])
    client.get("/", querry={"a": 1})  # type: ignore[call-arg]
    client.post("/", form=1)  # type: ignore[arg-type]
    with live(lambda _, __: [], grace_time=1):  # type: ignore[call-arg]
        pass
