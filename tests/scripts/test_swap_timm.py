"""The table of what a swap takes over timm: its rows hold, and the script makes them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripting import load
from torch import nn

import attentions
from attentions import AttentionError

timm: Any = pytest.importorskip("timm")
PAGE = Path(__file__).parents[2] / "docs" / "swapping.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("swap_timm")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines[1:]]


def test_every_row_of_the_page_is_kept_or_refused_with_a_reason(script: ModuleType) -> None:
    assert len(rows()) > 50
    for family, model, taken, moved, removed, left in rows():
        assert taken or left, (family, model)
        if taken:
            assert float(moved) <= script.KEPT
            assert float(removed) >= 0.01, f"{model}: removing attention has to show, or agreement shows nothing"


def test_the_page_is_about_every_family(script: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    version = re.search(r"timm ([\d.]+)", text)
    assert version
    if version.group(1) != timm.__version__:
        pytest.skip(f"the page is about timm {version.group(1)}, here is {timm.__version__}")
    without = text.rpartition("`proj`: ")[2].rstrip(".\n").split(", ")
    assert sorted({row[0] for row in rows()} | set(without)) == timm.list_modules()


def test_a_model_goes_through_it(script: ModuleType) -> None:
    found = script.outcome("vision_transformer", "test_vit")
    assert found.taken == "Attention × 6"
    assert found.moved < 1e-12 < 0.1 < found.removed
    assert str(found).startswith("| vision_transformer | `test_vit` | Attention × 6 | ")
    refused = script.outcome("edgenext", "edgenext_xx_small")
    assert (refused.taken, refused.moved) == ("", None)
    assert "CrossCovarianceAttn computes more than softmax attention" in refused.left
    assert script.page([found, refused], ["vgg"]).splitlines()[-1].endswith(": vgg.")


def test_what_timm_calls_the_same_parts_is_told_apart() -> None:
    """DaViT's attention over channels has the parts of softmax attention; a norm without parameters leaves none."""
    davit = pytest.importorskip("timm.models.davit")
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    normed = vision_transformer.Attention(48, 3)
    normed.q_norm, normed.k_norm = (nn.LayerNorm(16, elementwise_affine=False) for _ in range(2))
    for module in (davit.ChannelAttention(48, 3), normed):
        with pytest.raises(AttentionError, match=r"differs by \d.* % of the largest"):
            attentions.swap(nn.ModuleDict({"attn": module}), "full", tokens=64)
