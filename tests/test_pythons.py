"""docs/pythons.md: a run of some Pythons leaves the results of the others on the page."""

from __future__ import annotations

from tests.pythons import PAGE, Result, page


def test_the_results_of_other_pythons_stay_on_the_page() -> None:
    before = PAGE.read_text()
    assert page([], before) == before
    failed = Result("3.12", "Python 3.12.9", "1 failed", ["trustme"], ["tests/test_x.py::test_y"], "2026-01-02")
    after = page([failed], before)
    assert "| 3.12 | Python 3.12.9 | 2026-01-02 | 1 failed |\n" in after
    assert "## 3.12\n\nFailed:\n\n- `tests/test_x.py::test_y`\n\nThere are no wheels of trustme for 3.12" in after
    assert after.index("| 3.11 |") < after.index("| 3.12 |") < after.index("| 3.13 |")
    passed = page([failed._replace(outcome="2 passed", failed=[], without=[])], after)
    assert "| 3.12 | Python 3.12.9 | 2026-01-02 | 2 passed |\n" in passed
    assert "## 3.12" not in passed
