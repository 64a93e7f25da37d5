"""How `make compat` judges answers, and that every product has a summary, packages and checks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.compat.__main__ import PAGE, Result, judge, product_modules, summary_of
from tests.compat.page import page
from tests.compat.servers import SERVERS
from tests.tables import Rows

FAILED = "FAILED: an error"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    # the answers of servers to a check, attributes of the product: the numbers of explained and unexplained differences
    "equal to both peers": ({"serve": 1, "gthread": 1, "waitress": 1}, {}, 0, 0),
    "equal to one peer": ({"serve": 1, "gthread": 2, "waitress": 1}, {}, 0, 0),
    "equal to none": ({"serve": 1, "tls": 3, "gthread": 2, "waitress": 2}, {}, 0, 2),
    "failed everywhere": ({"serve": FAILED, "gthread": FAILED, "waitress": FAILED}, {}, 0, 1),
    "failed on the peers only": ({"serve": 1, "gthread": FAILED, "waitress": FAILED}, {}, 0, 0),
    "failed on one peer, and unlike the other": ({"serve": 1, "gthread": FAILED, "waitress": 2}, {}, 0, 1),
    "no peer was asked": ({"serve": 1}, {}, 0, 0),
    "with a reason": ({"serve": 1, "tls": 1, "gthread": 2}, {"DIFFERENCES": {"check": "so"}}, 2, 0),
    "with a reason for another server": ({"serve": 1, "gthread": 2}, {"DIFFERENCES": {"check on tls": "so"}}, 0, 1),
    "others compared with ours": ({"serve": 1, "uwsgi": 2, "wsgiref": 1}, {"REFERENCE": "serve"}, 0, 1),
}


def test_answers_are_judged() -> None:
    with Rows() as rows:
        for name, (answers, attributes, explained, faults) in CASES.items():
            with rows(name):
                module: Any = SimpleNamespace(**attributes)
                found = judge(module, {server: {"check": answer} for server, answer in answers.items()})
                assert [len(each) for each in found] == [explained, faults]


def test_a_peer_that_does_not_start_is_not_compared_with() -> None:
    module: Any = SimpleNamespace()
    assert judge(module, {"serve": {"check": 1}, "waitress": {"start": FAILED}}) == ([], [])
    assert len(judge(module, {"serve": {"start": FAILED}, "waitress": {"check": 1}})[1]) == 1


def test_the_page_keeps_the_rows_of_products_without_a_recorded_run() -> None:
    """In a fresh clone, where a contributor runs one product, no run of the others is recorded."""
    before = PAGE.read_text()
    known = product_modules([])
    none = [
        Result(name, summary_of(name, known[name]), {}, {}, [], [], "No run is recorded.") for name in sorted(known)
    ]
    system = before.partition("Last run with ")[2].partition(".\n")[0]
    assert [line for line in page(none, system, before).splitlines() if line.startswith("| ")] == [
        line for line in before.splitlines() if line.startswith("| ")
    ]
    answers: dict[str, dict[str, Any]] = {
        "serve": {"one": 1, "two": 2},
        "gthread": {"one": 1, "two": FAILED},
        "waitress": {"one": FAILED, "two": FAILED},
    }
    new = Result(none[0].name, none[0].summary, {"x": "1"}, answers, [("serve", "one", "so")], [], "", "2026-01-02")
    text = page([new, *none[1:]], system, before)
    assert f"| {new.summary} | x 1 | 2026-01-02 | 2 | 1 differs: see below |" in text
    assert f"| {new.name} | one | serve | so |" in text
    assert f"| {new.name} | waitress | one, two |" in text
    assert all(f"\n| {each.summary} | " in text for each in none if f"\n| {each.summary} | " in before)


def test_every_product_is_complete() -> None:
    with Rows() as rows:
        for name, module in product_modules([]).items():
            with rows(name):
                checks = {key.removeprefix("check_") for key in vars(module) if key.startswith("check_")}
                assert checks
                assert (module.__doc__ or "").splitlines()[0].endswith(".")
                assert isinstance(module.PACKAGES, list)
                assert callable(module.application)
                assert {*getattr(module, "SERVERS", [])} <= {*SERVERS}
                for key in getattr(module, "DIFFERENCES", {}):
                    check, _, server = key.partition(" on ")
                    assert check in checks | {"start", "tracebacks"}, key
                    assert not server or server in SERVERS, key
