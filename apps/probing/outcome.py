"""What came of a probe, in words that tell the cases apart that a network has."""

from __future__ import annotations

import errno
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

ARP = Path("/proc/net/arp")

ANSWERED = "answered"
REFUSED = "refused"
RESET = "reset"
DROPPED = "dropped"
UNREACHABLE = "unreachable"
NO_NEIGHBOUR = "no neighbour"
NOT_ALLOWED = "not allowed"
FAULTY = "faulty"
MEANINGS = {
    ANSWERED: "an answer came",
    REFUSED: "the host is there, nothing listens on the port",
    RESET: "the connection was made, then broken off",
    DROPPED: "no answer came in time: a filter, or the way is broken",
    UNREACHABLE: "a router, or this machine, has no way there",
    NO_NEIGHBOUR: "it should be on this link, and does not answer there",
    NOT_ALLOWED: "this process may not send such probes",
    FAULTY: "something answered, and not as it should",
}


class Outcome(NamedTuple):
    """One probe: its result, the seconds it took if there was an answer, those of its phases, and what was learnt."""

    result: str
    seconds: float | None = None
    phases: dict[str, float] = {}  # noqa: RUF012 - nobody changes it
    facts: dict[str, object] = {}  # noqa: RUF012


NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL)
RESULTS = {
    errno.ECONNREFUSED: REFUSED,
    **dict.fromkeys((errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED), RESET),
    **dict.fromkeys((errno.ETIMEDOUT, errno.EAGAIN), DROPPED),
    **dict.fromkeys((errno.EPERM, errno.EACCES), NOT_ALLOWED),
    **dict.fromkeys(NO_WAY, UNREACHABLE),
}
"""From the system's errors."""


def failed(error: OSError, address: str) -> Outcome:
    """The outcome that an error of the system stands for."""
    if isinstance(error, ssl.SSLError):
        return Outcome(FAULTY, facts={"reason": error.reason or str(error)})
    # A TimeoutError of Python's own has no number.
    result = DROPPED if isinstance(error, TimeoutError) else RESULTS.get(error.errno or 0, FAULTY)
    if result in {DROPPED, UNREACHABLE} and unanswered(address):
        return Outcome(NO_NEIGHBOUR)
    reason = "a filter of this machine forbids it" if result == NOT_ALLOWED else error.strerror
    return Outcome(result, facts={"reason": reason} if result in {NOT_ALLOWED, FAULTY} else {})


def unanswered(address: str) -> bool:
    """Whether the kernel asks the link for this address, and nobody answers: its ARP entry is incomplete (flags 0)."""
    if ipaddress.ip_address(address).version != 4:  # noqa: PLR2004
        return False
    try:
        lines = ARP.read_text().splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[0] == address and line.split()[2] == "0x0" for line in lines)
