"""What the comparison with other clocks on CUDA makes of a profile, and that a clock that fails leaves the others."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scripting import load

sys.path.insert(0, str(Path(__file__).parents[1] / "harness" / "measuring"))

from stand_in import FakeCall, FakeDevice

MS = 1_000_000


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return load("timing_on_cuda")


def profile(*kernels: tuple[str, int, int]) -> list[tuple[str, int, int]]:
    return [(f"void at::native::{name}", start, duration) for name, start, duration in kernels]


def test_a_calls_kernels_are_those_between_two_spins(peers: ModuleType) -> None:
    events = profile(
        ("fill", 0, 5), ("spin_kernel", 10, 20), ("gemm", 30, 3 * MS), ("copy", 4 * MS, MS), ("spin_kernel", 6 * MS, 1),
        ("fill", 7 * MS, 9), ("spin_kernel", 8 * MS, 1), ("gemm", 9 * MS, 3 * MS), ("copy", 13 * MS, 2 * MS),
        ("spin_kernel", 20 * MS, 1),
    )  # fmt: skip
    total, span, count = peers.between_spins(events[::-1])
    assert (total, count) == (4.5, 2)
    assert span == pytest.approx((5 + 6) / 2, rel=1e-4)


def test_a_profile_without_kernels_is_no_time(peers: ModuleType) -> None:
    with pytest.raises(ValueError, match="no kernel between two spins among 3 events"):
        peers.between_spins(profile(("fill", 0, 5), ("spin_kernel", 10, 20), ("spin_kernel", 40, 20)))


def test_a_clock_that_fails_is_a_reason_and_stops_no_other(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    call = FakeCall(device, host_ns=2 * MS, device_ns=0.5 * MS)
    monkeypatch.setattr(peers.CudaDevice, "of", lambda place: device)
    monkeypatch.setattr(peers, "_captured", lambda call, place: FakeCall(device, host_ns=0.01 * MS, device_ns=0.4 * MS))
    monkeypatch.setattr(peers, "profiled", lambda call, place, *, budget_s: (0.39, 0.49, 7))

    def broken(*args: Any, **more: Any) -> float:
        raise RuntimeError("no\ndriver")

    monkeypatch.setattr(peers, "do_bench", broken)
    found = peers.compare(call, torch.device("cpu"), budget_s=0.001)
    assert (found.harness_ms, found.host_ms, found.graph_ms) == pytest.approx((0.5, 2, 0.4), rel=0.01)
    assert (found.cupti_ms, found.span_ms, found.kernels) == (0.39, 0.49, 7)
    assert (found.do_bench_ms, found.failures) == (None, {"do_bench": "RuntimeError: no driver"})


def test_every_case_has_a_line_whatever_became_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("timing_agreement")
    out = tmp_path / "agreement.csv"
    monkeypatch.setattr(script, "Subject", lambda case: (_ for _ in ()).throw(RuntimeError("no device")))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(sys, "argv", ["timing_agreement", "--device", "cuda", "--out", str(out)])
    script.main()
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [row["note"] for row in rows] == ["case: RuntimeError: no device"] * len(script.CUDA_CASES)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seconds", "-1"])
    script.main()
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert {row["note"] for row in rows} == {"not reached"}
