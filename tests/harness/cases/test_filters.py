"""Rows chosen by the words of a sweep: sizes, dtypes by any name, and problems by what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

from harness.cases.filters import only
from harness.errors import UsageError

TOLD = (
    Told("full", n=64), Told("full", n=128), Told("full", n=128, dtype="bfloat16"),
    Told("full", n=128, options="causal=true"), Told("full", n=128, options="kv_heads=1"),
    Told("full", n=128, options="kv_tokens=64"),
)  # fmt: skip


@pytest.fixture
def frame(tmp_path: Path) -> Any:
    frame = stored(tmp_path / "run", TOLD).frame
    return frame[frame["metric"] == "latency"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 5]), ({"causal": ["True"]}, [3]), ({"causal": ["false"]}, [0, 1, 2, 4, 5]),
        ({"causal": ["true,false"]}, [0, 1, 2, 3, 4, 5]), ({"kv_heads": ["1"]}, [4]),
        ({"kv_heads": ["2"]}, [0, 1, 2, 3, 5]), ({"kv_tokens": ["64"]}, [0, 5]),
        ({"kv_tokens": ["64"], "n": ["128"]}, [5]),
        ({"dtype": ["bf16"]}, [2]), ({"dtype": ["fp32", "bf16"], "n": ["128"]}, [1, 2, 3, 4, 5]),
        ({"heads": ["2"], "head_dim": ["16"], "causal": ["True"]}, [3]),
    ],
)  # fmt: skip
def test_only_these(frame: Any, given: dict[str, list[str]], found: list[int]) -> None:
    wanted = [TOLD[at] for at in found]
    kept = only(frame, **given)
    assert sorted(zip(kept["n"], kept["dtype"], kept["options"], strict=True)) == sorted(
        (one.n, one.dtype, one.options) for one in wanted
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kv_heads": ["3"]}, "--kv-heads 3 is not in this run; it holds 1, 2"),
        ({"kv_tokens": ["7"]}, "--kv-tokens 7 is not in this run; it holds 64, 128"),
        ({"head_dim": ["64"]}, "--head-dim 64 is not in this run; it holds 16"),
        ({"causal": ["perhaps"]}, "--causal: 'perhaps' is not valid"),
        ({"dtype": ["fp16"]}, "unknown dtype in this run 'float16'"),
    ],
)
def test_what_a_run_does_not_hold_is_said(frame: Any, given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        only(frame, **given)


def test_causal_rows_that_are_not_there_are_missed(frame: Any) -> None:
    with pytest.raises(UsageError, match="this run holds no causal case"):
        only(frame[frame["options"] == ""], causal=["true"])
