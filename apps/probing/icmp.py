"""A ping of one's own: ICMP echo (RFC 792, RFC 4443), without privileges where the system allows that.

A datagram socket of IPPROTO_ICMP may send echo requests and nothing else; the kernel fills in the identifier and the checksum,
and gives back only our own answers. Linux asks net.ipv4.ping_group_range who may. Root has raw sockets, too.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from apps.probing.outcome import ANSWERED, NOT_ALLOWED, Outcome, failed
from apps.probing.policy import Target

ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
"""Types of request and reply."""
SIZE = 56
"""Bytes behind the ICMP header, as ping sends them."""
CURE = 'sysctl -w net.ipv4.ping_group_range="0 2147483647" allows it to all users'


def checksum(data: bytes) -> int:
    """RFC 1071's; the kernel computes it itself but for IPv4's raw sockets."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def open_socket(target: Target) -> socket.socket:
    """Raises PermissionError."""
    protocol = socket.IPPROTO_ICMP if target.family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        return socket.socket(target.family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        return socket.socket(target.family, socket.SOCK_RAW, protocol)


def echo(target: Target, timeout: float, sequence: int = 1) -> Outcome:
    """One echo request; seconds until its reply."""
    try:
        connection = open_socket(target)
    except PermissionError:
        return Outcome(NOT_ALLOWED, facts={"reason": f"ICMP sockets are not for this user; {CURE}"})
    request, reply = ECHO[target.family]
    token = os.urandom(SIZE)
    packet = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, sequence) + token
    packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    with connection:
        start = time.perf_counter()
        try:
            connection.connect(target.sockaddr)  # so that the kernel tells of ICMP errors
            connection.send(packet)
            while (left := start + timeout - time.perf_counter()) > 0:
                connection.settimeout(left)
                data = connection.recv(2048)
                if connection.type == socket.SOCK_RAW and target.family == socket.AF_INET:
                    data = data[4 * (data[0] & 15) :]  # raw sockets of IPv4 receive its header as well
                if data[:1] == bytes([reply]) and data[8:] == token:
                    return Outcome(ANSWERED, time.perf_counter() - start)
            raise TimeoutError
        except OSError as error:
            return failed(error, target.address)
