"""Plugins that cheat or err, run as a user would: each is caught, with the reason in its row (tests/adversaries)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.store.runs import read

FOLDER = Path(__file__).parents[2] / "adversaries"
AGAIN = r"in the check after the timing: "
OFF = r"numeric_error \S+ exceeds the tolerance"
BEFORE = rf"in numeric_error: {OFF}"
TWICE = r"in numeric_error: RuntimeError: Trying to backward through the graph a second time"
ALIAS = r"the output lies in an input's memory"
FLOOR = r"latency \S+ ms is less than this device needs: \S+ ms for \S+ FLOP at \S+ TFLOP/s"
INFINITE = r"the output has \d+ values that are not finite"
LAZY = r"the output is a Lazy, not a plain torch\.Tensor"
SHARED = r"elements of the output share memory: strides"
WRITES = r"the call changes its inputs in place"
RIGHT = None  # in this phase it does what it should

REASONS: dict[str, tuple[str | None, str | None]] = {  # of its rows in phase forward and train
    "aliases_input": (ALIAS, ALIAS),
    "cached_by_pointer": (AGAIN + OFF, TWICE),
    "cached_by_shape": (AGAIN + OFF, TWICE),
    "clock": (FLOOR, FLOOR),
    "half_later": (AGAIN + OFF, AGAIN + OFF),
    "half_of_the_tokens": (rf"in numeric_error: ({OFF}|{INFINITE})",) * 2,
    "in_place": (WRITES, WRITES),
    "late_thread": (rf"(in numeric_error: |{AGAIN}){OFF}|{INFINITE}", r"does not require grad"),  # a race by nature
    "lazy": (LAZY, LAZY),
    "nan_later": (AGAIN + INFINITE, AGAIN + INFINITE),
    "no_grad_only": (BEFORE, RIGHT),
    "returns_input": (ALIAS, ALIAS),
    "wrong_dtype": (r"the output is torch\.bfloat16 of shape", r"the output is torch\.bfloat16 of shape"),
    "wrong_layout": (BEFORE, BEFORE),
    "wrong_scale": (BEFORE, BEFORE),
    "wrong_shape": (r"of shape \(1, 2, 1, 64\), not torch\.float32 of \(1, 2, 256, 64\)", r"Mismatch in shape"),
    "wrong_strides": (SHARED, SHARED),
    "zero_gradient": (RIGHT, BEFORE),
    "zeros": (BEFORE, BEFORE),
    "zeros_later": (AGAIN + OFF, AGAIN + OFF),
}


def ran(harness: Any, folder: Path, device: str) -> dict[tuple[str, str], tuple[str, str]]:
    """The status and note of each case's first row, by variant and phase."""
    plugins = [argument for path in sorted(FOLDER.glob("*.py")) for argument in ("--plugin", path)]
    names = ",".join(path.stem for path in sorted(FOLDER.glob("*.py")))
    done = harness(
        "run", *plugins, "--attention", names, "--n", "256", "--heads", "2", "--phase", "forward,train",
        "--dtype", "float32", "--metrics", "latency", "--budget", "0.05", "--device", device, "--out", folder, "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = read(folder)
    assert len(frame) == 2 * len(names.split(","))
    return {(row.attention, row.phase): (row.status, str(row.note)) for row in frame.itertuples()}


@pytest.mark.slow
def test_every_adversary_is_caught_with_its_reason(harness: Any, tmp_path: Path) -> None:
    rows = ran(harness, tmp_path / "run", "cpu")
    assert {name for name, _ in rows} == {*REASONS, "side_stream"}
    for name, reasons in REASONS.items():
        for phase, reason in zip(("forward", "train"), reasons, strict=True):
            status, note = rows[name, phase]
            assert status == ("ok" if reason is RIGHT else "error"), (name, phase, status, note)
            assert reason is RIGHT or re.search(reason, note), (name, phase, note)
    assert rows["side_stream", "forward"][0] == "unavailable"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_none_passes_on_a_gpu(harness: Any, tmp_path: Path) -> None:
    rows = ran(harness, tmp_path / "run", "cuda")
    passed = {key for key, (status, _) in rows.items() if status == "ok"}
    right = {(name, phase) for name, reasons in REASONS.items() for phase, reason in
             zip(("forward", "train"), reasons, strict=True) if reason is RIGHT}  # fmt: skip
    assert passed <= right | {("clock", "forward"), ("clock", "train")}  # a GPU's time is not the host's clock


def test_the_page_tells_of_every_file() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in FOLDER.glob("*.py")} <= set(re.findall(r"`(\w+)`", page))
