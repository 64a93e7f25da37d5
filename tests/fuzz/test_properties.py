"""The fuzzers' properties on their seeds, so that they hold before any fuzzing."""

from __future__ import annotations

import pytest

from tests.fuzz.properties import PROPERTIES, seeds
from tests.tables import Rows


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "handler" else name for name in PROPERTIES]
)
def test_the_property_holds_for_the_seeds(name: str) -> None:
    found = seeds(name)
    assert len(found) > 100
    with Rows() as rows:
        for data in found:
            with rows(data):
                PROPERTIES[name](data)
