"""The largest batch that fits: bisected by what is predicted, then by trying; and where it cannot be found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import making
import pytest

from harness import cli
from harness.cases.axes import LARGEST_BATCH
from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.errors import UsageError
from harness.store.record import Case
from harness.sweep.largest import bisected, largest, settled


class Device:
    """An engine whose cases hold 10 bytes an image, of `free`, and fit while they are no more than `most`."""

    def __init__(self, *, most: int, free: int = 10_000, predicts: bool = True) -> None:
        self.most, self.free, self.predicts = most, free, predicts
        self.tried: list[int] = []

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return [Resolution(case=case, peak_bytes=10 * case.b if self.predicts else None) for case in cases]

    def free_bytes(self) -> int:
        return self.free

    def fits(self, case: Case, *, timeout_s: float) -> str:
        self.tried.append(case.b)
        return "" if case.b <= self.most else f"oom: {case.b} is too much"


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 100, 999, 1000, 1 << 20, 1 << 21])
@pytest.mark.parametrize("first", [1, 64, 1 << 20])
def test_what_fits_and_what_does_not_are_near(limit: int, first: int) -> None:
    found = bisected(lambda b: "" if b <= limit else f"{b}", first=first)
    assert found.fits <= limit
    if limit == 0:
        assert (found.fits, found.refused) == (0, 1)
    elif limit >= 1 << 20:
        assert (found.fits, found.refused) == (1 << 20, 0)
    else:
        assert limit < found.refused <= found.fits + max(1, found.fits // 16)
        assert found.why == str(found.refused)


def test_trying_begins_at_the_prediction() -> None:
    device = Device(most=700)
    b, how = largest(making.case(b=LARGEST_BATCH), device, timeout_s=60)
    assert device.tried[0] in range(940, 1001)
    assert 656 <= b <= 700
    refused = min(t for t in device.tried if t > 700)
    assert how == f"largest batch: {b} fits; {refused} does not: oom: {refused} is too much"


def test_without_a_prediction_it_doubles() -> None:
    device = Device(most=9, predicts=False)
    assert largest(making.case(b=LARGEST_BATCH), device, timeout_s=60)[0] == 9
    assert device.tried[:5] == [1, 2, 4, 8, 16]


def test_time_ends_it() -> None:
    device = Device(most=9)
    b, how = largest(making.case(b=LARGEST_BATCH), device, timeout_s=0)
    assert (b, device.tried) == (1, [])
    assert how == "largest batch: not even 1 fits: not tried: --timeout 0 had passed"


def test_a_plan_predicts_and_tries_nothing() -> None:
    device = Device(most=9)
    cases = [making.case(b=LARGEST_BATCH), making.case(b=3)]
    found = settled(cases, device, None, timeout_s=60)
    assert found[0].case.b == 3
    assert 940 <= found[1].case.b <= 1000
    assert found[1].note == "largest batch, as predicted"
    assert device.tried == []


def test_what_cannot_run_is_not_tried_and_what_cannot_try_says_so() -> None:
    class Refusing(Device):
        def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
            return [Resolution(case=case, status="unsupported", note="no") for case in cases]

    device = Refusing(most=9)
    (found,) = settled([making.case(b=LARGEST_BATCH)], device, device, timeout_s=60)
    assert (found.case.b, found.status, device.tried) == (1, "unsupported", [])

    class Cluster:
        def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
            return []

    with pytest.raises(UsageError, match="--batch max is found on one device of this machine"):
        settled([making.case(b=LARGEST_BATCH)], Cluster(), Cluster(), timeout_s=60)


def test_max_is_a_word_of_the_axis_batch_alone() -> None:
    sweep = Sweep.parse({"batch": "1,max"})
    assert sweep.batch == (1, LARGEST_BATCH)
    assert 'batch = [1, "max"]' in sweep.to_toml()
    assert Sweep.parse(sweep.model_dump()).batch == sweep.batch
    for keys in ({"n": "max"}, {"batch": "0"}, {"batch": "-2"}):
        with pytest.raises(UsageError, match="takes whole numbers from 1"):
            Sweep.parse(keys)


@pytest.mark.slow
def test_the_worker_tries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin that refuses more than five sequences stands for a device that is full there."""
    plugin = tmp_path / "small.py"
    plugin.write_text(
        "def small(q, k, v):\n    if q.shape[0] > 5:\n        raise MemoryError('out of memory')\n    return v * 2\n"
    )
    words = ["run", "--plugin", str(plugin), "--attention", "small", "--n", "16", "--heads", "1", "--head-dim", "4"]
    words += ["--batch", "max", "--metrics", "latency", "--budget", "0.02", "--patience", "0", "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "run"), "--json", "-q"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["b"], row["status"]) == (5, "ok")
    assert "largest batch: 5 fits; 6 does not: oom: " in row["note"]
    assert cli.main(["run", "--resume", "--plugin", str(plugin), "--out", str(tmp_path / "run"), "-q"]) == 2
    assert "its run cannot be resumed: give the batch found" in capsys.readouterr().err
