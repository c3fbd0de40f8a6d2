"""Scope model: whole vision transformers as cases; what is predicted of them against what they do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import making
import pytest

pytest.importorskip("timm", reason="scope model needs timm: pip install 'attention-harness[vision]'")

import torch

from harness import cli
from harness.answers import measure_crossover as crossing
from harness.cases import catalogue
from harness.check import suite
from harness.errors import UsageError
from harness.measuring import metrics
from harness.measuring.metrics import Settings
from harness.measuring.metrics.error import WrongResult
from harness.measuring.subject import Subject
from harness.store.record import UNITS, Case, Reading
from harness.sweep.conduct import memory_refusal
from harness.vision import models

TOKENS = 18  # of 64 × 64 pixels: 4 × 4 patches, a class and a distillation token
SIDE = "model=anchorformer_tiny;resolution="


def case(attention: str = "anchor", *, side: int = 64, **changes: Any) -> Case:
    """A case of anchorformer_tiny on images of `side` pixels."""
    name, _, backend = attention.partition(":")
    m = 8 if name in ("anchor", "linformer", "nystrom") else None
    n = models.architecture("anchorformer_tiny").tokens(side)
    given = {"attention": name, "backend": backend or "reference", "m": m, "n": n, "h": 3, "d": 64, "scope": "model"}
    return making.case(**{**given, "options": f"{SIDE}{side}", **changes})


def measure(subject: Subject, *names: str) -> dict[str, Reading]:
    readings: dict[str, Reading] = {}
    settings = Settings(budget_s=0.01, min_samples=3, ceilings={"copy_gb_per_s": 10, "matmul_tflops": {"float32": 0.1}})
    for metric in metrics.plan(names):
        readings |= {reading.metric: reading for reading in metric.measure(subject, readings, settings)}
    return readings


@pytest.mark.parametrize(
    ("attention", "phase"), [("anchor", "forward"), ("anchor", "train"), ("flash:torch", "backward")]
)
def test_every_metric_of_a_model(attention: str, phase: str) -> None:
    """`flops` is ok only where the formula of the architecture and the dispatcher's count agree to the last one."""
    subject = Subject(case(attention, phase=phase, b=2))
    found = measure(subject, *UNITS)
    unsupported = {name for name, reading in found.items() if reading.status != "ok"}
    assert unsupported == {"host", "energy", "approximation_error"}
    assert 0 < found["numeric_error"].value < 1e-4  # type: ignore[operator]
    assert found["numeric_error"].note == "compared on the first of 2 images"
    assert found["throughput"].value == pytest.approx(2e3 / found["latency"].value)  # type: ignore[operator]
    assert making.row(subject.case, found["throughput"]).unit == "img/s"
    assert found["params"].value == sum(p.numel() for p in subject.module.parameters())
    assert "output=2x1000" in found["kernels"].note
    assert subject.inputs[0].grad is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_trains_in_half_precision_within_the_tolerance(dtype: str) -> None:
    """Its anchors' own gradients would not be, in bfloat16: with init=paper they nearly cancel."""
    found = measure(Subject(case("anchor", phase="train", dtype=dtype)), "numeric_error")["numeric_error"]
    assert 0 < found.value < 0.05  # type: ignore[operator]


def test_wrong_gradients_are_found() -> None:
    subject = Subject(case("anchor", phase="train"))
    weight: Any = subject.module.blocks[3].mlp.fc1.weight  # type: ignore[union-attr, index]
    weight.register_hook(lambda gradient: gradient * 1.01)
    with pytest.raises(WrongResult, match="exceeds the tolerance"):
        measure(subject, "numeric_error")


def test_a_wrong_model_is_not_timed() -> None:
    subject = Subject(case("anchor"))
    core: Any = subject.module.blocks[5].attn.core  # type: ignore[union-attr, index]
    right = core.compute
    core.compute = lambda k, v, anchors: right(k, v, anchors) * 1.001
    core.packed = lambda kv: None
    with pytest.raises(WrongResult, match="exceeds the tolerance"):
        measure(subject, "numeric_error")


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("attention", ["full", "anchor"])
def test_predicted_memory_is_about_what_a_call_holds(attention: str, phase: str) -> None:
    """A prediction far too high would refuse what fits, one far too low would let the kernel's killer decide."""
    resolution = catalogue.resolve(case(attention, side=224, phase=phase))
    subject = Subject(resolution.case)
    held = (
        subject.trace.peak_bytes
        + 4 * subject.inputs[0].numel()
        + 4 * sum(p.numel() for p in subject.module.parameters())
    )
    assert resolution.peak_bytes == pytest.approx(held, rel=0.2)


def test_large_images_are_refused_by_the_prediction() -> None:
    """Materialised scores of 12546 tokens: twice 3 · n² · 4 bytes. Anchor attention stays far below."""
    full = catalogue.resolve(case("full", side=1792))
    assert full.case.n == 12546
    assert 2 * 3 * 12546**2 * 4 < (full.peak_bytes or 0) < 1.1 * 2 * 3 * 12546**2 * 4
    refusal = memory_refusal(full, 2 * 10**9)
    assert refusal is not None
    assert refusal.startswith("needs 3.9 GB, 2.0 GB free")
    anchor = catalogue.resolve(case("anchor", side=1792))
    assert memory_refusal(anchor, 2 * 10**9) is None
    assert 2 * (anchor.flops or 0) < (full.flops or 0)


def test_options_of_the_variant_and_of_the_model_are_kept_apart() -> None:
    resolution = catalogue.resolve(case("anchor", options=f"init=orthogonal;{SIDE}64;scale=1.0"))
    assert resolution.case.options == f"init=orthogonal;{SIDE}64"
    weights = Subject(resolution.case).module.blocks[0].attn.core.anchors  # type: ignore[union-attr, index]
    torch.testing.assert_close(weights @ weights.mT, torch.eye(8), atol=1e-5, rtol=0)


def test_without_timm_a_model_is_unavailable_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else found(name, *rest))
    resolution = catalogue.resolve(case())
    assert resolution.status == "unavailable"
    assert "pip install 'attention-harness[vision]'" in resolution.note
    assert catalogue.resolve(making.case()).status == "ok"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "anchorformer_tinny"], "unknown model 'anchorformer_tinny'; did you mean 'anchorformer_tiny'?"),
        (["--resolution", "225"], "resolution: 225 is no multiple of the 16 pixels of a patch"),
        (["--n", "512"], "--n 512 means nothing in scope model; give --model and --resolution instead"),
        (["--n", "4096"], "--n 4096 means nothing in scope model; give --model and --resolution instead"),
    ],
)
def test_the_command_line_answers_what_is_no_model(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["plan", "--scope", "model", "--attention", "full", "--device", "cpu", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_varies_n_says_that_it_takes_no_models() -> None:
    with pytest.raises(UsageError, match="the gate takes scope core and layer, not model"):
        suite.sweeps({"scope": ["model"]}, ())
    with pytest.raises(UsageError, match="crossover varies n, which a model takes from its resolution"):
        crossing.measure({"scope": ["model"]}, "full", "flash", low="64", high="128")


@pytest.mark.slow
def test_a_run_of_models_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [
        "run",
        "--scope",
        "model",
        "--attention",
        "anchor,full",
        "--m",
        "8",
        "--resolution",
        "64,96",
        "--out",
        folder,
    ]
    words += [
        "--metrics",
        "throughput,flops,peak_memory",
        "--budget",
        "0.02",
        "--patience",
        "0",
        "--device",
        "cpu",
        "--json",
        "--quiet",
    ]
    assert cli.main(list(map(str, words))) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["n"], row["options"]) for row in rows} == {(18, f"{SIDE}64"), (38, f"{SIDE}96")}
    assert {row["unit"] for row in rows if row["metric"] == "throughput"} == {"img/s"}
    assert cli.main(["plot", str(folder), "--figure", "resolution", "--format", "svg"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / "figures" / "resolution.svg")]
    assert cli.main(["show", str(folder), "--metric", "throughput", "--scope", "model"]) == 0
    assert "throughput (img/s)" in capsys.readouterr().out
