"""The recommendation: the rule, the limits, interpolation, what is kept apart and what is said not to be known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import KINDS, Told, stored

from harness import stats
from harness.answers.candidates import Stock, interpolation_miss, power_between
from harness.answers.document import as_json
from harness.answers.known import Known, Reached
from harness.answers.recommend import Answer, Wish, recommend
from harness.answers.terminal import as_text
from harness.answers.wording import figure
from harness.cases.catalogue import kinds
from harness.figures import Run

PLAIN = (
    Told("flash", n=1024, ms=10.0), Told("full", n=1024, ms=40.0),
    Told("anchor", n=1024, m=16, ms=1.0, error=0.8), Told("anchor", n=1024, m=64, ms=2.0, error=0.7),
    Told("nystrom", n=1024, m=64, ms=4.0, error=0.05),
)  # fmt: skip


def ask(run: Run | list[Run], **wish: Any) -> Answer:
    """The only answer."""
    runs = run if isinstance(run, list) else [run]
    (answer,) = recommend(Stock(runs, kinds=KINDS), Wish(**{"n": 1024, **wish}))
    return answer


def names(answer: Answer) -> list[str]:
    return [candidate.name for candidate in answer.ranking]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stored(tmp_path_factory.mktemp("runs") / "plain", PLAIN)


def test_without_limits_the_fastest_is_taken(run: Run) -> None:
    answer = ask(run)
    assert names(answer) == ["anchor m=16", "anchor m=64", "nystrom m=64", "flash", "full"]
    assert answer.headline.splitlines() == [
        "Exact: flash is the fastest at n = 1024: 10.0 ms (9.90 to 10.1).",
        "Not exact: anchor m=16 is the fastest at n = 1024: 1.00 ms (0.990 to 1.01), 10.0× (9.80 to 10.2) as fast as "
        "flash; it is an approximation.",
    ]
    assert [named.name for _, named in answer.lines if named] == ["flash", "anchor m=16"]
    assert answer.margin is not None
    assert (answer.margin.value, answer.margin.low, answer.margin.high) == pytest.approx(
        (2, 2 * 0.99 / 1.01, 2 * 1.01 / 0.99)
    )
    assert answer.exact is not None
    best, lead = answer.exact
    assert (best.name, lead.value) == ("flash", pytest.approx(10))
    assert answer.reasons[0].startswith("Runner-up: anchor m=64 (approximation error 0.700) at 2.00 ms (1.98 to 2.02)")
    assert len(answer.reasons) == 1  # the second line has the rest


def test_m_and_attention_narrow_the_choice_and_exact_variants_stay(run: Run) -> None:
    assert names(ask(run, m=(64,))) == ["anchor m=64", "nystrom m=64", "flash", "full"]
    assert names(ask(run, m=(64,), attention=("anchor", "full:reference"))) == ["anchor m=64", "full"]
    assert names(ask(run, attention=("full:torch",))) == []


def test_an_exact_variant_that_keeps_the_budget_comes_before_any_approximation(run: Run) -> None:
    answer = ask(run, budget_ms=12)
    assert names(answer) == ["flash", "anchor m=16", "anchor m=64", "nystrom m=64"]
    assert answer.headline.startswith("Exact: flash keeps the budget at n = 1024: 10.0 ms")
    assert "\nNot exact: anchor m=16 keeps the budget at n = 1024: 1.00 ms" in answer.headline
    assert "0.100× the time" in answer.reasons[0]
    assert "what keeps the budget exactly comes first" in answer.reasons[0]
    assert not any("computes something else" in line for line in answer.unknown)


def test_a_budget_is_kept_by_the_interval_not_by_the_median(tmp_path: Path) -> None:
    run = stored(
        tmp_path / "r", [Told("flash", n=1024, ms=1.9, half=0.1), Told("anchor", n=1024, m=16, ms=1.5, half=0)]
    )
    answer = ask(run, budget_ms=2)
    assert names(answer) == ["anchor m=16"]
    (refused,) = answer.refused
    assert refused.reasons == ("1.90 ms (1.71 to 2.09): within the budget, but its interval is not",)
    assert refused.excess == pytest.approx(1.045)


def test_exact_variants_have_no_approximation_error_by_definition(run: Run) -> None:
    assert names(ask(run, max_error=0)) == ["flash", "full"]
    assert names(ask(run, max_error=0.05)) == ["nystrom m=64", "flash", "full"]
    assert ask(run, max_error=0).ranking[0].error == 0


def test_an_error_that_was_not_measured_meets_no_limit(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("anchor", n=1024, m=16, error=None), Told("mine", n=1024, error=0.2)])
    answer = ask(run, max_error=5)
    assert names(answer) == ["mine"]
    assert answer.refused[0].reasons == ("its approximation error was not measured",)
    assert math.isinf(answer.refused[0].excess)
    assert "was not measured. What that costs" in ask(run, attention=("anchor",)).unknown[0]


def test_where_nothing_meets_the_wish_the_nearest_is_named(run: Run) -> None:
    answer = ask(run, budget_ms=0.5, max_error=0.5)
    assert answer.choice is None
    assert [one.candidate.name for one in answer.refused][:2] == ["anchor m=16", "anchor m=64"]  # 2 and 4 times over
    assert answer.headline == "Nothing that was measured meets this at n = 1024."
    assert answer.reasons == [
        "Nearest: anchor m=16, 1.00 ms (0.990 to 1.01): over 0.500 ms; approximation error 0.800, over 0.500."
    ]


def test_memory_is_a_limit(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=1024, memory=100.0), Told("full", n=1024, memory=None, ms=2)])
    answer = ask(run, max_memory_mib=50)
    assert [one.reasons for one in answer.refused] == [
        ("peak memory 100 MiB, over 50.0 MiB",), ("its peak memory was not measured",)
    ]  # fmt: skip


def test_a_floor_is_never_recommended(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("none", n=1024, ms=0.01), Told("flash", n=1024)])
    assert names(ask(run)) == ["flash"]


def test_runs_say_themselves_what_a_variant_of_their_own_is(tmp_path: Path) -> None:
    environment = {"schema": 1, "kinds": {"mine": "exact"}}
    run = stored(tmp_path / "r", [Told("mine", n=1024, ms=0.5, error=1e-7)], environment=environment)
    assert ask(run, max_error=0).headline == ask(run).headline
    assert ask(run).headline == "Exact: mine is the only one at n = 1024: 0.500 ms (0.495 to 0.505)."


def test_kinds_of_a_catalogue() -> None:
    entries = {
        "a": {"floor": False, "exact": True},
        "b": {"floor": False, "exact": False},
        "c": {"floor": True, "exact": False},
        "d": {"floor": False, "exact": False, "different": True},
    }
    assert kinds(entries) == {"a": "exact", "b": "approximate", "c": "floor", "d": "different"}


# between measured n


def test_a_power_law_is_interpolated_exactly_and_said_to_be(tmp_path: Path) -> None:
    told = [Told("flash", n=n, ms=n**2 / 1e5, memory=float(n)) for n in (1024, 4096, 16384)]
    answer = ask(stored(tmp_path / "r", told), n=8192)
    (choice,) = answer.ranking
    assert choice.time.ms == pytest.approx(8192**2 / 1e5)
    assert (choice.between, choice.miss, choice.memory) == ((4096, 16384), pytest.approx(1), pytest.approx(8192))
    assert (choice.time.low, choice.time.high) == pytest.approx((choice.time.ms * 0.99, choice.time.ms * 1.01))
    assert answer.headline.endswith(", interpolated.")
    assert any(line.startswith("Its time is interpolated between n = 4096 and 16384") for line in answer.unknown)


def test_the_interval_of_an_interpolation_holds_how_far_it_misses_measured_points(tmp_path: Path) -> None:
    told = [Told("flash", n=n, ms=ms) for n, ms in ((1024, 1.0), (2048, 4.0), (4096, 4.0))]  # a power law gives 2.0
    (choice,) = ask(stored(tmp_path / "r", told), n=3000).ranking
    assert choice.miss == pytest.approx(2)
    assert (choice.time.ms, choice.time.high) == (pytest.approx(4), pytest.approx(4 * 1.01 * 2))


def test_two_points_are_no_check_of_an_interpolation(tmp_path: Path) -> None:
    answer = ask(stored(tmp_path / "r", [Told("flash", n=1000), Told("flash", n=2000, ms=2)]), n=1500)
    assert answer.ranking[0].time.ms == pytest.approx(1.5)
    assert any("no third point" in line for line in answer.unknown)


def test_nothing_is_extrapolated(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=1024), Told("flash", n=4096)])
    for n in (512, 8192):
        answer = ask(run, n=n)
        assert (answer.choice, answer.refused) == (None, ())
        assert answer.headline == f"n = {n} lies outside what was measured (1024 to 4096), and nothing is extrapolated."


def test_a_size_that_failed_is_not_interpolated_over(tmp_path: Path) -> None:
    told = [
        Told("flash", n=1024),
        Told("flash", n=2048, status="oom", note="needs 9 GB; predicted"),
        Told("flash", n=4096),
    ]
    answer = ask(stored(tmp_path / "r", told), n=2048)
    assert answer.choice is None
    assert answer.unknown[-1] == "Not compared, for want of a figure: flash (oom: needs 9 GB)."


def test_an_interpolated_error_is_the_larger_of_both_sides(tmp_path: Path) -> None:
    told = [Told("anchor", n=n, m=16, error=error) for n, error in ((1024, 0.1), (4096, 0.3))]
    assert ask(stored(tmp_path / "r", told), n=2048).ranking[0].error == pytest.approx(0.3)


@given(st.floats(0.2, 3), st.floats(1e-6, 1e3), st.integers(129, 65535))
@settings(max_examples=50)
def test_interpolation_lies_between_its_ends(exponent: float, factor: float, n: int) -> None:
    ends = (factor * 128**exponent, factor * 65536**exponent)
    found = power_between((128, 65536), ends, n)
    assert found == pytest.approx(factor * n**exponent)
    assert ends[0] < found < ends[1]


def test_the_miss_is_that_of_the_worst_point() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert interpolation_miss(sizes, [1.0, 2.0, 4.0, 8.0]) == pytest.approx(1)
    assert interpolation_miss(sizes, [1.0, 6.0, 4.0, 8.0]) == pytest.approx(3)
    assert interpolation_miss(sizes[:2], [1.0, 2.0]) is None


# kept apart, and doubts


def test_machines_phases_and_dtypes_are_never_ranked_together(tmp_path: Path) -> None:
    told = [
        Told("flash", n=1024, machine="a-2c-000000"), Told("full", n=1024, ms=0.1, machine="b-2c-000000"),
        Told("full", n=1024, ms=0.2, phase="train", machine="a-2c-000000"),
        Told("full", n=1024, ms=0.3, dtype="bfloat16", machine="a-2c-000000"),
    ]  # fmt: skip
    answers = recommend(Stock([stored(tmp_path / "r", told)], kinds=KINDS), Wish(n=1024))
    assert [(a.setting["machine"][0], a.setting["phase"], a.setting["dtype"], *names(a)) for a in answers] == [
        ("a", "forward", "float32", "flash"), ("a", "forward", "bfloat16", "full"), ("a", "train", "float32", "full"),
        ("b", "forward", "float32", "full"),
    ]  # fmt: skip
    only = recommend(
        Stock([stored(tmp_path / "s", told)], kinds=KINDS), Wish(n=1024), keep=lambda s: s["phase"] == "train"
    )
    assert len(only) == 1


def test_overlapping_intervals_are_no_lead(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=1024, ms=1.0, half=0.2), Told("full", n=1024, ms=1.1, half=0.2)])
    answer = ask(run)
    assert answer.margin is not None
    assert not answer.margin.told_apart
    assert "cannot tell from a tie" in answer.reasons[0]
    assert "Its interval is wide: ±20 %, from 20 samples." in answer.unknown


def test_figures_without_an_interval_claim_no_lead(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=1024, ms=1, half=None), Told("full", n=1024, ms=9, half=None)])
    answer = ask(run)
    assert answer.headline.endswith("at n = 1024: 1.00 ms.")
    assert "\n" not in answer.headline
    assert answer.margin is not None
    assert (answer.margin.low, answer.margin.told_apart) == (None, False)


def test_few_samples_and_drift_are_told(tmp_path: Path) -> None:
    environment = {"schema": 1, "sessions": [{"canary_drift": -0.01}, {"places": {"n1": {"canary_drift": 0.11}}}, {}]}
    run = stored(tmp_path / "r", [Told("flash", n=1024, samples=3)], environment=environment)
    unknown = ask(run).unknown
    assert "It rests on 3 samples of its latency." in unknown
    assert "The machine drifted by +11.0 % during the run; intervals do not cover that." in unknown


def test_the_error_of_the_forward_pass_stands_for_other_phases(tmp_path: Path) -> None:
    told = [Told("anchor", n=1024, m=16, error=0.4), Told("anchor", n=1024, m=16, phase="train", ms=3)]
    answers = recommend(Stock([stored(tmp_path / "r", told)], kinds=KINDS), Wish(n=1024, max_error=0.5))
    train = next(answer for answer in answers if answer.setting["phase"] == "train")
    assert train.ranking[0].error == pytest.approx(0.4)
    assert any("Errors are of the forward pass" in line for line in train.unknown)


def test_of_two_runs_the_later_figure_counts_and_the_mixture_is_told(tmp_path: Path) -> None:
    first = stored(tmp_path / "a", [Told("flash", n=1024, ms=5.0), Told("full", n=1024, ms=9.0)])
    second = stored(tmp_path / "b", [Told("flash", n=1024, ms=6.0)])
    second.frame["time_utc"], second.frame["run_id"] = "2027-01-01T00:00:00Z", "later"
    for runs in ([first, second], [second, first]):
        answer = ask(runs)
        assert [(c.name, c.time.ms) for c in answer.ranking] == [("flash", 6.0), ("full", 9.0)]
        assert "Its figures come from 2 runs: drift between them is in no interval." in answer.unknown


def test_the_margin_is_bootstrapped_where_samples_are_kept(tmp_path: Path) -> None:
    from figures.synthetic import write_run

    from harness import figures

    folder = write_run(
        tmp_path / "r",
        variants=("flash", "anchor"),
        sizes=(4096,),
        anchors=(64,),
        phases=("forward",),
        dtypes=("float32",),
    )
    run = figures.load(folder)
    answer = ask(run, n=4096)
    samples = {
        name: run._samples[case, "latency"]
        for name, case in zip(run.frame["attention"], run.frame["case_id"], strict=True)
    }
    ratio, low, high = stats.ratio_interval(samples["flash"], samples["anchor"])
    assert answer.margin is not None
    assert (answer.margin.value, answer.margin.low, answer.margin.high) == pytest.approx((ratio, low, high))


# as text and data


def test_json_has_no_infinities_and_says_what_is_unknown(run: Run) -> None:
    document = json.loads(json.dumps([as_json(ask(run, max_error=0.1)), as_json(ask(run, n=99))], allow_nan=False))
    assert document[0]["choice"]["label"] == "nystrom:reference"
    assert document[0]["choice"]["latency_ms"] == 4.0
    assert document[0]["runner_up_over_choice"]["ratio"] == pytest.approx(2.5)
    assert [one["reasons"] for one in document[0]["refused"]] == [
        ["approximation error 0.700, over 0.100"],
        ["approximation error 0.800, over 0.100"],
    ]
    assert document[1]["choice"] is None
    assert document[1]["ranking"] == []


def test_text_keeps_to_its_width_and_to_printable_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    run = stored(tmp_path / "r", [Told("flash", n=1024), Told("e\x1b[31mvil", n=1024, ms=0.1, error=1.0)])
    text = as_text(ask(run, max_error=0.5))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert "Over a limit, the nearest first:\n- e" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.0, "8.00"), (3807.4, "3807"), (0.78, "0.780"), (22.7, "22.7"), (0.0, "0"), (1.2e-7, "1.2e-07"),
        (2.5e7, "2.5e+07"), (None, "?"), (math.inf, "?"), (999999.0, "999999"),
    ],
)  # fmt: skip
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_after_an_exact_choice_the_next_exact_one_is_not_called_the_fastest(tmp_path: Path) -> None:
    told = [Told("full", n=64, ms=1.0), Told("anchor", n=64, m=16, ms=2.0), Told("flash", n=64, ms=3.0)]
    answer = ask(stored(tmp_path / "r", told), n=64)
    assert answer.headline.startswith("Exact: full is the fastest")
    assert "Not exact: anchor m=16 is the only one at n = 64: 2.00 ms (1.98 to 2.02), 0.500×" in answer.headline
    assert answer.reasons[1].startswith("flash, the fastest other exact one, takes 3.00× the time")


def test_rows_of_the_ranking_fit_80_columns_under_a_head(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = as_text(ask(run)).splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("  variant"))
    assert lines[head].split("  ")[-1] == "to softmax"
    assert [line.split()[-1] for line in lines[head + 1 : head + 6]] == ["0.800", "0.700", "0.0500", "exact", "exact"]


def test_a_bare_name_that_took_several_backends_is_one_line_and_names_the_one_measured(tmp_path: Path) -> None:
    told = [
        Told("anchor", n=1024, m=64, ms=1.0, error=0.8), Told("anchor", n=4096, m=64, ms=4.0, error=0.8),
        Told("anchor", n=16384, m=64, ms=16.0, error=0.8, backend="chunked"),
    ]  # fmt: skip
    stock = Stock([stored(tmp_path / "r", told)], kinds=KINDS)
    ((_, lines),) = stock.settings()
    found = {n: stock.at(lines, n)[0][0] for n in (2048, 4096, 8192, 16384)}
    assert {one.name for one in found.values()} == {"anchor m=64"}
    assert [one.implementation for one in found.values()] == [
        "anchor:reference", "anchor:reference", "anchor", "anchor:chunked",
    ]  # fmt: skip
    assert found[8192].time.ms == pytest.approx(8.0)


# A machine that was not quiet

BUSY = "contended: others had 0.66 of 2 cores; stopped: converged at ±0.1 %"


def test_a_verdict_that_rests_on_a_contended_time_says_so_first(tmp_path: Path) -> None:
    told = (Told("flash", n=1024, ms=10.0), Told("anchor", n=1024, m=64, ms=2.0, note=BUSY))
    answer = ask(stored(tmp_path / "r", told))
    assert answer.headline.startswith("CONTENDED, measured beside other work (anchor m=64): Exact: flash is the only")
    assert answer.unknown[0] == (
        "anchor m=64 was timed while the machine was not quiet: others had 0.66 of 2 cores; measure it again."
    )
    assert as_text(answer).startswith("CONTENDED")
    assert "contended" in as_text(answer).split("Runner-up")[1]
    assert as_json(answer)["choice"]["contended"] == "others had 0.66 of 2 cores"
    assert as_json(answer)["runner_up"]["contended"] == ""


@pytest.mark.parametrize("limits", [{}, {"budget_ms": 5.0}])
def test_a_contended_rival_is_told_as_well(tmp_path: Path, limits: dict[str, float]) -> None:
    told = (Told("flash", n=1024, ms=10.0, note=BUSY), Told("anchor", n=1024, m=64, ms=2.0))
    answer = ask(stored(tmp_path / "r", told), **limits)
    assert answer.headline.startswith("CONTENDED, measured beside other work (flash): Exact: ")


def test_what_is_interpolated_between_contended_rows_is_contended(tmp_path: Path) -> None:
    told = (Told("flash", n=512, ms=1.0), Told("flash", n=2048, ms=16.0, note=BUSY))
    assert ask(stored(tmp_path / "r", told)).headline.startswith("CONTENDED")


def test_raw_samples_of_a_contended_row_are_not_resampled(tmp_path: Path) -> None:
    """They would give the ±0.1 % that the row's widened interval takes back."""
    from making import case, row

    from harness import figures
    from harness.store.record import Reading
    from harness.store.runs import Store

    with Store.open(tmp_path / "r", metrics=("latency",)) as store:
        for name, note in (("flash", ""), ("full", BUSY)):
            reading = Reading(metric="latency", value=2.0, ci_low=0.5, ci_high=8.0, samples=50, note=note)
            store.append([row(case(attention=name, n=1024), reading)], {"latency": [2.0] * 50})
    answer = ask(figures.load(tmp_path / "r"))
    raws = {candidate.name: candidate.raw is None for candidate in answer.ranking}
    assert raws == {"flash": False, "full": True}
    assert answer.margin is not None
    assert not answer.margin.told_apart


# Sizes that lie close together


@given(
    st.integers(1, 1 << 26), st.integers(1, 1 << 26), st.floats(0, 1), st.floats(1e-6, 1e9), st.floats(1e-6, 1e9),
)  # fmt: skip
@settings(max_examples=300)
def test_a_power_law_between_any_two_points_lies_between_them(a: int, b: int, share: float, x: float, y: float) -> None:
    if a == b:
        with pytest.raises(ValueError, match="a power law needs positive figures at two sizes"):
            power_between((a, b), (x, y), a)
        return
    n = min(max(round(a + share * (b - a)), min(a, b)), max(a, b))
    found = power_between((a, b), (x, y), n)
    assert math.isfinite(found)
    assert min(x, y) * (1 - 1e-9) <= found <= max(x, y) * (1 + 1e-9)
    assert power_between((a, b), (x, y), a) == pytest.approx(x)
    assert power_between((a, b), (x, y), b) == pytest.approx(y)


@given(
    st.lists(
        st.tuples(st.integers(1, 1 << 20), st.floats(1e-9, 1e12)), min_size=3, max_size=8, unique_by=lambda t: t[0]
    )
)
@settings(max_examples=100)
def test_an_interpolation_misses_by_a_number(points: list[tuple[int, float]]) -> None:
    points.sort()
    missed = interpolation_miss([n for n, _ in points], [ms for _, ms in points])
    assert missed is not None
    assert 1 <= missed < math.inf


@pytest.mark.parametrize("sizes", [(4095, 4097), (16383, 16385), (65535, 65537)])
@pytest.mark.parametrize("times", [(1.0, 1.3), (5.0, 0.01), (1e-3, 1e3)])
def test_neighbouring_sizes_neither_break_nor_blank_an_answer(
    tmp_path: Path, sizes: tuple[int, int], times: tuple[float, float]
) -> None:
    low, high = sizes
    told = [Told("flash", n=n, ms=ms) for n, ms in zip(sizes, times, strict=True)] + [Told("full", n=low + 1, ms=9.0)]
    told += [Told("anchor", n=n, m=64, ms=ms) for n, ms in zip((low, low + 1, high), (*times, times[0]), strict=True)]
    run = stored(tmp_path / "r", told)
    answer = ask(run, n=low + 1)
    text = json.dumps(as_json(answer), allow_nan=False)
    assert "nan" not in as_text(answer) + text
    between = next(candidate for candidate in answer.ranking if candidate.name == "flash")
    assert min(times) <= between.time.ms <= max(times)
    assert stats.power_law(sizes, times).exponent == pytest.approx(math.log(times[1] / times[0]) / math.log(high / low))


# What it costs: the error that judges nothing, what is known to be kept, m as a choice

DIFFERENT = KINDS | {"anchor": "different", "linear": "different"}


def reached(attention: str, m: int | None, mean: float, **changes: Any) -> Reached:
    facts: dict[str, Any] = {
        "task": "recall", "problem": "items=56", "metric": "top1", "options": "", "n": 64, "seeds": 3,
        "lowest": mean - 0.01, "highest": mean + 0.01, "source": "results/x",
    }  # fmt: skip
    return Reached(attention=attention, m=m, mean=mean, **(facts | changes))


KNOWN = Known(
    reached=(
        reached("none", None, 0.18), reached("full", None, 1.0), reached("flash", None, 0.9, seeds=1),
        reached("anchor", 16, 0.98), reached("anchor", 64, 0.5, options="init=paper"), reached("nystrom", 64, 0.3),
    ),
    kinds=DIFFERENT, defaults={"anchor": {"init": "sharp"}},
)  # fmt: skip


def knowing(run: Run, *, kinds: dict[str, str] = DIFFERENT, **wish: Any) -> Answer:
    (answer,) = recommend(Stock([run], kinds=kinds), Wish(**{"n": 1024, **wish}), known=KNOWN)
    return answer


def test_the_error_of_what_estimates_nothing_is_told_and_ranks_nothing(tmp_path: Path) -> None:
    told = [
        Told("flash", n=1024, ms=10.0), Told("anchor", n=1024, m=16, ms=1.0, error=0.01),
        Told("linear", n=1024, ms=2.0, error=0.02), Told("nystrom", n=1024, m=64, ms=4.0, error=0.05),
    ]  # fmt: skip
    run = stored(tmp_path / "r", told)
    answer = knowing(run, max_error=0.1)
    assert names(answer) == ["nystrom m=64", "flash"]
    assert {one.candidate.name: one.reasons for one in answer.refused} == {
        "anchor m=16": ("no estimate of softmax attention: its approximation error, 0.0100, judges nothing",),
        "linear": ("no estimate of softmax attention: its approximation error, 0.0200, judges nothing",),
    }
    free = knowing(run)
    assert free.headline.splitlines()[1].endswith("as fast as flash; it computes something else.")
    assert "by 0.0100 of the norm; it is no estimate of that, so the figure judges nothing" in free.unknown[0]
    assert as_json(free)["choice"]["approximation_error"] == 0.01
    assert as_json(free)["choice"]["different"] is True


def test_a_run_of_before_does_not_take_the_difference_back(tmp_path: Path) -> None:
    environment = {"schema": 1, "kinds": {"anchor": "approximate", "mine": "exact"}}
    run = stored(tmp_path / "r", [Told("anchor", n=1024, m=16)], environment=environment)
    assert Stock([run], kinds=DIFFERENT).kinds == {**DIFFERENT, "mine": "exact"}


def test_what_models_kept_is_told_with_task_seeds_and_floor(run: Run) -> None:
    answer = knowing(run, m=(16,))
    assert answer.kept == [
        "Known of anchor m=16: recall (items=56, n=64): top1 0.980 (0.970 to 0.990 over 3 seeds), "
        "attention removed 0.180, exact 0.975; results/x.",
        "Those models have n = 64: at n = 1024 no accuracy was measured.",
    ]
    assert as_json(answer)["known"] == [
        {
            "task": "recall", "problem": "items=56", "metric": "top1", "attention": "anchor", "m": 16, "options": "",
            "n": 64, "seeds": 3, "mean": 0.98, "lowest": 0.97, "highest": 0.99, "source": "results/x",
            "floor_mean": pytest.approx(0.18), "exact_mean": pytest.approx(0.975),
        }
    ]  # fmt: skip
    assert answer.kept[0].split(": ", 1)[1] in " ".join(as_text(answer).split())


def test_of_another_m_or_other_options_nothing_is_claimed(tmp_path: Path, run: Run) -> None:
    (line,) = knowing(run, m=(64,)).kept
    assert line.startswith("Nothing is known of the accuracy of anchor m=64 (of m = 16 something is); docs/which.md")
    told = [Told("anchor", n=1024, m=64, options="init=paper"), Told("flash", n=1024, ms=2.0)]
    assert "Known of anchor m=64: recall" in knowing(stored(tmp_path / "p", told)).kept[0]
    told = [Told("anchor", n=1024, m=16, options="init=sharp"), Told("flash", n=1024, ms=2.0)]  # named, and the default
    assert "Known of anchor m=16: recall" in knowing(stored(tmp_path / "d", told)).kept[0]
    told = [Told("performer", n=1024, m=16), Told("flash", n=1024, ms=2.0)]
    (line,) = knowing(stored(tmp_path / "n", told)).kept
    assert line.startswith("Nothing is known of the accuracy of performer m=16; docs/which.md")


def test_without_m_the_smallest_does_not_win_silently(run: Run) -> None:
    answer = knowing(run)
    assert answer.kept[0] == (
        "m is a choice, not part of the answer: m=16 takes 1.00 ms, at worst recall 0.970; "
        "m=64 takes 2.00 ms, nothing known of it."
    )
    assert not any("is a choice" in line for line in knowing(run, m=(16, 64)).kept)


def test_an_accuracy_is_chosen_by_in_the_worst_seed(run: Run) -> None:
    answer = knowing(run, task="recall", min_accuracy=0.95)
    assert names(answer) == ["anchor m=16"]  # of the exact ones flash's only seed reached 0.89
    reasons = {one.candidate.name: one.reasons[0] for one in answer.refused}
    assert reasons["anchor m=64"] == "nothing is known of its recall"
    assert reasons["nystrom m=64"] == "recall (items=56, n=64): top1 0.290 in its worst seed, under 0.950"
    assert reasons["full"] == reasons["flash"] == "recall (items=56, n=64): top1 0.890 in its worst seed, under 0.950"
    assert answer.headline.startswith("Exact: none keeps the limits at n = 1024; nearest: flash, recall (items=56")
    assert names(knowing(run, task="recall", min_accuracy=0.88)) == ["anchor m=16", "flash", "full"]
    assert knowing(run, task="recall", min_accuracy=1.0).choice is None


def test_of_a_task_that_is_told_by_an_error_less_is_better(run: Run) -> None:
    """The worst seed is the highest, and a limit is one that it is not above."""
    facts: dict[str, Any] = {"task": "darcy", "metric": "relative_l2", "problem": ""}
    known = Known(
        reached=(
            reached("none", None, 0.16, **facts), reached("full", None, 0.07, **facts),
            reached("anchor", 16, 0.09, **facts), reached("nystrom", 64, 0.12, **facts),
        ),
        kinds=DIFFERENT, defaults={},
    )  # fmt: skip

    def asking(**wish: Any) -> Answer:
        (answer,) = recommend(Stock([run], kinds=DIFFERENT), Wish(n=1024, task="darcy", **wish), known=known)
        return answer

    answer = asking(max_task_error=0.1)
    assert names(answer) == ["anchor m=16", "flash", "full"]
    reasons = {one.candidate.name: one for one in answer.refused}
    assert reasons["nystrom m=64"].reasons == ("darcy (n=64): relative_l2 0.130 in its worst seed, over 0.100",)
    assert reasons["anchor m=64"].reasons == ("nothing is known of its darcy",)
    assert "keeps the limits" in answer.headline
    assert names(asking(max_task_error=0.0999)) == ["flash", "full"]
    assert asking(max_task_error=0.01).choice is None
    (free,) = recommend(Stock([run], kinds=DIFFERENT), Wish(n=1024), known=known)
    assert "m=16 takes 1.00 ms, at worst darcy error 0.100; m=64" in free.kept[0]


def test_the_runs_own_accuracies_come_before_the_shipped_ones(tmp_path: Path) -> None:
    from making import case, row

    from harness import figures
    from harness.store.record import Reading
    from harness.store.runs import Store

    with Store.open(tmp_path / "mine", metrics=("top1",)) as store:
        for seed, top1 in ((0, 0.5), (1, 0.7)):
            options = "data=mine;recipe.lr=0.1;task=classification"
            of = case(attention="anchor", scope="model", m=16, options=options, seed=seed)
            store.append([row(of, Reading(metric="top1", value=top1, samples=9))], {})
    known = Known.of([figures.load(tmp_path / "mine")], kinds=DIFFERENT)
    (own,) = [one for one in known.reached if one.source == str(tmp_path / "mine")]
    assert (own.task, own.m, own.seeds, own.mean, own.lowest) == ("classification mine", 16, 2, pytest.approx(0.6), 0.5)
    assert known.reached[0] == own
    assert known.told(own).startswith(
        "classification mine (n=64): top1 0.600 (0.500 to 0.700 over 2 seeds), and no floor was measured; "
    )
    assert {"recall", "digits", "legend-segmentation", "legend-detection"} <= set(known.tasks)


def test_a_study_that_is_asked_is_not_told_twice() -> None:
    from harness import figures
    from harness.answers.known import shipped

    study = Path(__file__).parents[3] / "results" / "cpu"
    defaults = {"anchor": {"init": "sharp", "logits": "dot"}}
    known = Known.of([figures.load(study / "legend")], kinds=DIFFERENT, defaults=defaults)
    assert known.reached == shipped()
    known = Known.of([figures.load(study / "recall")], kinds=DIFFERENT, defaults=defaults)
    assert known.reached[-len(shipped()) :] == shipped()
    more = {(one.n, "questions" in one.problem) for one in known.reached[: -len(shipped())]}
    assert more
    assert (64, False) not in more  # which is shipped
