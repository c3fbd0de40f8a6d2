"""The verdict on a moment, from recorded and made-up counters, and what a machine has shown before."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.machine import quiet, shown
from harness.machine.quiet import Gpu, Moment, Span, judge
from harness.machine.shown import Shown

QUIET = Moment(
    seconds=100.0, cores=2, busy_s=50.0, steal_s=1.0, own_s=10.0, workers={7: (3, 0.5)}, pressure_s=9.0,
    throttled_s=0.0, heat=0,
)  # fmt: skip
CANARIES = (4.1, 4.1)


def later(before: Moment = QUIET, *, seconds: float = 2.0, others: float = 0.0, steal: float = 0.0, own: float = 4.0,
          waited: float = 0.0, switches: int = 4, pressed: float = 0.0, stopped: float = 0.0, heat: int = 0,
          gpu: Gpu | None = None) -> Moment:  # fmt: skip
    """A moment `seconds` after another, in which we computed for `own` seconds of CPU time and others for `others`."""
    assert None not in (before.busy_s, before.own_s, before.steal_s, before.pressure_s, before.throttled_s, before.heat)
    return Moment(
        seconds=before.seconds + seconds, cores=before.cores, busy_s=(before.busy_s or 0) + own + others,
        steal_s=(before.steal_s or 0) + steal, own_s=(before.own_s or 0) + own,
        workers={7: (before.workers[7][0] + switches, (before.workers[7][1] or 0) + waited)},
        pressure_s=(before.pressure_s or 0) + pressed, throttled_s=(before.throttled_s or 0) + stopped,
        heat=(before.heat or 0) + heat, gpu=gpu,
    )  # fmt: skip


def verdict(
    after: Moment, *, canaries: tuple[float, ...] = CANARIES, threads: int = 2, cuda: bool = False
) -> quiet.Verdict:
    return judge(Span.of(QUIET, after), canaries_ms=canaries, best_ms=4.1, threads=threads, cuda=cuda)


def test_a_quiet_moment_is_quiet() -> None:
    found = verdict(later(others=0.1))  # 0.05 cores: a machine's own daemons
    assert not found.disturbed
    assert (found.reason, found.factor) == ("", 1.0)
    assert found.span.others == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("after", "said", "factor"),
    [
        (later(others=1.32), "others had 0.66 of 2 cores", 2 / 1.34),
        (later(steal=0.5), "others had 0.25 of 2 cores (0.25 of them the host's)", 2 / 1.75),
        (later(waited=0.8), "its threads waited for a core for 20 % of their time", 1.25),
        (later(stopped=0.5), "its CPU quota stopped it for 25 % of the time", 4 / 3),
        (later(heat=2), "heat slowed the cores 2 times", 1.0),
        (later(gpu=Gpu(processes=1, throttle_mask=0x40)), "the GPU was slowed: heat (hardware)", 1.0),
    ],
)
def test_each_disturbance_is_told_with_its_figure(after: Moment, said: str, factor: float) -> None:
    found = verdict(after)
    assert found.disturbed
    assert found.reason == said
    assert found.factor == pytest.approx(factor)


def test_the_canary_is_held_against_the_best() -> None:
    found = verdict(later(), canaries=(4.1, 48.0))
    assert found.reason == "the canary took 11.7× its best (48 ms against 4.1)"
    assert found.factor == pytest.approx(48 / 4.1)
    assert not verdict(later(), canaries=(4.1, 4.9)).disturbed
    assert not judge(Span.of(QUIET, later()), canaries_ms=(48.0,), best_ms=None, threads=2).disturbed


def test_the_factor_is_the_largest_and_its_reason_comes_first() -> None:
    found = verdict(later(others=1.32), canaries=(4.1, 8.2))
    assert found.reasons == ("the canary took 2× its best (8.2 ms against 4.1)", "others had 0.66 of 2 cores")
    assert found.factor == pytest.approx(2.0)
    mild = verdict(later(others=0.5), canaries=(4.1, 4.8))  # a canary that would pass alone widens what is disturbed
    assert mild.factor == pytest.approx(max(4.8 / 4.1, 2 / 1.75))


def test_work_on_cores_that_we_leave_free_is_no_disturbance() -> None:
    before = replace(QUIET, cores=8)
    span = Span.of(before, later(before, others=5.0))
    assert not judge(span, canaries_ms=CANARIES, best_ms=4.1, threads=4).disturbed  # 2.5 of 4 free cores
    assert judge(span, canaries_ms=CANARIES, best_ms=4.1, threads=7).reason == "others had 2.5 of 8 cores"
    assert not judge(span, canaries_ms=CANARIES, best_ms=4.1, threads=7, cuda=True).disturbed  # one thread feeds a GPU


def test_threads_that_wait_for_each_other_are_no_neighbour() -> None:
    assert verdict(later(waited=3.0), threads=2).disturbed
    assert not verdict(later(waited=3.0), threads=3).disturbed


def test_pressure_counts_where_waiting_is_not_counted() -> None:
    """As in a container whose /proc/stat tells of itself alone."""

    def mute(moment: Moment) -> Moment:
        return replace(moment, workers={process: (count, None) for process, (count, _) in moment.workers.items()})

    span = Span.of(mute(QUIET), mute(later(pressed=1.0, switches=500)))
    assert judge(span, canaries_ms=CANARIES, best_ms=4.1, threads=2).reason == (
        "pressure on the CPUs for 50 % of the time with 250 switches a second"
    )
    few = Span.of(mute(QUIET), mute(later(pressed=1.0, switches=20)))
    assert not judge(few, canaries_ms=CANARIES, best_ms=4.1, threads=2).disturbed


def test_a_gpu_with_another_process_takes_less_to_be_doubted() -> None:
    shared = later(gpu=Gpu(processes=2))
    assert verdict(shared, canaries=(4.1, 4.4), cuda=True).reason.endswith(
        "(4.4 ms against 4.1) while another process has work on the GPU"
    )
    assert not verdict(shared, cuda=True).disturbed
    assert not verdict(later(gpu=Gpu(processes=1)), canaries=(4.1, 4.4), cuda=True).disturbed
    idle = later(gpu=Gpu(processes=1, throttle_mask=0x1 | 0x4))  # idle, and a power limit, which every full GPU meets
    assert not verdict(idle, cuda=True).disturbed


def test_counters_that_are_missing_or_run_backwards_say_nothing() -> None:
    blank = Moment(seconds=1.0)
    assert not judge(Span.of(blank, replace(blank, seconds=2.0)), canaries_ms=(), best_ms=None).disturbed
    gone = Span.of(later(waited=5.0, switches=900), replace(QUIET, seconds=103.0))  # a worker that started anew
    assert (gone.waited_s, gone.switches, gone.others) == (0.0, 0.0, 0.0)


# From a machine with two cores, while a busy loop ran beside the measuring (two seconds apart)
RECORDED = {
    "before": {
        "stat": "cpu  88029 6652 18264 52507 593 0 381 526 0 0\ncpu0 42376 1849 7573 31212 145 0 49 266 0 0\n"
        "cpu1 45652 4802 10691 21295 447 0 332 260 0 0\nintr 902167\n",
        "pressure": "some avg10=99.07 avg60=95.81 avg300=57.18 total=307796623\nfull avg10=0.00 total=0\n",
        "10": "S 1 10 10 0 -1 4194560 900 0 0 0 100 20 50 10 20 0 1 0",
        "11": "R 10 11 11 0 -1 4194560 900 0 0 0 1000 30 0 0 20 0 2 0",
        "switches": 100, "waited": 4_000_000_000,
    },
    "after": {
        "stat": "cpu  88420 6652 18274 52507 593 0 381 526 0 0\ncpu0 42572 1849 7577 31212 145 0 49 266 0 0\n"
        "cpu1 45847 4802 10697 21295 447 0 332 260 0 0\nintr 912167\n",
        "pressure": "some avg10=99.07 avg60=95.81 avg300=57.18 total=309796623\nfull avg10=0.00 total=0\n",
        "10": "S 1 10 10 0 -1 4194560 900 0 0 0 101 21 50 10 20 0 1 0",
        "11": "R 10 11 11 0 -1 4194560 900 0 0 0 1196 34 0 0 20 0 2 0",
        "switches": 420, "waited": 5_900_000_000,
    },
}  # fmt: skip


def machine(root: Path, counters: dict) -> Path:
    """A /proc with this process (10), its worker (11) and a neighbour (12) that is not of its family."""
    files = {
        "stat": counters["stat"], "pressure/cpu": counters["pressure"], "10/stat": f"10 (python) {counters['10']}",
        "11/stat": f"11 (py thon) (x) {counters['11']}", "12/stat": "12 (loop) R 1 12 12 0 -1 0 0 0 0 0 9 9 0 0 20 0",
        "11/task/11/status": f"Name:\tpython\nnonvoluntary_ctxt_switches:\t{counters['switches']}\n",
        "11/task/11/schedstat": f"12345 {counters['waited']} 99",
    }  # fmt: skip
    for name, text in files.items():
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_recorded_counters_give_the_recorded_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet.system, "affinity", lambda: {0, 1})
    moments = [Moment.take(machine(tmp_path / name, RECORDED[name]), me=10) for name in RECORDED]
    assert moments[0].own_s == pytest.approx((100 + 20 + 50 + 10 + 1000 + 30) / 100)
    assert moments[0].workers == {11: (100, 4.0)}
    span = Span.of(*(replace(moment, seconds=float(at)) for at, moment in enumerate(moments)))
    assert span.others == pytest.approx(4.01 - 2.02)
    assert (span.switches, span.waited_s, span.pressed) == (320.0, pytest.approx(1.9), pytest.approx(2.0))
    found = judge(span, canaries_ms=(4.2, 21.0), best_ms=4.2, threads=2)
    assert found.reason.startswith("others had 2 of 2 cores and its threads waited for a core for 95 % of their time")


def test_only_the_cores_that_we_may_use_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet.system, "affinity", lambda: {1})
    before, after = (Moment.take(machine(tmp_path / name, RECORDED[name]), me=10) for name in RECORDED)
    assert (after.busy_s or 0) - (before.busy_s or 0) == pytest.approx(2.01)


def test_a_system_without_proc_gives_a_moment_without_figures(tmp_path: Path) -> None:
    found = Moment.take(tmp_path)
    assert (found.busy_s, found.own_s, found.steal_s, found.pressure_s, found.workers) == (None, None, None, None, {})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_what_a_child_computes_is_our_own_here() -> None:
    before = Moment.take()
    child = subprocess.Popen([sys.executable, "-c", "import time; t = time.time()\nwhile time.time() < t + 30: pass"])
    try:
        end = time.monotonic() + 20
        while (now := Moment.take()).own_s - before.own_s < 0.3 and time.monotonic() < end:  # type: ignore[operator]
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    assert (now.own_s or 0) - (before.own_s or 0) >= 0.3
    assert child.pid in now.workers
    span = Span.of(before, Moment.take())
    assert span.others is not None
    assert 0 <= span.others <= span.cores + 0.2  # what the rest of this machine does, not ours


def test_the_best_is_the_median_near_the_quickest(tmp_path: Path) -> None:
    seen = Shown(tmp_path / "deep" / "canary.json")
    assert seen.ms is None
    for look in (48.0, 5.0, 4.2, 4.1, 3.9, 4.0, 9.0, math.nan, -1.0):
        seen.tell(look)
    assert seen.ms == 4.0  # of 3.9, 4, 4.1 and 4.2
    assert Shown(seen.path).ms == 4.0


def test_many_looks_beside_a_neighbour_do_not_raise_the_best() -> None:
    seen = Shown()
    for look in (4.0, *[40.0] * 50):
        seen.tell(look)
    assert seen.ms == 4.0


@pytest.mark.parametrize("text", ["", "{", "[[1]]", '[["a", 1]]', "[[NaN, 1]]", "[[-1, 1]]", "[" * 100_000, "\0", "7"])
def test_a_damaged_memory_is_ignored_and_made_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "canary.json"
    path.write_text(text)
    seen = Shown(path)
    assert seen.ms is None
    seen.tell(4.0)
    assert json.loads(path.read_text())[0][0] == 4.0


def test_what_was_shown_long_ago_is_forgotten(tmp_path: Path) -> None:
    now = [1e9]
    seen = Shown(tmp_path / "canary.json", clock=lambda: now[0])
    seen.tell(1.0)
    now[0] += shown.FORGOTTEN_S + 1
    assert Shown(seen.path, clock=lambda: now[0]).ms is None
    seen.tell(4.0)
    assert seen.ms == 4.0


def test_unlike_machines_and_devices_have_memories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Shown.open("a", "cpu").tell(4.0)
    assert Shown.open("a", "cpu").ms == 4.0
    assert Shown.open("b", "cpu").ms is None
    assert Shown.open("a", "cuda:0").ms is None


def test_a_cache_that_cannot_be_written_costs_only_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    seen = Shown.open("a", "cpu")
    seen.tell(4.0)
    assert seen.ms == 4.0
