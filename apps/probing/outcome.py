"""The outcome of a probe: three independent facts.

Packet loss, the round-trip time of an answer of any kind, and pass or fail with its reason. A refused connection is a failure
without packet loss; a page that is too slow was answered and did not pass.
"""

from __future__ import annotations

import errno
import ssl
from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why a probe passed or failed, in the words of the field."""

    OK = "ok"
    NO_ANSWER = "no answer"
    TIMEOUT = "timeout"
    REFUSED = "connection refused"
    RESET = "connection reset"
    NO_NEIGHBOUR = "no ARP or ND reply"
    NO_ROUTE = "no route"
    NET_UNREACHABLE = "network unreachable"
    HOST_UNREACHABLE = "host unreachable"
    PORT_UNREACHABLE = "port unreachable"
    PROHIBITED = "administratively prohibited"
    NXDOMAIN = "name does not exist"
    NO_ADDRESS = "name has no address"
    SERVFAIL = "name server failure"
    NO_NAME_SERVER = "no name server"
    NAME_TIMEOUT = "name server timeout"
    TLS_EXPIRED = "certificate expired"
    TLS_SELF_SIGNED = "self-signed certificate"
    TLS_UNTRUSTED = "certificate not trusted"
    TLS_NAME = "certificate for another name"
    TLS = "TLS error"
    STATUS = "unexpected status"
    CUT = "response cut off"
    INVALID = "invalid response"
    NOT_ALLOWED = "not allowed by the configuration"
    LOCAL = "local error"


MEANINGS = {
    Reason.OK: "The target answered as expected.",
    Reason.NO_ANSWER: "Nothing came back in time: a filter drops packets, the host is down, or the route is broken.",
    Reason.TIMEOUT: "The target answered, but the whole probe did not end in time.",
    Reason.REFUSED: "The host is there, and nothing listens on the port (TCP RST).",
    Reason.RESET: "The connection was made and then reset.",
    Reason.NO_NEIGHBOUR: "The host, or the gateway, does not answer ARP or neighbour discovery on its link.",
    Reason.NO_ROUTE: "This machine has no route to the address.",
    Reason.NET_UNREACHABLE: "A router has no route to the network (ICMP).",
    Reason.HOST_UNREACHABLE: "A router cannot reach the host on its link (ICMP).",
    Reason.PORT_UNREACHABLE: "The host is there, and nothing listens on the port (ICMP).",
    Reason.PROHIBITED: "A filter rejects the packets and says so (ICMP).",
    Reason.NXDOMAIN: "The name server says that there is no such name (NXDOMAIN).",
    Reason.NO_ADDRESS: "The name exists and has no address.",
    Reason.SERVFAIL: "The name server could not answer (SERVFAIL, REFUSED).",
    Reason.NO_NAME_SERVER: "No name server is configured, or nothing listens there.",
    Reason.NAME_TIMEOUT: "No name server answered in time.",
    Reason.TLS_EXPIRED: "The certificate has expired, or is not valid yet.",
    Reason.TLS_SELF_SIGNED: "No authority that this machine trusts has signed the certificate.",
    Reason.TLS_UNTRUSTED: "The certificate's chain does not end at an authority that this machine trusts.",
    Reason.TLS_NAME: "The certificate is valid, but not for this name.",
    Reason.TLS: "The TLS handshake failed.",
    Reason.STATUS: "The response has a status that is not expected (2xx, if the configuration has no other).",
    Reason.CUT: "The connection ended before the response was complete.",
    Reason.INVALID: "The answer does not follow the protocol.",
    Reason.NOT_ALLOWED: "The address is not in a network that may be probed.",
    Reason.LOCAL: "This machine could not send the probe; that says nothing of the target.",
}
UNSENT = {
    Reason.NXDOMAIN, Reason.NO_ADDRESS, Reason.SERVFAIL, Reason.NO_NAME_SERVER, Reason.NAME_TIMEOUT, Reason.NOT_ALLOWED,
    Reason.LOCAL, Reason.NO_ROUTE,
}  # fmt: skip
"""Failures before a packet left for the target: they are no packet loss."""


class Outcome(NamedTuple):
    """One probe."""

    reason: Reason
    seconds: float | None = None
    """The time until the answer was complete; of a refusal, until that."""
    received: bool = False
    """Whether the first packet was answered by the target, be it with a refusal, and did not have to be sent again."""
    address: str = ""
    phases: dict[str, float] = {}  # never changed
    facts: dict[str, object] = {}

    @property
    def passed(self) -> bool:
        return self.reason is Reason.OK

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
VERIFY = {
    9: Reason.TLS_EXPIRED,
    10: Reason.TLS_EXPIRED,
    18: Reason.TLS_SELF_SIGNED,
    62: Reason.TLS_NAME,
    64: Reason.TLS_NAME,
}
"""OpenSSL's numbers (X509_V_ERR_...); 9 is a certificate that is not valid yet."""


def reason_of(error: OSError) -> tuple[Reason, str]:
    """The reason that an error of the system stands for, and its message."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VERIFY.get(error.verify_code, Reason.TLS_UNTRUSTED), error.verify_message
    if isinstance(error, ssl.SSLError):
        return Reason.TLS, (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, TimeoutError) and error.errno is None:  # Python's own
        return Reason.NO_ANSWER, ""
    reason = ERRORS.get(error.errno or 0, Reason.LOCAL)
    return reason, "" if reason in {Reason.REFUSED, Reason.RESET} else error.strerror or str(error)
