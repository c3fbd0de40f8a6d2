"""Places that come, go, fail and disagree: every case is answered once. Nothing is measured here; there is no Ray."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_sweep import VARIANT, Heard, environment, well

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.engines import devices
from harness.engines.local import Outcome
from harness.engines.place import Place, Task, Visit
from harness.errors import Failure, UsageError
from harness.machine.quiet import Moment
from harness.store import runs as store
from harness.store.record import Case
from harness.sweep import conduct as sweep
from harness.sweep import crew
from harness.sweep.crew import Crew, Lost, Seat

WANTED = Sweep.parse({"attention": "one,two", "n": "64,128,256,512", "metrics": ("latency", "flops"), "seed": 7})
CASES = 8


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_S", 0.01)


class Fake:
    """A place whose answers are given. meet: called with each case it is to measure, in the place's own thread."""

    def __init__(
        self, name: str, *, machine: str = "here", opens: Exception | None = None, lacks: Sequence[str] = (),
        meet: Callable[[Fake, Case], None] = lambda seat, case: None,
    ) -> None:  # fmt: skip
        self.name, self.machine, self.opens, self.lacks, self.meet = name, machine, opens, lacks, meet
        self.left = threading.Event()
        self.measured: list[Case] = []

    def open(self) -> dict[str, Any]:
        if self.opens:
            raise self.opens
        return {
            "device": "cpu", "catalogue": dict.fromkeys(("one", "two"), VARIANT), "environment": {"of": self.machine},
            "machine": self.machine, "commit": "c0ffee",
        }  # fmt: skip

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return [
            Resolution(case=case, status="unavailable", note=f"{self.name} lacks {case.attention}")
            if case.attention in self.lacks and case.backend
            else Resolution(case=replace(case, backend="reference"))
            for case in cases
        ]

    def visit(self, resolution: Resolution, task: Task) -> Visit:
        self.measured.append(resolution.case)
        self.meet(self, resolution.case)
        first = len(self.measured) == 1
        ceilings = {"copy_gb_per_s": float(len(self.name)), "matmul_tflops": {"float32": 1.0}}
        return Visit(outcome=well(resolution.case), canaries_ms=((0.0, 1.0),), ceilings=ceilings if first else None)

    def look(self) -> float:
        if self.left.is_set():
            raise Lost("gone")
        return 1.0

    def examine(self, seconds: float) -> str:
        return ""


class Given:
    """A source that hands out places: those given at once, those of `late` when they are asked for."""

    def __init__(self, *seats: Seat, whole: bool = False, patience_s: float = 0.0) -> None:
        self.whole, self.patience_s = whole, patience_s
        self.waiting: list[Seat] = list(seats)
        self.gone: list[str] = []
        self.closed = False

    def arrivals(self) -> list[Seat]:
        arrived, self.waiting = self.waiting, []
        return arrived

    def leave(self, seat: Seat) -> None:
        if isinstance(seat, Fake):
            seat.left.set()

    def lost(self, seat: Seat) -> None:
        self.gone.append(seat.name)
        self.leave(seat)

    def close(self) -> None:
        self.closed = True


def run(folder: Path, source: Given, wanted: Sweep = WANTED, *, resume: bool = False) -> tuple[sweep.Result, Heard]:
    heard = Heard()
    with Crew(source, warn=heard.warn) as measuring:
        result = sweep.run(wanted, folder, engine=measuring, listener=heard, resume=resume)
    assert source.closed
    return result, heard


def cases(folder: Path) -> Counter[tuple[str, int, str]]:
    frame = store.read(folder)
    return Counter(zip(frame["attention"], frame["n"], frame["metric"], strict=True))


def everything(wanted: Sweep = WANTED) -> Counter[tuple[str, int, str]]:
    return Counter((name, n, metric) for name in wanted.attention for n in wanted.n for metric in wanted.metrics)


def notes(folder: Path) -> Counter[str]:
    frame = store.read(folder)
    return Counter(frame[frame["metric"] == "latency"]["note"])


def together(count: int) -> Callable[[Fake, Case], None]:
    """Nobody's first case ends before `count` places have begun one: all of them take part."""
    barrier = threading.Barrier(count)

    def meet(seat: Fake, case: Case) -> None:
        if len(seat.measured) == 1:
            barrier.wait(60)

    return meet


def test_places_share_the_cases_and_rows_say_which_it_was(tmp_path: Path) -> None:
    meet = together(3)
    seats = [Fake(name, meet=meet) for name in ("a", "b", "c")]
    result, heard = run(tmp_path / "run", Given(*seats))
    assert (dict(result.statuses), heard.warnings) == ({"ok": CASES}, [])
    assert cases(tmp_path / "run") == everything()
    told = notes(tmp_path / "run")
    assert told == Counter({f"why; on {seat.name}": len(seat.measured) for seat in seats})
    assert all(seat.measured for seat in seats)
    document = environment(tmp_path / "run")
    assert document["machines"] == {"here": {"of": "here"}}
    assert {name: place["ceilings"]["cpu"]["copy_gb_per_s"] for name, place in document["places"].items()} == {
        "a": 1.0, "b": 1.0, "c": 1.0
    }  # fmt: skip
    (session,) = document["sessions"]
    assert {name: place["cases"] for name, place in session["places"].items()} == {
        seat.name: len(seat.measured) for seat in seats
    }
    assert all(len(place["canary_ms"]) == place["cases"] + 1 for place in session["places"].values())


def test_unlike_machines_are_named_in_rows_and_told_of(tmp_path: Path) -> None:
    meet = together(2)
    source = Given(Fake("a", meet=meet), Fake("bb", machine="there", meet=meet))
    _, heard = run(tmp_path / "run", source)
    assert heard.warnings == [sweep.UNLIKE]
    frame = store.read(tmp_path / "run")
    where = {(machine, note.partition("on ")[2]) for machine, note in zip(frame["machine"], frame["note"], strict=True)}
    assert where >= {("here", "a"), ("there", "bb")}
    assert not where & {("here", "bb"), ("there", "a")}
    document = environment(tmp_path / "run")
    assert document["machines"] == {"here": {"of": "here"}, "there": {"of": "there"}}
    assert document["places"]["bb"] == {
        "machine": "there", "device": "cpu",
        "ceilings": {"cpu": {"copy_gb_per_s": 2.0, "matmul_tflops": {"float32": 1.0}}},
    }  # fmt: skip


def test_each_machine_is_drawn_apart_and_under_its_own_roof(tmp_path: Path) -> None:
    from harness import figures
    from harness.figures._sheet import sheets
    from harness.figures.roofline import roof_of

    meet = together(2)
    run(tmp_path / "run", Given(Fake("a", meet=meet), Fake("bb", machine="there", meet=meet)))
    drawn = figures.load(tmp_path / "run")
    parts = [(where["machine"], set(group["machine"])) for _, where, group in sheets(drawn.rows("latency"))]
    assert sorted(parts) == [("here", {"here"}), ("there", {"there"})]
    assert roof_of(drawn, "cpu", "float32", machine="here") == (0.001, 1.0)
    assert roof_of(drawn, "cpu", "float32", machine="there") == (0.002, 1.0)


def test_a_lost_place_costs_no_case_and_repeats_none(tmp_path: Path) -> None:
    """One place is lost with a case in hand; what it would have said later is not heard."""

    def die(seat: Fake, case: Case) -> None:
        if len(seat.measured) == 2:
            raise Lost("the node is dead")

    meet = together(2)
    dying = Fake("b", meet=lambda seat, case: (meet(seat, case), die(seat, case))[0])
    source = Given(Fake("a", meet=meet), dying)
    result, heard = run(tmp_path / "run", source)
    assert dict(result.statuses) == {"ok": CASES}
    assert cases(tmp_path / "run") == everything()
    assert source.gone == ["b"]
    assert heard.warnings == ["lost b (the node is dead); what it held goes to another"]
    assert notes(tmp_path / "run")["why; on b"] == 1


def test_a_place_that_comes_late_is_given_cases(tmp_path: Path) -> None:
    source = Given()
    arrived = threading.Event()

    def call(seat: Fake, case: Case) -> None:
        if len(seat.measured) == 2:
            source.waiting = [late]
        if len(seat.measured) == 3:
            assert arrived.wait(60)

    late = Fake("late", meet=lambda seat, case: arrived.set())
    source.waiting = [Fake("a", meet=call)]
    run(tmp_path / "run", source)
    assert cases(tmp_path / "run") == everything()
    assert late.measured


def test_a_case_that_takes_its_place_with_it_is_given_up_after_three(tmp_path: Path) -> None:
    def poison(seat: Fake, case: Case) -> None:
        if (case.attention, case.n) == ("two", 128):
            source.waiting = [Fake(seat.name + "'", meet=poison)]
            raise Lost("the node went down")

    source = Given(Fake("a", meet=poison), patience_s=60)
    result, _ = run(tmp_path / "run", source)
    assert dict(result.statuses) == {"ok": CASES - 1, "error": 1}
    frame = store.read(tmp_path / "run").set_index("status")
    assert frame.loc["error", "note"] == (
        "its place was lost 3 times as it ran; the last time: the node went down; on a''"
    )  # fmt: skip
    assert source.gone == ["a", "a'", "a''"]


def test_a_sweep_without_any_place_ends_and_can_be_resumed(tmp_path: Path) -> None:
    def die(seat: Fake, case: Case) -> None:
        if len(seat.measured) == 3:
            raise Lost("power")

    with pytest.raises(Failure, match=r"no place is left to measure on, the last reason: a: power; 6 cases are miss"):
        run(tmp_path / "run", Given(Fake("a", meet=die)))
    result, heard = run(tmp_path / "run", Given(Fake("b")), resume=True)
    assert (heard.begun, dict(result.statuses)) == ((CASES, 2), {"ok": 6})
    assert cases(tmp_path / "run") == everything()


def test_a_place_gets_only_what_it_can_run(tmp_path: Path) -> None:
    meet = together(2)
    poor = Fake("poor", lacks=["two"], meet=meet)
    run(tmp_path / "run", Given(poor, Fake("rich", meet=meet)))
    assert {case.attention for case in poor.measured} == {"one"}
    assert set(store.read(tmp_path / "run")["status"]) == {"ok"}


def test_what_no_place_can_run_is_a_row_with_the_reason(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "run", Given(Fake("a", lacks=["two"])))
    assert dict(result.statuses) == {"ok": 4, "unavailable": 4}
    frame = store.read(tmp_path / "run")
    assert set(frame[frame["status"] != "ok"]["note"]) == {"a lacks two; on a"}
    assert set(frame[frame["status"] != "ok"]["backend"]) == {"reference"}


def test_a_place_that_does_not_open_is_done_without(tmp_path: Path) -> None:
    _, heard = run(tmp_path / "run", Given(Fake("broken", opens=Failure("no torch there")), Fake("b")))
    assert cases(tmp_path / "run") == everything()
    assert heard.warnings in (["lost broken (no torch there); what it held goes to another"], [])  # [] if it was late


def test_a_wrong_plugin_is_the_users_fault_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plugin x: no Spec"):
        run(tmp_path / "run", Given(Fake("a", opens=UsageError("plugin x: no Spec"))))
    assert not (tmp_path / "run").exists()


def test_an_interrupt_leaves_the_places_and_a_run_to_resume(tmp_path: Path) -> None:
    meet, heard_of = together(2), []

    def hang(seat: Fake, case: Case) -> None:
        meet(seat, case)
        if not seat.left.wait(60):
            heard_of.append("nobody ended it")
        raise Lost("killed")

    class Interrupted(Heard):
        def finish(self, case: Case, readings: Any) -> None:
            raise KeyboardInterrupt

    source, heard = Given(Fake("a", meet=hang), Fake("b", meet=meet)), Interrupted()
    with pytest.raises(KeyboardInterrupt), Crew(source, warn=heard.warn) as measuring:
        sweep.run(WANTED, tmp_path / "run", engine=measuring, listener=heard)
    assert (source.closed, heard_of) == (True, [])
    assert len(environment(tmp_path / "run")["sessions"]) == 1
    assert run(tmp_path / "run", Given(Fake("c")), resume=True)[1].begun == (CASES, 1)
    assert cases(tmp_path / "run") == everything()


def test_a_fault_of_ours_in_a_place_is_raised_and_not_measured_around(tmp_path: Path) -> None:
    def fault(seat: Fake, case: Case) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        run(tmp_path / "run", Given(Fake("a", meet=fault)))


# Several devices of one machine


class Gpu:
    """Stands for harness.engines.local.Engine on a machine with two GPUs."""

    asked: ClassVar[Counter[tuple[str, str]]] = Counter()

    def __init__(self, *, plugins: Sequence[str], device: str) -> None:
        self.device, self.abandoned = device, False

    def open(self) -> dict[str, Any]:
        if self.device not in ("cuda:0", "cuda:1"):
            raise UsageError(f"device {self.device!r} is not here; valid: cpu, cuda:0, cuda:1")
        catalogue = dict.fromkeys(("one", "two"), VARIANT)
        return {"device": self.device, "catalogue": catalogue, "environment": {}, "machine": "H-1", "commit": ""}

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        assert {case.device for case in cases} == {self.device}
        return [Resolution(case=replace(case, backend="reference"), peak_bytes=10) for case in cases]

    def free_bytes(self) -> int:
        return 1000

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        return {"copy_gb_per_s": 1.0, "matmul_tflops": dict.fromkeys(dtypes, 1.0)}

    def canary(self) -> float:
        return 1.0

    def moment(self) -> Moment:
        return Moment(seconds=time.monotonic())

    def examine(self, seconds: float) -> str:
        return ""

    def measure(self, case: Case, *, metrics: Any, settings: Any, timeout_s: float) -> Outcome:
        type(self).asked[self.device, case.device] += 1
        return well(case)

    def abandon(self) -> None:
        self.abandoned = True

    def stop(self, *, kill: bool = False) -> None:
        assert self.abandoned
        assert kill


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> type[Gpu]:
    monkeypatch.setattr(devices, "Engine", Gpu)
    monkeypatch.setattr(Gpu, "asked", Counter())
    return Gpu


def test_gpus_share_a_sweep_whose_cases_are_those_of_one(tmp_path: Path, gpus: type[Gpu]) -> None:
    """The case says cuda:0, so that it is the same case on either; the worker is told the GPU that is meant."""
    with Crew(devices.Devices(plugins=[], devices=["cuda:0", "cuda:1"]), warn=pytest.fail) as measuring:
        sweep.run(WANTED, tmp_path / "run", engine=measuring, listener=Heard())
    assert gpus.asked.total() == CASES
    assert set(gpus.asked) <= {("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")}
    frame = store.read(tmp_path / "run")
    assert set(frame["device"]) == {"cuda:0"}
    assert notes(tmp_path / "run") == {f"why; on {own}": count for (own, _), count in gpus.asked.items()}
    assert environment(tmp_path / "run")["device"] == "cuda:0"


def test_a_gpu_that_is_not_there_ends_the_run_before_it_begins(tmp_path: Path, gpus: type[Gpu]) -> None:
    with (
        pytest.raises(UsageError, match=r"device 'cuda:7' is not here; valid: cpu, cuda:0, cuda:1"),
        Crew(devices.Devices(plugins=[], devices=["cuda:0", "cuda:7"]), warn=pytest.fail) as measuring,
    ):
        sweep.run(WANTED, tmp_path / "run", engine=measuring, listener=Heard())
    assert not (tmp_path / "run").exists()


def test_a_place_that_is_one_of_several_translates_the_device() -> None:
    place = Place(Gpu(plugins=[], device="cuda:1"), "cuda:1", device="cuda:0")
    assert place.open()["device"] == "cuda:0"
    (found,) = place.resolve([replace(_case(), device="cuda:0")])
    assert found.case.device == "cuda:0"


def _case() -> Case:
    import making

    return making.case(attention="one", backend="")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuda:0,cuda:0", "cuda:0 is there twice"),
        ("cuda:0,cuda:00", "cuda:0 is there twice"),
        ("cpu", "not 'cpu'"),
        ("cuda", "not 'cuda'"),
        ("0,1", "not '0'"),
        ("cuda:0,", "not ''"),
        ("cuda:-1", "not 'cuda:-1'"),
        ("cuda:²", "not 'cuda:²'"),
    ],
)
def test_devices_are_different_gpus_by_index(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        devices.parse(text)
    assert devices.parse("cuda:0, cuda:3") == ["cuda:0", "cuda:3"]
