"""The float64 reference of a problem is computed once for all who share it, and never for those who do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import making
import pytest
import torch

from harness.measuring import truth
from harness.measuring.metrics import Settings, error
from harness.measuring.outputs import WrongResult
from harness.measuring.subject import Subject
from harness.measuring.truth import KEPT, Kept, Truth
from harness.store.record import Case

EXACT = making.case(n=600)
ANCHOR = making.case(attention="anchor", m=8, n=600)


@pytest.fixture(autouse=True)
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often a reference was computed, without and with gradients, beginning with nothing kept."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> None:
        real = getattr(truth, name)

        def wrapped(*arguments: object) -> object:
            counted[name] += 1
            return real(*arguments)

        monkeypatch.setattr(truth, name, wrapped)

    counting("_outputs")
    counting("_with_gradients")
    KEPT._truths.clear()
    yield counted
    KEPT._truths.clear()


def compare(case: Case, *, again: bool = False) -> float:
    subject = Subject(case)
    found = next(iter(error.measure(subject, {}, Settings()))).value
    for reading in error.measure(subject, {}, Settings()):  # approximation_error too
        assert reading.status in ("ok", "unsupported")
    if again:
        error.check_again(subject)
    assert isinstance(found, float)
    return found


def test_exact_variants_and_approximations_of_any_m_share_softmax_attention(computed: Counter[str]) -> None:
    for case in (EXACT, replace(EXACT, attention="flash", backend="torch"), replace(EXACT, attention="flash")):
        compare(case)
    assert computed == {"_outputs": 1}
    compare(ANCHOR)
    compare(replace(ANCHOR, m=16))
    compare(replace(ANCHOR, attention="linformer"))
    assert computed == {"_outputs": 1 + 3}  # each its own definition, none softmax attention again


def test_backends_and_phases_of_a_definition_share_it(computed: Counter[str]) -> None:
    compare(replace(ANCHOR, phase="train"))
    assert computed == {"_with_gradients": 1}
    compare(replace(ANCHOR, phase="backward"))
    compare(replace(ANCHOR, backend="sdpa", phase="train"))
    compare(replace(ANCHOR, backend="sdpa"))
    assert computed == {"_with_gradients": 1, "_outputs": 1}  # what anchor approximates


def test_gradients_are_found_where_only_the_output_was_kept(computed: Counter[str]) -> None:
    compare(EXACT)
    compare(replace(EXACT, phase="train"))
    compare(EXACT)
    assert computed == {"_outputs": 1, "_with_gradients": 1}


@pytest.mark.parametrize(
    "change",
    [{"dtype": "bfloat16"}, {"seed": 1}, {"n": 601}, {"h": 1}, {"d": 8}, {"options": "logits=cosine"}],
)
def test_nothing_is_shared_with_another_problem(change: dict[str, object], computed: Counter[str]) -> None:
    compare(replace(ANCHOR, phase="train"))
    compare(replace(ANCHOR, phase="train", **change))
    assert computed == {"_with_gradients": 2}


def test_the_second_check_has_a_truth_of_its_own_that_is_shared_too(computed: Counter[str]) -> None:
    compare(EXACT, again=True)
    assert computed == {"_outputs": 2}
    compare(replace(EXACT, attention="flash"), again=True)
    assert computed == {"_outputs": 2}


def test_what_is_kept_is_right(computed: Counter[str]) -> None:
    for case in (EXACT, ANCHOR, replace(ANCHOR, phase="train"), replace(EXACT, phase="train", scope="layer", n=200)):
        first = compare(case)
        kept = sum(computed.values())
        assert compare(case) == first
        assert sum(computed.values()) == kept
        KEPT._truths.clear()
        assert compare(case) == first
        assert sum(computed.values()) > kept


def truth_of(size: int) -> Truth:
    return Truth(torch.zeros(size, dtype=torch.float64))


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "free_bytes", lambda device: int(1000 / truth.SHARE_KEPT))
    kept = Kept()
    for name in "abc":
        kept.keep(name, truth_of(50))
    assert kept.find("a") is None
    assert kept.find("b") is not None
    kept.keep("d", truth_of(50))  # b was just used
    assert [kept.find(name) is not None for name in "bcd"] == [True, False, True]
    kept.keep("e", truth_of(126))
    assert kept.find("e") is None
    assert kept.nbytes == 800


def test_room_is_made_for_a_case_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "free_bytes", lambda device: 1 << 20)
    kept = Kept()
    kept.keep("a", truth_of(10))
    kept.make_room("cpu", 1 << 18)
    kept.make_room("cpu", None)
    assert kept.nbytes == 80
    kept.make_room("cpu", 1 << 20)
    assert kept.nbytes == 0


def scarce(monkeypatch: pytest.MonkeyPatch, *, bytes_free: int) -> None:
    monkeypatch.setattr("harness.measuring.subject.free_bytes", lambda device: bytes_free)


COUNTED = "importance=true;init=orthogonal;logits=cosine;self=excluded"


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("scope", ["core", "layer"])
@pytest.mark.parametrize("options", ["", COUNTED, "gate=true;local=3"])
def test_where_the_reference_does_not_fit_blocks_of_it_say_what_is_right(
    phase: str, scope: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(ANCHOR, phase=phase, scope=scope, options=options, n=300)
    whole = compare(case)
    scarce(monkeypatch, bytes_free=1 << 10)
    monkeypatch.setattr(truth, "FEW", 100)
    monkeypatch.setattr("attentions.kernels.anchor.chunked.BLOCK_BYTES", 40 * 8 * 8)  # 40 tokens
    subject = Subject(case)
    assert subject.definition == "chunked"
    readings = list(error.measure(subject, {}, Settings()))
    assert readings[0].note == "compared with anchor:chunked in float64, where the reference does not fit"
    assert readings[0].value == pytest.approx(whole, rel=1e-3)
    error.check_again(subject)


def test_it_is_the_reference_that_is_taken_where_it_fits_or_nothing_stands_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scarce(monkeypatch, bytes_free=10 << 20)
    assert Subject(ANCHOR).definition == "reference"
    scarce(monkeypatch, bytes_free=1 << 10)
    for case in (EXACT, replace(ANCHOR, attention="linformer"), replace(ANCHOR, options="scatter=separate")):
        assert Subject(case).definition == "reference"
    assert Subject(ANCHOR).definition == "chunked"


def test_what_stands_for_the_reference_has_to_be_it_on_fewer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here wrong by a factor of 1.0001, in which case the float32 call that it is asked about passes by it."""
    from attentions.kernels.anchor import backends

    chunked = backends.chunked
    monkeypatch.setattr(backends, "chunked", lambda *given, **words: 1.0001 * chunked(*given, **words))
    scarce(monkeypatch, bytes_free=1 << 10)
    with pytest.raises(
        WrongResult, match=r"anchor:chunked, which stands for the reference .* differs from it by 0\.0001"
    ):
        compare(ANCHOR)
