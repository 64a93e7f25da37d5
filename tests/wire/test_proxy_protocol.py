"""microwsgi/wire/proxy_protocol.py: the header of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt)."""

from __future__ import annotations

import pytest

from microwsgi.errors import ClientError
from tests.tables import Rows
from tests.wire.subject import parse_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes([203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1F, 0x90])
SIX = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + b"\x12\x67\x1f\x90"
TLV = b"\x04\x00\x03abc\x20\x00\x05\x01\x00\x00\x00\x00"


def binary(command: int, family: int, content: bytes = b"") -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([command, family]) + len(content).to_bytes(2) + content


VALID = (
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8080\r\n", ("203.0.113.7", "4711")),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", "65535")),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", "0")),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 8080\r\n", ("2001:db8::1", "4711")),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (b"PROXY UNKNOWN anything\r\n", None),
    (binary(0x21, 0x11, FOUR), ("203.0.113.7", "4711")),
    (binary(0x21, 0x11, FOUR + TLV), ("203.0.113.7", "4711")),
    (binary(0x21, 0x21, SIX), ("2001:db8::1", "4711")),
    (binary(0x21, 0x21, SIX + TLV), ("2001:db8::1", "4711")),
    (binary(0x21, 0x31, bytes(216)), ("", "")),
    (binary(0x21, 0x31, bytes(216) + TLV), ("", "")),
    (binary(0x21, 0x00), None),
    (binary(0x21, 0x00, TLV), None),
    (binary(0x20, 0x00), None),  # LOCAL: a health check
    (binary(0x20, 0x11, FOUR), None),
    (binary(0x20, 0x11, b"xx"), None),  # its addresses are to be ignored, whatever they are
    (binary(0x21, 0x11, FOUR + bytes(4096 - 28)), ("203.0.113.7", "4711")),
)
INVALID = (
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
    b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3.4 999.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
    b"PROXY UNKNOWN" + b" " * 107,
    b"PROXY UNKNOWN" + b"x" * 94,
    b"\r\n\r\n\x00\r\nQUIT\r\n",
    binary(0x11, 0x11, FOUR),  # version 1 in the binary form
    binary(0x22, 0x11, FOUR),
    binary(0x21, 0x12, FOUR),  # UDP
    binary(0x21, 0x41, FOUR),
    binary(0x21, 0x11, FOUR[:-1]),
    binary(0x21, 0x21, SIX[:-1]),
    binary(0x21, 0x31, bytes(215)),
    binary(0x21, 0x11, FOUR + bytes(4097 - 28)),
)


def test_a_valid_header_gives_the_clients_address_and_its_own_length() -> None:
    with Rows() as rows:
        for data, client in VALID:
            with rows(data[:60]):
                assert parse_proxy_header(data) == (len(data), client)
                assert parse_proxy_header(data + b"GET / HTTP/1.1\r\n") == (len(data), client), "with bytes behind it"
                assert {parse_proxy_header(data[:size]) for size in range(len(data))} == {None}, "in pieces"


def test_an_invalid_header_is_refused_as_soon_as_it_is_whole() -> None:
    with Rows() as rows:
        for data in INVALID:
            with rows(data[:60]), pytest.raises(ClientError, match="PROXY protocol"):
                parse_proxy_header(data)


def test_the_reason_says_whether_a_header_is_too_long_or_too_short() -> None:
    with pytest.raises(ClientError, match="has 4097 bytes; at most 4096 are accepted"):
        parse_proxy_header(binary(0x21, 0x11, FOUR + bytes(4097 - 28)))
    with pytest.raises(ClientError, match="has 27 bytes, too few for its addresses"):
        parse_proxy_header(binary(0x21, 0x11, FOUR[:-1]))
