"""What a problem is called, in options, tables and captions."""

from __future__ import annotations

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.store.problem import DEFAULT, Problem, order, sentence, told
from harness.store.record import canonical_options

PROBLEMS = st.builds(
    Problem,
    causal=st.booleans(),
    kv_heads=st.none() | st.integers(1, 64),
    kv_tokens=st.none() | st.integers(1, 1 << 20),
)


@given(PROBLEMS, st.integers(1, 64), st.integers(1, 1 << 20))
def test_a_problem_reads_back_from_options(problem: Problem, h: int, n: int) -> None:
    own = problem.at(h=h, n=n)
    text = canonical_options({**own.options, "init": "paper", "zeal": "2"})
    case = making.case(h=h, n=n, options=text)
    assert case.problem == own
    assert case.variant_options == {"init": "paper", "zeal": "2"}
    assert (case.key_heads, case.key_tokens) == (own.kv_heads or h, own.kv_tokens or n)
    assert told(text) == str(own)


def test_what_is_the_queries_own_is_the_default() -> None:
    assert making.case(h=2, n=64, options="kv_heads=2;kv_tokens=64").problem == Problem()
    assert Problem().keywords == Problem().options == {}
    assert (str(Problem()), told(""), told("init=paper")) == (DEFAULT, DEFAULT, DEFAULT)


def test_problems_are_in_order_by_number() -> None:
    names = ["default", "kv_heads=1", "kv_heads=2", "kv_heads=16", "kv_tokens=2", "causal", "causal kv_heads=2"]
    assert sorted(names, key=order) == [
        "default", "kv_tokens=2", "kv_heads=1", "kv_heads=2", "kv_heads=16", "causal", "causal kv_heads=2"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["kv_heads=x", f"kv_tokens={'9' * 5000}", "kv_heads=²", "causal kv_heads="])
def test_any_text_has_a_place(text: str) -> None:
    assert order(text) > order("default")


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("default", "No causal mask, no other mask, no dropout."),
        ("causal", "Causal: token i attends to tokens up to i; no other mask, no dropout."),
        (
            "causal kv_heads=2",
            "Causal: token i attends to tokens up to i; no other mask, no dropout. "
            "6 heads of queries share 2 of keys and values.",
        ),
        ("kv_tokens=1024", "No causal mask, no other mask, no dropout. Keys and values of 1024 other tokens."),
    ],
)
def test_a_caption_says_it(text: str, caption: str) -> None:
    assert sentence(text, h=6) == caption
