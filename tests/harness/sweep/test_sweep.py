"""What a sweep does with its cases, on an engine whose answers are given: nothing is measured here."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.engines.local import Outcome
from harness.errors import Failure, UsageError
from harness.machine.quiet import Moment
from harness.measuring.metrics import Settings
from harness.store import runs as store
from harness.store.ceilings import of_row
from harness.store.record import Case, Reading
from harness.store.runs import StoreError, StoreFull
from harness.sweep import conduct as sweep

VARIANT = {"bottleneck": "", "options": {"init": {}}, "backends": {"reference": {}}, "exponents": {"flops_n": 2}}
METRICS = ("latency", "flops")
WANTED = Sweep.parse({"attention": "one,two", "n": "64,128,256", "metrics": METRICS, "seed": 7})


class Script:
    """An engine that takes no time; `answer` says what becomes of a case."""

    def __init__(self, answer: Callable[[Case], Outcome] | None = None, *, canary: Sequence[float] = (1.0,)) -> None:
        self.answer, self.looks = answer or well, list(canary)
        self.measured: list[Case] = []
        self.asked: list[str] = []
        self.settings: list[Settings] = []

    def open(self) -> dict[str, Any]:
        catalogue = dict.fromkeys(("one", "two", "huge", "absent"), VARIANT)
        return {
            "device": "cpu", "catalogue": catalogue, "environment": {"cpu": {}}, "machine": "here", "commit": "c0ffee",
        }  # fmt: skip

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return [resolution(case) for case in cases]

    def free_bytes(self) -> int:
        return 1000

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        self.asked.append(f"ceilings {' '.join(dtypes)}")
        return {"copy_gb_per_s": 10.0, "matmul_tflops": dict.fromkeys(dtypes, 0.1)}

    def canary(self) -> float:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def moment(self) -> Moment:
        return Moment(seconds=time.monotonic())

    def examine(self, seconds: float) -> str:
        return ""

    def measure(self, case: Case, *, metrics: Sequence[str], settings: Settings, timeout_s: float) -> Outcome:
        self.measured.append(case)
        self.settings.append(settings)
        return self.answer(case)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.begun: tuple[int, int] = (-1, -1)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def begin(self, total: int, done: int, cases: Sequence[Case] = ()) -> None:
        self.begun = (total, done)

    def start(self, case: Case) -> None: ...

    def finish(self, case: Case, readings: Sequence[Reading]) -> None: ...


def resolution(case: Case) -> Resolution:
    from dataclasses import replace

    if case.attention == "absent":
        return Resolution(case=case, status="unavailable", note="needs a thing")
    peak = 10**12 if case.attention == "huge" else 10
    return Resolution(case=replace(case, backend="reference"), peak_bytes=peak, note="a remark")


def well(case: Case) -> Outcome:
    readings = [Reading(metric=name, value=float(case.n), samples=2, note="why") for name in METRICS]
    return Outcome(readings=readings, samples={"latency": [1.0, 2.0]}, seconds={"latency": 0.5, "numeric_error": 0.25})


def run(folder: Path, engine: Script, wanted: Sweep = WANTED, *, resume: bool = False) -> tuple[sweep.Result, Heard]:
    heard = Heard()
    return sweep.run(wanted, folder, engine=engine, listener=heard, resume=resume), heard  # type: ignore[arg-type]


def rows(folder: Path) -> list[tuple[str, int, str]]:
    frame = store.read(folder)
    return sorted(zip(frame["attention"], frame["n"], frame["metric"], strict=True))


def environment(folder: Path) -> dict[str, Any]:
    return json.loads((folder / store.ENVIRONMENT).read_text())


def test_a_run_leaves_a_complete_folder(tmp_path: Path) -> None:
    result, heard = run(tmp_path / "run", Script())
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "environment.json", "measurements.csv", "samples.csv", "sweep.toml"
    ]  # fmt: skip
    assert rows(tmp_path / "run") == sorted((v, n, m) for v in ("one", "two") for n in WANTED.n for m in METRICS)
    assert sweep.stored_sweep(tmp_path / "run") == WANTED
    assert (dict(result.statuses), heard.begun, heard.warnings) == ({"ok": 6}, (6, 0), [])
    document = environment(tmp_path / "run")
    assert (document["schema"], document["machine"], document["order_seed"]) == (1, "here", 7)
    assert set(store.read(tmp_path / "run")["run_id"]) == {document["run_id"]}
    (session,) = document["sessions"]
    assert session["seconds"]["latency"] == 3
    assert (session["checking_s"], session["measuring_s"] >= 4.5) == (1.5, True)
    assert document["measuring_s"] == session["measuring_s"]
    assert document["wall_s"] == session["wall_s"] == result.wall_s
    assert len(store.read_samples(tmp_path / "run")) == 12


def test_the_order_is_shuffled_by_the_seed(tmp_path: Path) -> None:
    orders = []
    for place, seed in enumerate((7, 7, 8)):
        engine = Script()
        run(tmp_path / str(place), engine, WANTED.model_copy(update={"seed": seed}))
        orders.append([(case.attention, case.n) for case in engine.measured])
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) != orders[0]


def test_the_same_case_asked_for_twice_is_measured_once(tmp_path: Path) -> None:
    wanted = WANTED.model_copy(update={"attention": ("one", "one:reference")})
    engine = Script()
    _, heard = run(tmp_path / "run", engine, wanted)
    assert (len(engine.measured), heard.begun) == (3, (3, 0))


def test_what_cannot_run_is_a_row_and_not_tried(tmp_path: Path) -> None:
    engine = Script()
    result, _ = run(tmp_path / "run", engine, WANTED.model_copy(update={"attention": ("huge", "absent"), "n": (64,)}))
    assert not engine.measured
    assert dict(result.statuses) == {"oom": 1, "unavailable": 1}
    frame = store.read(tmp_path / "run").set_index("attention")
    assert frame["note"].to_dict() == {
        "huge": "needs 1000.0 GB, 0.0 GB free; predicted, not tried; a remark", "absent": "needs a thing"
    }  # fmt: skip
    assert set(frame["metric"]) == {"latency"}


def test_a_remark_goes_with_the_first_figure(tmp_path: Path) -> None:
    run(tmp_path / "run", Script())
    frame = store.read(tmp_path / "run")
    assert set(frame[frame["metric"] == "latency"]["note"]) == {"why; a remark"}
    assert set(frame[frame["metric"] == "flops"]["note"]) == {"why"}


def test_one_figure_in_error_does_not_make_a_case_fail(tmp_path: Path) -> None:
    def half(case: Case) -> Outcome:
        return Outcome(readings=[Reading(metric="latency", status="error"), Reading(metric="flops", value=1)])

    assert dict(run(tmp_path / "run", Script(half))[0].statuses) == {"ok": 6}


class Interrupted:
    """Answers well until the third case, then raises."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.count = error, 0

    def __call__(self, case: Case) -> Outcome:
        self.count += 1
        if self.count == 3:
            raise self.error
        return well(case)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("driver")], ids=["interrupt", "fault"])
def test_an_interrupted_run_is_finished_by_resuming(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "run"
    with pytest.raises(type(error)):
        run(folder, Script(Interrupted(error)))
    assert len(rows(folder)) == 4
    before = environment(folder)
    assert len(before["sessions"]) == 1
    engine = Script()
    result, heard = run(folder, engine, resume=True)
    assert (len(engine.measured), heard.begun, dict(result.statuses)) == (4, (6, 2), {"ok": 4})
    assert rows(folder) == sorted((v, n, m) for v in ("one", "two") for n in WANTED.n for m in METRICS)
    after = environment(folder)
    assert after["run_id"] == before["run_id"]
    assert set(store.read(folder)["run_id"]) == {after["run_id"]}
    assert len(after["sessions"]) == 2
    assert after["measuring_s"] == sum(session["measuring_s"] for session in after["sessions"])
    last = Script()
    assert run(folder, last, resume=True)[1].begun == (6, 6)
    assert not last.measured


class Elsewhere(Script):
    """Another machine, four times as fast."""

    def open(self) -> dict[str, Any]:
        return super().open() | {"machine": "there"}

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        return {"copy_gb_per_s": 40.0, "matmul_tflops": dict.fromkeys(dtypes, 0.4)}


def test_each_session_keeps_its_ceilings_and_rows_are_read_against_their_own(tmp_path: Path) -> None:
    """Begun here, interrupted, finished there; from the first case on, so that a kill loses none."""
    folder = tmp_path / "run"
    seen: list[Any] = []

    def interrupted(case: Case) -> Outcome:
        seen.append(environment(folder)["sessions"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return well(case)

    with pytest.raises(KeyboardInterrupt):
        run(folder, Script(interrupted))
    here, there = ({"cpu": {"copy_gb_per_s": copy, "matmul_tflops": {"float32": copy / 100}}} for copy in (10.0, 40.0))
    assert [one["ceilings"] for one in seen[1]] == [{"here": here}]
    run(folder, Elsewhere(), resume=True)
    document = environment(folder)
    assert [session["ceilings"] for session in document["sessions"]] == [{"here": here}, {"there": there}]
    assert (document["machine"], document["ceilings"]) == ("there", there)
    frame: Any = store.read(folder)
    assert {(row.machine, of_row(document, row)) for row in frame.itertuples()} == {
        ("here", (10.0, 0.1)), ("there", (40.0, 0.4))
    }  # fmt: skip


def test_failures_are_not_tried_again(tmp_path: Path) -> None:
    def fails(case: Case) -> Outcome:
        return Outcome(readings=[Reading(metric="latency", status="timeout", note="slow")])

    run(tmp_path / "run", Script(fails))
    again = Script()
    run(tmp_path / "run", again, resume=True)
    assert not again.measured


def test_a_full_disk_is_the_message_and_not_what_it_also_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = os.fsync, [0]

    def full(handle: int) -> None:
        count[0] += 1
        if count[0] > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match=r"cannot write .*(measurements|samples)\.csv: no space left on the disk"):
        run(tmp_path / "run", Script())
    monkeypatch.undo()
    kept = rows(tmp_path / "run")
    assert 0 < len(kept) < 12
    run(tmp_path / "run", Script(), resume=True)
    assert len(rows(tmp_path / "run")) == 12


def test_nothing_is_left_behind_by_what_was_not_begun(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown attention 'three'"):
        run(tmp_path / "run", Script(), WANTED.model_copy(update={"attention": ("three",)}))
    assert not (tmp_path / "run").exists()
    run(tmp_path / "run", Script())
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(StoreError, match="already holds a run"):
        run(tmp_path / "run", Script())
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_seconds_that_measure_nothing_are_told_apart(tmp_path: Path) -> None:
    def slow_to_start(case: Case) -> Outcome:
        seconds = {"start": 5.0, "set-up": 0.5, "lost": 2.0, "latency": 1.0}
        return Outcome(readings=[Reading(metric=m, value=1.0) for m in METRICS], seconds=seconds)

    run(tmp_path / "run", Script(slow_to_start))
    (session,) = environment(tmp_path / "run")["sessions"]
    assert [session["seconds"][name] for name in ("start", "set-up", "lost", "latency")] == [30, 3, 12, 6]
    assert 6 <= session["measuring_s"] < 7


def test_a_ceiling_that_a_case_showed_to_be_too_low_is_raised_for_all_after_it(tmp_path: Path) -> None:
    raised = {"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.3}}

    def quick(case: Case) -> Outcome:
        found = raised if len(engine.measured) == 2 else None
        return Outcome(readings=[Reading(metric=m, value=1.0) for m in METRICS], ceilings=found)

    engine = Script(quick)
    run(tmp_path / "run", engine)
    assert [s.ceilings["matmul_tflops"]["float32"] for s in engine.settings] == [0.1, 0.1, 0.3, 0.3, 0.3, 0.3]
    assert environment(tmp_path / "run")["ceilings"] == {"cpu": raised}


def test_ceilings_are_measured_where_figures_are_read_against_them(tmp_path: Path) -> None:
    engine = Script()
    run(tmp_path / "a", engine, WANTED.model_copy(update={"metrics": ("flops", "kernels")}))
    assert engine.asked == []
    assert engine.settings[0] == Settings(budget_s=2.0)
    wanted = WANTED.model_copy(update={"metrics": ("latency", "roofline_fraction"), "dtype": ("float32", "bfloat16")})
    engine = Script()
    run(tmp_path / "b", engine, wanted)
    assert engine.asked == ["ceilings bfloat16 float32"]
    ceilings = {"copy_gb_per_s": 10.0, "matmul_tflops": {"bfloat16": 0.1, "float32": 0.1}}
    assert engine.settings[0].ceilings == ceilings
    assert environment(tmp_path / "b")["ceilings"] == {"cpu": ceilings}


@pytest.mark.parametrize(("canary", "warned"), [([1.0], False), ([1, 1, 1.04], False), ([1, 1, 1, 1.1], True)])
def test_a_drifting_machine_is_told(tmp_path: Path, canary: list[float], warned: bool) -> None:
    _, heard = run(tmp_path / "run", Script(canary=[*canary[:-1], *canary[-1:] * 6]))
    assert any("the machine drifted during this run" in text for text in heard.warnings) == warned
    (session,) = environment(tmp_path / "run")["sessions"]
    assert len(session["canary_ms"]) == 9  # around the ceilings, after each case, and at the end
    assert (abs(session["canary_drift"]) > 0.05) == warned


AXES = Sweep.parse(
    {
        "attention": "one", "n": "64,128", "metrics": METRICS, "causal": [False, True], "kv_heads": "1,6",
        "set": {"one.init": [True, "sharp"]},
    }
)  # fmt: skip


def test_problems_and_options_are_axes_that_are_measured_once(tmp_path: Path) -> None:
    run(tmp_path / "run", Script(), AXES)
    found = store.read(tmp_path / "run")
    assert found["case_id"].nunique() == 2 * 2 * 2 * 2
    assert set(found["options"]) == {
        f"{causal}init={init}{heads}"
        for causal in ("", "causal=true;") for init in ("true", "sharp") for heads in ("", ";kv_heads=1")
    }  # fmt: skip
    assert sweep.stored_sweep(tmp_path / "run") == AXES
    engine = Script()
    _, heard = run(tmp_path / "run", engine, sweep.resumed(tmp_path / "run", {}), resume=True)
    assert (heard.begun, engine.measured) == ((16, 16), [])


def test_rows_of_an_earlier_version_are_not_measured_again(tmp_path: Path) -> None:
    """It wrote init=True where today's is init=true."""
    from dataclasses import replace

    wanted = Sweep.parse({"attention": "one", "n": "64,128", "metrics": METRICS, "set": {"one.init": "true"}})

    class Earlier(Script):
        def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
            return [resolution(replace(case, options="init=True")) for case in cases]

    run(tmp_path / "run", Earlier(), wanted)
    engine = Script()
    _, heard = run(tmp_path / "run", engine, wanted, resume=True)
    assert (heard.begun, engine.measured) == ((2, 2), [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"n": ["64"]},
            "--n 64 differs from the run being resumed, which has 64,128,256; leave it out, or start a new",
        ),
        ({"head_dim": 32}, "--head-dim 32 differs from the run being resumed, which has 64;"),
        ({"set": {"one.a": "b"}}, "--set one.a=b differs from the run being resumed, which has none;"),
        ({"metrics": "latency"}, "--metrics latency differs from the run being resumed, which has latency,flops;"),
        ({"set": {"one.a": "b,c"}}, "--set one.a=b,c differs from the run being resumed, which has none;"),
        ({"causal": True}, "--causal true differs from the run being resumed, which has false;"),
        ({"kv_heads": 2}, "--kv-heads 2 differs from the run being resumed, which has none;"),
        ({"seed": 8}, "--seed 8 differs"),
    ],
)
def test_a_resumed_run_keeps_its_axes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        sweep.check_same_sweep(WANTED, given)
    assert message in str(caught.value)


def test_an_option_at_its_default_does_not_differ_from_one_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"attentions": {"one": {"options": {"init": {"default": "sharp"}, "on": {"default": False}}}}}
    monkeypatch.setattr(sweep, "cached", lambda plugins, compute: known)
    sweep.check_same_sweep(WANTED, {"set": {"one.init": "sharp", "one.on": "no"}})
    begun = WANTED.model_copy(update={"set": {"one.init": ("sharp",)}})
    sweep.check_same_sweep(begun, {"set": {}})
    with pytest.raises(UsageError, match=r"--set one\.init=paper differs from the run being resumed, which has none"):
        sweep.check_same_sweep(begun, {"set": {"one.init": "paper"}})


def test_a_resumed_run_may_take_more_time_and_the_same_axes() -> None:
    sweep.check_same_sweep(WANTED, {"budget": 9, "timeout": 900, "n": ["64..256"], "attention": ["one", "two"]})


def test_a_plugin_that_is_edited_while_a_run_goes_on_ends_it(tmp_path: Path) -> None:
    """A worker that is started again loads it again: from there on the rows would be another implementation's."""
    plugin = tmp_path / "mine.py"
    plugin.write_text("a = 1\n")

    def edits(case: Case) -> Outcome:
        if case.n == 128:
            plugin.write_text("a = 2\n")
        return well(case)

    wanted = WANTED.model_copy(update={"plugin": (str(plugin),), "attention": ("one",)})
    with pytest.raises(UsageError, match=r"mine\.py was edited since this run began"):
        run(tmp_path / "run", Script(edits), wanted)
    assert 128 not in set(store.read(tmp_path / "run")["n"])
    assert list(environment(tmp_path / "run")["plugins"]) == ["mine.py"]


class Mortal(Script):
    """An engine whose worker cannot be started for the cases of these n."""

    def __init__(self, *dead: int) -> None:
        super().__init__()
        self.dead = dead

    def measure(self, case: Case, **how: Any) -> Outcome:  # type: ignore[override]
        if case.n in self.dead:
            raise Failure("the measuring process failed as it started: killed")
        return super().measure(case, **how)


def test_a_worker_that_cannot_be_started_again_costs_one_row(tmp_path: Path) -> None:
    wanted = WANTED.model_copy(update={"attention": ("one",)})
    result, _ = run(tmp_path / "run", Mortal(128), wanted)
    assert dict(result.statuses) == {"ok": 2, "error": 1}
    (lost,) = store.read(tmp_path / "run").query("status == 'error'").to_dict("records")
    assert (lost["n"], lost["metric"]) == (128, "latency")
    assert "failed as it started: killed" in lost["note"]


def test_where_no_worker_can_be_started_any_more_the_sweep_ends_and_keeps_the_rest_for_later(tmp_path: Path) -> None:
    wanted = WANTED.model_copy(update={"attention": ("one",)})
    with pytest.raises(Failure, match="failed as it started"):
        run(tmp_path / "run", Mortal(*WANTED.n), wanted)
    assert len(rows(tmp_path / "run")) == 1
    assert dict(run(tmp_path / "run", Script(), wanted, resume=True)[0].statuses) == {"ok": 2}
