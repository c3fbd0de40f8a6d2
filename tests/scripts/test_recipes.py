"""The full-scale recipes: every option they give is valid, and their --smoke goes from data to judged model.

PYTHON is replaced by a stub that writes down what it is called with: the commands are then run here, in this process.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from harness.store import runs as store
from harness.vision.data import scenes

SCRIPTS = Path(__file__).parents[2] / "scripts"
RECIPES = {"train_imagenet": "classification", "train_coco": "detection", "train_ade20k": "segmentation"}
STUB = '#!/usr/bin/env bash\nprintf \'%s\\0\' "$@" >> "$CALLS"\nprintf \'\\n\' >> "$CALLS"\n'


def calls(tmp_path: Path, name: str, *words: str, **environment: str) -> list[list[str]]:
    """The Python command lines of one call of a recipe, without running any."""
    stub, written = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    named = {"PYTHON": str(stub), "CALLS": str(written), "TMPDIR": str(tmp_path), **environment}
    subprocess.run([SCRIPTS / name, *words], check=True, env={**os.environ, **named}, timeout=60)
    return [line.split("\0")[:-1] for line in written.read_text(encoding="utf-8").split("\n") if line]


def harness(command: list[str]) -> list[str]:
    """The words after `-m harness` of a command line, under torchrun or not."""
    return command[next(i for i, word in enumerate(command) if word == "harness") + 1 :]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("environment", [{}, {"MODEL": "small", "ATTENTION": "full", "HEAD": "upernet"}])
def test_every_option_of_the_full_recipe_is_valid(
    name: str, environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, judge = calls(tmp_path, name, "no-such-data", str(tmp_path / "run"), "--seed", "3", **environment)
    assert train[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8"]
    assert main([*harness(train), "--device", "cpu"]) == 2
    assert "no-such-data is missing; expected FOLDER" in capsys.readouterr().err  # and nothing before that was wrong
    assert harness(judge)[:4] == ["eval", RECIPES[name], "--checkpoint", str(tmp_path / "run")]


def test_a_stopped_run_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "measurements.csv").touch()
    train, _ = calls(tmp_path, "train_imagenet", "data", str(tmp_path / "run"))
    assert train[-1] == "--resume"


def test_usage_is_told(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPTS / "train_coco", "data"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "usage: " in done.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_smoke_goes_from_data_to_a_judged_model(name: str, tmp_path: Path) -> None:
    """In 200 steps, with the recipe's own augmentation: what a rare draw breaks, two steps do not meet."""
    make, train, judge = calls(tmp_path, name, "--smoke", str(tmp_path / "run"))
    long = ["--steps", "200", "--recipe", "evaluate=200", "--recipe", "save=200", "--recipe", "log=100"]
    assert scenes.main(make[2:]) == 0
    assert main([*harness(train), *long, "-q"]) == 0
    assert store.read_environment(tmp_path / "run")["sessions"][-1]["last_step"] == 200
    assert main([*harness(judge), "--device", "cpu", "-q"]) == 0
    (judged,) = tmp_path.glob("run/eval-*")
    for folder in (tmp_path / "run", judged):
        rows = store.read(folder)
        assert set(rows["options"].map(lambda text: f"task={RECIPES[name]}" in text)) == {True}
        assert (rows.loc[rows["status"] == "ok", "value"] >= 0).all()
    assert {"params", "flops", "latency", "peak_memory"} <= set(store.read(judged)["metric"])
