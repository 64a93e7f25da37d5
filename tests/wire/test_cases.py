"""The parsers read every wire case whole, octet by octet and cut in two everywhere, alone and before another request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from microwsgi.options import Options
from tests.tables import Rows
from tests.wire.cases import FOLDER, Case, cases
from tests.wire.exchange import Outcome, read

NEXT = b"GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n"
LONG = 2000
"""Octets of a long case: only `make test-all` reads it octet by octet, and cuts it at about half as many places."""
FEW = 60
"""Places at which `make test` cuts a long case, about."""

STATUSES = {400, 413, 414, 417, 431, 501, 505}

ALL = cases("accepted") + cases("refused")


def cuts(data: bytes, most: int) -> Iterator[tuple[bytes, bytes]]:
    """The data in two parts, in every way; long data at up to `most` places near both ends and evenly between."""
    places = list(range(1, len(data)))
    if len(data) > LONG:
        third = most // 3
        places = sorted({*places[:third], *places[third :: len(data) // third], *places[-third:]})
    return ((data[:place], data[place:]) for place in places)


def octets(data: bytes) -> list[bytes]:
    """The data octet by octet; the middle part of long data in pieces of 16."""
    middle = data[LONG // 2 : -LONG // 2] if len(data) > LONG else b""
    begin, end = (data[: LONG // 2], data[-LONG // 2 :]) if middle else (data, b"")
    pieces = [middle[place : place + 16] for place in range(0, len(middle), 16)]
    return [*single(begin), *pieces, *single(end)]


def single(data: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in data]


def together(data: bytes, follow: bytes) -> Iterator[list[bytes]]:
    """The data and what follows it: in one piece, in two, and octet by octet unless that takes long."""
    yield [data + follow]
    yield [data, follow]
    if len(data) <= LONG:
        yield single(data + follow)


def check(case: Case, outcome: Outcome) -> None:
    """What was accepted, what was refused, and in which order."""
    assert outcome.status == case.status
    assert len(outcome.requests) == case.after
    if case.status is None:
        assert outcome.requests == case.requests


def check_cuts(case: Case, options: Options) -> Outcome:
    """Return the outcome of the whole case: the same as octet by octet and cut in two, wherever the cut is."""
    whole = read([case.data], options)
    check(case, whole)
    assert read(octets(case.data), options)[:2] == whole[:2]
    for cut in cuts(case.data, FEW):
        assert read(cut, options)[:2] == whole[:2], cut
    return whole


def test_accepted() -> None:
    with Rows() as rows:
        for case in cases("accepted"):
            with rows(case.name):
                whole = check_cuts(case, Options(**case.options))
                assert case.persistent <= (whole.unread == b""), "all of a persistent connection's bytes are requests"


def test_refused() -> None:
    with Rows() as rows:
        for case in cases("refused"):
            with rows(case.name):
                check_cuts(case, Options(**case.options))


@pytest.mark.slow
def test_long_cases_octet_by_octet_and_cut_at_many_places() -> None:
    with Rows() as rows:
        for case in ALL:
            if len(case.data) > LONG:
                with rows(case.name):
                    options = Options(**case.options)
                    check(case, read(single(case.data), options))
                    for cut in cuts(case.data, LONG // 2):
                        check(case, read(cut, options))


def test_the_next_request_is_read_only_when_the_connection_persists() -> None:
    with Rows() as rows:
        for case in cases("accepted"):
            with rows(case.name):
                options = Options(**case.options)
                whole = read([case.data + NEXT], options)
                assert whole.status is None
                targets = [request["target"] for request in whole.requests]
                assert targets == [request["target"] for request in case.requests] + ["/next"] * case.persistent
                for pieces in together(case.data, NEXT):
                    assert read(pieces, options)[:2] == whole[:2], pieces


def test_nothing_after_a_refused_message_is_read_as_a_request() -> None:
    with Rows() as rows:
        for case in cases("refused"):
            with rows(case.name):
                options = Options(**case.options)
                for follow in (NEXT, b"\r\n" + NEXT, b"\r\n\r\n" + NEXT):
                    for pieces in together(case.data, follow):
                        check(case, read(pieces, options))


def test_there_are_at_least_250_cases_and_each_has_its_outcome() -> None:
    assert len(ALL) >= 250  # issue 3
    assert len({case.name for case in ALL}) == len(ALL)
    assert len(list(FOLDER.glob("*/*.json"))) == len(ALL)
    assert all(case.rule and case.section.startswith("RFC ") and case.data for case in ALL)
    assert all(case.requests for case in cases("accepted"))
    assert all(case.status in STATUSES for case in cases("refused"))
