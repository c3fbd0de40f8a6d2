"""What scripts/anchor_schedules.py would time, without a device."""

from __future__ import annotations

import pytest
import torch
from scripting import load


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_candidates_can_be_planned_and_single_stands_beside_split_where_it_is_to_be_had(phase: str) -> None:
    pytest.importorskip("triton")
    script = load("anchor_schedules")
    for b, h, n, m in (*script.CASES, (8, 12, 2048, 64)):
        k, anchors = torch.empty(b, h, n, 64, dtype=torch.bfloat16, device="meta"), torch.empty(m, 64, device="meta")
        split, *single = script.candidates(k, anchors, phase)
        assert split.schedule == "split"
        assert [x.schedule for x in single] == (["single"] * len(script.TILES) if n <= 1024 else [])
        planned = [script._planned(phase, k, k, k, anchors, choice) for choice in (split, *single)]
        tiles = {(x.launches[0].constants["BLOCK_N"], x.launches[0].warps, x.launches[0].stages) for x in planned[1:]}
        assert tiles == (set(script.TILES) if single else set())
