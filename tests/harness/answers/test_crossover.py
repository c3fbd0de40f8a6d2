"""The search for a crossover, on latencies that are formulas; the command, on variants that run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cli
from harness.answers import measure_crossover as crossing
from harness.answers.crossover import PRECISION, Crossover, Probe, compare, find, one_sided
from harness.engines.watch import Watch
from harness.errors import Failure, UsageError
from harness.machine.quiet import Moment
from harness.machine.shown import Shown
from harness.measuring.requests import PairFailure, Turns

VARIANTS = str(Path(__file__).parents[1] / "variants.py")


def probes(a: Callable[[int], float], b: Callable[[int], float], *, noise: float = 0.0) -> Callable[[int], Probe]:
    """Probes of two latencies in ms, from forty pairs with a relative noise of their own."""
    random = np.random.default_rng(0)

    def probe(n: int) -> Probe:
        times = [f(n) * np.exp(noise * random.standard_normal(40)) for f in (a, b)]
        return compare(*times, n=n)

    return probe


def linear(crossing_at: float) -> Callable[[int], float]:
    return lambda n: n * crossing_at / 1e6


def quadratic(n: int) -> float:
    return n**2 / 1e6


@given(st.integers(130, 60_000))
@settings(max_examples=60)
def test_a_crossover_is_found_to_five_percent(at: int) -> None:
    found = find(probes(linear(at), quadratic), low=128, high=65536)
    assert found.kind == "found"
    assert found.low is not None
    assert found.low <= at <= found.high * PRECISION
    assert abs(found.n / at - 1) < 0.01  # by interpolation, exact for power laws
    assert found.high / found.low < PRECISION**2 or any(p.winner == "tie" for p in found.probes)
    assert [p.n for p in found.probes] == sorted({p.n for p in found.probes})


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_noise_widens_the_interval_and_it_still_holds_the_truth(noise: float) -> None:
    found = find(probes(linear(3000), quadratic, noise=noise), low=128, high=65536)
    assert found.low is not None
    assert found.low <= 3000 <= found.high
    assert abs(found.n / 3000 - 1) < 3 * noise


def test_never_and_always_are_told_from_each_other() -> None:
    never = find(probes(linear(1e9), quadratic), low=128, high=5000)
    assert (never.kind, never.n, never.low, never.high) == ("never", None, None, None)
    assert [p.n for p in never.probes] == [128, 256, 512, 1024, 2048, 4096, 5000]
    assert never.sentence("x", "y") == "no crossover: x does not beat y at any n tried from 128 to 5000"
    always = find(probes(linear(5), quadratic), low=128, high=65536)
    assert (always.kind, [p.n for p in always.probes]) == ("always", [128, 256])
    assert always.sentence("x", "y") == (
        "x beats y at every n tried, 128 to 256: a crossover, if there is one, lies below 128"
    )


def test_a_tie_is_no_win() -> None:
    tied = find(probes(quadratic, quadratic, noise=0.05), low=128, high=4096)
    assert tied.kind == "never"
    assert {p.winner for p in tied.probes} <= {"tie", "A", "B"}
    assert compare([1.0] * 9, [1.0] * 9, n=1).winner == "tie"


def test_one_early_win_is_no_crossover() -> None:
    """A wins at 256 alone, the smallest n, then from 3000 on."""

    def a(n: int) -> float:
        return quadratic(n) / 2 if n == 256 else linear(3000)(n)

    found = find(probes(a, quadratic), low=256, high=65536)
    assert abs(found.n / 3000 - 1) < 0.01
    assert found.sentence("x", "y").endswith("; tried up to 8192), and also at n = 256")


def test_a_lead_that_is_lost_is_told() -> None:
    """A wins up to 256 and not at the end: no crossover, and not 'at any n' either."""

    def a(n: int) -> float:
        return quadratic(n) * (2 if n > 300 else 0.5 if n == 256 else 2)

    found = find(probes(a, quadratic), low=128, high=4096)
    assert found.kind == "never"
    assert found.sentence("x", "y") == "no crossover: x beats y at n = 256 but not at n = 4096, the largest tried"


def test_a_win_at_the_end_of_the_range_counts() -> None:
    found = find(probes(linear(3500), quadratic), low=128, high=4096)
    assert abs(found.n / 3500 - 1) < 0.01
    assert found.probes[-1].n == 4096


def test_who_cannot_run_loses() -> None:
    """B runs out of memory from 2048 on, and is faster wherever it runs: the crossover is where it stops running."""

    def probe(n: int) -> Probe:
        if n >= 2048:
            return one_sided(n, a_runs=True, b_runs=False, note="B: needs 9 GB")
        return compare([2.0 * n] * 9, [1.0 * n] * 9, n=n)

    found = find(probe, low=128, high=65536)
    assert found.kind == "found"
    assert found.low < 2048 <= found.high <= 2048 * PRECISION
    assert one_sided(8, a_runs=False, b_runs=True, note="").winner == "B"
    assert one_sided(8, a_runs=False, b_runs=False, note="").winner == "tie"
    neither = find(lambda n: one_sided(n, a_runs=False, b_runs=False, note=""), low=128, high=1024)
    assert neither.kind == "never"


def test_the_probes_are_few() -> None:
    count = 0

    def probe(n: int) -> Probe:
        nonlocal count
        count += 1
        return compare([linear(30_000)(n)] * 9, [quadratic(n)] * 9, n=n)

    find(probe, low=128, high=1 << 20)
    assert count <= math.log2((1 << 20) / 128) + 1 + math.log2(math.log(2) / math.log(PRECISION)) + 2


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.floats(0.01, 100))
def test_a_probe_is_the_median_of_the_pairs(b_ms: list[float], factor: float) -> None:
    """What both share, such as a slow moment, does not move the ratio."""
    probe = compare([factor * t for t in b_ms], b_ms, n=64)
    assert probe.low <= probe.ratio <= probe.high
    assert probe.low == pytest.approx(factor)
    assert probe.high == pytest.approx(factor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["anchor", "anchor"], "crossover compares two different variants, such as anchor flash, not 'anchor' and 'an"),
        (["anchor,flash", "full"], "compares two different variants"),
        (["", "full"], "compares two different variants"),
        (
            ["anchr", "full"],
            "unknown attention 'anchr'; did you mean 'anchor'? valid: agent, anchor, flare, flash, full",
        ),
        (["anchor:sdp", "full"], "unknown backend of anchor 'sdp'; did you mean 'sdpa'?"),
        (["anchor", "full", "--low", "x"], "--low: 'x' is not valid: n takes whole numbers from 1"),
        (["anchor", "full", "--high", "1k,2k"], "--high takes one n, not '1k,2k'"),
        (["anchor", "full", "--low", "4k", "--high", "1k"], "--low 4k must be below --high 1k"),
        (["anchor", "full", "--n", "64"], "crossover chooses n itself; leave --n out and use A, B, --low and --high"),
        (["anchor", "full", "--attention", "x"], "crossover chooses attention itself"),
        (["anchor", "full", "--m", "16,32"], "crossover compares one size at a time: give one --m"),
        (["anchor", "full", "--phase", "train,forward"], "give one --phase"),
        (["anchor", "full", "--kv-heads", "1,2"], "give one --kv-heads"),
        (["anchor", "full", "--set", "anchor.init=paper,sharp"], "give one --set anchor.init"),
        (["linear", "full", "--causal", "--kv-tokens", "64"], "--causal with --kv-tokens leaves open which token sees"),
        (["linear", "full", "--kv-heads", "4"], "--kv-heads 4 must divide --heads, which is 6"),
        (["anchor"], "Missing argument 'b'."),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    catalogue: dict, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["crossover", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_command_measures_and_answers_in_json(surroundings: dict[str, str], capsys: pytest.CaptureFixture) -> None:
    """`huge` is refused by its own cost model and `memory_error` as it runs: whoever runs wins at every n."""
    axes = ["--plugin", VARIANTS, "--heads", "2", "--head-dim", "16", "--low", "32", "--high", "64", "--budget", "0.01"]
    axes += ["--patience", "0"]
    assert cli.main(["crossover", "right", "memory_error", *axes, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert document["kind"] == "always"
    assert (document["a"], document["b"], document["device"]) == ("right", "memory_error", "cpu")
    assert [(p["n"], p["ratio"], p["note"]) for p in document["probes"]] == [
        (n, None, "memory_error: MemoryError") for n in (32, 64)
    ]
    assert cli.main(["crossover", "huge", "right", *axes]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("no crossover: huge does not beat right at any n tried from 32 to 64 on cpu")
    assert "Traceback" not in err


class Fake:
    """An engine whose answers are given: what a probe makes of each."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def resolve(self, cases: list[Any]) -> list[Any]:
        from harness.cases.catalogue import Resolution

        return [Resolution(case=case, peak_bytes=10) for case in cases]

    def free_bytes(self) -> int:
        return 100

    def canary(self) -> float:
        return 1.0

    def moment(self) -> Moment:
        return Moment(seconds=time.monotonic())

    def pair(self, *arguments: Any, **named: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_probe_that_fails_is_a_win_or_the_end() -> None:
    import making

    from harness.cases.space import Sweep
    from harness.engines.local import WorkerLost

    pair, sweep = [making.case(attention="a"), making.case(attention="b")], Sweep()

    def probe(answer: Any) -> Probe:
        engine: Any = Fake(answer)
        watch = Watch(engine, Shown(), threads=1, cuda=False, patience_s=0.0)
        return crossing._probe(engine, sweep, pair, 64, watch, lambda line: None)

    assert probe(PairFailure(status="oom", note="no", which=1)).winner == "A"
    assert probe(PairFailure(status="unsupported", note="no", which=0)).winner == "B"
    for answer in (
        PairFailure(status="error", note="wrong", which=1),
        PairFailure(status="oom", note="both at once", which=None),
        WorkerLost("timeout", "no result"),
    ):
        with pytest.raises(Failure, match="at n = 64: "):
            probe(answer)
    assert probe(Turns(a=[1.0] * 8, b=[2.0] * 8)).ratio == pytest.approx(0.5)


def test_only_found_crossovers_have_an_interval() -> None:
    one = Probe(n=64, ratio=0.5, low=0.4, high=0.6, a_ms=1, b_ms=2)
    answer = Crossover(kind="found", n=64, low=None, high=64, probes=(one, replace(one, n=128)))
    assert answer.sentence("x", "y") == "x beats y from about n = 64 on (between below 64 and 64; tried up to 128)"
    with pytest.raises(UsageError):
        crossing.measure({"attention": "x"}, "a", "b", low="1", high="2")


def disturbed(
    a: Callable[[int], float], b: Callable[[int], float], *, at: Callable[[int], bool], factor: float
) -> Callable[[int], Probe]:
    """Probes of two latencies, of which those `at` some n were taken beside a neighbour."""

    def probe(n: int) -> Probe:
        return compare(
            [a(n)] * 20,
            [b(n)] * 20,
            n=n,
            contended="others had 1 of 2 cores" if at(n) else "",
            factor=factor if at(n) else 1.0,
        )

    return probe


def test_times_that_fall_as_n_grows_are_refused() -> None:
    """Anchor at n = 535 took 72 ms and at 558 0.83, beside a busy loop: no crossover is read from that."""

    def a(n: int) -> float:
        return 72.0 if n <= 540 else 0.83

    found = find(probes(a, lambda n: 20.0 * n / 512), low=128, high=8192)
    assert (found.kind, found.n, found.low, found.high) == ("refused", None, None, None)
    assert found.sentence("anchor", "flash") == (
        "no answer: the times of anchor fall as n grows, from at least 72 ms at n = 128 to at most 0.83 ms at n = 1024"
        ": something disturbed them; measure again on a quiet machine"
    )


def test_a_fall_within_the_intervals_is_no_fall() -> None:
    found = find(probes(linear(3000), quadratic, noise=0.3), low=128, high=65536)
    assert found.kind == "found"
    flat = find(probes(lambda n: 1.0 / (1 + n / 1e6), quadratic), low=128, high=65536)  # by 6 % over the whole range
    assert flat.kind == "found"


def test_an_answer_that_hangs_on_a_disturbed_probe_is_refused() -> None:
    found = find(disturbed(linear(3000), quadratic, at=lambda n: n > 2000, factor=4.0), low=128, high=65536)
    assert found.kind == "refused"
    said = found.sentence("anchor", "flash")
    assert said.startswith("no answer: it hangs on n = ")
    assert "others had 1 of 2 cores" in said
    assert "--patience" in said


def test_a_disturbed_probe_that_decides_nothing_is_told_first() -> None:
    found = find(disturbed(linear(3000), quadratic, at=lambda n: n == 256, factor=2.0), low=128, high=65536)
    assert abs((found.n or 0) / 3000 - 1) < 0.01
    assert found.sentence("x", "y").startswith(
        "CONTENDED at n = 256 (others had 1 of 2 cores): x beats y from about n = "
    )
    sure = find(disturbed(linear(3000), quadratic, at=lambda n: True, factor=1.01), low=128, high=128 * 2)
    assert (sure.kind, [p.winner for p in sure.probes]) == ("never", ["B", "B"])
    assert sure.sentence("x", "y").startswith("CONTENDED at n = 128, n = 256 (")


def test_a_contended_probe_is_as_unsure_as_its_machine() -> None:
    quiet, loud = (compare([1.0] * 9, [2.0] * 9, n=64, contended=why, factor=by) for why, by in (("", 1.0), ("a", 3.0)))
    assert (quiet.winner, loud.winner) == ("A", "tie")
    assert (loud.low, loud.high) == pytest.approx((0.5 / 3, 1.5))
    assert loud.a_range == pytest.approx((1 / 3, 3.0))


class Beside(Fake):
    """An engine beside a neighbour, whose answers never change."""

    moments = 0

    def open(self) -> dict[str, Any]:
        from harness.cases.catalogue import cached

        known = cached([])
        assert known is not None
        environment = {"torch": {"threads": 2}}
        return {"device": "cpu", "machine": "here", "catalogue": known["attentions"], "environment": environment}

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *failure: object) -> None: ...

    def moment(self) -> Moment:
        self.moments += 1
        return Moment(
            seconds=float(self.moments), cores=2, busy_s=2.0 * self.moments, steal_s=0.0, own_s=float(self.moments)
        )


def test_the_command_refuses_on_its_first_line_and_by_its_exit_code(
    catalogue: dict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(crossing, "check_names", lambda sweep: None)
    monkeypatch.setattr(crossing, "Engine", lambda **how: Beside(Turns(a=[1.0] * 20, b=[1.2] * 20)))
    arguments = ["crossover", "anchor", "full", "--low", "128", "--high", "256", "--patience", "0"]
    assert cli.main(arguments) == 3
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(
        "no answer: it hangs on n = 256, measured while the machine was not quiet (others"
    )
    assert out.count("contended") == 2  # each probe's line
    assert err.count("; contended: others had 1 of 2 cores") == 2
    assert cli.main([*arguments, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["n"]) == ("refused", None)
    assert {probe["contended"] for probe in document["probes"]} == {"others had 1 of 2 cores"}
