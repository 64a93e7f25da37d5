"""A child of `microwsgi.prefork.supervisor`: what it tells its parent, and what it does when it is told.

The parent steers by words on a channel and not by signals, since applications replace signal handlers.

    serve, show, leave    the answer to "ready" or "failed": serve; serve what went wrong, as there is nothing else; end
    retire                a successor serves: accept nothing more, finish what runs however long it takes, end; tell of what
                          takes long
    stop                  the same within grace_time
    now                   wait for nothing
    prompt                the terminal is yours
    report                tell what you have done so far

When the channel ends, the parent is dead, and the child stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from microwsgi.prefork.channel import Channel
from microwsgi.server.handoff import Handoff
from microwsgi.server.server import WSGIServer

FIRST_REMINDER, LATER = 5.0, 12
"""Seconds after which a retired child tells what it still runs; and how many times as long until the next time."""


class Worker:
    """The child's end of the channel; `orders` has what is done for each word while it serves, and may be added to."""

    def __init__(self, channel: Channel, handoff: Handoff | None, trouble: str = "") -> None:
        self.trouble = trouble  # why the application can't be imported, if a process has ended in the attempt
        self.tell = channel.tell
        self.words = words(channel)
        self.handoff = handoff
        self.on_stop: Callable[[WSGIServer], object] = bool
        self.on_reminder: Callable[[WSGIServer], object] = bool  # what a retired child does to be remembered
        self.on_shut_out: Callable[[], object] = bool  # called when a successor has all that comes
        self.terminal = threading.Semaphore(0)  # released when the parent has given the terminal to this process
        self.orders: dict[str, Callable[[WSGIServer], object]] = {
            "retire": self.retire,
            "stop": self.stop,
            "now": self.end,
            "prompt": lambda _: self.terminal.release(),
            "report": lambda server: self.tell(report=server.stats()),
        }

    def wait_for_word(self) -> str:
        """The parent's next word, before there is a server; "leave" if the parent is dead."""
        return next(self.words, "leave")

    def attend(self, server: WSGIServer) -> None:
        """Do from here on what the parent says, in a thread that rests otherwise."""
        self.grace_time = server.options.grace_time
        server.handoff = self.handoff
        threading.Thread(target=self.obey, args=(server,), name="microwsgi-parent", daemon=True).start()

    def obey(self, server: WSGIServer) -> None:
        """The thread's whole life."""
        for word in self.words:
            self.orders[word](server)
        self.stop(server)

    # --- Orders -----------------------------------------------------------------------------------------------------

    def retire(self, server: WSGIServer) -> None:
        """Leave to the successor all that does not run."""
        server.retire(self.shut_out)
        threading.Thread(target=self.remind, args=(server,), name="microwsgi-retired", daemon=True).start()

    def remind(self, server: WSGIServer) -> None:
        """Tell less and less often what is still waited for; but don't disturb a person at the debugger's prompt."""
        pause = FIRST_REMINDER
        while not server.ended.wait(pause):
            if not server.pauses:
                self.on_reminder(server)
                pause *= LATER

    def shut_out(self) -> None:
        """All that comes from here on is the successor's."""
        self.tell(shut=True)
        self.on_shut_out()

    def stop(self, server: WSGIServer) -> None:
        """The parent's stop."""
        self.finish(server)
        self.on_stop(server)

    def finish(self, server: WSGIServer) -> None:
        """Finish what runs; a retired one, too, has its `grace_time` from now on."""
        server.limit_drain(self.grace_time)
        server.request_stop()

    def end(self, server: WSGIServer) -> None:
        """Wait for nothing."""
        server.limit_drain(0.0)
        server.request_stop()

    # --- The terminal, of which all children have one ---------------------------------------------------------------

    def take_terminal(self) -> None:
        """Wait until the terminal is this process's."""
        self.tell(prompt=True)
        self.terminal.acquire()

    def leave_terminal(self) -> None:
        """The terminal may be another's."""
        self.tell(prompt=False)


def words(channel: Channel) -> Iterator[str]:
    """What the parent says, until it is dead."""
    while (messages := channel.receive()) is not None:
        for message in messages:
            yield str(message["do"])
