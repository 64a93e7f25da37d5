"""A monitor in a hundred lines: `PING=192.0.2.1,router.example microwsgi serve apps.ping:app`.

One thread sends an ICMP echo request a second to each host, as ping(8) does; a page shows the last minute. apps/probe.py has
what a monitor needs beyond this: other kinds of probes, a history, a reason for each failure.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from html import escape
from itertools import count

from microwsgi import App, Request

HOSTS = os.environ.get("PING", "127.0.0.1").split(",")
MINUTE = 60
REQUEST = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier and sequence number: the kernel fills in checksum and identifier."""
ECHO, ECHO_REPLY = 8, 0
PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Ping</title>
<h1>Ping</h1><p>As of {now}.</p><table><tr><th>host<th>packet loss<th>median<th>the last minute{rows}</table>
"""

times: dict[str, deque[float | None]] = {host: deque(maxlen=MINUTE) for host in HOSTS}
"""Of each host the round trips of the last minute in seconds, None for a packet without an answer."""
app = App()


def ping() -> None:
    """Send a request to each host and collect the answers, each second. Names are looked up once."""
    hosts = {address: host for host in HOSTS if (address := lookup(host))}
    # A datagram socket may send echo requests without privileges, if net.ipv4.ping_group_range allows it; the kernel passes on
    # only the replies to this socket.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as connection:
        for second in count():
            began = time.monotonic()
            found = one_second(connection, list(hosts), second & 0xFFFF, began + 1)
            for host, ring in times.items():
                ring.append(next((seconds for address, seconds in found.items() if hosts[address] == host), None))
            time.sleep(max(began + 1 - time.monotonic(), 0))


def lookup(host: str) -> str:
    """The address of a name; "" if it has none."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        return ""


def one_second(connection: socket.socket, addresses: list[str], number: int, end: float) -> dict[str, float]:
    """The round trips of the addresses that answer in time."""
    sent, found = dict[str, float](), dict[str, float]()
    for address in addresses:
        sent[address] = time.perf_counter()
        with contextlib.suppress(OSError):  # no route: there will be no answer
            connection.sendto(REQUEST.pack(ECHO, 0, 0, 0, number), (address, 0))
    while len(found) < len(sent) and (left := end - time.monotonic()) > 0:
        if not select.select([connection], [], [], left)[0]:
            break
        data, (address, _) = connection.recvfrom(1024)
        kind, _, _, _, sequence = REQUEST.unpack_from(data)
        if kind == ECHO_REPLY and sequence == number and address in sent:  # and no late answer of another second
            found[address] = time.perf_counter() - sent[address]
    return found


thread = threading.Thread(target=ping, name="ping", daemon=True)
thread.start()


@app.get("/")
def page(request: Request) -> str:
    return PAGE.format(now=time.strftime("%T"), rows="".join(row(host) for host in HOSTS))


def row(host: str) -> str:
    """A host as HTML: `.` is a packet that was answered, `!` one that was not."""
    kept = list(times[host])
    answered = sorted(seconds for seconds in kept if seconds is not None)
    loss = f"{1 - len(answered) / len(kept):.0%}" if kept else "-"
    median = f"{answered[len(answered) // 2] * 1000:.1f} ms" if answered else "-"
    marks = "".join("!" if seconds is None else "." for seconds in kept)
    return f"<tr><td>{escape(host)}<td>{loss}<td>{median}<td><code>{marks}</code>"
