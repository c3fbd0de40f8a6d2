"""Causal, grouped and cross attention as axes of a sweep: which cases they are, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cases.space import Sweep, expand
from harness.errors import UsageError

CATALOGUE: dict[str, Any] = {
    "anchor": {"backends": {"reference": {}}, "bottleneck": "anchors", "options": {"init": {}}},
    "full": {"backends": {"reference": {}}, "bottleneck": "", "options": {}},
    "linformer": {"backends": {"reference": {}}, "bottleneck": "projected length", "options": {}},
}


def options(given: dict[str, Any], attention: str = "full") -> list[tuple[int, int, str]]:
    """(h, n, options) of every case of a variant."""
    cases, _ = expand(Sweep.parse(given), CATALOGUE, device="cpu")
    return [(case.h, case.n, case.options) for case in cases if case.attention == attention]


def test_the_default_problem_is_the_case_that_it_always_was() -> None:
    plain, _ = expand(Sweep.parse({"n": 64, "m": 16}), CATALOGUE, device="cpu")
    told, _ = expand(
        Sweep.parse({"n": 64, "m": 16, "causal": False, "kv_heads": 6, "kv_tokens": 64}), CATALOGUE, device="cpu"
    )
    assert told == plain
    assert {case.options for case in plain} == {""}
    assert [case.case_id for case in plain] == [case.case_id for case in told]


def test_each_axis_multiplies_and_stands_in_options() -> None:
    assert options({"n": 64, "causal": [False, True], "kv_heads": "1,2,6"}) == [
        (6, 64, "kv_heads=1"), (6, 64, "kv_heads=2"), (6, 64, ""), (6, 64, "causal=true;kv_heads=1"),
        (6, 64, "causal=true;kv_heads=2"), (6, 64, "causal=true"),
    ]  # fmt: skip
    assert options({"n": "64,128", "kv_tokens": "64,1k"}) == [
        (6, 64, ""), (6, 64, "kv_tokens=1024"), (6, 128, "kv_tokens=64"), (6, 128, "kv_tokens=1024")
    ]  # fmt: skip


def test_it_stands_beside_the_variants_own_options() -> None:
    given = {"attention": "anchor", "n": 64, "set": {"anchor.init": "paper"}, "causal": True}
    assert options(given, "anchor") == [(6, 64, "causal=true;init=paper")]


def test_heads_that_keys_do_not_divide_are_left_out_with_a_word() -> None:
    sweep = Sweep.parse({"n": 64, "heads": "6,8", "kv_heads": "2,4"})
    cases, warnings = expand(sweep, CATALOGUE, device="cpu")
    full = [(case.h, case.options) for case in cases if case.attention == "full"]
    assert full == [(6, "kv_heads=2"), (8, "kv_heads=2"), (8, "kv_heads=4")]
    assert "left out, since kv_heads must divide heads: kv_heads=4 heads=6" in warnings


def test_the_usual_m_stays_below_the_number_of_keys() -> None:
    cases, warnings = expand(Sweep.parse({"n": 4096, "kv_tokens": 32}), CATALOGUE, device="cpu")
    assert {case.m for case in cases if case.attention == "linformer"} == {16}
    assert "m=16 for 32 tokens" in warnings[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kv_heads": "1,4"}, "--kv-heads 4 must divide --heads, which is 6: so many heads of queries share each head"),
        (
            {"causal": True, "n": 64, "kv_tokens": 32},
            "--causal with --kv-tokens 32 at n=64 leaves open which token sees",
        ),
        (
            {"causal": True, "sequence_parallel": 2, "attention": "anchor"},
            "--sequence-parallel shares bidirectional self-attention; leave --causal out",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(given: dict[str, Any], message: str) -> None:
    catalogue = {name: {**entry, "not_parallel": None} for name, entry in CATALOGUE.items()}
    with pytest.raises(UsageError, match=message):
        expand(Sweep.parse(given), catalogue, device="cpu")


def test_causal_self_attention_at_keys_of_its_own_number_is_no_contradiction() -> None:
    assert options({"causal": True, "n": 64, "kv_tokens": 64}) == [(6, 64, "causal=true")]
