"""Training itself: resumed bit for bit, stopped by signals, ended by a loss that is not finite."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_training import SETTINGS, TINY, Silent, folders, plan

from harness.errors import Failure, UsageError
from harness.store import runs as store
from harness.store.curves import read_curves
from harness.vision import checkpoint, tasks
from harness.vision.data import identity
from harness.vision.plan import Plan
from harness.vision.runfolder import BEST, LAST
from harness.vision.session import Session
from harness.vision.train import train

RANDOM = {"drop_path": 0.2, "mixup": 0.8, "cutmix": 1.0, "crop": 0.5, "flip": True, "distilled": True}


def same(one: Path, other: Path) -> bool:
    (a, facts_a), (b, facts_b) = checkpoint.load(one), checkpoint.load(other)
    assert facts_a == facts_b
    assert {part: set(named) for part, named in a.items()} == {part: set(named) for part, named in b.items()}
    return all(torch.equal(a[part][name], b[part][name]) for part in a for name in a[part])


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with everything random that training has, uninterrupted."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    train(plan(recipe={"ema": 0.9}, **RANDOM), out, listener=Silent(), device="cpu")
    return out


def test_three_steps_and_three_more_are_six_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    wanted, out = plan(recipe={"ema": 0.9}, **RANDOM), tmp_path / "run"
    stopped = train(wanted, out, listener=Silent(), device="cpu", until=3)
    assert (stopped.step, stopped.steps) == (3, 6)
    assert store.read(out).empty
    torch.manual_seed(1234)  # nothing of the process that goes on may matter
    resumed = train(wanted, out, listener=Silent(), device="cpu", resume=True)
    assert resumed.step == 6
    assert same(straight / LAST, out / LAST)
    assert (straight / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()
    # the test can fail: other data, and therefore other weights, under another seed
    other = plan(recipe={"ema": 0.9, "seed": 1}, **RANDOM)
    train(other, tmp_path / "other", listener=Silent(), device="cpu")
    weights = [checkpoint.load(path / LAST)[0]["model"]["head.weight"] for path in (out, tmp_path / "other")]
    assert not torch.equal(*weights)


def test_a_finished_training_leaves_rows_curves_and_figures(straight: Path) -> None:
    rows = store.read(straight).set_index("metric")
    assert list(rows.index) == ["top1", "top5", "loss", "params"]
    assert set(rows["status"]) == {"ok"}
    assert (rows["scope"] == "model").all()
    assert rows["n"].eq(6).all()
    assert rows["m"].eq(2).all()
    parameters = sum(t.numel() for name, t in checkpoint.load(straight / LAST)[0]["model"].items())
    assert rows.loc["params", "value"] == parameters
    assert 0 <= rows.loc["top1", "ci_low"] <= rows.loc["top1", "value"] <= rows.loc["top1", "ci_high"] <= 1
    curves = read_curves(straight)
    assert list(curves[curves["metric"] == "loss"]["step"]) == [4, 6]
    assert {path.name for path in (straight / "figures").iterdir()} == {"curves.png", "predictions.png"}
    assert (straight / BEST).is_file()


def test_what_was_stopped_before_its_first_checkpoint_starts_again(straight: Path, tmp_path: Path) -> None:
    wanted, out = plan(recipe={"ema": 0.9}, **RANDOM), tmp_path / "run"
    train(wanted, out, listener=Silent(), device="cpu", until=4)
    (out / LAST).unlink()
    train(wanted, out, listener=Silent(), device="cpu", resume=True)
    assert same(straight / LAST, out / LAST)
    assert (straight / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()
    (out / LAST).unlink()
    with pytest.raises(UsageError, match="is a finished run: nothing to go on from"):
        train(wanted, out, listener=Silent(), device="cpu", resume=True)


def test_another_setting_is_not_resumed(straight: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe.lr: 0.001, now 0.01"):
        train(plan(recipe={"ema": 0.9, "lr": 0.01}, **RANDOM), straight, listener=Silent(), device="cpu", resume=True)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = tasks.get("classification")

    def objective(options: Any, data: Any) -> Any:
        losses, calls = kind.objective(options, data), iter(range(100))
        return lambda network, batch: {
            name: value * (math.nan if next(calls) == 3 else 1.0) for name, value in losses(network, batch).items()
        }

    monkeypatch.setattr(tasks, "get", lambda name: replace(kind, objective=objective))
    wanted = plan(recipe={"save": 2, "log": 1})
    with pytest.raises(Failure, match=r"loss is nan between steps 4 and 4; the last good checkpoint is kept: .*last"):
        train(wanted, tmp_path / "run", listener=Silent(), device="cpu")
    parts, facts = checkpoint.load(tmp_path / "run" / LAST)
    assert facts["step"] == 2
    assert all(tensor.isfinite().all() for named in parts.values() for tensor in named.values())


@pytest.mark.slow
def test_sigterm_saves_before_leaving(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "harness", "train", "classification", *SETTINGS, "--steps", "1000000"]
    process = subprocess.Popen(
        [*command, "--batch", "8", "--device", "cpu", "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    watch = threading.Timer(900, process.kill)
    watch.start()
    try:
        assert process.stderr is not None
        said = next((line for line in process.stderr if line.startswith("step ")), "")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 130, said + rest
    finally:
        watch.cancel()
        process.kill()
    assert "SIGTERM at step" in rest
    assert f"harness train --resume --out {out}" in rest
    assert "Traceback" not in rest
    facts = checkpoint.load(out / LAST)[1]
    assert facts["step"] >= 10
    wanted = Plan.of(facts["plan"])
    assert wanted.options == {name: str(value) for name, value in TINY.items()}
    resumed = train(wanted, out, listener=Silent(), device="cpu", resume=True, until=facts["step"] + 1)
    assert resumed.step == facts["step"] + 1


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    train(plan(attention="full"), tmp_path / "one", listener=Silent(), device="cpu")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness"]
    settings = [*SETTINGS, "--attention", "full", "--anchors", "2", "--steps", "6", "--batch", "8", "--device", "cpu"]
    recipe = ["--recipe", "log=4", "--recipe", "evaluate=6", "--out", str(tmp_path / "two")]
    done = subprocess.run(
        [*command, "train", "classification", *settings, *recipe],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (read_curves(tmp_path / name) for name in ("one", "two"))
    assert list(one["metric"]) == list(two["metric"])
    assert torch.allclose(torch.tensor(one["value"].to_numpy()), torch.tensor(two["value"].to_numpy()), atol=1e-5)
    a, b = (checkpoint.load(tmp_path / name / LAST)[0]["model"] for name in ("one", "two"))
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_lower_precision_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    heard = Silent()
    train(plan(recipe={"precision": "bf16", "steps": 2, "log": 1}), tmp_path / "a", listener=heard, device="cpu")
    other = Silent()
    train(
        plan(recipe={"steps": 2, "log": 1}), tmp_path / "b", listener=other, device="cpu"
    )  # another precision after it
    assert heard.losses != other.losses
    assert heard.losses == pytest.approx(other.losses, rel=0.02)
    parts, _ = checkpoint.load(tmp_path / "a" / LAST)
    assert {tensor.dtype for tensor in parts["model"].values()} == {torch.float32}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(tmp_path: Path, workers: int) -> None:
    data = folders(tmp_path / "data")
    broken = data / "train" / "class1" / "2.png"
    broken.write_bytes(broken.read_bytes()[:40])
    wanted = replace(plan(recipe={"workers": workers}), data=str(data))
    with pytest.raises(UsageError, match=r"class1/2\.png: not a readable image") as caught:
        train(wanted, tmp_path / "run", listener=Silent(), device="cpu")
    assert "Traceback" not in str(caught.value)


def test_weights_start_a_model_of_another_size_of_image(straight: Path, tmp_path: Path) -> None:
    larger = {**RANDOM, "size": 16, "weights": str(straight / BEST), "drop_path": 0.0}
    wanted = plan(recipe={"ema": 0.9}, **larger)
    network = wanted.build(wanted.load("val"))
    stored = checkpoint.load(straight / BEST)[0]["model"]
    own = network.state_dict()
    assert torch.equal(own["blocks.1.attn.core.anchors"], stored["blocks.1.attn.core.anchors"])
    assert own["pos_embed"].shape[1] == 18
    assert torch.equal(own["pos_embed"][:, :2], stored["pos_embed"][:, :2])
    with pytest.raises(UsageError, match="do not fit this model"):
        plan(attention="full", **larger).build(wanted.load("val"))


def alter(data: Path, how: str) -> None:
    """Change a folder of classes as people do."""
    first = data / "train" / "class0" / "0.png"
    match how:
        case "removed":
            first.unlink()
        case "added":
            (data / "train" / "class0" / "9.png").write_bytes(first.read_bytes())
        case "renamed":
            first.rename(first.with_name("8.png"))
        case "rewritten":
            Image.new("RGB", (8, 8), "green").save(first)
        case "moved to another class":
            first.rename(data / "train" / "class1" / "8.png")
        case "validation":
            (data / "val" / "class0" / "0.png").unlink()


@pytest.mark.parametrize("how", ["removed", "added", "renamed", "rewritten", "moved to another class", "validation"])
def test_data_that_changed_are_not_gone_on_with(tmp_path: Path, how: str) -> None:
    """Steps are counted, not epochs: the length of the training does not tell."""
    data, out = folders(tmp_path / "data"), tmp_path / "run"
    wanted = replace(plan(recipe={"steps": 4}), data=str(data))
    train(wanted, out, listener=Silent(), device="cpu", until=2)
    alter(data, how)
    with pytest.raises(UsageError, match=r"the data have changed since.*added, removed, renamed or rewritten"):
        train(wanted, out, listener=Silent(), device="cpu", resume=True)


def test_a_training_starts_from_the_weights_that_are_judged(tmp_path: Path) -> None:
    """Of a run with averaged weights those."""
    train(plan(recipe={"ema": 0.5}), tmp_path / "first", listener=Silent(), device="cpu")
    parts, _ = checkpoint.load(tmp_path / "first" / LAST)
    name = "blocks.0.mlp.fc1.weight"
    assert not torch.equal(parts["ema"][name], parts["model"][name])
    session = Session.open(plan(weights=str(tmp_path / "first" / LAST)), "cpu")
    assert torch.equal(session.network.state_dict()[name], parts["ema"][name])
    assert session.start == identity.files({"weights": tmp_path / "first" / LAST})
