"""curl and wget: HTTP/1.0, Expect, chunked, ranges, resumption, 40 at once, a mirror."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.compat.client import Site, content, described
from tests.compat.products import framework

PACKAGES: list[str] = []
PROGRAMS = ["curl", "wget"]
FORMAT = "%{http_code} %{http_version} %{size_download} %{size_upload} %{num_connects}\n"
DIFFERENCES = {
    "version_of_answers_to_http_1_0": "microwsgi answers with its own version, HTTP/1.1 (RFC 9110 6.2); the peers use HTTP/1.0."
}


def application(folder: Path) -> Any:
    return framework.application(folder)


def curl(site: Site, *words: str) -> list[str]:
    """Run curl, and return a line for each transfer."""
    lines = site.run("curl", "-sS", "-w", FORMAT, "-o", "/dev/null", *words).splitlines()
    return [line for line in lines if line]


def check_version_of_answers_to_http_1_0(site: Site) -> Any:
    return curl(site, "-0", f"{site.url}/static/small.bin")[0].split()[1]


def check_http_1_0(site: Site) -> Any:
    return [
        curl(site, "-0", f"{site.url}/static/large.bin")[0].split()[::2],
        curl(site, "-0", f"{site.url}/stream")[0].split()[0],
        curl(site, "-0", "-H", "Connection: keep-alive", f"{site.url}/static/small.bin")[0].split()[0],
    ]


def check_expect(site: Site) -> Any:
    path = site.file("up", 5_000_000)
    return curl(site, "-H", "Expect: 100-continue", "--data-binary", f"@{path}", f"{site.url}/body")


def check_expect_and_refused(site: Site) -> Any:
    path = site.file("up", 5_000_000)
    return curl(site, "-H", "Expect: 100-continue", "--data-binary", f"@{path}", f"{site.url}/missing")[0].split()[0]


def check_chunked(site: Site) -> Any:
    path = site.file("up", 5_000_000)
    found = curl(site, "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{path}", f"{site.url}/body")
    saved = site.run("sh", "-c", f"cat up | curl -sS -T - {site.url}/save/curl.bin")
    return [found, saved, described((site.folder / "static" / "curl.bin").read_bytes())]


def check_resumption(site: Site) -> Any:
    part = site.folder / "part"
    part.write_bytes(content(1_234_567))
    site.run("curl", "-sS", "-C", "-", "-o", "part", f"{site.url}/static/large.bin")
    one = described(part.read_bytes())
    part.write_bytes(content(1_234_567))
    site.run("wget", "-q", "-c", "-O", "part", f"{site.url}/static/large.bin", *trust(site))
    return [one, described(part.read_bytes())]


def check_ranges(site: Site) -> Any:
    return [
        curl(site, "-r", ranges, f"{site.url}/static/large.bin")[0].split()[:3:2] for ranges in ("0-99", "-1", "7-")
    ]


def check_keep_alive(site: Site) -> Any:
    """Three transfers, for which curl makes one connection."""
    urls = [word for _ in range(3) for word in ("-o", "/dev/null", f"{site.url}/static/small.bin")]
    return site.run("curl", "-sS", "-w", "%{http_code} %{num_connects}\n", *urls)


def check_forty_at_once(site: Site) -> Any:
    urls = [f"{site.url}/echo/{number}?q=[1-10]" for number in range(4)]
    output = site.run("curl", "-sS", "--parallel", "--parallel-max", "40", *urls)
    return sorted(item["name"] + item["query"] for item in map(json.loads, output.replace("}{", "}\n{").splitlines()))


def trust(site: Site) -> list[str]:
    import os

    return ["--ca-certificate", os.environ["SSL_CERT_FILE"]] if site.tls else []


def check_mirror(site: Site) -> Any:
    shutil.rmtree(site.folder / "mirror", ignore_errors=True)
    for path in (site.folder / "static").glob("*"):
        if path.name not in ("large.bin", "small.bin"):
            path.unlink()
    site.run("wget", "-q", "--mirror", "-P", "mirror", "-nH", f"{site.url}/", *trust(site))
    found = sorted(path for path in (site.folder / "mirror").rglob("*") if path.is_file())
    return [[str(path.relative_to(site.folder)), path.stat().st_size] for path in found]
