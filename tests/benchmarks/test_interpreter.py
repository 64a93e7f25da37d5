"""The build options of a Python that a report names."""

from __future__ import annotations

import platform
import sys
import sysconfig

import pytest

from benchmarks.interpreter import build_options


@pytest.mark.parametrize(
    ("variables", "prefix", "options"),
    [
        ([0, "'--prefix=/x'", "-O3"], "/opt", []),
        ([1, "'--disable-gil' '--enable-optimizations'", "-O3"], "/opt", ["free-threaded", "profile-guided"]),
        ([None, "", "-O3 -fprofile-use"], "/opt", ["profile-guided"]),
        ([None, None, None], "/usr", ["of Debian GNU/Linux"]),
    ],
)
def test_a_report_names_the_build_of_its_python(
    variables: list[object], prefix: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_vars", lambda *names: variables)
    monkeypatch.setattr(sys, "base_prefix", prefix)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"NAME": "Debian GNU/Linux"})
    assert build_options() == options


def test_a_system_without_a_release_file_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert not any(option.startswith("of ") for option in build_options())
