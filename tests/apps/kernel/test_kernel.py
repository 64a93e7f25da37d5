"""apps/kernel: the kernel's formats, from what Linux 6.18 said of sockets made for that, and as it answers itself."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys

import pytest

from apps.kernel import counters, links, netlink, processes, sockets, tcpinfo
from apps.kernel.netlink import Netlink

CONNECTION = bytes.fromhex(
    "02010000eb10b24b7f0000010000000000000000000000007f000001000000000000000000000000000000001e50000000000000"
    "00000000000000000000000000000000d2786f02050008000000000008000f00000000000c001500010000000000000006001600"
    "520000001c010200010000000007aa01e01c030000000000008a0000180200000000000000000000000000000000000000000000"
    "00000000000000000000000000000000ffff0000d7ff00001100000009000000ffffff7f0b000000cbff00001100000000000000"
    "d7ff0000000000007f7556770b000000ffffffffffffffffe9030000000000000000000000000000030000000200000000000000"
    "0300000000000000010000000080e7bd020000000000000000000000000000000000000000000000000000000200000000000000"
    "e8030000000000000000000000000000000000000000000000000000001401000000010000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000"
)
"""A connection of the loopback interface, on which 1,000 bytes were sent."""
NEIGHBOUR = bytes.fromhex(
    "02000000040000000400000108000100c00002010a00020002fc0000000500000800040001000000"
    "140003002313000015130000080a000000000000"
)
ROUTE = bytes.fromhex("02000000fe0300010000000008000f00fe00000008000500c00002010800040001000000")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the interfaces of Linux")


def test_a_socket_of_sock_diag() -> None:
    found = sockets.parse_socket("tcp", CONNECTION)
    assert (found.state, found.local, found.remote) == ("established", ("127.0.0.1", 60176), ("127.0.0.1", 45643))
    assert (found.user, found.inode, found.receive_queue, found.send_queue) == (0, 40859858, 0, 0)
    info = found.info
    assert info is not None
    assert (info.rtt, info.rttvar, info.min_rtt) == pytest.approx((1.7e-05, 9e-06, 3e-06))
    assert info.rto == pytest.approx(0.204)
    assert (info.cwnd, info.mss, info.pmtu) == (11, 35328, 65535)
    assert (info.sent, info.received, info.retransmitted) == (
        1001,
        0,
        0,
    )  # the SYN is acknowledged as a byte (RFC 9293 3.4)
    assert info.delivery_rate == 11_776_000_000


def test_an_older_kernel_says_less() -> None:
    info = netlink.attributes(CONNECTION[sockets.ANSWER.size :])[sockets.INET_DIAG_INFO]
    short = tcpinfo.parse(info[:104])
    assert short.rtt == tcpinfo.parse(info).rtt
    assert (short.sent, short.delivery_rate, short.min_rtt) == (0, 0, 0.0)


NAME_1 = socket.if_indextoname(1)


def test_a_neighbour_and_a_route() -> None:
    neighbour = links.parse_neighbour(NEIGHBOUR)
    assert neighbour is not None
    assert (neighbour.address, neighbour.link_address, neighbour.state) == ("192.0.2.1", "02:fc:00:00:00:05", "stale")
    route = links.parse_route(ROUTE)
    assert route is not None
    assert (route.network, route.kind, route.hops, route.metric) == ("0.0.0.0/0", "", f"via 192.0.2.1 dev {NAME_1}", 0)
    local = ROUTE[:4] + b"\xff" + ROUTE[5:]
    assert links.parse_route(local) is None


def attribute(kind: int, value: bytes) -> bytes:
    return netlink.ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


LINKS = [
    (links.IS_UP | links.LOWER_UP, 6, "up"), (links.IS_UP | links.LOWER_UP, 0, "up"), (links.IS_UP, 2, "no carrier"),
    (0, 2, "administratively down"), (links.IS_UP | links.LOWER_UP, 5, "dormant"),
]  # fmt: skip


def test_links() -> None:
    """A name in UTF-8; and the states that a link may be in."""
    stats = links.COUNTERS.pack(*range(1, 25))
    for flags, operstate, state in LINKS:
        message = links.LINK.pack(0, 0, 7, flags, 0) + b"".join(
            [
                attribute(links.NAME, "aü1".encode() + b"\0"), attribute(links.MTU, struct.pack("=I", 1300)),
                attribute(links.OPERSTATE, bytes([operstate])), attribute(links.STATS64, stats),
                attribute(links.LINK_ADDRESS, bytes.fromhex("02fc00000005")),
            ]
        )  # fmt: skip
        found = links.parse_link(message)
        assert found[:5] == (7, "aü1", state, 1300, "02:fc:00:00:00:05")
    assert found.traffic == links.Traffic(3, 1, 5, 7 + 16, 4, 2, 6, 8), "what the device missed is dropped, too"


def test_a_wrong_next_hop_is_no_endless_loop() -> None:
    with pytest.raises(ValueError, match="has a length of"):
        links.parse_route(ROUTE + attribute(links.MULTIPATH, links.NEXT_HOP.pack(0, 0, 0, 1)))


def test_counters() -> None:
    text = "Tcp: InSegs MaxConn\nTcp: 12 -1\nTcpExt: TCPTimeouts\nTcpExt: 3\n"
    assert counters.parse(text.splitlines()) == {"Tcp.InSegs": 12, "Tcp.MaxConn": -1, "TcpExt.TCPTimeouts": 3}
    assert counters.parse_ipv6(["Ip6InReceives 3", "Udp6NoPorts\t50"]) == {"Ip6.InReceives": 3, "Udp6.NoPorts": 50}


@pytest.mark.parametrize("length", [0, 15, 1000])
def test_a_wrong_length_is_no_endless_loop(length: int) -> None:
    with pytest.raises(ValueError, match="has a length of"):
        list(netlink.records(netlink.HEADER.pack(length, 1, 0, 0, 0) + bytes(8), netlink.HEADER))
    with pytest.raises(ValueError, match="has a length of"):
        netlink.attributes(netlink.ATTRIBUTE.pack(length % 4 if length < 100 else length, 1) + bytes(8))


def test_messages_and_attributes_begin_at_multiples_of_four() -> None:
    data = netlink.HEADER.pack(21, 9, 0, 0, 0) + b"abcde\0\0\0" + netlink.HEADER.pack(16, netlink.DONE, 0, 0, 0)
    found = [(fields[1], body) for fields, body in netlink.records(data, netlink.HEADER)]
    assert found == [(9, b"abcde"), (netlink.DONE, b"")]
    assert netlink.attributes(struct.pack("=HH5s3xHH", 9, 1, b"abcde", 4, 2)) == {1: b"abcde", 2: b""}


@linux
def test_the_kernel_tells_of_our_own_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far, contextlib.ExitStack() as stack:
            near.sendall(b"x" * 500)
            assert far.recv(500, socket.MSG_WAITALL)
            diag = stack.enter_context(contextlib.closing(Netlink(sockets.NETLINK_SOCK_DIAG)))
            found = {(each.local, each.remote): each for each in sockets.sockets(diag, "tcp")}
            ours, theirs = found[near.getsockname(), near.getpeername()], found[far.getsockname(), far.getpeername()]
            assert ours.state == theirs.state == "established"
            assert theirs.info is not None
            assert theirs.info.received == 500
            assert ours.inode == os.fstat(near.fileno()).st_ino
            assert processes.owners()[ours.inode].endswith(f"({os.getpid()})")
            own = tcpinfo.of(near)
            assert own is not None
            assert own.sent == 501
            listed = list(sockets.sockets(diag, "tcp"))
            assert (server.getsockname(), "listen") in {(each.local, each.state) for each in listed}
            assert sockets.states(diag)["listen"] >= 1


@linux
def test_the_kernel_refuses_with_its_reason() -> None:
    with contextlib.closing(Netlink(sockets.NETLINK_SOCK_DIAG)) as diag:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is asked for below
            list(diag.dump(sockets.SOCK_DIAG_BY_FAMILY, b""))
        assert caught.value.errno == errno.EINVAL
        assert set(sockets.states(diag)) <= set(sockets.STATES.values()), "and answers the next request"


@linux
def test_the_kernel_tells_of_the_loopback_interface() -> None:
    with contextlib.closing(Netlink(links.NETLINK_ROUTE)) as route:
        (lo,) = [each for each in links.interfaces(route) if each.name == "lo"]
        assert lo.state == "up"
        assert "127.0.0.1/8" in links.addresses(route)[lo.number]
        assert links.speed("lo") is None


def test_a_socket_of_another_kind_has_no_tcp_info() -> None:
    with socket.socket(socket.AF_UNIX) as other:
        assert tcpinfo.of(other) is None
