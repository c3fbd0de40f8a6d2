"""The figures of trained models: curves of one training, accuracy against cost of many."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.text
import pytest
from synthetic import ENVIRONMENT

from harness import figures
from harness.figures import Skip, curves, pareto
from harness.figures._style import RC
from harness.store.csvfile import CsvFile
from harness.store.curves import CURVE_COLUMNS, CURVES
from harness.store.record import Case, Reading, Row, canonical_options
from harness.store.rows import RowsLeftOut
from harness.store.runs import ENVIRONMENT as ENVIRONMENT_FILE
from harness.store.runs import Store

ATTENTIONS = {"none": (0.31, 5e8, {}), "full": (0.93, 9e8, {}), "anchor": (0.90, 8e8, {"init": "paper"})}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three attentions at three seeds on one problem, one of them on another."""
    folder = tmp_path / "run"
    with Store.open(folder, metrics=("latency",)) as store:
        store.write_json(ENVIRONMENT_FILE, ENVIRONMENT)
        for name, (accuracy, cost, options) in ATTENTIONS.items():
            for seed in range(3):
                judged(
                    store, name, options, seed, {"top1": accuracy + 0.01 * seed, "flops": cost, "latency": cost / 1e8}
                )
        judged(store, "anchor", {"init": "orthogonal"}, 0, {"top1": 0.95, "flops": 8e8, "latency": 8.0})
        judged(store, "full", {}, 0, {"map": 0.2, "map50": 0.4, "flops": 7e9, "latency": 70.0}, task="detection")
        judged(store, "none", {}, 0, {"map": 0.1, "map50": 0.2, "flops": 6e9, "latency": 60.0}, task="detection")
    return folder


def judged(
    store: Store, name: str, options: dict[str, str], seed: int, values: dict[str, float], task: str = "classification"
) -> None:
    """Write the rows of one trained model."""
    case = Case(
        attention=name, backend="reference", scope="model", phase="forward", b=1, h=4, n=65, d=16,
        m=16 if name == "anchor" else None, dtype="float32", device="cpu", seed=seed,
        options=canonical_options({**options, "task": task, "data": "scenes", "model.size": "32"}),
    )  # fmt: skip
    readings = [Reading(metric=metric, value=value, samples=1) for metric, value in values.items()]
    rows = [Row.of(case, r, run_id="r", machine="here", commit="c", time_utc="2026-01-01T00:00:00Z") for r in readings]
    store.append(rows, {})


def drawn(module: Any, folder: Path) -> list[figures.Sheet]:
    with matplotlib.rc_context(RC):
        return list(module.draw(figures.load(folder)))


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_unlike_problems_are_drawn_apart(run: Path) -> None:
    found = {sheet.suffix: texts(sheet.figure) for sheet in drawn(pareto, run)}
    assert sorted(found) == ["classification_scenes", "detection_scenes"]
    assert "top-1 accuracy" in found["classification_scenes"]
    assert "box AP50" in found["detection_scenes"]
    assert "anchor init=paper m=16" in found["classification_scenes"]
    assert "seed=" not in found["classification_scenes"]


def test_a_setting_that_differs_tells_problems_apart() -> None:
    shared = {"task": "detection", "data": "coco", "model.size": "64"}
    found = pareto.problems(
        [{**shared, "recipe.lr": "0.1"}, {**shared, "init": "paper"}, {"task": "recall", "model.size": "1"}]
    )
    assert found == ["detection coco lr=0.1", "detection coco lr=default", "recall"]


def test_the_load_of_recall_is_no_option_of_the_variant() -> None:
    loads = [{"task": "recall", "items": items, "shapes": "96", "scale": "32.0", "steps": "500"} for items in "15"]
    assert pareto.problems(loads) == ["recall items=1", "recall items=5"]
    assert pareto.own_options(loads[0]) == " scale=32.0"
    assert pareto.own_options({"items": "2", "model": "anchorformer_tiny", "resolution": "224"}) == " items=2"


def test_a_point_of_equal_cost_and_less_accuracy_is_not_among_the_best(run: Path) -> None:
    (sheet, _) = sorted(drawn(pareto, run), key=lambda s: s.suffix)
    (steps,) = [line for line in sheet.figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert list(zip(steps.get_xdata(), steps.get_ydata(), strict=True)) == [
        (pytest.approx(0.25), pytest.approx(0.32)), (pytest.approx(0.4), pytest.approx(0.95))
    ]  # fmt: skip


def test_of_an_error_the_least_is_the_best_and_it_may_be_above_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    errors = {"none": (1.1, 5e8), "full": (0.1, 9e8), "anchor": (0.2, 8e8)}
    with Store.open(folder, metrics=("latency",)) as store:
        store.write_json(ENVIRONMENT_FILE, ENVIRONMENT)
        for name, (error, cost) in errors.items():
            for seed in range(3):
                values = {"relative_l2": error + 0.01 * seed, "flops": cost}
                judged(store, name, {}, seed, values, task="operator")
    (sheet,) = drawn(pareto, folder)
    axes = sheet.figure.axes[0]
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(steps.get_ydata()) == pytest.approx([1.11, 0.21, 0.11])
    text = texts(sheet.figure)
    assert "relative L2 error" in text
    assert "as far as it lies above 0." in text
    (whole,) = [bar for bar in axes.collections if len(bar.get_segments()) and bar.get_segments()[0][0][0] == 0.25]
    assert whole.get_segments()[0][1][1] == pytest.approx(1.11 + pareto.half_width([1.1, 1.11, 1.12]))


def test_a_long_name_is_whole_in_the_legend(run: Path) -> None:
    with Store.open(run, metrics=("latency",), resume=True) as store:
        options = {"init": "orthogonal", "logits": "cosine"}
        judged(store, "anchor", options, 0, {"top1": 0.95, "flops": 8e8, "latency": 8.0})
    (sheet, _) = sorted(drawn(pareto, run), key=lambda s: s.suffix)
    assert "anchor init=orthogonal logits=cosine m=16" in texts(sheet.figure)


def test_marks_are_means_over_seeds_with_students_interval(run: Path) -> None:
    (sheet, _) = sorted(drawn(pareto, run), key=lambda s: s.suffix)
    axes = sheet.figure.axes[0]
    marks = {(round(x, 6), round(y, 6)) for line in axes.lines if len(line.get_xdata()) == 1
             for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}  # fmt: skip
    assert {(0.25, 0.32), (0.45, 0.94), (0.4, 0.91), (0.4, 0.95)} <= marks
    # three values 0.01 apart: s = 0.01, t = 4.303 at two degrees of freedom
    assert pareto.half_width([0.90, 0.91, 0.92]) == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)
    assert math.isinf(pareto.half_width([0.9]))
    floor = next(line for line in axes.lines if list(line.get_xdata()) == [0, 1])
    assert list(floor.get_ydata()) == pytest.approx([0.32, 0.32])


def test_a_run_without_accuracy_is_skipped(tmp_path: Path) -> None:
    with Store.open(tmp_path / "r", metrics=("latency",)) as store:
        judged(store, "full", {}, 0, {"latency": 3.0})
    with pytest.raises(Skip, match="harness eval measures it"):
        drawn(pareto, tmp_path / "r")
    with pytest.raises(Skip, match="not a training"):
        drawn(curves, tmp_path / "r")


def write_curves(folder: Path, steps: int) -> None:
    file = CsvFile(folder / CURVES, CURVE_COLUMNS)
    file.mend()
    for step in range(10, steps + 1, 10):
        file.append([(step, "train", "loss", repr(5 / step)), (step, "train", "lr", "0.001")])
        file.append([(step, "val", "top1", repr(1 - 5 / step))])
    file.close()


def test_curves_show_losses_rate_and_validation(run: Path) -> None:
    write_curves(run, 100)
    (sheet,) = drawn(curves, run)
    left, right, rate = sheet.figure.axes
    assert [line.get_label() for line in left.lines] == ["loss"]
    assert list(left.lines[0].get_ydata()) == pytest.approx([5 / step for step in range(10, 101, 10)])
    assert [line.get_label() for line in right.lines] == ["top1"]
    assert set(rate.lines[0].get_ydata()) == {0.001}


def test_a_damaged_line_of_a_curve_is_left_out_and_named(run: Path) -> None:
    write_curves(run, 20)
    path = run / CURVES
    path.write_text(
        path.read_text(encoding="utf-8").replace("10,train,loss,0.5", "ten,train,loss,0.5"), encoding="utf-8"
    )
    with pytest.warns(RowsLeftOut, match=r"metrics\.csv: 1 of \d+ rows left out: line \d+: step is 'ten', no whole"):
        drawn(curves, run)
