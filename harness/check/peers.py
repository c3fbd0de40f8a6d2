"""What other tools would have said of the same samples: one process of base against one of head, as they compare.

for rule in rules(): rule.slower(base_samples, head_samples)      # True: it would report a slowdown

Where a tool is installed its own code decides; else its documented rule, and `source` says which. None is a dependency.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError

Samples = Sequence[float]
THRESHOLD = 1.10
ASV_P = 0.002


@dataclass(frozen=True)
class Rule:
    """A peer's rule, by whose code it runs."""

    name: str
    source: str
    slower: Callable[[Samples, Samples], bool]


def rules() -> list[Rule]:
    """The rules of pytest-benchmark, Mann-Whitney, Welch, pyperf and asv. Raises UsageError without scipy."""
    try:
        from scipy import stats
    except ImportError:
        raise UsageError("--self-test needs scipy: pip install 'attention-harness[dev]'") from None

    def mann_whitney(base: Samples, head: Samples) -> bool:
        return bool(stats.mannwhitneyu(head, base).pvalue < 0.05) and _median(head) > _median(base)

    def welch(base: Samples, head: Samples) -> bool:
        test: Any = stats.ttest_ind(head, base, equal_var=False)
        return bool(test.pvalue < 0.05) and _mean(head) > _mean(base)

    scipy = f"scipy {_version('scipy')}"
    return [
        _pytest_benchmark("mean", _mean),
        _pytest_benchmark("median", _median),
        Rule("Mann-Whitney U, p < .05", scipy, mann_whitney),
        Rule("Welch t, p < .05", scipy, welch),
        _pyperf(stats),
        _asv(stats),
    ]


def _pytest_benchmark(field: str, figure: Callable[[Samples], float]) -> Rule:
    name = f"pytest-benchmark {field}:10%"
    try:
        from pytest_benchmark.utils import parse_compare_fail  # type: ignore[import-not-found]
    except ImportError:
        return Rule(name, "documented rule", lambda base, head: figure(head) > THRESHOLD * figure(base))
    check: Any = parse_compare_fail(f"{field}:10%")

    def slower(base: Samples, head: Samples) -> bool:
        return bool(check.fails({field: figure(head)}, {field: figure(base)}))

    return Rule(name, f"pytest-benchmark {_version('pytest-benchmark')}", slower)


def _pyperf(stats: Any) -> Rule:
    name = "pyperf compare_to"
    try:
        from pyperf._utils import is_significant  # type: ignore[import-not-found]
    except ImportError:

        def student(base: Samples, head: Samples) -> bool:
            return bool(stats.ttest_ind(head, base).pvalue < 0.05) and _mean(head) > _mean(base)

        return Rule(name, "documented rule: Student's t, 95 %", student)

    def slower(base: Samples, head: Samples) -> bool:
        common = min(len(base), len(head))  # pyperf refuses unequal numbers: its runs take a fixed one
        base, head = base[:common], head[:common]
        return bool(is_significant(base, head)[0]) and _mean(head) > _mean(base)

    return Rule(name, f"pyperf {_version('pyperf')}", slower)


def _asv(stats: Any) -> Rule:
    """asv continuous: medians 1.1 apart, and the samples different by asv's own test."""
    name = "asv, factor 1.1"
    try:
        from asv._stats import is_different  # type: ignore[import-not-found]
        from asv_runner.statistics import compute_stats  # type: ignore[import-not-found]
    except ImportError:

        def documented(base: Samples, head: Samples) -> bool:
            far = _median(head) > THRESHOLD * _median(base)
            return far and bool(stats.mannwhitneyu(base, head).pvalue < ASV_P)

        return Rule(name, "documented rule: medians 1.1 apart and Mann-Whitney U, p < .002", documented)

    def slower(base: Samples, head: Samples) -> bool:
        (one, about_one), (two, about_two) = compute_stats(list(base), 1), compute_stats(list(head), 1)
        return two > THRESHOLD * one and bool(is_different(list(base), list(head), about_one, about_two))

    return Rule(name, f"asv {_version('asv')}", slower)


def _mean(samples: Samples) -> float:
    return statistics.fmean(samples)


def _median(samples: Samples) -> float:
    return statistics.median(samples)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
