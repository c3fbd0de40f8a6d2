"""What the trial showed: how well its median is known, how its samples spread, and whether it drifts."""

from __future__ import annotations

from collections.abc import Iterator

from harness.machine.doctor import Finding, Place

QUIETER = "see the findings above, then run harness doctor again"


def findings(place: Place) -> Iterator[Finding]:
    trial = place.trial
    if trial is None:
        yield Finding(
            check="trial", level="unknown", seen=place.no_trial, why="Without it nothing is known of the noise here.",
            do="look at the reason, then run harness doctor again",
        )  # fmt: skip
        return
    yield _graded(
        "median", 100 * trial.half_width, 1.0, 5.0,
        f"{trial.median_ms:.4g} ms +/- {100 * trial.half_width:.2f} % ({trial.samples} samples; {trial.product})",
        "A median that is not known to 1 % makes a run measure longer, up to its time budget.",
    )  # fmt: skip
    yield _graded(
        "spread", 100 * trial.spread, 5.0, 15.0, f"p80 is {100 * trial.spread:.1f} % above p20",
        "The wider the samples of identical calls spread, the more of them a median needs.",
    )  # fmt: skip
    slower = "more" if trial.drift > 0 else "less"
    yield _graded(
        "drift", 100 * trial.drift, 2.0, 5.0,
        f"the second half took {abs(100 * trial.drift):.1f} % {slower} time than the first",
        "A machine that drifts makes the later case look different, however many samples it has.",
        "warm up longer, hold the clock (governor, boost), or harness doctor --seconds 60 to see whether it settles",
    )  # fmt: skip
    yield _graded(
        "noise", 100 * trial.noise, 1.0, 5.0,
        f"medians of a tenth of the probe vary by {100 * trial.noise:.2f} % (standard deviation)",
        "This is how far two measurements of one and the same case stand apart, whatever their intervals say.",
    )  # fmt: skip


def _graded(
    check: str, percent: float, warn: float, problem: float, seen: str, why: str, do: str = QUIETER
) -> Finding:  # fmt: skip
    level = "problem" if abs(percent) >= problem else "warn" if abs(percent) >= warn else "ok"
    return Finding(
        check=check, level=level, seen=seen, why=why, do="" if level == "ok" else do, value=round(percent, 4), unit="%"
    )
