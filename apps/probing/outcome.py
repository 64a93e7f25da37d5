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


def failed(error: OSError, address: str) -> Outcome:
    """The outcome that an error of the system stands for."""
    if isinstance(error, ssl.SSLError):
        return Outcome(FAULTY, facts={"reason": error.reason or str(error)})
    if isinstance(error, PermissionError):
        return Outcome(NOT_ALLOWED, facts={"reason": "a filter of this machine forbids it (EPERM)"})
    if isinstance(error, TimeoutError):
        return Outcome(NO_NEIGHBOUR if unanswered(address) else DROPPED)
    if error.errno == errno.ECONNREFUSED:
        return Outcome(REFUSED)
    if error.errno in {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}:
        return Outcome(RESET)
    if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}:
        return Outcome(NO_NEIGHBOUR if unanswered(address) else UNREACHABLE)
    return Outcome(FAULTY, facts={"reason": error.strerror or str(error)})


def unanswered(address: str) -> bool:
    """Whether the kernel asks the link for this address, and nobody answers: its ARP entry is incomplete (flags 0)."""
    if ipaddress.ip_address(address).version != 4:  # noqa: PLR2004
        return False
    try:
        lines = ARP.read_text().splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[0] == address and line.split()[2] == "0x0" for line in lines)
