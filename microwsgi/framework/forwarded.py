"""Middleware for an application behind reverse proxies: read X-Forwarded or Forwarded fields of trusted proxies only.

`app = Forwarded(app, trusted=["10.0.0.0/8"])`. Any client can send these fields. Each proxy appends to them, so they are read
from the right as long as the proxy that appended is trusted. Fields that are not trusted are removed from the environ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

STANDARD = "HTTP_FORWARDED"
KEYS = {name: f"HTTP_X_FORWARDED_{name.upper()}" for name in ("for", "proto", "host", "port", "prefix")}
UNIX = "unix"
"""The name in `trusted` for clients of a Unix socket."""
HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)+")
NODE = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?")
PAIR = re.compile(r'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))[ \t]*(;|,|$)')
"""A pair and the separator after it (RFC 7239 4)."""


class Forwarded:
    """Middleware that sets REMOTE_ADDR, wsgi.url_scheme, HTTP_HOST and SCRIPT_NAME to the values of the client's connection.

    `trusted` are addresses and networks of proxies, and "unix". `fields` are those that the proxies set: other fields may come
    from the client. With `standard` only the Forwarded field (RFC 7239) is read.
    """

    def __init__(
        self,
        application: WSGIApplication,
        *,
        trusted: Iterable[str] = ("127.0.0.1", "::1"),
        fields: Iterable[str] = ("for", "proto"),
        standard: bool = False,
    ) -> None:
        self.application = application
        self.unix = UNIX in (trusted := tuple(trusted))
        self.networks = [ip_network(each) for each in trusted if each != UNIX]
        self.fields = tuple(fields)
        self.standard = standard
        if unknown := set(self.fields) - set(KEYS):
            raise ValueError(f"{', '.join(sorted(unknown))}: the fields are {', '.join(KEYS)}.")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        believed = self.trusts(environ.get("REMOTE_ADDR", ""))
        hops = (self.elements(environ) if self.standard else self.lists(environ)) if believed else []
        for key in (STANDARD, *KEYS.values()):
            environ.pop(key, None)
        if hops:
            self.apply(environ, hops)
        return self.application(environ, start_response)

    def trusts(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy; "" is a Unix socket."""
        if not address:
            return self.unix
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self.networks)

    def lists(self, environ: WSGIEnvironment) -> list[dict[str, str]]:
        """Return the X-Forwarded fields by proxy, the nearest first."""
        columns = {
            name: [part.strip() for part in reversed(environ[KEYS[name]].split(","))]
            for name in self.fields
            if environ.get(KEYS[name])
        }
        count = max(map(len, columns.values()), default=0)
        return [{name: column[row] for name, column in columns.items() if row < len(column)} for row in range(count)]

    def elements(self, environ: WSGIEnvironment) -> list[dict[str, str]]:
        """Return the elements of the Forwarded field, the nearest proxy first; none if it is malformed."""
        text, position = environ.get(STANDARD, ""), 0
        hops: list[dict[str, str]] = [{}]
        while position < len(text):
            match = PAIR.match(text, position)
            if not match:
                return []
            name, quoted, bare, end = match.groups()
            if name.lower() in self.fields:
                hops[-1][name.lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            if end == ",":
                hops.append({})
            position = match.end()
        return hops[::-1]

    def apply(self, environ: WSGIEnvironment, hops: list[dict[str, str]]) -> None:
        """Apply the fields of each proxy, from the nearest on, as long as the proxy before it is trusted."""
        told: dict[str, str] = {}
        for hop in hops:
            told |= {name: value for name, value in hop.items() if valid(name, value)}
            address, port = node(hop.get("for", ""))
            if not is_address(address):
                break
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = address, port
            if not self.trusts(address):
                break
        if "proto" in told:
            environ["wsgi.url_scheme"] = told["proto"].lower()
        if "host" in told:
            environ["HTTP_HOST"] = told["host"]
        if "port" in told and "HTTP_HOST" in environ:
            name = re.sub(r":[0-9]+$", "", environ["HTTP_HOST"])
            environ["HTTP_HOST"] = f"{name}:{told['port']}"
        if "prefix" in told:
            prefix = unquote_to_bytes(told["prefix"].rstrip("/")).decode("latin-1")
            environ["SCRIPT_NAME"] = prefix + environ.get("SCRIPT_NAME", "")


def node(text: str) -> tuple[str, str]:
    """Return the address and the port, or "", of a node identifier. An IPv6 address without brackets has no port."""
    match = None if is_address(text) else NODE.fullmatch(text)
    return (match[1] or match[2], match[3] or "") if match else (text, "")


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, and not an obfuscated identifier of RFC 7239."""
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def valid(name: str, value: str) -> bool:
    """Return whether a value may be used in links."""
    if name == "proto":
        return value.lower() in {"http", "https"}
    if name == "port":
        return value.isascii() and value.isdigit() and len(value) <= len("65535")
    if name == "prefix":
        return PREFIX.fullmatch(value.rstrip("/")) is not None
    return name == "host" and HOST.fullmatch(value) is not None
