"""The header of HAProxy's PROXY protocol, versions 1 and 2. A proxy sends it first, with the client's address."""

from __future__ import annotations

import re
from ipaddress import ip_address

from microwsgi.errors import ClientError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of version 2. No HTTP request begins with them."""
BEGINNING = b"PROXY "
"""The first bytes of version 1."""
MAX_LINE_SIZE = 107
"""The maximum bytes of a header of version 1, with its line end."""
MAX_HEADER_SIZE = 4096
"""The maximum bytes of a header of version 2. The addresses need at most 216; the rest is for TLVs."""
LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
FIXED = 16
"""Bytes of version 2 before the addresses: signature, version and command, family and transport, length."""
LOCAL, PROXY = 0x20, 0x21
"""The thirteenth byte: version 2, and the command. LOCAL is a connection of the proxy itself."""
ADDRESSES = {0x00: 0, 0x11: 4, 0x21: 16, 0x31: 108}
"""Bytes of one address, by family and transport: unspecified, TCP over IPv4 and IPv6, Unix stream."""

Client = tuple[str, str]


def parse_proxy_header(data: bytes) -> tuple[int, Client | None] | None:
    """Return the length of the header at the beginning of the data, and the client's address and port.

    The client is None if the header has no address, and ("", "") for a Unix socket. Return None if the header is not complete.
    Raises ClientError if there is no header, or an invalid one.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return parse_binary(data) if len(data) >= FIXED else None
    if not data.startswith(BEGINNING[: len(data)]):
        raise ClientError("The connection does not begin with a PROXY protocol header (--proxy-protocol).")
    end = data.find(b"\n", 0, MAX_LINE_SIZE) + 1
    if not end:
        if len(data) >= MAX_LINE_SIZE:
            raise ClientError(f"The PROXY protocol header is longer than {MAX_LINE_SIZE} bytes.")
        return None
    match = LINE.fullmatch(data[:end])
    if match is None:
        raise ClientError(f"{data[:end]!r} is not a valid PROXY protocol header.")
    family, source, destination, port, own_port = (part.decode() if part else "" for part in match.groups())
    if not family:
        return end, None
    for address, number in ((source, port), (destination, own_port)):
        if not is_address(address, int(family)) or int(number) > 65535 or number != str(int(number)):
            raise ClientError(
                f"{address} {number} in the PROXY protocol header is not an IPv{family} address and a port."
            )
    return end, (source, port)


def parse_binary(data: bytes) -> tuple[int, Client | None] | None:
    """Return the result of `parse_proxy_header` for version 2. The TLVs after the addresses are ignored."""
    command, family = data[12], data[13]
    end = FIXED + int.from_bytes(data[14:FIXED])
    size = ADDRESSES.get(family)
    if command not in {LOCAL, PROXY} or size is None:
        raise ClientError(f"The PROXY protocol header has an unknown command or family, {data[12:14].hex()}.")
    ports = 4 if family in {0x11, 0x21} else 0
    if end > MAX_HEADER_SIZE:
        raise ClientError(f"The PROXY protocol header has {end} bytes; at most {MAX_HEADER_SIZE} are accepted.")
    if command == PROXY and end < FIXED + 2 * size + ports:
        raise ClientError(f"The PROXY protocol header has {end} bytes, too few for its addresses.")
    if len(data) < end:
        return None
    if command == LOCAL or not size:  # a health check of the proxy, or a client whose address it does not know
        return end, None
    if not ports:
        return end, ("", "")
    begin = FIXED + 2 * size
    return end, (str(ip_address(data[FIXED : FIXED + size])), str(int.from_bytes(data[begin : begin + 2])))


def is_address(text: str, version: int) -> bool:
    """Return whether a text is an address of this version of IP."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False
