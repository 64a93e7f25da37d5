"""The host names that a server answers to: a defence against DNS rebinding.

In that attack the browser gets a page from the server of evil.example, then evil.example resolves to 127.0.0.1, and the page's
script can read our answers. The browser's Host field still is evil.example. `microwsgi.server.handler` calls `check_host`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from microwsgi.errors import MisdirectedRequest

BEHIND_PROXY = "Behind a proxy: make the proxy pass on the Host field, or see --forwarded-allow-ips."
CACHE_SIZE = 256
"""The maximum number of allowed hosts that are remembered."""


class Hosts:
    """Allowed are the names of this machine, names that end in .localhost, IP addresses (rebinding needs a name), and `names`.

    One of `names` may be `*.zone`, as in certificates, for all names with one label more than the zone, or `.zone` for the zone
    and all names in it.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        own = socket.gethostname()  # a DNS lookup could take long, and return a wrong name
        self.names = {
            "localhost",
            own.lower(),
            own.lower().partition(".")[0],
            f"{own.lower().partition('.')[0]}.local",  # its name in mDNS (RFC 6762), which is also in our certificate
            *(name.lower().rstrip(".") for name in names),
        }
        self.zones = tuple(name for name in self.names if name.startswith("."))
        # Hosts that were found to be allowed. A dict, since a lookup in a set would lock it where there is no GIL.
        self.allowed: dict[str, None] = {}

    def allows(self, host: str) -> bool:
        """Return whether the server answers requests with this Host, which may have a port."""
        if host in self.allowed:
            return True
        answer = self.is_allowed(host_name(host))
        if answer:
            if len(self.allowed) >= CACHE_SIZE:
                self.allowed = {}  # the names that one client invents must not slow down the other clients forever
            self.allowed[host] = None
        return answer

    def is_allowed(self, name: str) -> bool:
        if name in self.names or name.endswith(".localhost") or f"*.{name.partition('.')[2]}" in self.names:
            return True
        if self.zones and f".{name}".endswith(self.zones):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def check_host(hosts: Hosts, host: str) -> None:
    """Raise MisdirectedRequest for an unknown host name: this may be DNS rebinding."""
    if not hosts.allows(host):
        name = host_name(host)
        raise MisdirectedRequest(
            f"This server does not answer for {name!r}; with --allow-host {name} it would. {BEHIND_PROXY}"
        )


def host_name(host: str) -> str:
    """Return a valid Host without the port, in the form in which names are compared."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
