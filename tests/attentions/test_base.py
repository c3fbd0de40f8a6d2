"""The contract's own pieces: options, specs and the arithmetic of costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions
from attentions import Backend, Option, Spec, Work, base


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        (Option("steps", 6, "x", minimum=1), "8", 8),
        (Option("steps", 6, "x", minimum=1), 8.0, 8),
        (Option("scale", 1.0, "x"), "2", 2.0),
        (Option("scale", 1.0, "x"), 3, 3.0),
        (Option("on", True, "x"), "no", False),
        (Option("on", False, "x"), "True", True),
        (Option("kind", "a", "x", choices=("a", "b")), "b", "b"),
    ],
)
def test_option_reads_text_and_values(option: Option, given: Any, expected: Any) -> None:
    parsed = option.parse(given, variant="mine")
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("option", "given", "rule"),
    [
        (Option("steps", 6, "x", minimum=1), 0, "a whole number of at least 1"),
        (Option("steps", 6, "x"), 2.5, "a whole number"),
        (Option("steps", 6, "x"), "two", "a whole number"),
        (Option("scale", 1.0, "x"), "nan", "a number"),
        (Option("on", True, "x"), "maybe", "true or false"),
        (Option("kind", "a", "x", choices=("a", "b")), "c", "one of a, b"),
        (
            Option("init", "paper", "x", choices=("paper", "it")),
            "Papr",
            "one of paper, it; did you mean 'paper'?",
        ),
    ],
)
def test_option_refuses(option: Option, given: Any, rule: str) -> None:
    with pytest.raises(attentions.AttentionError) as caught:
        option.parse(given, variant="mine")
    assert str(caught.value) == f"mine: option {option.name}={given!r} is not valid; it takes {rule}"


def test_spec_needs_a_reference_and_distinct_backends() -> None:
    reference, other = Backend("reference", torch.add), Backend("other", torch.add)
    for backends in ((), (other,), (reference, other, other)):
        with pytest.raises(attentions.AttentionError, match="must be distinct and include 'reference'"):
            Spec(name="mine", title="x", backends=backends)


@pytest.mark.parametrize("name", ["", "Mine", "my-own", "1st", "a b"])
def test_spec_name_is_an_identifier(name: str) -> None:
    with pytest.raises(attentions.AttentionError, match="lower-case identifier"):
        Spec(name=name, title="x", backends=(Backend("reference", torch.add),))


def test_rank_orders_the_automatic_backends() -> None:
    backends = (Backend("a", torch.add), Backend("reference", torch.add), Backend("b", torch.add, automatic=False))
    work, cpu = Work(b=1, h=1, n=8, d=8), torch.device("cpu")

    def order(**keywords: Any) -> list[str]:
        definition = Spec(name="mine", title="x", backends=backends, **keywords)
        return [backend.name for backend in definition.candidates(work, torch.float32, cpu)]

    assert order() == ["a", "reference"]
    assert order(rank=lambda work, dtype, device: ("reference", "b", "a")) == ["reference", "a"]
    assert order(rank=lambda work, dtype, device: ("a",)) == ["a"]


def test_train_is_forward_and_backward() -> None:
    forward, backward, train = (
        base.matmuls(Work(b=1, h=1, n=8, d=8, phase=phase), 100, backward=2.5) for phase in base.PHASES
    )
    assert (forward, backward, train) == (100, 250, 350)
