"""The kernels' table and acceptance list, from runs that nobody measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripting import load

from harness.store.record import Case, Reading, Row
from harness.store.runs import Store

METRICS = ("latency", "bytes_moved", "peak_memory", "numeric_error")
TENSOR_MIB = 8 * 12 * 64 * 2 / 2**20  # of one token of k, v or the output
COPY = 3000.0  # GB/s
# Of the least time at the copy bandwidth, how much each implementation reaches; exact attention, how many ms a token².
SHARES = {"reference": 0.1, "compile": 0.3, "triton": 0.82, "split": 0.72}
EXACT_MS = {("flash", "torch"): 4e-9, ("flash", "cudnn"): 3e-9}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("kernel_table")


def write(store: Store, attention: str, backend: str, n: int, m: int | None, phase: str, **values: Any) -> None:
    """The rows of one case; without values, of one that ran out of memory."""
    case = Case(
        attention=attention, backend=backend, scope="core", phase=phase, b=8, h=12, n=n, d=64, m=m, dtype="bfloat16",
        device="cuda:0",
    )  # fmt: skip
    readings = [Reading(metric=name, value=value) for name, value in values.items()]
    readings = readings or [Reading(metric="latency", status="oom", note="needs 90 GB; predicted, not tried")]
    same = {"run_id": "run", "machine": "gpu", "commit": "c0ffee", "time_utc": "2026-01-01T00:00:00Z"}
    store.append([Row.of(case, reading, **same) for reading in readings], {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    with Store.open(folder, metrics=METRICS) as store:
        store.write_json("environment.json", {"schema": 1, "ceilings": {"cuda:0": {"copy_gb_per_s": COPY}}})
        for n in (4096, 16384, 65536):
            for phase, tensors, kept in (("forward", 3, 1), ("train", 6, 3)):
                moved = tensors * TENSOR_MIB * n
                for backend, share in SHARES.items():
                    if backend == "reference" and n == 65536:
                        write(store, "anchor", backend, n, 64, phase)
                        continue
                    write(
                        store, "anchor", backend, n, 64, phase, latency=moved * 2**20 / (share * COPY * 1e6),
                        bytes_moved=moved, peak_memory=kept * TENSOR_MIB * n * 1.001,
                        numeric_error=2e-3 if backend == "reference" else 1.5e-3,
                    )  # fmt: skip
                for (attention, backend), slope in EXACT_MS.items():
                    write(
                        store, attention, backend, n, None, phase, latency=slope * 96 * n * n / 10,
                        bytes_moved=4 * TENSOR_MIB * n, peak_memory=TENSOR_MIB * n, numeric_error=1e-3,
                    )  # fmt: skip
    return folder


def find(script: ModuleType, run: Path, name: str, n: int, phase: str = "forward") -> tuple[Any, list[Any]]:
    among = script.entries([run])
    return next(x for x in among if (x.name, x.n, x.phase) == (name, n, phase)), among


def verdicts(script: ModuleType, run: Path, **files: Path) -> dict[str, tuple[str, str]]:
    found = script.acceptance(script.entries([run]), **{"crossover": None, "tests": None, **files})
    return {line: (verdict, figures) for line, verdict, figures in found}


def test_share_counts_minimal_bytes_over_the_measured_copy_bandwidth(script: ModuleType, run: Path) -> None:
    for backend, share in SHARES.items():
        for phase in ("forward", "train"):
            entry, _ = find(script, run, f"anchor:{backend}", 16384, phase)
            assert entry.share == pytest.approx(share)


def test_memory_above_leaves_out_results(script: ModuleType, run: Path) -> None:
    entry, _ = find(script, run, "anchor:split", 16384)
    assert entry.above == pytest.approx(0.001 / 2)  # 0.1 % of the output, over k and v
    entry, _ = find(script, run, "anchor:split", 65536, "train")
    assert entry.above == pytest.approx(0.003 / 2, rel=1e-2)  # the anchors' gradient is a result too


def test_ratios(script: ModuleType, run: Path) -> None:
    entry, among = find(script, run, "anchor:triton", 16384)
    assert script.faster(entry, among, "reference") == pytest.approx(8.2)
    assert script.faster(entry, among, "compile") == pytest.approx(0.82 / 0.3)
    assert script.faster(entry, among, "exact") == pytest.approx(3e-9 * 96 * 16384**2 / 10 / entry.ms)
    entry, among = find(script, run, "anchor:triton", 65536)
    assert script.faster(entry, among, "reference") != script.faster(entry, among, "reference")  # out of memory: NaN


def test_the_table_shows_every_case_once(script: ModuleType, run: Path) -> None:
    lines = list(script.table(script.entries([run])))
    assert sum(" 4k " in line for line in lines) == 2 * (len(SHARES) + len(EXACT_MS))
    assert [line for line in lines if "oom" in line] == [
        line for line in lines if "64k" in line and "reference" in line
    ]
    assert lines[0].startswith("b=8 h=12 d=64 bfloat16 cuda:0: ms, share of copy bandwidth")


def test_acceptance(script: ModuleType, run: Path, tmp_path: Path) -> None:
    found = verdicts(script, run)
    assert found["forward >= 0.80 of the copy bandwidth, n=16384"] == ("met", "0.82 (anchor:triton)")
    assert found["forward >= 0.70 from two launches, n=65536"] == ("met", "0.72 (anchor:split)")
    assert found["train >= 0.60 of its minimal bytes, n=65536"][0] == "met"
    assert found["peak above inputs and outputs < 1 % of inputs, n=65536"][0] == "met"
    assert found["forward >= 5x over reference, every n >= 4096"] == ("met", "n=4k: 8.20, n=16k: 8.20")
    assert found["forward >= 1.5x over compile, every n >= 4096"][0] == "met"
    assert found["forward >= 40x over the best exact, n=16384"][0] == "not met"
    assert found["bf16 error no worse than the eager reference's"][0] == "met"
    assert {found[line][0] for line in ("crossover against flash below n=1024", "two runs bit-equal")} == {
        "not measured"
    }


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"kind": "found", "n": 700, "high": 724}, "met"),
        ({"kind": "found", "n": 1500, "high": 1600}, "not met"),
        ({"kind": "always", "n": None, "high": 128}, "met"),
        ({"kind": "never", "n": None, "high": None}, "not met"),
    ],
)
def test_crossover(script: ModuleType, run: Path, tmp_path: Path, answer: dict[str, Any], verdict: str) -> None:
    path = tmp_path / "crossover.json"
    path.write_text(json.dumps({"answer": "a sentence", **answer}))
    assert verdicts(script, run, crossover=path)["crossover against flash below n=1024"] == (verdict, "a sentence")


@pytest.mark.parametrize(
    ("inside", "verdict"), [("", "met"), ("<failure/>", "not met"), ("<skipped/>", "not measured")]
)
def test_repeats(script: ModuleType, run: Path, tmp_path: Path, inside: str, verdict: str) -> None:
    path = tmp_path / "tests.xml"
    name = "test_repeats_bit_for_bit_on_a_device[split]"
    path.write_text(f'<testsuites><testsuite><testcase name="{name}">{inside}</testcase></testsuite></testsuites>')
    assert verdicts(script, run, tests=path)["two runs bit-equal"][0] == verdict


def test_a_torn_run_and_missing_files_still_make_a_table(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a lease that was cut off leaves it."""
    with (run / "measurements.csv").open("ab") as file:
        file.write(b"run,abc,2026")
    (tmp_path / "crossover.json").touch()
    missing = ["--crossover", str(tmp_path / "crossover.json"), "--tests", str(tmp_path / "tests.xml")]
    assert script.main([str(run), str(tmp_path / "long"), *missing]) == 0
    assert "  not measured crossover against flash below n=1024" in capsys.readouterr().out
    assert script.main([str(tmp_path / "long")]) == 5
