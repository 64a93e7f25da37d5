"""Who comes in, and who has to leave for that when there is no room.

There is none when a process has as many connections as `max_connections` allows, or no descriptors left. Newcomers are not
refused then, since that is what a flood of clients that say nothing is after: of those who wait, one leaves for each who comes.
First go handshakes that are not finished, the oldest first, then connections whose next head has not come, or not whole,
those first that their time limit would have closed first. A request that runs, or that has begun to be answered, stays;
where all do, newcomers wait in the kernel's line.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from time import monotonic

from microwsgi.options import Options
from microwsgi.server.connection import NEVER, Connection
from microwsgi.server.environ import Environ
from microwsgi.server.poller import PortablePoller

ACCEPTS = 64
"""Connections that are accepted before those that are there already have their turn."""
RETRY = 0.5
"""Seconds without accepting when nobody can leave."""
IDLE = {"read_head", "greet", "shake"}
"""Steps in which a connection has nothing under way that is worth waiting for."""
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


class Admission:
    """What a server does for those who come; only its leader calls it."""

    options: Options
    listeners: list[socket.socket]
    bases: dict[int, Environ]
    connections: dict[int, Connection]
    handler_class: type[Connection]
    poller: PortablePoller
    listen_at: float
    short: int  # how many connections there were when there was no room last; 0 while there is

    def accept(self, descriptor: int) -> None:
        """Take the connections that have come. Their first requests are often here, too."""
        listener = next(listener for listener in self.listeners if listener.fileno() == descriptor)
        most = self.options.max_connections or NEVER
        waiting: deque[Connection] = deque()
        for number in range(ACCEPTS):
            full = len(self.connections) >= most
            if full:
                waiting = waiting or self.those_who_wait()
                if not waiting:
                    if not number:  # else nobody may be there; if somebody is, there is another event
                        self.rest_from_accepting(f"{most} are the most (--max-connections)")
                    return
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                if len(self.connections) * 4 < self.short * 3:  # not at the first who leaves: it is the same shortage
                    self.short = 0
                return
            except ConnectionError:
                continue
            except OSError as error:
                waiting = waiting or self.those_who_wait()
                if error.errno in NO_DESCRIPTORS and close_one(waiting):
                    self.run_short(error.strerror)
                    continue
                self.rest_from_accepting(error.strerror)
                return
            connection.setblocking(False)
            if full:
                self.run_short(f"{most} are the most (--max-connections)")
                close_one(waiting)
            self.take_in(self.handler_class.connected(connection, address, self, self.bases[descriptor]))  # type: ignore[arg-type]  # a server is a Gateway, too

    def those_who_wait(self) -> deque[Connection]:
        """Who may be closed for a newcomer, who is worth least first."""
        found = [each for each in list(self.connections.values()) if not each.owned and each.step in IDLE]
        found.sort(key=lambda each: (each.step == "read_head", each.deadline))
        return deque(found)

    def run_short(self, why: object) -> None:
        """Tell of a shortage, once for as long as it lasts."""
        if not self.short:
            self.log_error(
                f"No room for more connections: {why}. Those that wait are closed for those that come, or these wait."
            )
        self.short = max(self.short, len(self.connections), 1)

    def rest_from_accepting(self, why: object) -> None:
        """Serve those who are here, and try again when some may have left."""
        self.run_short(why)
        self.listen_at = monotonic() + RETRY
        self.watch(self.listen_at)
        for descriptor in self.bases:
            self.poller.unregister(descriptor)

    # --- The rest of the server -----------------------------------------------------------------------------------------

    def take_in(self, handler: Connection) -> None:
        """A connection has come."""
        raise NotImplementedError

    def watch(self, deadline: float) -> None:
        """Look for who is late no later than this."""
        raise NotImplementedError

    def log_error(self, text: str) -> None:
        """Write a line where errors go."""
        raise NotImplementedError


def close_one(waiting: deque[Connection]) -> bool:
    """Close the first of these whose client has not asked for something just now."""
    while waiting:
        handler = waiting.popleft()
        if handler.step != "read_head" or silent(handler.connection):
            handler.close()
            return True
    return False


def silent(connection: socket.socket) -> bool:
    """Whether there is nothing to read, but an end or an error."""
    try:
        return not socket.socket.recv(
            connection, 1, socket.MSG_PEEK
        )  # past TLS: it is asked whether anything came at all
    except OSError:
        return True
