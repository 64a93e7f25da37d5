"""docs/conformance.md names tests and wire cases: each is there, and no wire case is left out."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from tests.tables import Rows
from tests.wire.cases import cases

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "conformance.md").read_text()
CASES = {f"{kind}/{case.name}" for kind in ("accepted", "refused") for case in cases(kind)}
NAMED = sorted(set(re.findall(r"`((?:accepted|refused)/[^`]+)`", TEXT)) - {"accepted/NAME", "refused/NAME"})
TESTS = sorted(set(re.findall(r"`(tests/[^`:]+\.py)::(\w+)`", TEXT)))


def test_each_case_that_is_named_is_there() -> None:
    with Rows() as rows:
        for name in NAMED:
            with rows(name):
                assert any(fnmatch(case, name) for case in CASES), "there is no such case"


def test_each_case_is_named() -> None:
    unnamed = {case for case in CASES if not any(fnmatch(case, name) for name in NAMED)}
    assert not unnamed


def test_each_test_that_is_named_is_there() -> None:
    with Rows() as rows:
        for file, name in TESTS:
            with rows(file, name):
                assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), "there is no such test"


def test_each_file_that_is_named_is_there() -> None:
    with Rows() as rows:
        for path in sorted(set(re.findall(r"`((?:tests|docs|microwsgi)/[^`:*]+)`", TEXT))):
            with rows(path):
                assert (ROOT / path).exists(), "there is no such file"


def test_each_row_of_the_comparison_has_its_test() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| .+? \| (yes|no) \|", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 58))
    assert {ours for _, ours in rows} == {"yes"}
    numbers = re.findall(r"^def test_(\d\d)_", (ROOT / "tests/server/test_conformance.py").read_text(), re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, 58))
