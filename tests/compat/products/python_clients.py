"""HTTP clients in Python: httpx, urllib3, aiohttp, urllib."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

from tests.compat.client import LIMIT, Site, content, described, pieces
from tests.compat.products import framework

PACKAGES = ["httpx", "urllib3", "aiohttp"]


def application(folder: Path) -> Any:
    return framework.application(folder)


def context(site: Site) -> Any:
    return ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]) if site.tls else True


def check_httpx(site: Site) -> Any:
    import httpx

    with httpx.Client(base_url=site.url, verify=context(site), timeout=LIMIT) as client:
        posted = [
            client.post("/body", content=data).text
            for data in (content(5), content(2_000_000), pieces(content(2_000_000)))
        ]
        form = client.post("/form", data={"a": "b"}, files={"file": ("c", content(300_000))}).json()
        with client.stream("GET", "/stream") as response:
            streamed = described(b"".join(response.iter_bytes()))
        return [posted, form, streamed, client.get("/static/small.bin", headers={"Range": "bytes=1-2"}).status_code]


def check_urllib3(site: Site) -> Any:
    import urllib3

    pool = urllib3.PoolManager(ca_certs=os.environ["SSL_CERT_FILE"] if site.tls else None)
    posted = [
        pool.request("POST", f"{site.url}/body", body=data, timeout=LIMIT).data.decode()
        for data in (content(5), content(2_000_000), pieces(content(2_000_000)))
    ]
    form = pool.request("POST", f"{site.url}/form", fields={"a": "b", "file": ("c", content(300_000))}).json()
    large = pool.request("GET", f"{site.url}/static/large.bin", preload_content=False)
    return [posted, form, described(b"".join(large.stream()))]


def check_aiohttp(site: Site) -> Any:
    import asyncio

    import aiohttp

    async def many() -> Any:
        connector = aiohttp.TCPConnector(ssl=context(site))
        async with aiohttp.ClientSession(site.url, connector=connector) as session:

            async def post(data: Any) -> str:
                async with session.post("/body", data=data) as response:
                    return str(await response.text())

            async def generator() -> Any:
                for piece in pieces(content(2_000_000)):
                    yield piece

            bodies = [content(number * 10_000) for number in range(1, 21)]
            texts = await asyncio.gather(*map(post, bodies), post(generator()))
            async with session.get("/stream") as response:
                return [texts, described(await response.read())]

    return asyncio.run(many())


def check_urllib(site: Site) -> Any:
    from urllib.request import Request, urlopen

    options = {"context": context(site)} if site.tls else {}
    bodies = (content(5), pieces(content(2_000_000)))
    return [
        urlopen(Request(f"{site.url}/body", data=data, method="POST"), timeout=LIMIT, **options).read().decode()
        for data in bodies
    ]
