"""The client's address, scheme, host and prefix, as trusted proxies report them: X-Forwarded-*, or Forwarded (RFC 7239).

Any client can send these fields. Each proxy appends to them, so they are read from right to left, as long as the proxy that
appended a value is trusted. `microwsgi.server.handler` calls `apply` for a request that comes from a trusted proxy.

    a value that is not an IP address    ends the reading: the client's address is the last one read before it
    any other malformed value            is ignored: the environ keeps the value of the connection
    a malformed Forwarded field          is ignored completely
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from microwsgi.errors import UsageError
from microwsgi.options import Options
from microwsgi.server.environ import Environ

STANDARD = "forwarded"
FIELDS = {name: f"HTTP_X_FORWARDED_{name.upper()}" for name in ("for", "proto", "host", "port", "prefix")}
"""The X-Forwarded fields, as `--forwarded-fields` names them, and their environ keys."""
UNIX, ANY = "unix", "*"
"""In --forwarded-allow-ips: UNIX means clients of a Unix socket, ANY every client."""
CACHE_SIZE = 256
"""The maximum number of addresses for which the result of `trusts` is remembered."""
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
DEFAULT_PORTS = {"http": "80", "https": "443"}
HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
PORT = re.compile("[0-9]{1,5}")
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)+")
NODE = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?")
PAIR = re.compile(r'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))[ \t]*(;|,|$)')
"""A pair and the separator after it (RFC 7239 4)."""


class TrustedProxies:
    """The addresses of trusted proxies, and the fields that they set.

    `addresses` are IP addresses and networks, "unix" for clients of a Unix socket, or "*" for all. `fields` are those that the
    proxies set, or "forwarded" alone: a proxy passes on other fields as the client has sent them. Raises ValueError.
    """

    def __init__(self, addresses: Iterable[str], fields: Iterable[str] = tuple(FIELDS)) -> None:
        given = set(addresses)
        self.unix = not given.isdisjoint({UNIX, ANY})
        texts = ["0.0.0.0/0", "::/0"] if ANY in given else sorted(given - {UNIX})
        self.networks = [ip_network(each) for each in texts]
        names = [each.lower() for each in fields]
        self.standard = STANDARD in names
        if self.standard and len(set(names)) > 1:
            raise ValueError("forwarded (RFC 7239) replaces the X-Forwarded fields: use it alone")
        if unknown := set(names) - {STANDARD, *FIELDS}:
            raise ValueError(
                f"unknown field {', '.join(sorted(unknown))}: expected {', '.join([*FIELDS])} or {STANDARD}"
            )
        self.keys = {each: FIELDS[each] for each in names if each != STANDARD}
        self.cache: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy; "" is a Unix socket."""
        answer = self.cache.get(address)
        if answer is None:
            ip = parse_address(address)
            answer = any(ip in network for network in self.networks) if ip is not None else self.unix and not address
            if len(self.cache) < CACHE_SIZE:
                self.cache[address] = answer
        return answer

    def apply(
        self, fields: Mapping[str, str], client: tuple[str, str], base: Environ
    ) -> tuple[tuple[str, str], Environ, Mapping[str, str]]:
        """Return the client's address and port, the base environ and the fields for a request of a trusted proxy.

        The arguments are not changed: other requests share them.

        A hop is the part that one proxy has appended. That of the nearest proxy comes first; the next one counts only if the
        address in this one is trusted.
        """
        reported: dict[str, str] = {}
        for hop in self.elements(fields) if self.standard else self.columns(fields):
            reported |= hop
            address, port = parse_node(hop.get("for", ""))
            if not address:
                break
            client = address, port
            if not self.trusts(address):
                break
        return client, *(with_reported(base, fields, reported) if reported else (base, fields))

    def columns(self, fields: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the values of the X-Forwarded fields by proxy, the nearest first."""
        columns = {
            name: [part.strip(" \t") for part in reversed(fields[key].split(","))]
            for name, key in self.keys.items()
            if key in fields
        }
        count = max(map(len, columns.values()), default=0)
        return [{name: column[row] for name, column in columns.items() if row < len(column)} for row in range(count)]

    def elements(self, fields: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the elements of the Forwarded field, the nearest proxy first; none if the field is malformed."""
        text, position = fields.get("HTTP_FORWARDED", ""), 0
        hops: list[dict[str, str]] = [{}]
        while position < len(text):
            match = PAIR.match(text, position)
            if not match:
                return []
            name, quoted, bare, end = match.groups()
            if name.lower() in {"for", "proto", "host"}:
                hops[-1][name.lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            if end == ",":
                hops.append({})
            position = match.end()
        return hops[::-1]


def trusted_proxies(options: Options) -> TrustedProxies | None:
    """Return the trusted proxies, None if there are none. Raises UsageError."""
    if not options.forwarded_allow_ips:
        if options.proxy_protocol:
            raise UsageError("--proxy-protocol needs the proxy's address: --forwarded-allow-ips ADDRESS.")
        return None
    try:
        return TrustedProxies(items(options.forwarded_allow_ips), items(options.forwarded_fields))
    except ValueError as error:
        raise UsageError(f"invalid --forwarded-allow-ips or --forwarded-fields: {error}.") from None


def items(values: Iterable[str]) -> list[str]:
    """Return the items of values that may be lists with commas, as gunicorn and uvicorn take them."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def with_reported(
    base: Environ, fields: Mapping[str, str], reported: Mapping[str, str]
) -> tuple[Environ, Mapping[str, str]]:
    """Return copies of the base environ and the fields with the reported scheme, host, port and prefix."""
    made = base.copy()
    scheme = made["wsgi.url_scheme"] = SCHEMES.get(reported.get("proto", "").lower(), base["wsgi.url_scheme"])
    host = HOST.fullmatch(reported.get("host", ""))
    own = host or HOST.fullmatch(fields.get("HTTP_HOST", ""))
    port = reported.get("port", "")
    if not PORT.fullmatch(port):
        port = ""
    if own and (host or port):
        default = DEFAULT_PORTS[str(scheme)]
        port = port or own[2] or default
        made["SERVER_NAME"], made["SERVER_PORT"] = own[1].strip("[]"), port
        fields = {**fields, "HTTP_HOST": own[1] if port == default else f"{own[1]}:{port}"}
    prefix = reported.get("prefix", "").rstrip("/")
    if PREFIX.fullmatch(prefix):
        made["SCRIPT_NAME"] = unquote_to_bytes(prefix).decode("latin-1") + str(base["SCRIPT_NAME"])
    return made, fields


def parse_node(text: str) -> tuple[str, str]:
    """Return the address and the port, or "", of a node (RFC 7239 6).

    Return ("", "") for "unknown", and for an obfuscated identifier (RFC 7239 6.3).

    An IPv6 address without brackets has no port.
    """
    match = None if parse_address(text) else NODE.fullmatch(text)
    address, port = (match[1] or match[2] or "", match[3] or "") if match else (text, "")
    return (address, port) if parse_address(address) is not None else ("", "")


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address without its zone; an IPv4 address for one that is mapped into IPv6; None for anything else."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
