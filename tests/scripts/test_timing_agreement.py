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
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(sys, "argv", ["timing_agreement", "--device", "cuda", "--out", str(out)])
    script.main()
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [row["note"] for row in rows] == ["case: RuntimeError: no device"] * len(script.CUDA_CASES)
    assert {row["gpu"] for row in rows} == {"a GPU"}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seconds", "-1"])
    script.main()
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert {row["note"] for row in rows} == {"not reached"}


def test_the_page_gets_a_table_that_says_which_cases_disagree() -> None:
    script = load("timing_table")
    columns = load("timing_agreement").CUDA_COLUMNS
    near = dict.fromkeys(columns, "") | {
        "attention": "anchor", "backend": "split", "phase": "forward", "n": "4096", "kernels": "2", "harness_ms": "0.1",
        "low_ms": "0.0995", "high_ms": "0.1005", "host_ms": "0.3", "do_bench_ms": "0.102", "graph_ms": "0.099",
        "cupti_ms": "0.08", "span_ms": "0.1", "voids": "1",
    }  # fmt: skip
    wall = near | {"phase": "train", "host_ms": "", "note": "the call waits for the device"}
    page = f"a\n{script.BEGIN}\nNot measured yet.\n{script.END}\nb\n"
    made = script.placed(page, script.table([near, wall, dict.fromkeys(columns, "") | {"note": "not reached"}]))
    assert "- graph replay: 1 of 1 within 3 %\n" in made
    case = "(anchor:split forward n=4096)"
    assert f"- CUPTI sum: 0 of 1 within 3 %, the others by up to 20.0 µs {case} and +25 % {case}\n" in made
    assert "held" not in made, "a clock that no row has"
    assert "| anchor:split forward n=4096 | 0.1 | 0.5 % | 0.3 | 2 | -2.0 % | +1.0 % | +0.0 % | +25.0 % | 1 |  |" in made
    assert "Not measured" not in made
    assert made.startswith("a\n")
    assert made.endswith(f"{script.END}\nb\n")
    assert script.placed(script.PAGE.read_text(encoding="utf-8"), "x") != "x"
    with pytest.raises(ValueError, match="lacks its marks"):
        script.placed("a", "x")
