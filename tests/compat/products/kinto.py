"""Kinto, a store of JSON records on Pyramid and Cornice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["kinto", "setuptools<81"]
DIFFERENCES = {"records on workers": "The records are in the memory of one process."}


def application(folder: Path) -> Any:
    import kinto
    from pyramid.config import Configurator

    names = ("storage", "cache", "permission")
    settings = {f"kinto.{name}_backend": f"kinto.core.{name}.memory" for name in names}
    settings |= {
        "kinto.userid_hmac_secret": "secret",
        "multiauth.policies": "basicauth",
        "kinto.bucket_create_principals": "system.Everyone",
    }
    return kinto.main({}, config=Configurator(settings=settings), **settings)


def check_records(site: Site) -> Any:
    site.session.auth = ("a", "a")
    bucket = f"/v1/buckets/b{site.port}"
    found = [site.ask(bucket, "PUT").status_code, site.ask(f"{bucket}/collections/c", "PUT").status_code]
    record = f"{bucket}/collections/c/records/r"
    made = site.ask(record, "PUT", json={"data": {"a": "ä"}})
    same = site.ask(record, headers={"If-None-Match": made.headers.get("ETag", "?")})
    listed = site.ask(f"{bucket}/collections/c/records")
    return [*found, made.status_code, made.json()["data"]["a"], same.status_code, len(listed.json()["data"])]


def check_heartbeat(site: Site) -> Any:
    return [
        site.ask(path, allow_redirects=False).status_code for path in ("/v1/", "/v1", "/v1/__heartbeat__", "/missing")
    ]
