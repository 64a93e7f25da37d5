"""tests/tables.py: a table reports every failing row."""

from __future__ import annotations

import pytest

from tests.tables import REPORTED, Rows


def three_failures() -> None:
    with Rows() as rows:
        for number in range(5):
            with rows("number", number):
                if number == 3:
                    raise ValueError("three is wrong")
                if number == 4:
                    pytest.fail("four is wrong")
                assert number != 1, "one is wrong"


def error_between_rows() -> None:
    with Rows() as rows:
        with rows("first"):
            raise AssertionError("wrong")
        raise KeyError("in the loop itself")


def many_failures() -> None:
    with Rows() as rows:
        for number in range(REPORTED + 3):
            with rows(f"row-{number}"):
                raise AssertionError("wrong")


def test_every_failing_row_is_reported_with_its_name_line_and_message() -> None:
    with pytest.raises(AssertionError) as failed:
        three_failures()
    text = str(failed.value)
    assert text.startswith("3 of 5 rows failed:\n")
    for part in (
        "[number 1] ", "one is wrong", "[number 3] ", "ValueError: three is wrong", "[number 4] ", "four is wrong",
        f"{__file__}:", "raise ValueError(",
    ):  # fmt: skip
        assert part in text
    assert "[number 0]" not in text
    assert "[number 2]" not in text


def test_a_table_whose_rows_all_hold_passes() -> None:
    with Rows() as rows:
        for number in range(3):
            with rows(number):
                assert number < 3
    assert rows.count == 3


def test_a_table_without_rows_fails() -> None:
    with pytest.raises(AssertionError, match="no rows"), Rows():
        pass


def test_an_error_between_rows_does_not_hide_the_failures_before_it() -> None:
    with pytest.raises(AssertionError, match="1 of 1 rows failed") as failed:
        error_between_rows()
    assert isinstance(failed.value.__cause__, KeyError)


def test_of_very_many_failures_each_is_named() -> None:
    with pytest.raises(AssertionError) as failed:
        many_failures()
    assert all(f"row-{number}" in str(failed.value) for number in range(REPORTED + 3))
    assert "and 3 more" in str(failed.value)
