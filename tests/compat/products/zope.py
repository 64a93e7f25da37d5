"""Zope: a file added through the management interface, downloaded whole and in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site, content

PACKAGES = ["Zope"]


def prepare(folder: Path) -> None:
    import subprocess
    import sys

    program = Path(sys.executable).parent / "mkwsgiinstance"
    subprocess.run(
        [program, "-d", folder / "zope", "-u", "a:a", "-p", sys.executable], check=True, stdout=subprocess.DEVNULL
    )


def application(folder: Path) -> Any:
    from Zope2.Startup.run import make_wsgi_app
    from ZPublisher.httpexceptions import HTTPExceptionHandler  # as in the zope.ini that mkwsgiinstance writes

    return HTTPExceptionHandler(make_wsgi_app({}, str(folder / "zope" / "etc" / "zope.conf")))


def check_file(site: Site) -> Any:
    site.session.auth = ("a", "a")
    name = f"f{site.port}"
    add = "/manage_addProduct/OFSP/manage_addFile"
    made = site.ask(add, "POST", data={"id": name, "title": ""}, files={"file": ("a.bin", content(3_000_000))})
    part = site.seen(f"/{name}", headers={"Range": "bytes=100-199"}, fields=("Content-Range",))
    return [made.status_code, site.seen(f"/{name}", fields=()), part, site.ask("/missing").status_code]
