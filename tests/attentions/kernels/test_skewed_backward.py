"""scripts/anchor_forms/skewed_backward.py: values under the interpreters, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable


def test_values_under_the_interpreters(interpreted: Callable[[], None]) -> None:
    interpreted()
