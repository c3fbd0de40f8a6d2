"""GMAC by resolution: what the table says, and what it answers to bad input."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from scripting import load

from harness.vision.models import ARCHITECTURES, architecture


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("model_cost")


def saved(script: ModuleType, name: str, resolution: int) -> float:
    full, anchor = (
        script.gmac(architecture(name), attention, resolution=resolution, m=30) for attention in ("full", "anchor")
    )
    return 1 - anchor / full


def test_eleven_to_eighteen_percent_are_saved_at_224_and_more_as_n_grows(script: ModuleType) -> None:
    assert [round(100 * saved(script, name, 224)) for name in ARCHITECTURES] == [18, 14, 11]
    for name in ARCHITECTURES:
        curve = [saved(script, name, side) for side in (224, 448, 896, 1792)]
        assert curve == sorted(curve)
        assert curve[-1] > 0.7


def test_the_cost_of_attention_grows_with_the_square_of_n(script: ModuleType) -> None:
    """Linear parts taken off: softmax attention is 4·n²·width FLOP a block, anchors 6·n·m·width."""
    tiny = architecture("anchorformer_tiny")
    for attention, m, shared in (("full", None, False), ("anchor", 30, True)):
        for side in (224, 1792):
            n = tiny.tokens(side)
            linear = tiny.flops(side, b=1, phase="forward", core=0, shared=shared)
            core = 4 * n * n * 192 if m is None else 6 * n * m * 192
            assert script.gmac(tiny, attention, resolution=side, m=m) == pytest.approx((linear + 12 * core) / 2e9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attention", "anchr"], "did you mean 'anchor'"),
        (["--resolution", "230"], "230 is no multiple of the 16 pixels"),
        (["--m", "0"], "at least 1, not 0"),
    ],
)
def test_bad_input_is_answered(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["model_cost.py", *words])
    assert script.main() == 2
    assert said in capsys.readouterr().err


def test_the_table_has_a_row_a_resolution(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["model_cost.py", "--resolution", "224..448"])
    assert script.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| 224 | 198 | 1.26 | 1.03 | 18.0 % | 4.62 |")
    assert lines[3].startswith("| 448 | 786 | 7.14 | 4.10 | 42.5 % |")
    assert len({line.count("|") for line in lines}) == 1
