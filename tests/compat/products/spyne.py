"""Spyne, SOAP, called by zeep from its WSDL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.client import Site

PACKAGES = ["spyne", "zeep", "lxml", "setuptools<81", "six"]


def application(folder: Path) -> Any:
    from spyne import Application, Integer, ServiceBase, Unicode, rpc
    from spyne.protocol.soap import Soap11
    from spyne.server.wsgi import WsgiApplication

    class Service(ServiceBase):
        @rpc(Unicode, Integer, _returns=Unicode)
        def repeat(ctx: Any, text: str, count: int) -> str:  # noqa: N805
            return text * count

    soap = Application([Service], "tests", in_protocol=Soap11(validator="lxml"), out_protocol=Soap11())
    return WsgiApplication(soap)


def check_call(site: Site) -> Any:
    import zeep

    client = zeep.Client(f"{site.url}/?wsdl", transport=zeep.Transport(session=site.session))
    fault = site.ask("/", "POST", fails=True, data=b"<a/>", headers={"Content-Type": "text/xml"})
    return [client.service.repeat("ä", 3), len(client.service.repeat("x" * 1000, 1000)), fault.status_code]
