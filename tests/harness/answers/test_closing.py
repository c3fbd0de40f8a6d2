"""The sentence that a run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import KINDS, Told, stored

from harness.answers.closing import closing

DIFFERENT = KINDS | {"anchor": "different"}
BUSY = "contended: others had 0.66 of 2 cores"


def said(folder: Path, *told: Told, **more: Any) -> str:
    return closing(stored(folder / "r", told), kinds=more.get("kinds", DIFFERENT))


def test_the_fastest_is_set_against_the_best_exact_one(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=30.0), Told("full", n=64, ms=90.0), Told("anchor", n=64, m=16, ms=1.0)]
    assert said(tmp_path, *told) == (
        "anchor m=16 is 30.0× (29.4 to 30.6) as fast as flash, the best exact one; it computes something else"
    )


def test_an_approximation_is_called_one_and_an_exact_winner_comes_first(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=1.0), Told("nystrom", n=64, m=16, ms=2.0)]
    assert said(tmp_path, *told) == (
        "flash, the best exact one, is 2.00× (1.96 to 2.04) as fast as nystrom m=16; nystrom m=16 is an approximation"
    )


def test_of_several_n_the_largest_at_which_two_were_measured(tmp_path: Path) -> None:
    told = [
        *(Told("flash", n=n, ms=n / 10) for n in (64, 128)), *(Told("full", n=n, ms=n / 5) for n in (64, 128)),
        Told("flash", n=256, ms=25.0), Told("full", n=256, status="oom"),
    ]  # fmt: skip
    assert said(tmp_path, *told) == "flash is 2.00× (1.96 to 2.04) as fast as full, the next one, at n = 128"


def test_of_several_m_the_fastest_says_that_it_says_nothing_of_accuracy(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=8.0), *(Told("anchor", n=64, m=m, ms=m / 16) for m in (16, 64))]
    text = said(tmp_path, *told)
    assert text.startswith("anchor m=16 is 8.00× (7.84 to 8.16) as fast as flash, the best exact one; ")
    assert text.endswith("; of m = 16, 64 the fastest, which says nothing of its accuracy")


def test_several_phases_are_said(tmp_path: Path) -> None:
    told = [
        Told(name, n=64, ms=ms, phase=p) for name, ms in (("flash", 1.0), ("full", 3.0)) for p in ("train", "forward")
    ]
    assert said(tmp_path, *told).endswith("as fast as full, the next one, at n = 64, forward, float32, b=1 h=2")


def test_a_tie_is_no_lead(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=1.0, half=0.2), Told("full", n=64, ms=1.1, half=0.2)]
    assert said(tmp_path, *told).startswith("flash and full cannot be told apart: 1.10× (0.733 to ")


def test_in_a_tie_who_computes_something_else_is_named(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=1.1, half=0.2), *(Told("anchor", n=64, m=m, half=0.2) for m in (16, 64))]
    text = said(tmp_path, *told)
    assert text.startswith("anchor m=16 and flash cannot be told apart: 1.10× (")
    assert text.endswith("; anchor m=16 computes something else")


def test_contended_rows_are_said_first(tmp_path: Path) -> None:
    told = [Told("flash", n=64, ms=8.0, note=BUSY), Told("anchor", n=64, m=16, ms=1.0)]
    assert said(tmp_path, *told).startswith("CONTENDED, measured beside other work (flash): anchor m=16 is 8.00×")


@pytest.mark.parametrize(
    "told",
    [
        (),
        (Told("flash", n=64),),
        (Told("flash", n=64), Told("none", n=64)),
        (Told("flash", n=64), Told("full", n=128)),
        (Told("flash", n=64), Told("full", n=64, status="error", note="broken")),
    ],
)
def test_nothing_to_compare_is_no_sentence(tmp_path: Path, told: tuple[Told, ...]) -> None:
    assert said(tmp_path, *told) == ""
