"""The committed reports of scripts/aot_report.py are of the tiles that the kernels run with, and nothing spills."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from attentions.kernels.anchor.tiles import TILES, Tile

REPORTS = sorted((Path(__file__).parents[3] / "results" / "compiler").glob("anchor_triton_*.csv"))
KERNELS = {
    "gather": "gather_kernel", "gather_blocked": "gather_kernel", "scatter": "scatter_kernel",
    "differentiate": "backward_kernel", "single_forward": "single_forward_kernel",
    "single_backward": "single_backward_kernel", "single_forward_few": "single_forward_kernel",
    "single_backward_few": "single_backward_kernel", "denominator": "denominator_kernel",
    "scatter_blocked": "scatter_blocked_kernel", "tokens": "backward_tokens_kernel",
    "anchors": "backward_anchors_kernel",
}  # fmt: skip


@pytest.fixture(scope="module")
def reports() -> pd.DataFrame:
    return pd.concat([pd.read_csv(path) for path in REPORTS])


def rows(
    reports: pd.DataFrame, role: str, bits: int, m_pad: int, d_pad: int, generation: int, tile: Tile
) -> pd.DataFrame:
    """The reports' rows of an entry of the table of tiles, whatever n, m and d."""
    whole = max((m for (name, *of, m, d) in TILES if (name, *of, d) == ("gather", bits, d_pad)), default=0)
    least, most = (m_pad // 2 if m_pad > 16 else 0, m_pad) if m_pad else (whole, 10**9)
    return reports[
        (reports.kernel == KERNELS[role]) & (reports.dtype == {16: "bfloat16", 32: "float32"}[bits])
        & (reports.capability == generation) & reports.d.between(d_pad // 2 + 1, d_pad)
        & (reports.m > least) & (reports.m <= most) & (reports.tokens == tile.tokens)
        & (reports.anchors == (tile.anchors or m_pad)) & (reports.warps == tile.warps) & (reports.stages == tile.stages)
    ]  # fmt: skip


def test_the_oldest_and_the_pinned_compiler_are_reported() -> None:
    assert [path.stem for path in REPORTS] == ["anchor_triton_3.6.0", "anchor_triton_3.9.0"]


def test_nothing_spills_and_everything_fits(reports: pd.DataFrame) -> None:
    assert (reports.shared_bytes <= reports.shared_limit_bytes).all()
    assert (reports.spilled_bytes == 0).all(), reports[reports.spilled_bytes > 0]


@pytest.mark.parametrize("key", TILES, ids=lambda key: "-".join(map(str, key)))
def test_a_tile_is_the_one_reported_and_the_table_knows_how_many_are_resident(
    key: tuple[str, int, int, int], reports: pd.DataFrame
) -> None:
    for generation, tile in TILES[key].items():
        found = rows(reports, *key, generation, tile)
        assert set(found.triton) == {"3.6.0", "3.9.0"}, "run scripts/aot_report.py again"
        assert found.resident.min() == tile.resident >= 1
