"""Runs that several tests read: written once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import write_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phase and dtype, four n, two m, with an oom, an unavailable and an unsupported variant."""
    return write_run(
        tmp_path_factory.mktemp("runs") / "small", sizes=(64, 1024, 4096, 32768), anchors=(16, 64),
        phases=("forward",), dtypes=("float32",),
    )  # fmt: skip


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases and dtypes, two n, two m."""
    return write_run(tmp_path_factory.mktemp("runs") / "wide", sizes=(1024, 4096), anchors=(16, 64))
