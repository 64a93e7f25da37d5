"""The grammar that several modules share: character classes of RFC 9110 and the host of RFC 3986."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

# RFC 9110 5.6.2 and 5.5.
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE = r"[\t -~\x80-\xff]"
# The characters of RFC 3986, and those that browsers send unescaped in addition: " < > [ ] ^ ` { | } \
# Together they are all printable ASCII except "#", since no client may send a fragment (RFC 9112 3.2).
TARGET = r"[!-\"$-~]"
VERSION = r"HTTP/[0-9]\.[0-9]"

FIELD_LINE = re.compile(rf"({TOKEN}++):({VALUE}*+)")
# Octets that no line may contain: control characters, and a CR or LF that does not end the line (RFC 9112 2.2, RFC 9110 5.5).
CONTROL = re.compile(rb"[\x00-\x08\n-\x1f\x7f]")

# RFC 3986 3.2.2 and 3.2.3. `valid_host` checks the text between brackets.
HOST = re.compile(r"(?:\[([^\]]*+)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]*+)?")
FUTURE_ADDRESS = re.compile(r"[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+")


@lru_cache(maxsize=256)
def valid_host(host: str) -> bool:
    """Return whether `host` is a uri-host [ ":" port ] (RFC 9110 7.2). "" is valid (RFC 9112 3.2), a port alone is not."""
    match = HOST.fullmatch(host)
    if match is None or match[1] is None:
        return match is not None and not host.startswith(":")
    if FUTURE_ADDRESS.fullmatch(match[1]):
        return True
    try:
        IPv6Address(match[1])
    except ValueError:
        return False
    return "%" not in match[1]  # RFC 9844 removed zone identifiers from URIs
