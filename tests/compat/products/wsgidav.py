"""WsgiDAV, a WebDAV server, with Debian's litmus and a file of 200 MB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described

PACKAGES = ["wsgidav"]
PROGRAMS = ["litmus", "curl"]
CORE = True
DIFFERENCES = {
    "litmus on workers": "WsgiDAV keeps its locks in memory, so the second process does not know them.",
    "litmus on tls": "Debian's litmus accepts no private CA.",
}


def application(folder: Path) -> Any:
    from wsgidav.wsgidav_app import WsgiDAVApp

    (folder / "dav").mkdir(exist_ok=True)
    return WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder / "dav")},
            "simple_dc": {"user_mapping": {"*": True}},
            "lock_storage": True,
            "logging": {"enable": False},
            "verbose": 0,
        }
    )


def check_litmus(site: Site) -> Any:
    output = site.run("litmus", "--keep-going", f"{site.url}/")
    return re.findall(r"summary for .*", output)


def check_a_large_file(site: Site) -> Any:
    path = site.file("large", 200_000_000)
    site.run("curl", "-sfS", "-T", str(path), f"{site.url}/large")
    site.run("curl", "-sfS", "-o", "back", f"{site.url}/large")
    found = described((site.folder / "back").read_bytes())
    return [found, site.ask("/large", "DELETE").status_code]


def check_chunked_put(site: Site) -> Any:
    put = site.ask("/chunked", "PUT", data=iter([content(100_000), content(5)]))
    return [put.status_code, site.seen("/chunked", fields=()), site.ask("/chunked", "DELETE").status_code]
