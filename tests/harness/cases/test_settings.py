"""`--set` as people write it: one value, several, a key given again, and values that hold a comma."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cases.settings import chosen, pairs, parsed, typed, values, written
from harness.errors import UsageError

CATALOGUE: dict[str, Any] = {"anchor": {"options": {"init": {}, "scale": {}}}, "full": {"options": {}}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("paper", ("paper",)), ("paper,sharp", ("paper", "sharp")), ("paper, sharp ,paper", ("paper", "sharp")),
        ('"1,2"', ("1,2",)), ('"1,2",3', ("1,2", "3")), ('a"b', ('a"b',)), ('"say ""so"""', ('say "so"',)), ("", ("",)),
    ],
)  # fmt: skip
def test_a_text_is_apart_at_its_commas_as_in_csv(text: str, found: tuple[str, ...]) -> None:
    assert values(text) == found


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(str.strip), min_size=1, unique=True))
def test_what_is_written_reads_back(several: list[str]) -> None:
    assert values(written(several)) == tuple(several)
    assert parsed({"a.b": typed(several)}) == {"a.b": tuple(several)}


def test_a_key_given_again_is_an_axis_too() -> None:
    texts = ["anchor.init=paper", "anchor.scale=2", " anchor.init = sharp,paper "]
    assert parsed(pairs(texts)) == {"anchor.init": ("paper", "sharp"), "anchor.scale": ("2",)}
    assert pairs(["mine.text=a=b"]) == {"mine.text": ["a=b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anchor.init", "--set takes variant.option=value, such as anchor.init=paper, not 'anchor.init'"),
        ('anchor.init="paper', "--set anchor.init: '\"paper' cannot be read: .*stands in quotes as in CSV"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pairs([text])


def test_an_entry_of_a_list_is_one_value_and_true_is_written_small() -> None:
    assert parsed({"a.b": ["1,2", 3, True], "c.d": False}) == {"a.b": ("1,2", "3", "true"), "c.d": ("false",)}


def test_options_of_a_variant_multiply() -> None:
    given = {"anchor.init": ("paper", "sharp"), "anchor.scale": ("2", "3")}
    assert chosen(given, CATALOGUE, ["anchor:sdpa", "full"], most=100) == {
        "anchor": [{"init": i, "scale": s} for i in ("paper", "sharp") for s in ("2", "3")],
        "full": [{}],
    }


@pytest.mark.parametrize(
    ("key", "several", "message"),
    [
        ("anchor.causal", ("true",), "--set anchor.causal: causal is asked of every variant; give --causal"),
        ("full.kv_heads", ("2",), "give --kv-heads"),
        ("anchor.init", ("a;b", "c"), "holds a ';' or a line break"),
        ("anchor.init", ("c", "a\nb"), "holds a ';' or a line break"),
        ("anchor.init", tuple(map(str, range(101))), "the options of anchor multiply to 101 cases; at most 100"),
    ],
)
def test_options_that_cannot_be_are_answered(key: str, several: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen({key: several}, CATALOGUE, ["anchor", "full"], most=100)
