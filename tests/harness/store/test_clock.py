"""Latencies by the device's clock, the host's, or a lone eager call's: rows whose times are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest

from harness import figures
from harness.answers.candidates import Stock
from harness.answers.document import as_json
from harness.answers.recommend import Wish, recommend
from harness.errors import UsageError
from harness.figures import latency as latency_figure
from harness.store import clock
from harness.store.record import Case, Reading
from harness.store.runs import Store

GPU = replace(making.CASE, device="cuda:0", dtype="bfloat16", n=1024)
FAST = replace(GPU, attention="anchor", backend="triton", m=64)  # on the device; its host takes long
SLOW = replace(GPU, attention="flash", backend="torch")
WAITS = replace(GPU, attention="full")
OLD = replace(GPU, attention="linformer", m=64)  # of a run that did not measure the host
LOST = replace(GPU, attention="nystrom", m=64)
ON_CPU = replace(making.CASE, n=1024)


def reading(metric: str, ms: float, note: str = "") -> Reading:
    return Reading(metric=metric, value=ms, ci_low=0.9 * ms, ci_high=1.2 * ms, p20=ms, p80=ms, samples=3, note=note)


@pytest.fixture
def run(tmp_path: Path) -> figures.Run:
    with Store.open(tmp_path / "run", metrics=("latency", "host", "throughput")) as store:
        for case, device, host in ((FAST, 0.1, 0.4), (SLOW, 0.2, 0.05)):
            found = [reading("latency", device, "device time"), reading("host", host, "enqueuing")]
            found.append(found[0].per(1000, metric="throughput"))
            samples = {"latency": [device] * 3, "host": [host] * 3}
            store.append([making.row(case, one) for one in found], samples)
        apart = Reading(metric="host", status="unsupported", note="not apart from the device's time")
        store.append([making.row(WAITS, one) for one in (reading("latency", 0.7, "wall clock: it waits"), apart)], {})
        store.append([making.row(OLD, reading("latency", 0.3))], {})
        store.append(making.failed(LOST), {})
        host = Reading(metric="host", status="unsupported", note="on a CPU")
        store.append([making.row(ON_CPU, one) for one in (reading("latency", 2.0), host)], {})
    return figures.load(tmp_path / "run")


def latency(run: figures.Run, case: Case, metric: str = "latency") -> Any:
    frame = run.frame
    (row,) = frame[(frame["case_id"] == case.case_id) & (frame["metric"] == metric)].itertuples()
    return row


def test_the_devices_own_time_is_what_is_stored(run: figures.Run) -> None:
    assert run.by("latency").frame.equals(run.frame)
    assert latency(run, FAST).value == 0.1


@pytest.mark.parametrize(("by", "fast", "slow"), [("host", 0.4, 0.05), ("eager", 0.4, 0.2)])
def test_the_host_or_the_longer_of_both(run: figures.Run, by: str, fast: float, slow: float) -> None:
    timed = run.by(by)
    for case, ms in ((FAST, fast), (SLOW, slow)):
        row = latency(timed, case)
        assert (row.value, row.ci_low, row.ci_high) == pytest.approx((ms, 0.9 * ms, 1.2 * ms))
        samples = timed.samples(row)
        assert samples is not None
        assert samples.tolist() == [ms] * 3
        rate = latency(timed, case, "throughput")
        assert (rate.value, rate.ci_low, rate.ci_high) == pytest.approx((1000 / ms, 1000 / ms / 1.2, 1000 / ms / 0.9))
    assert latency(timed, FAST).note == "the host's time: enqueuing"
    assert latency(run, FAST).value == 0.1, "the run itself is unchanged"


def test_what_cannot_be_told_is_no_value(run: figures.Run) -> None:
    host, eager = run.by("host"), run.by("eager")
    assert latency(eager, WAITS).value == 0.7  # the wall clock's holds both
    assert (latency(host, WAITS).status, latency(host, WAITS).note) == (
        "unsupported", "not apart from the device's time",
    )  # fmt: skip
    for timed in (host, eager):
        assert (latency(timed, OLD).status, latency(timed, OLD).note) == ("unsupported", clock.UNKNOWN)
        assert math.isnan(latency(timed, OLD).value)
        assert latency(timed, LOST).status == "oom"
        assert latency(timed, ON_CPU).value == 2.0


def test_an_unknown_clock_names_the_valid_ones(run: figures.Run) -> None:
    with pytest.raises(UsageError, match="unknown clock 'hosts'; did you mean 'host'\\? valid: latency, host, eager"):
        run.by("hosts")


@pytest.mark.parametrize(("by", "first"), [("latency", "anchor"), ("host", "flash"), ("eager", "flash")])
def test_a_recommendation_by_each_clock_says_which(run: figures.Run, by: str, first: str) -> None:
    kinds = {"flash": "exact", "anchor": "approximate", "full": "exact"}
    stock = Stock([run.by(by)], kinds=kinds)
    answers = recommend(stock, Wish(n=1024, by=by), keep=lambda setting: setting["device"] != "cpu")
    (answer,) = answers
    assert answer.choice is not None
    assert answer.choice.attention == first
    assert answer.reasons[-1] == clock.told(by, "cuda:0") != ""
    assert as_json(answer)["by"] == by
    (on_cpu,) = recommend(stock, Wish(n=1024, by=by), keep=lambda setting: setting["device"] == "cpu")
    assert not any("Times are" in reason for reason in on_cpu.reasons)


@pytest.mark.parametrize("by", clock.CLOCKS)
def test_a_figure_by_each_clock_says_which(run: figures.Run, by: str) -> None:
    said = {}
    for sheet in latency_figure.draw(run.by(by)):
        texts = " ".join(" ".join(text.get_text().split()) for text in sheet.figure.texts)
        said["cpu" in texts] = clock.told(by, "cuda:0") in texts
    assert said == {True: False, False: True}
