"""`harness train` and `harness eval` from the command line: what they print, and one line for every wrong request."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_training import SETTINGS, folders

from attentions import registry
from harness import figures
from harness.cases.plugins import digests
from harness.cli import main
from harness.report import accuracies
from harness.store import runs as store
from harness.store.record import parse_options
from harness.vision import checkpoint, tasks
from harness.vision.runfolder import LAST

TRAIN = ["train", "classification", *SETTINGS, "--attention", "anchor", "--anchors", "2", "--device", "cpu", "-q"]
SHORT = ["--steps", "2", "--batch", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on two classes of plain colours."""
    root = tmp_path_factory.mktemp("cli")
    data = folders(root / "data")
    assert main([*TRAIN, *SHORT, "--data", str(data), "--out", str(root / "run")]) == 0
    return root / "run"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and the one line that a command line is answered with."""
    capsys.readouterr()
    code = main(list(words))
    said = capsys.readouterr()
    assert not said.out
    lines = [line for line in said.err.splitlines() if line.startswith("harness: ")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    return code, lines[0]


def test_training_prints_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*TRAIN, *SHORT, "--set", "anchor.init=orthogonal", "--until", "1", "--out", str(out), "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert (half["step"], half["steps"], half["rows"]) == (1, 2, [])
    assert main(["train", "--resume", "--out", str(out), "--device", "cpu", "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in document["rows"]] == ["top1", "top5", "loss", "params"]
    assert all("init=orthogonal" in row["options"] and row["seed"] == 0 for row in document["rows"])


def test_eval_puts_cost_beside_accuracy(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "classification", "--checkpoint", str(run), "--out", str(tmp_path / "e"), "--budget", "0.05", "-q"]
    assert main([*words, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["attention", "m", "seed", "step", "top1", "M"]
    assert lines[1].split()[0] == "anchor:reference"
    rows = store.read(tmp_path / "e").set_index("metric")
    assert list(rows.index) == ["top1", "params", "flops", "latency", "peak_memory", "top5"]
    assert rows.loc["top5", "status"] == "unsupported"  # of two classes
    assert (rows.loc[["flops", "latency", "peak_memory"], "value"] > 0).all()
    assert rows["case_id"].nunique() == 1
    assert len(store.read_samples(tmp_path / "e")) == rows.loc["latency", "samples"]
    assert main([*words, "--device", "cpu", "--resume", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == len(rows)  # nothing was judged twice


def test_an_option_at_its_default_names_the_same_case(tmp_path: Path) -> None:
    data, ids = folders(tmp_path / "data"), []
    for name, given in (("out", []), ("in", ["--set", "anchor.init=sharp", "--set", "anchor.scale=1"])):
        assert main([*TRAIN, *SHORT, "--data", str(data), *given, "--out", str(tmp_path / name)]) == 0
        frame = store.read(tmp_path / name)
        assert not {"init", "scale"} & set(parse_options(frame["options"].iloc[0]))
        ids.append(frame["case_id"].iloc[0])
    assert ids[0] == ids[1]


MINE = """from attentions.base import Backend, Spec

def compute(q, k, v):
    return v

MINE = Spec(name="mine", title="Mine", exact=True, backends=(Backend("reference", compute),))
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """A file with a variant, which no other test knows."""
    before = dict(registry._plugins)
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    yield path
    registry._plugins.clear()
    registry._plugins.update(before)


def test_a_resumed_training_names_its_plugin_which_is_as_it_was(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `harness run --resume`, and before any of its code runs."""
    out, ran = tmp_path / "run", tmp_path / "ran"
    words = ["train", "classification", *SETTINGS, "--attention", "mine", "--device", "cpu", "-q", *SHORT]
    assert main([*words, "--until", "1", "--plugin", str(plugin), "--out", str(out)]) == 0
    assert store.read_environment(out)["plugins"] == digests([str(plugin)])
    again = ["train", "--resume", "--out", str(out), "--device", "cpu", "-q"]
    code, line = refused(capsys, *again)
    assert (code, "names the plugin mine.py, which is code" in line) == (2, True)
    other = tmp_path / "other.py"
    other.write_text("")
    code, line = refused(capsys, *again, "--plugin", str(other))
    assert (code, f"the run in {out} has the plugin mine.py, and this call other.py" in line) == (2, True)
    plugin.write_text(f"{MINE}open({str(ran)!r}, 'w').close()\n")
    code, line = refused(capsys, *again, "--plugin", str(plugin))
    assert (code, "plugin mine.py was edited since this run began" in line) == (2, True)
    assert not ran.exists()
    plugin.write_text(MINE)
    assert main([*again, "--plugin", str(plugin)]) == 0
    assert store.read_environment(out)["plugins"] == digests([str(plugin)])


def test_a_resumed_eval_names_its_plugin_which_is_as_it_was(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "classification", *SETTINGS, "--attention", "mine", "--device", "cpu", "-q", *SHORT]
    assert main([*words, "--plugin", str(plugin), "--out", str(out)]) == 0
    judge = [
        "eval",
        "--checkpoint",
        str(out),
        "--out",
        str(tmp_path / "e"),
        "--budget",
        "0.05",
        "--device",
        "cpu",
        "-q",
    ]
    assert main([*judge, "--plugin", str(plugin)]) == 0
    assert store.read_environment(tmp_path / "e")["plugins"] == digests([str(plugin)])
    code, line = refused(capsys, *judge, "--resume")
    assert (code, "names the plugin mine.py, which is code" in line) == (2, True)
    plugin.write_text(f"{MINE}# edited\n")
    code, line = refused(capsys, *judge, "--resume", "--plugin", str(plugin))
    assert (code, "plugin mine.py was edited since this run began" in line) == (2, True)


def judged(out: Path, *checkpoints: Path, more: tuple[str, ...] = ()) -> list[float]:
    """The accuracy of each case in a folder of `harness eval`, after judging these checkpoints too."""
    words = [word for path in checkpoints for word in ("--checkpoint", str(path))]
    words += ["--out", str(out), "--budget", "0.05", "--device", "cpu", "-q", *more, *["--resume"] * out.exists()]
    assert main(["eval", *words]) == 0
    rows = store.read(out)
    return list(rows[rows["metric"] == "top1"].drop_duplicates("case_id")["value"])


def test_a_run_trained_on_is_judged_again(tmp_path: Path) -> None:
    """Two steps, judged; on to the end, judged again: the second time the new weights, beside the old ones' row."""
    words, out = [*TRAIN, "--steps", "40", "--batch", "32", "--lr", "1e-2"], tmp_path / "run"
    assert main([*words, "--until", "2", "--out", str(out)]) == 0
    early = judged(tmp_path / "e", out)
    assert main(["train", "--resume", "--out", str(out), "--device", "cpu", "-q"]) == 0
    both = judged(tmp_path / "e", out)
    assert both[:1] == early
    assert len(both) == 2
    assert both == judged(tmp_path / "e", out), "nothing is judged twice"
    rows = store.read(tmp_path / "e")
    assert [parse_options(text)["trained.step"] for text in rows["options"].unique()] == ["2", "40"]
    assert both[1] == pytest.approx(store.read(out).set_index("metric").loc["top1", "value"])


def test_what_shares_a_name_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs from two files called last.safetensors, and one checkpoint on two folders called photos."""
    sites = [folders(tmp_path / site / "photos") for site in "ab"]
    for path in sites[1].rglob("*.png"):
        Image.new("RGB", (9, 8), "red").save(path)  # the same names
    starts = [tmp_path / start for start in ("one", "two")]
    for seed, start in enumerate(starts):
        assert main([*TRAIN, *SHORT, "--data", str(sites[0]), "--seed", str(seed), "--out", str(start)]) == 0
    tuned = [tmp_path / f"tuned-{start.name}" for start in starts]
    for start, out in zip(starts, tuned, strict=True):
        weights = ["--set", f"classification.weights={start / LAST}"]
        assert main([*TRAIN, *SHORT, *weights, "--data", str(sites[0]), "--out", str(out)]) == 0
    assert store.read(tuned[0])["case_id"].iloc[0] != store.read(tuned[1])["case_id"].iloc[0]
    assert len(judged(tmp_path / "tuned", *tuned)) == 2
    assert len(judged(tmp_path / "sites", tuned[0])) == 1
    assert len(judged(tmp_path / "sites", tuned[0], more=("--data", str(sites[1])))) == 2
    code, line = refused(capsys, "eval", "--checkpoint", str(tuned[0]), "--checkpoint", str(tuned[0] / LAST), "--out",
                         str(tmp_path / "twice"), "--budget", "0.05", "--device", "cpu", "-q")  # fmt: skip
    assert code == 2
    assert "are one model: the same weights, step and data" in line


def test_trainings_of_other_weights_are_other_marks(tmp_path: Path) -> None:
    """The report and the figure keep what differs in its weights alone."""
    runs = [tmp_path / name for name in "ab"]
    data = folders(tmp_path / "data")
    for run in runs:
        assert main([*TRAIN, *SHORT, "--data", str(data), "--out", str(run)]) == 0
    parts, facts = checkpoint.load(runs[1] / LAST)
    parts["model"]["head.bias"] += 1.0
    checkpoint.save(runs[1] / LAST, parts, facts)
    assert len(judged(tmp_path / "e", *runs)) == 2
    (point,) = accuracies.of_runs([figures.load(tmp_path / "e")], ["e"])
    assert len(point["values"]) == 2


def test_a_model_without_anchors_is_a_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folders(tmp_path / "data"), tmp_path / "run"
    words = ["train", "classification", *SETTINGS, "--attention", "full", "--device", "cpu", "-q", *SHORT]
    assert main([*words, "--data", str(data), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["eval", "--checkpoint", str(out), "--budget", "0.05", "--device", "cpu", "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["full:reference", "0"]  # no m, then the seed


def test_a_distilled_student_has_a_teacher_of_timms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import timm
    from safetensors.torch import save_file

    data, weights, out = folders(tmp_path / "data"), tmp_path / "teacher.safetensors", tmp_path / "run"
    save_file(timm.create_model("test_resnet", num_classes=2).state_dict(), weights)
    words = [*TRAIN, *SHORT, "--data", str(data), "--set", "classification.distilled=true"]
    words += ["--set", f"classification.teacher={weights}", "--set"]
    assert main([*words, "classification.teacher_model=test_resnet", "--recipe", "log=1", "--out", str(out)]) == 0
    curves = (out / "metrics.csv").read_text()
    assert "loss_teacher" in curves
    assert "loss_label" in curves
    code, line = refused(capsys, *words, "classification.teacher_model=test_vit", "--out", str(tmp_path / "other"))
    assert code == 2
    assert f"teacher {weights} does not hold weights of test_vit" in line
    assert len(line) < 500 + len(str(weights))


def test_flops_are_counted_by_hand(run: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", str(run), "--out", str(tmp_path / "e"), "--budget", "0.05", "--device", "cpu", "-q"]
    assert main(["eval", *words, "--batch", "3"]) == 0
    rows = store.read(tmp_path / "e").set_index("metric")
    n, patches, width, m, classes = 5, 4, 16, 2, 2  # 8² pixels in patches of 4², and a class token
    block = n * width * (2 + 1 + 4 + 4) * width + 3 * n * m * width  # k v, output, two of the MLP; A, Aᵀ v, A …
    products = patches * width * 3 * 16 + 2 * block + width * classes
    assert rows.loc["flops", "value"] == 2 * 3 * products


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["train", "clasification"], 2, r"unknown task 'clasification'; did you mean 'classification'?"),
        (["train"], 2, "which task? valid: classification, detection"),
        ([*TRAIN, "--attention", "anchors"], 2, "did you mean 'anchor'?"),
        ([*TRAIN, "--set", "anchor.init=papr"], 2, "anchor: option init='papr' is not valid"),
        ([*TRAIN, "--set", "ancor.init=paper"], 2, "unknown owner 'ancor'; did you mean 'anchor'?"),
        ([*TRAIN, "--set", "classification.sise=8"], 2, "did you mean 'size'?"),
        ([*TRAIN, "--set", "classification.size=big"], 2, "option of classification size: "),
        ([*TRAIN, "--set", "classification.size"], 2, "--set takes key=value"),
        ([*TRAIN, "--recipe", "emma=0.9"], 2, "unknown recipe 'emma'; did you mean 'ema'?"),
        ([*TRAIN, "--lr", "-1"], 2, "recipe lr: "),
        ([*TRAIN, "--steps", "0"], 2, "recipe steps: "),
        ([*TRAIN, "--until", "0"], 2, "--until takes a step"),
        ([*TRAIN, "--resume"], 2, "--resume needs --out"),
        ([*TRAIN, "--model", "anchorformer_huge"], 2, "unknown model 'anchorformer_huge'"),
        ([*TRAIN, "--set", "classification.heads=3"], 2, "heads"),
        ([*TRAIN, "--set", "classification.teacher=t.safetensors"], 2, "classification.distilled=true"),
        ([*TRAIN, "--data", "nowhere"], 2, "nowhere is missing; expected FOLDER/train/CLASS/*.jpg"),
        (["train", "detection"], 2, "detection needs --data"),
        (["train", "segmentation", "--data", "nowhere"], 2, "nowhere is missing"),
        (["eval"], 2, "--checkpoint is missing"),
        (["eval", "--checkpoint", "nowhere.safetensors"], 2, "nowhere.safetensors: no such file"),
        (["eval", "--checkpoint", "x", "--budget", "0"], 2, "--budget 0"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(
    words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, line = refused(capsys, *words)
    assert (found, told in line) == (code, True), line
    assert not list(tmp_path.rglob("*.safetensors"))


def truncate(run: Path) -> str:
    """Half of the checkpoint."""
    whole = (run / LAST).read_bytes()
    (run / LAST).write_bytes(whole[: len(whole) // 2])
    return f"{run / LAST} is damaged"


def remove(run: Path) -> str:
    """No checkpoint."""
    (run / LAST).unlink()
    return f"{run / LAST}: no such file"


def grow(run: Path) -> str:
    """A class more than there was."""
    folders(run.parent / "more", classes=3)
    (run.parent / "data").rename(run.parent / "old")
    (run.parent / "more").rename(run.parent / "data")
    return "the data set has changed since"


def edited(run: Path, without: str = "", **facts: Any) -> None:
    """Another checkpoint: without a tensor, or with other facts."""
    parts, known = checkpoint.load(run / LAST)
    parts["optimizer"].pop(without, None)
    checkpoint.save(run / LAST, parts, {**known, **facts})


def edit(line: str, **facts: Any) -> Callable[[Path], str]:
    def harm(run: Path) -> str:
        edited(run, **facts)
        return line

    return harm


EDITS = [
    edit("in its header data is 7, not an object", data=7),
    edit("the data have changed since", data={}),
    edit("in its header values.loss is low, not a number", values={"loss": "low"}),
    edit("is damaged: its best lacks metric, step", best={"value": 0.5}),
    edit("after 1 of 2 steps, told of 9, evaluated at 1", told=9),
    edit("its optimizer lacks exp_avg/", without="exp_avg/blocks.0.attn.core.anchors"),
]


@pytest.mark.parametrize("harm", [truncate, remove, grow, *EDITS])
def test_what_cannot_be_resumed_is_named(
    harm: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    run = tmp_path / "run"
    assert main([*TRAIN, *SHORT, "--until", "1", "--data", str(tmp_path / "data"), "--out", str(run)]) == 0
    told = harm(run)
    code, line = refused(capsys, "train", "--resume", "--out", str(run), "--device", "cpu", "-q")
    assert (code, told in line) == (2, True), line


def test_a_checkpoint_of_other_classes_or_another_task_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folders(tmp_path / "other", classes=3)
    code, line = refused(capsys, "eval", "--checkpoint", str(run), "--data", str(other), "--device", "cpu", "-q")
    assert code == 2
    assert "knows 2 classes" in line
    assert "has 3" in line
    code, line = refused(capsys, "eval", "detection", "--checkpoint", str(run), "-q")
    assert (code, "was trained for classification, not detection" in line) == (2, True)


def test_a_run_is_not_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused(capsys, *TRAIN, *SHORT, "--out", str(run))
    assert (code, "already holds a run" in line) == (2, True)


def test_a_corrupt_image_ends_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data")
    (data / "train" / "class0" / "1.png").write_bytes(b"no image")
    code, line = refused(capsys, *TRAIN, *SHORT, "--data", str(data), "--out", str(tmp_path / "run"))
    assert (code, "class0/1.png: not a readable image" in line) == (2, True)


def test_a_loss_that_is_not_finite_exits_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = tasks.get("classification")

    def objective(options: Any, data: Any) -> Any:
        losses = kind.objective(options, data)
        return lambda network, batch: {name: value * math.inf for name, value in losses(network, batch).items()}

    monkeypatch.setattr(tasks, "get", lambda name: replace(kind, objective=objective))
    code, line = refused(capsys, *TRAIN, *SHORT, "--out", str(tmp_path / "run"))
    assert (code, "no checkpoint was written yet" in line) == (5, True)
