"""The same bytes to our parser and to h11: no message is read in two ways, and who refuses what is known.

Every disagreement has a name and its reason in docs/conformance.md, and happens here at least once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import h11
import pytest
from hypothesis import example, given, settings, strategies

from tests.effort import examples
from tests.tables import Rows
from tests.wire.cases import cases
from tests.wire.exchange import Outcome, read
from tests.wire.test_properties import WIRE, damaged, messages

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
KINDS = ("accepted", "refused")


class Disagreement(NamedTuple):
    """What one refuses and the other accepts."""

    name: str
    reason: str
    """A regular expression for what the one that refuses says."""


OURS = [
    Disagreement("line ends", "contains (a bare|a control)|does not end with CR LF"),
    Disagreement("folded lines", "folded lines are refused"),
    Disagreement("Host", "not a valid value for the Host|one Host field"),
    Disagreement("targets", "not a target for|not a valid authority|has a fragment"),
    Disagreement("CONNECT", "^CONNECT asks|target of CONNECT"),
    Disagreement("versions", "^This server speaks"),
    Disagreement(
        "framing",
        "both Content-Length and|1.0 request must not have Transfer-Encoding|supported transfer coding is chunked",
    ),
    Disagreement("chunk lines", "A chunk must begin with its size"),
    Disagreement("limits", "limit|longer than|more than|exceed max_header"),
    Disagreement("expectations", "can't meet the expectation"),
    Disagreement("trailer lines", "A trailer is not a field line"),
]
"""What we refuse and h11 accepts, by what we say."""

THEIRS = [
    Disagreement("empty lines", "no request line received"),
    Disagreement("chunk extensions", "illegal chunk header"),
    Disagreement("lengths", "bad Content-Length"),
    Disagreement("trailers", "Only Transfer-Encoding: chunked|Content-Length|Transfer-Encoding|Host"),
]
"""What h11 refuses and we accept, by what it says."""


class Theirs(NamedTuple):
    """h11's reading of a connection."""

    requests: list[dict[str, Any]]
    status: int | None
    reason: str


CLOSES = "reads nothing more on this connection"


def read_with_h11(data: bytes) -> Theirs:
    """What h11 makes of a connection's bytes, each request answered at once."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    requests: list[dict[str, Any]] = []
    request: dict[str, Any] = {}
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = {
                    "method": event.method.decode(),
                    "target": event.target.decode("latin-1"),
                    "version": f"HTTP/{event.http_version.decode()}",
                    "fields": pairs(event.headers),
                    "body": "",
                }
            elif isinstance(event, h11.Data):
                request["body"] += bytes(event.data).decode("latin-1")
            elif isinstance(event, h11.EndOfMessage):
                requests.append({**request, "trailers": pairs(event.headers)})
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE or connection.our_state is h11.CLOSED:
                    return Theirs(requests, None, CLOSES)
                connection.start_next_cycle()
            else:  # it needs more data
                return Theirs(requests, None, "")
    except h11.RemoteProtocolError as error:
        return Theirs(requests, error.error_status_hint, str(error))


def pairs(headers: Any) -> list[list[str]]:
    """All of h11's fields, with names as sent."""
    return [[name.decode(), value.decode("latin-1")] for name, value in headers.raw_items()]


def comparable(request: dict[str, Any]) -> dict[str, Any]:
    """A request without what h11 normalises: the two framing fields."""
    kept = [pair for pair in request["fields"] if pair[0].lower() not in {"content-length", "transfer-encoding"}]
    return {**{key: request[key] for key in ("method", "target", "version", "body", "trailers")}, "fields": kept}


def disagreement(ours: Outcome, theirs: Theirs) -> tuple[str, str] | None:
    """Who refuses what the other accepts, and the name of it; None where both do the same. Fails where it is unknown."""
    for our, their in zip(ours.requests, theirs.requests, strict=False):
        assert comparable(our) == comparable(their), "one message read in two ways"
    count, read_by_both = len(ours.requests), len(theirs.requests)
    if theirs.reason == CLOSES and (read_by_both < count or (read_by_both == count and ours.status is not None)):
        # It has no keep-alive for HTTP/1.0, and does not see what stands behind such a request.
        assert ours.requests[read_by_both - 1]["version"] == "HTTP/1.0"
        return "h11", "persistence"
    if ours.status is not None and not (theirs.status and len(theirs.requests) <= count):
        return "microwsgi", name_of(OURS, ours.reason)
    if theirs.status is not None and len(theirs.requests) < count:
        return "h11", name_of(THEIRS, theirs.reason)
    assert read_by_both == count
    return None


def name_of(known: list[Disagreement], reason: str) -> str:
    """The disagreement that this reason belongs to."""
    for entry in known:
        if re.search(entry.reason, reason):
            return entry.name
    pytest.fail(f"a disagreement that nobody has explained: {reason}")


@given(data=damaged() | strategies.lists(messages().map(lambda message: message[0]), max_size=3).map(b"".join))
@settings(WIRE, max_examples=examples(1500))
@example(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost\r\n")
def test_no_message_is_read_in_two_ways_and_each_disagreement_is_known(data: bytes) -> None:
    ours, theirs = read([data]), read_with_h11(data)
    if ours.status is not None and theirs.status is None and theirs.reason != CLOSES:
        theirs = read_with_h11(
            data + b"\r\n\r\n"
        )  # we refuse a head before its end has arrived, and h11 waits for that
    disagreement(ours, theirs)


def test_legal_messages_of_the_wire_cases_are_read_alike_but_for_known_disagreements() -> None:
    with Rows() as rows:
        for case in cases("accepted"):
            with rows(case.name):
                found = disagreement(read([case.data]), read_with_h11(case.data))
                assert found is None or found[0] == "h11"


def test_each_disagreement_is_explained_and_still_there() -> None:
    found = {disagreement(read([case.data]), read_with_h11(case.data)) for kind in KINDS for case in cases(kind)}
    expected = {("microwsgi", entry.name) for entry in OURS} | {("h11", entry.name) for entry in THEIRS}
    assert found - {None} == expected | {("h11", "persistence")}
    text = DOCUMENT.read_text()
    for side, name in expected | {("h11", "persistence")}:
        assert f"| {side} | {name} |" in text
