"""The outcome of a probe: three independent facts.

Packet loss, the round-trip time of an answer of any kind, and pass or fail with its reason. A refused connection is a failure
without packet loss; a page that is too slow was answered and did not pass.
"""

from __future__ import annotations

import errno
import ssl
import time
from enum import StrEnum
from typing import Any, NamedTuple, Self


class Reason(StrEnum):
    """Why a probe passed or failed, in the words of the field, and what that means."""

    meaning: str

    def __new__(cls, text: str, meaning: str) -> Self:
        self = str.__new__(cls, text)
        self._value_, self.meaning = text, meaning
        return self

    @classmethod
    def of(cls, text: str) -> Reason | None:
        """The reason that a text begins with, as Outcome.why does."""
        return next((each for each in cls if text.startswith(each)), None)

    OK = "ok", "The target answered as expected."
    NO_ANSWER = "no answer", "A filter drops packets, the host is down, or the route is broken."
    TIMEOUT = "timeout", "The target answered, but the whole probe did not end in time."
    REFUSED = "connection refused", "Nothing listens on the port, or a filter refuses connections (TCP RST)."
    RESET = "connection reset", "The connection was made and then reset."
    NO_NEIGHBOUR = (
        "no ARP or ND reply",
        "The host, or the gateway, does not answer ARP or neighbour discovery on its link.",
    )
    INTERFACE_DOWN = "interface down", "The interface of this machine on the route to the target carries no packets."
    NO_ROUTE = "no route", "This machine has no route to the address."
    NET_UNREACHABLE = "network unreachable", "A router has no route to the network (ICMP)."
    HOST_UNREACHABLE = "host unreachable", "A router cannot reach the host on its link (ICMP)."
    PORT_UNREACHABLE = (
        "port unreachable",
        "Nothing listens on the UDP port; for TCP: a filter rejects connections (ICMP).",
    )
    PROHIBITED = "administratively prohibited", "A filter rejects the packets and says so (ICMP)."
    NXDOMAIN = "name does not exist", "The name server says that there is no such name (NXDOMAIN)."
    NO_ADDRESS = "name has no address", "The name exists and has no address."
    SERVFAIL = "name server failure", "The name server could not answer (SERVFAIL, REFUSED)."
    NO_NAME_SERVER = "no name server", "No name server is configured, or nothing listens there."
    NAME_TIMEOUT = "name server timeout", "No name server answered in time."
    TLS_EXPIRED = "certificate expired", "The certificate must be renewed, or the clock of this machine is wrong."
    TLS_NOT_YET = "certificate not valid yet", "It will be valid later, or the clock of this machine is wrong."
    TLS_SELF_SIGNED = "self-signed certificate", "No authority that this machine trusts has signed the certificate."
    TLS_UNTRUSTED = "certificate not trusted", "Its chain does not end at an authority that this machine trusts."
    TLS_NAME = "certificate for another name", "The certificate is valid, but not for this name."
    TLS = "TLS error", "The TLS handshake failed."
    STATUS = "unexpected status", "The status is not one of those expected: 2xx, if the configuration has no other."
    CUT = "response cut off", "The connection ended before the response was complete."
    INVALID = "invalid response", "The answer does not follow the protocol."
    NOT_ALLOWED = "not allowed by the configuration", "The address is not in a network that may be probed."
    LOCAL = "local error", "This machine could not send the probe; that says nothing of the target."


UNSENT = {
    Reason.NXDOMAIN, Reason.NO_ADDRESS, Reason.SERVFAIL, Reason.NO_NAME_SERVER, Reason.NAME_TIMEOUT, Reason.NOT_ALLOWED,
    Reason.LOCAL, Reason.NO_ROUTE, Reason.INTERFACE_DOWN,
}  # fmt: skip
"""Failures before a packet left for the target: they are no packet loss."""
REJECTIONS = {
    Reason.REFUSED, Reason.NET_UNREACHABLE, Reason.HOST_UNREACHABLE, Reason.PORT_UNREACHABLE, Reason.PROHIBITED,
}  # fmt: skip
"""Answers of a host or a router that refuses the packet."""

DATES = {Reason.TLS_EXPIRED: "expires", Reason.TLS_NOT_YET: "valid from"}
"""The fact that tells since when, or until when, a certificate is not valid."""


class Failed(Exception):
    """A probe failed for this reason; the text says more, `sender` is the device that rejected the packet."""

    def __init__(self, reason: Reason, text: str = "", sender: str = "") -> None:
        super().__init__(text)
        self.reason, self.sender = reason, sender


class Outcome(NamedTuple):
    """One probe."""

    reason: Reason
    seconds: float | None = None
    """The time until the answer was complete; of a refusal, until that."""
    received: bool = False
    """Whether the first packet was answered by the target, be it with a refusal, and did not have to be sent again."""
    address: str = ""
    sender: str = ""
    """The device that rejected the packet, or the interface that is down."""
    phases: dict[str, float] = {}  # never changed
    facts: dict[str, Any] = {}

    @property
    def passed(self) -> bool:
        return self.reason is Reason.OK

    @property
    def why(self) -> str:
        """The reason, and the device that rejected the packet, the interface, or the date of the certificate."""
        if date := self.facts.get(DATES.get(self.reason, "")):
            return f"{self.reason} ({time.strftime('%F %T', time.localtime(date))}, {self.facts.get('subject')})"
        if not self.sender:
            return str(self.reason)
        words = {Reason.REFUSED: "{} by {}", Reason.INTERFACE_DOWN: "{}: {}"}.get(self.reason, "{} (ICMP from {})")
        return words.format(self.reason, self.sender)

    @property
    def sent(self) -> bool:
        return self.reason not in UNSENT


ERRORS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    **dict.fromkeys((errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED), Reason.RESET),
    errno.ETIMEDOUT: Reason.NO_ANSWER,
    **dict.fromkeys((errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN), Reason.NO_ROUTE),
    **dict.fromkeys((errno.EHOSTUNREACH, errno.EHOSTDOWN), Reason.HOST_UNREACHABLE),
}
"""Of errors that the system has no ICMP message for."""
LOCAL_ROUTES = {
    errno.EACCES: "a prohibit route or a filter of this machine",
    errno.EINVAL: "a blackhole route of this machine",
}
VERIFY = {
    9: Reason.TLS_NOT_YET,
    10: Reason.TLS_EXPIRED,
    18: Reason.TLS_SELF_SIGNED,
    62: Reason.TLS_NAME,
    64: Reason.TLS_NAME,
}
"""OpenSSL's numbers (X509_V_ERR_...)."""


def reason_of(error: OSError) -> tuple[Reason, str]:
    """The reason that an error of the system stands for, and its message."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VERIFY.get(error.verify_code, Reason.TLS_UNTRUSTED), error.verify_message
    if isinstance(error, ssl.SSLError):
        return Reason.TLS, (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, TimeoutError) and error.errno is None:  # Python's own
        return Reason.NO_ANSWER, ""
    if error.errno in LOCAL_ROUTES:
        return Reason.NO_ROUTE, LOCAL_ROUTES[error.errno]
    reason = ERRORS.get(error.errno or 0, Reason.LOCAL)
    return reason, "" if reason in {Reason.REFUSED, Reason.RESET} else error.strerror or str(error)
