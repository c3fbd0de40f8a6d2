"""The doctor's probes on fake trees and a fake GPU, the trial's arithmetic, and the command. Nothing asserts a time."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import cli
from harness.machine import doctor, system
from harness.machine.doctor import Finding, Place, Snapshot, _attend
from harness.machine.doctor._trial import Trial

CPU = "sys/devices/system/cpu"
QUIET = {
    "proc/cpuinfo": "flags\t: fpu avx2\n",
    "proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 30000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "max 100000",
    f"{CPU}/online": "0-3",
    f"{CPU}/cpufreq/boost": "0",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    "sys/devices/system/node/node0/cpulist": "0-3",
    **{f"{CPU}/cpu{core}/cpufreq/scaling_governor": "performance" for core in range(4)},
    **{f"{CPU}/cpu{core}/topology/core_cpus_list": str(core) for core in range(4)},
}
GOVERNORS = [f"{CPU}/cpu{core}/cpufreq/scaling_governor" for core in range(4)]
SIBLINGS = {f"{CPU}/cpu{core}/topology/core_cpus_list": "0-1" if core < 2 else "2-3" for core in range(4)}
TWO_NODES = {f"sys/devices/system/node/node{node}/cpulist": f"{2 * node}-{2 * node + 1}" for node in range(2)}
GPU = {
    "driver": "580.1", "driver_cuda": "13.2", "ecc": True, "ecc_after_restart": True, "mig": False, "persistence": True,
    "power_limit_w": 700.0, "power_default_w": 700.0, "max_sm_mhz": 1980, "display": False, "processes": [],
    "memory_errors": 0,
}  # fmt: skip
BUSY = {"sm_mhz": 1950, "throttle_mask": 0, "temperature_c": 60}


def grow(root: Path, files: Mapping[str, str | None]) -> Path:
    """Write a fake tree; None leaves a file out."""
    for name, content in files.items():
        if content is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
    return root


def place(root: Path, files: Mapping[str, str | None] | None = None, **changes: Any) -> Place:
    """A quiet four-core machine, with changed files and fields."""
    ticks: dict[str, int] = dict.fromkeys(system.TIMES, 0)
    quiet = Place(
        root=grow(root, {**QUIET, **(files or {})}), cores=frozenset(range(4)), threads=4, load=0.1,
        results=root / "results",
        before=Snapshot(seconds=0, ticks=ticks, throttles=0), torch_version="2.15.0", torch_cuda="13.2",
        after=Snapshot(seconds=2, ticks=ticks | {"user": 200, "idle": 600}, own_seconds=2, throttles=0),
        trial=Trial.of([1.0, 1.001] * 50, "a product"),
    )  # fmt: skip
    return replace(quiet, **changes)


def found(where: Place) -> dict[str, Finding]:
    return {finding.check: finding for name in doctor.families() for finding in doctor.examine_family(name, where)}


def test_a_quiet_machine_is_ok_throughout(tmp_path: Path) -> None:
    levels = {check: finding.level for check, finding in found(place(tmp_path)).items()}
    assert set(levels.values()) == {"ok"}, levels
    assert len(levels) == 21


@pytest.mark.parametrize(
    ("files", "changes", "check", "level", "seen"),
    [
        ({f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave"}, {}, "governor", "warn", "performance, powersave"),
        (dict.fromkeys(GOVERNORS), {}, "governor", "unknown", "no frequency governor"),
        ({f"{CPU}/cpufreq/boost": "1"}, {}, "boost", "warn", "on"),
        ({f"{CPU}/cpufreq/boost": None}, {}, "boost", "unknown", "no boost"),
        ({f"{CPU}/intel_pstate/no_turbo": "0"}, {}, "boost", "warn", "on"),
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, {}, "quota", "warn", "2 cores for 4 threads"),
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, {}, "threads", "warn", "4 threads on 2 usable cores"),
        ({}, {"threads": 9}, "threads", "warn", "9 threads on 4 usable cores"),
        (SIBLINGS, {}, "threads", "warn", "2 physical"),
        ({}, {"cores": frozenset({1, 2}), "threads": 2}, "pinning", "ok", "pinned to cores 1-2: 2 of 4 cores"),
        (TWO_NODES, {}, "pinning", "warn", "2 NUMA nodes"),
        ({"proc/cpuinfo": "flags : fpu hypervisor\n"}, {}, "virtualisation", "ok", "virtual machine; 0.0 %"),
        ({"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"}, {}, "clock", "warn", "hpet"),
        ({}, {"load": 7.5}, "load", "warn", "7.50 over the last minute"),
        ({}, {"load": None}, "load", "unknown", "not exposed"),
        ({"proc/meminfo": "MemAvailable: 1048576 kB\nSwapTotal: 0 kB\n"}, {}, "memory", "warn", "1.0 GiB"),
        ({"proc/meminfo": "SwapTotal: 4194304 kB\nSwapFree: 2097152 kB\n"}, {}, "swap", "warn", "2048 MiB of 4096"),
        ({"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"}, {}, "huge pages", "warn", "always"),
        ({}, {"environ": {"TRITON_INTERPRET": "1"}}, "switches", "problem", "runs Triton kernels in Python"),
        ({}, {"environ": {"TRITON_INTERPRET": "0"}}, "switches", "ok", "no slow"),
        ({"proc/self/maps": "a /x/libgomp-1.so.1\nb /y/libiomp5.so\n"}, {}, "OpenMP", "warn", "gomp, iomp5"),
        ({}, {"trial": None, "no_trial": "the trial failed: x"}, "trial", "unknown", "the trial failed"),
    ],
)  # fmt: skip
def test_probe(
    tmp_path: Path, files: dict[str, str | None], changes: dict[str, Any], check: str, level: str, seen: str
) -> None:
    finding = found(place(tmp_path, files, **changes))[check]
    assert (finding.level, seen in finding.seen) == (level, True), finding
    assert finding.why.endswith(".")
    assert bool(finding.do) == (level != "ok"), finding


def test_steal_other_work_and_throttling_are_counted_over_the_trial(tmp_path: Path) -> None:
    quiet = place(tmp_path)
    after = replace(
        quiet.after, ticks={"user": 350, "idle": 400, "steal": 50}, throttled_us=30_000, throttles=2, swaps=9,
        processes={11: ("ninja", 150), os.getpid(): ("python", 200)},
    )  # fmt: skip
    noisy = replace(quiet, before=replace(quiet.before, throttled_us=0, swaps=0), after=after)
    grow(tmp_path, {"sys/fs/cgroup/cpu.max": "400000 100000"})
    seen = found(noisy)
    assert (seen["virtualisation"].level, seen["virtualisation"].value) == ("problem", 6.25)
    rate = os.sysconf("SC_CLK_TCK")
    assert seen["other work"].value == pytest.approx((350 / rate - 2) / 2)
    assert "ninja" in seen["other work"].seen
    assert "python" not in seen["other work"].seen
    assert (seen["quota"].level, seen["heat"].level) == ("problem", "problem")
    assert "30 ms" in seen["quota"].seen


def test_a_machine_without_proc_and_sys_is_unknown_not_an_error(tmp_path: Path) -> None:
    bare = Place(root=tmp_path, results=tmp_path)
    seen = found(bare)
    assert not [finding for finding in seen.values() if "probe broke" in finding.seen]
    assert seen["governor"].level == seen["virtualisation"].level == seen["other work"].level == "unknown"
    assert doctor.verdict(bare).startswith("What can be told apart here is not known")


def test_a_broken_probe_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.doctor.load.load", lambda place: 1 / 0)
    (finding,) = doctor.examine_family("load", place(tmp_path))
    assert (finding.level, finding.family) == ("unknown", "load")
    assert "ZeroDivisionError" in finding.seen


@pytest.mark.parametrize(
    ("settings", "busy", "idle", "check", "level"),
    [
        ({}, BUSY, {}, "ECC", "ok"),
        ({"memory_errors": 3}, BUSY, {}, "ECC", "problem"),
        ({"ecc_after_restart": False}, BUSY, {}, "ECC", "warn"),
        ({"ecc": None}, BUSY, {}, "ECC", "unknown"),
        ({"mig": True}, BUSY, {}, "MIG", "warn"),
        ({"persistence": False}, BUSY, {}, "persistence", "warn"),
        ({"display": True}, BUSY, {}, "display", "warn"),
        ({"power_limit_w": 350.0}, BUSY, {}, "power", "warn"),
        ({}, BUSY | {"throttle_mask": 0x4}, {}, "throttling", "warn"),
        ({}, BUSY | {"throttle_mask": 0x40}, {}, "throttling", "problem"),
        ({}, BUSY | {"throttle_mask": None}, {}, "throttling", "unknown"),
        ({}, BUSY | {"sm_mhz": 1200}, {}, "clocks", "warn"),
        ({"processes": [1]}, BUSY, {"use_percent": 0}, "neighbours", "warn"),
        ({"processes": [1]}, BUSY, {"use_percent": 90}, "neighbours", "problem"),
        ({"processes": [os.getpid()]}, BUSY, {"use_percent": 0}, "neighbours", "ok"),
        ({"processes": None}, BUSY, {}, "neighbours", "unknown"),
        ({"driver_cuda": "12.8"}, BUSY, {}, "torch", "problem"),
        ({"driver_cuda": "13.0"}, BUSY, {}, "torch", "warn"),
    ],
)
def test_gpu_probe(
    tmp_path: Path, settings: dict[str, Any], busy: dict[str, Any], idle: dict[str, Any], check: str, level: str
) -> None:
    seen = found(place(tmp_path, device="cuda:0", gpu=GPU | settings, gpu_busy=(busy,), gpu_idle=idle))
    assert seen[check].level == level, seen[check]
    others = {name for name, finding in seen.items() if finding.level != "ok"} - {check}
    assert not others, others


def test_gpu_without_nvml_and_torch_without_cuda(tmp_path: Path) -> None:
    assert found(place(tmp_path, device="cuda:0", no_gpu="no bindings"))["gpu"].level == "unknown"
    kernel = {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1.2  Mon\n"}
    finding = found(place(tmp_path, kernel, torch_cuda=None))["torch"]
    assert finding.level == "problem"
    assert "driver 580.1.2" in finding.seen


def test_trial_arithmetic() -> None:
    steady = Trial.of([2.0] * 40, "p")
    assert (steady.median_ms, steady.spread, steady.drift, steady.noise) == (2.0, 0, 0, 0)
    assert steady.effect == pytest.approx(math.sqrt(2) / 100)
    shifted = Trial.of([1.0] * 20 + [1.1] * 20, "p")
    assert shifted.drift == pytest.approx(0.1)
    assert shifted.effect > 0.1
    for bad in ([1.0] * 3, [1.0, 2.0, math.nan, 1.0], [0.0] * 9):
        with pytest.raises(ValueError, match="samples"):
            Trial.of(bad, "p")


def test_effect_holds_for_two_measurements_of_the_same_thing() -> None:
    """Noise that moves from block to block: of pairs of equal cases, few differ by more than the effect announced."""
    generator = np.random.default_rng(7)
    false_alarms, pairs = 0, 2000
    for _ in range(pairs):
        level = np.exp(generator.normal(0, 0.03, size=12)).repeat(20)
        samples = level * np.exp(generator.normal(0, 0.02, size=240))
        effect = Trial.of(samples[:200].tolist(), "p").effect
        first, second = np.median(samples[200:220]), np.median(samples[220:])
        false_alarms += bool(max(first, second) / min(first, second) - 1 > effect)
    assert false_alarms / pairs < 0.05


def test_verdict_names_the_effect(tmp_path: Path) -> None:
    quiet = place(tmp_path)
    assert "effects under about 1.4 %" in doctor.verdict(quiet)
    assert "a run's own precision" in doctor.verdict(quiet)
    noisy = replace(quiet, trial=Trial.of([1.0] * 20 + [1.1] * 20, "p"))
    assert "this machine's noise" in doctor.verdict(noisy)
    wild = replace(quiet, trial=Trial.of([1.0] * 20 + [4.0] * 20, "p"))
    assert "factors under about" in doctor.verdict(wild)


def test_attend_on_a_gpu_watches_it_while_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        missing: dict[str, str] = {}  # noqa: RUF012

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *failure: object) -> None:
            closed.append(True)

        def processes(self) -> list[int]:
            return []

        def settings(self) -> dict[str, Any]:
            return dict(GPU)

        def memory_errors(self) -> int:
            return 0

        def now(self) -> dict[str, Any]:
            return dict(BUSY)

    def work(device: str, seconds: float, watch: Any) -> tuple[list[float], str]:
        watch()
        watch()
        return [1.0] * 20, "a product"

    closed: list[bool] = []
    monkeypatch.setattr("harness.machine.environment.open_gpu", lambda device, nvml: Fake())
    monkeypatch.setattr(_attend, "_on_gpu", work)
    seen = _attend.attend("cuda:0", seconds=1, root=grow(tmp_path, QUIET), results=tmp_path, nvml=None)
    assert (len(seen.gpu_busy), closed, seen.trial is not None) == (2, [True], True)
    monkeypatch.setattr(_attend, "_on_gpu", lambda *arguments: (_ for _ in ()).throw(RuntimeError("out of memory")))
    failed = _attend.attend("cuda:0", seconds=1, root=tmp_path, results=tmp_path, nvml=None)
    assert failed.trial is None
    assert "out of memory" in failed.no_trial


def test_doctor_command_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    assert cli.main(["doctor", "--device", "cpu", "--seconds", "0.2", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert "timing a fixed matrix product" in printed.err
    assert "sesame" not in printed.out
    assert set(document) == {"device", "seconds", "counts", "findings", "trial", "smallest_effect", "verdict"}
    assert sum(document["counts"].values()) == len(document["findings"])
    for finding in document["findings"]:
        assert set(finding) == {"check", "level", "seen", "why", "do", "value", "unit", "family"}
        assert finding["level"] in doctor.LEVELS
    assert document["smallest_effect"] == document["trial"]["effect"] > 0


def test_doctor_command_page_and_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["doctor", "--device", "cpu", "--seconds", "0.2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "\x1b" not in printed.out
    assert all(len(line) <= 60 and line == line.rstrip() for line in lines)
    assert lines[0].split()[0] in doctor.LEVELS
    assert " ".join(lines).rstrip().endswith(".")
    for words in (["--seconds", "0"], ["--seconds", "nan"], ["--seconds", "x"], ["--device", "tpu"], ["--nonsense"]):
        assert cli.main(["doctor", *words]) == 2, words
    capsys.readouterr()
    assert cli.main(["doctor", "--seconds", "x"]) == 2
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith("should be a valid number, unable to parse string as a number, not 'x'")
    )
    monkeypatch.setattr(doctor, "examine", lambda *arguments, **options: 1 / 0)
    assert cli.main(["doctor", "--device", "cpu"]) == 5


def test_the_page_has_colours_on_a_terminal_that_wants_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for term, no_colour, coloured in (("xterm", "", True), ("xterm", "1", False), ("dumb", "", False)):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("NO_COLOR", no_colour)
        assert cli.main(["doctor", "--device", "cpu", "--seconds", "0.1", "--quiet"]) == 0
        assert ("\x1b" in capsys.readouterr().out) == coloured


@pytest.mark.gpu
def test_doctor_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    diagnosis = doctor.examine("cuda:0", seconds=0.5)
    assert diagnosis.trial is not None, diagnosis.verdict
    assert not [finding for finding in diagnosis.findings if "probe broke" in finding.seen]


# What a run opens with


def diagnosis(*findings: Finding, trial: bool = True) -> doctor.Diagnosis:
    made = Trial.of([1.0, 1.0, 1.1, 1.0, 1.0, 1.2], "a product") if trial else None
    return doctor.Diagnosis(device="cpu", findings=findings, trial=made, verdict="")


def seen(check: str, level: str, what: str) -> Finding:
    return Finding(check=check, level=level, seen=what, why="", do="stop it")


@pytest.mark.parametrize(
    ("findings", "line"),
    [
        ((seen("governor", "warn", "powersave"), seen("load", "warn", "2.0"), seen("heat", "unknown", "?")), ""),
        (
            (seen("spread", "problem", "wide"), seen("other work", "warn", "0.3 cores")),
            "other work: 0.3 cores; spread: wide; effects under EFFECT % cannot be seen. Stop it; harness doctor tells "
            "all",
        ),
    ],
)
def test_a_run_opens_with_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, findings: tuple[Finding, ...], line: str
) -> None:
    """What many machines always have, such as a governor that follows the load, is for the doctor's page."""
    made = diagnosis(*findings)
    monkeypatch.setattr(doctor, "examine", lambda device, seconds: made)
    assert made.trial is not None
    assert doctor.opening("cpu", seconds=0.5) == line.replace("EFFECT", f"{100 * made.trial.effect:.0f}")
    assert "\n" not in line
