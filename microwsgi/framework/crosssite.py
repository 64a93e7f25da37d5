"""Refuse requests that a page of another site makes a browser send: cross-site request forgery and DNS rebinding.

    app.before(same_site_only)           requests with a method that may change something
    require_same_site(request)           any request, in a view that changes something on GET

A form of another site can post to this one, and a script of another site can make it probe a network. Browsers say where a
request comes from: in Sec-Fetch-Site if this site is potentially trustworthy (Secure Contexts: https, localhost), else in
Origin or Referer. A browser that sends none of these fields is refused. Other clients send none either, and are
accepted: they act only for their user.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from microwsgi.framework.problems import abort
from microwsgi.framework.request import Request

SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
"""RFC 9110 9.2.1: methods that change nothing."""
ALLOWED = "microwsgi.allow_host"
"""The key of the environ in which our server passes the names of --allow-host."""
PORTS = {"http": 80, "https": 443}


def same_site_only(request: Request) -> None:
    """Raise 403 for a foreign Host, and for a request from a page of another site unless its method is safe.

    This is a hook: `app.before(same_site_only)`.
    """
    if request.method in SAFE:
        require_own_host(request)
    else:
        require_same_site(request)


def require_same_site(request: Request) -> None:
    """Raise 403 for a request from a page of another site, and for a foreign Host (see `require_own_host`)."""
    require_own_host(request)
    if is_cross_site(request):
        abort(403, "A page of another site may have sent this request. Use the form on this site.")


def require_own_host(request: Request) -> None:
    """Raise 403 for a Host that is not this machine's.

    This prevents DNS rebinding: evil.example is made to resolve to this machine's address, so that its page counts as one of
    this site. IP addresses, localhost, the machine's name and the names of --allow-host are accepted; "*" in --allow-host
    accepts any name. Our server makes this check itself, unless it listens on all interfaces. On another server nothing is
    checked: only that server, or the proxy in front of it, knows its names.
    """
    allowed: tuple[str, ...] = request.environ.get(ALLOWED, ("*",))
    name = host_name(request.headers.get("Host", ""))
    if name and "*" not in allowed and not is_ours(name, allowed):
        abort(403, f"{name:.100} is not a name of this machine; --allow-host allows it.")


def is_cross_site(request: Request) -> bool:
    """Return whether a page of another origin may have sent a request.

    Another port is another origin: another user of this machine may listen on it. A browser (its User-Agent begins with
    Mozilla) that sends none of the fields is refused: over plain http to a LAN address, a page can make it send none.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin", request.headers.get("Referer"))
    if origin is None:
        # A page can leave the Referer out, and an image has no Origin. All browsers call themselves Mozilla.
        return (request.user_agent or "").startswith("Mozilla/")
    try:
        url = urlsplit(origin)
        theirs = url.hostname, url.port or PORTS.get(url.scheme)
        ours = urlsplit(f"{request.scheme}://{request.headers.get('Host', '')}")
        return theirs != (ours.hostname, ours.port or PORTS.get(request.scheme))
    except ValueError:
        return True


def is_ours(name: str, allowed: Iterable[str]) -> bool:
    """Return whether a host is an IP address, since rebinding needs a name, or a name of this machine."""
    names = {each.lower().rstrip(".") for each in allowed}
    if name in own_names() or name.endswith(".localhost") or name in names:
        return True
    if any(each.startswith(".") and f".{name}".endswith(each) for each in names):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@cache
def own_names() -> frozenset[str]:
    """Return the names of this machine, without DNS, which could be slow or forged."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({"localhost", name, short, f"{short}.local"})


def host_name(host: str) -> str:
    """Return a Host field without the port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
