"""What a machine lacks: a skip that says so, and a failure where it was required."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.programs import need
from tests.running import environment, python

pytestmark = pytest.mark.slow  # runs pytest in processes of its own

CASES = """
import pytest
def test_finds_out_itself(): pytest.skip("no such thing")
def test_imports(): pytest.importorskip("no_such_module")
@pytest.mark.skipif(True, reason="an older Python")
def test_marked(): pass
@pytest.mark.xfail
def test_expected(): assert False
"""


def test_a_program_is_found_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "NAMES", {"chromium": ("no-such-program", "sh")})
    assert Path(need("chromium")).name == "sh"


@pytest.mark.parametrize(
    ("required", "fails"), [([""], False), (["wget"], False), (["chromium"], True), (["all"], True)]
)
def test_without_it_a_test_is_skipped_or_fails(
    monkeypatch: pytest.MonkeyPatch, required: list[str], fails: bool
) -> None:
    monkeypatch.setattr(programs, "REQUIRED", required)
    monkeypatch.setattr(programs, "NAMES", {"chromium": ("no-such-program",)})
    with pytest.raises(pytest.fail.Exception if fails else pytest.skip.Exception, match=r"^chromium is not installed"):
        need("chromium")


@pytest.mark.parametrize(
    ("required", "options", "outcome"),
    [
        ("", [], "3 skipped, 1 xfailed"),
        ("all", [], "2 failed, 1 skipped, 1 xfailed"),
        ("all", ["-n1"], "2 failed, 1 skipped, 1 xfailed"),
    ],
)
def test_where_all_is_required_no_test_skips_itself(
    tmp_path: Path, required: str, options: list[str], outcome: str
) -> None:
    """A mark may still skip one: that depends on the Python or the system, not on what is installed."""
    (tmp_path / "test_cases.py").write_text(CASES)
    command = python(
        "-m", "pytest", "-q", "-c/dev/null", "-p", "tests.conftest", "-p", "no:cacheprovider", *options, str(tmp_path)
    )
    env = environment(MICROWSGI_TEST_REQUIRE=required)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1].startswith(outcome)
