"""Whatever a variant does to the process that measures it costs that case one row and no other case anything."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import making
import pytest

from harness.cases.space import Sweep
from harness.engines.local import Engine, Outcome, WorkerLost
from harness.errors import Failure, UsageError
from harness.measuring.metrics import Settings
from harness.measuring.requests import PairFailure, Turns
from harness.store import runs as store
from harness.store.record import Case, Reading
from harness.sweep import conduct as sweep

VARIANTS = str(Path(__file__).parents[1] / "variants.py")
METRICS = ("latency", "flops", "flops_rate")
SETTINGS = Settings(budget_s=0.02)

FAILURES = {  # variant: the row's status and what its note says
    "segfault": ("error", "the worker was ended by SIGSEGV"),
    "leave": ("error", "the worker exited with status 3; it last said: last words"),
    "killed": ("error", "the worker was ended by SIGKILL"),
    "hang": ("timeout", "no result after 8 s; raise --timeout to wait longer"),
    "fail": ("error", "in first_call: RuntimeError: no such kernel in file x on line y"),
    "too_much": ("oom", "in first_call: "),
    "nan": ("error", "in numeric_error: the output has 1 values that are not finite"),
    "wrong": ("error", "in numeric_error: numeric_error 0.01 exceeds the tolerance 0.0001 of float32"),
    "huge": ("oom", "needs 1152921504.6 GB, "),
    "broken": ("error", "in its description: ZeroDivisionError: no cost for you"),
    "unsure": ("error", "in its description: OSError: probe broken"),
    "refused": ("unavailable", "needs a thing that nobody has; get it from nowhere"),
    "limited": ("unsupported", "takes n up to 32 only"),
}
GOOD = ("right", "full", "noisy", "poison", "miscounted", "unmodelled")


class Quiet:
    """A listener that keeps the order of the cases."""

    def __init__(self) -> None:
        self.finished: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def begin(self, total: int, done: int, cases: Sequence[Case] = ()) -> None: ...

    def start(self, case: Case) -> None: ...

    def finish(self, case: Case, readings: Sequence[Reading]) -> None:
        self.finished.append((case.attention, readings[0].status))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, surroundings: dict[str, str]) -> Iterator[tuple[Path, Quiet, Engine]]:
    """One sweep over every way to fail and some that succeed, in shuffled order."""
    folder, heard = tmp_path_factory.mktemp("failures") / "run", Quiet()
    wanted = Sweep.parse(
        {
            "attention": [*FAILURES, *GOOD], "n": 64, "heads": 2, "head_dim": 16, "metrics": METRICS, "budget": 0.02,
            "timeout": 8, "plugin": VARIANTS, "seed": 4, "patience": 0,
        }
    )  # fmt: skip
    with Engine(plugins=wanted.plugin, device="cpu") as engine:
        sweep.run(wanted, folder, engine=engine, listener=heard)
        yield folder, heard, engine


@pytest.mark.slow
def test_each_failure_is_one_row_with_its_reason(run: tuple[Path, Quiet, Engine]) -> None:
    frame = store.read(run[0])
    for name, (status, note) in FAILURES.items():
        rows = frame[frame["attention"] == name]
        assert rows[["metric", "status"]].to_numpy().tolist() == [["latency", status]], name
        assert note in rows["note"].iloc[0], rows["note"].iloc[0]
        assert rows["value"].isna().all()
    assert "free" in frame[frame["attention"] == "huge"]["note"].iloc[0]


@pytest.mark.slow
def test_no_failure_touches_another_case(run: tuple[Path, Quiet, Engine]) -> None:
    folder, heard, engine = run
    frame = store.read(folder)
    assert sorted(name for name, _ in heard.finished) == sorted([*FAILURES, *GOOD])
    first_failure = min(place for place, (name, _) in enumerate(heard.finished) if name in FAILURES)
    assert any(name in GOOD for name, _ in heard.finished[first_failure:])
    for name in GOOD:
        rows = frame[frame["attention"] == name].set_index("metric")
        assert rows.loc["latency", "status"] == "ok", (name, rows["note"].tolist())
        assert set(rows.index) == set(METRICS)
    crashes = sum(status == "error" and note.startswith("the worker") for status, note in FAILURES.values())
    assert engine.restarts <= len(FAILURES) + crashes + 1


@pytest.mark.slow
def test_a_wrong_cost_model_costs_its_metric_and_nothing_else(run: tuple[Path, Quiet, Engine]) -> None:
    frame = store.read(run[0])
    rows = frame[frame["attention"] == "miscounted"].set_index("metric")
    flops = 4 * 2 * 64 * 64 * 16
    assert rows["status"].to_dict() == {"latency": "ok", "flops": "error", "flops_rate": "error"}
    assert rows.loc["flops", "note"] == f"the cost model says {flops // 2} and the dispatcher counted {flops}"
    counted = frame[(frame["attention"] == "unmodelled") & (frame["metric"] == "flops")]
    assert counted["value"].tolist() == [flops]
    assert counted["note"].tolist() == ["counted by dispatch; the variant declares no cost model"]


@pytest.mark.slow
def test_prints_of_a_variant_reach_nothing(run: tuple[Path, Quiet, Engine]) -> None:
    frame = store.read(run[0])
    assert frame[frame["attention"] == "noisy"]["status"].tolist() == ["ok"] * 3


@pytest.fixture(scope="module")
def engine(surroundings: dict[str, str]) -> Iterator[Engine]:
    with Engine(plugins=[VARIANTS], device="auto") as engine:
        assert engine.open()["device"] == "cpu"
        yield engine


def measure(engine: Engine, attention: str, *metrics: str, timeout_s: float = 60, **changes: object) -> Outcome:
    (found,) = engine.resolve([making.case(attention=attention, backend="", **changes)])
    return engine.measure(found.case, metrics=metrics, settings=SETTINGS, timeout_s=timeout_s)


def test_a_worker_serves_many_cases(engine: Engine) -> None:
    before = engine.restarts
    for n in (32, 48, 64):
        outcome = measure(engine, "right", "kernels", "peak_memory", n=n)
        assert outcome.status == "ok"
        assert [reading.metric for reading in outcome.readings] == ["kernels", "peak_memory"]
    assert engine.restarts == before


def test_samples_are_those_behind_the_median(engine: Engine) -> None:
    import numpy as np

    outcome = measure(engine, "right", "latency", "throughput")
    latency, throughput = outcome.readings
    samples = outcome.samples["latency"]
    assert latency.value == np.median(samples)
    assert latency.samples == throughput.samples == len(samples)
    assert throughput.value == pytest.approx(1e3 * 64 / latency.value)
    assert all(sample > 0 for sample in samples)


def test_a_pair_is_sampled_in_turns_or_tells_which_of_the_two_failed(engine: Engine) -> None:
    a, b = (r.case for r in engine.resolve([making.case(attention=x, backend="") for x in ("right", "memory_error")]))
    times = engine.pair((a, replace(a, n=32)), budget_s=0.01, timeout_s=60)
    assert isinstance(times, Turns)
    assert len(times.a) == len(times.b) >= 6
    failure = engine.pair((a, b), budget_s=0.01, timeout_s=60)
    assert isinstance(failure, PairFailure)
    assert (failure.status, failure.which) == ("oom", 1)


def test_a_worker_goes_on_after_a_failure_that_did_it_no_harm(engine: Engine) -> None:
    assert measure(engine, "right", "kernels").status == "ok"
    before, process = engine.restarts, engine._process
    for attention in ("wrong", "nan", "fail"):
        outcome = measure(engine, attention, "latency")
        assert outcome.status == "error"
        assert set(outcome.seconds) >= {"set-up", "first_call"}
    assert measure(engine, "right", "kernels").status == "ok"
    assert (engine.restarts, engine._process) == (before, process)
    assert measure(engine, "too_much", "latency").status == "oom"
    outcome = measure(engine, "right", "kernels")
    assert engine.restarts == before + 1
    assert outcome.seconds["start"] > 0


def test_what_a_timeout_took_is_no_measuring(engine: Engine) -> None:
    outcome = measure(engine, "hang", "latency", timeout_s=0.5)
    assert outcome.status == "timeout"
    assert outcome.seconds.keys() <= {"lost", "start"}
    assert 0.5 <= outcome.seconds["lost"] < 30


def test_a_worker_that_died_in_between_is_replaced_unnoticed(engine: Engine) -> None:
    engine.canary()
    assert engine._process is not None
    engine._process.kill()
    while not engine._process.has_ended:
        time.sleep(0.01)
    before = engine.restarts
    assert measure(engine, "right", "kernels").status == "ok"
    assert engine.restarts == before + 1


def test_a_crash_is_not_blamed_on_the_next_case(engine: Engine) -> None:
    """`poison` is measured well, and ends the process when another case begins: that one gets a fresh worker."""
    assert measure(engine, "poison", "kernels").status == "ok"
    before = engine.restarts
    outcome = engine.measure(making.case(attention="right"), metrics=["kernels"], settings=SETTINGS, timeout_s=60)
    assert outcome.status == "ok"
    assert engine.restarts == before + 1


def test_a_poisoned_process_is_not_blamed_on_the_next_case(engine: Engine) -> None:
    assert measure(engine, "mark", "kernels").status == "ok"
    before = engine.restarts
    assert measure(engine, "sticky", "kernels").status == "ok"
    assert engine.restarts == before + 1


def test_what_the_harness_asks_for_itself_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [Failure("poisoned"), 7, WorkerLost("error", "gone"), 8, Failure("a"), WorkerLost("x", "b")]

    def ask(self: Engine, request: object, timeout_s: float) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Engine, "_ensure", lambda self: None)
    monkeypatch.setattr(Engine, "_ask", ask)
    engine = Engine(plugins=[], device="cpu")
    assert [engine.free_bytes(), engine.canary()] == [7, 8]
    with pytest.raises(Failure, match=r"the measuring process failed in 'free': b"):
        engine.free_bytes()


def test_an_option_that_cannot_be_is_a_usage_error(engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"option init='x' is not valid; it takes one of paper"):
        engine.resolve([making.case(attention="anchor", backend="", m=16, options="init=x")])


def test_a_plugin_that_crashes_is_one_sentence(tmp_path: Path, surroundings: dict[str, str]) -> None:
    plugin = tmp_path / "crash.py"
    plugin.write_text("import os\nos._exit(7)\n")
    with Engine(plugins=[str(plugin)], device="cpu") as other, pytest.raises(Failure) as caught:
        other.open()
    assert str(caught.value) == "the measuring process failed as it started: the worker exited with status 7"


def test_leaving_early_kills_a_busy_worker_at_once(
    tmp_path: Path, surroundings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does: nobody waits for the case in flight, and nothing of it stays behind."""
    memo = tmp_path / "pid"
    monkeypatch.setenv("REMEMBER", str(memo))
    case = making.case(attention="remember")
    other = Engine(plugins=[VARIANTS], device="cpu")
    other.open()
    with pytest.raises(WorkerLost, match="no result after"), other:
        other.pair((case, case), budget_s=1, timeout_s=2)
    pid = int(memo.read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_killed_while_it_starts_again_is_started_once_more(
    surroundings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel's out-of-memory killer does. The first start of a sweep is not tried again: it would fail again."""
    real, kills = Engine._start, [0]

    def start(self: Engine) -> None:
        real(self)
        if kills[0] > 0:
            kills[0] -= 1
            assert self._process is not None
            self._process.kill()

    monkeypatch.setattr(Engine, "_start", start)
    with Engine(plugins=[VARIANTS], device="cpu") as other:
        kills[0] = 1
        with pytest.raises(Failure, match="failed as it started: the worker was ended by SIGKILL"):
            other.open()
        kills[0] = 2
        assert measure(other, "right", "kernels").status == "ok"
        assert (other.restarts, kills[0]) == (3, 0)
        other.stop(kill=True)
        kills[0] = 9
        with pytest.raises(Failure, match="ended by SIGKILL"):
            measure(other, "right", "kernels")
        assert (other.restarts, kills[0]) == (6, 6)


def test_a_worker_that_the_system_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Engine) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Engine, "_start", refuse)
    with pytest.raises(Failure, match="it could not be started: too many open files; ulimit -n allows no more"):
        Engine(plugins=[], device="cpu").open()
