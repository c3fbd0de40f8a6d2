"""Figures: found by file name, complete, repeatable, and never of unlike things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from synthetic import ENVIRONMENT, write_run

from harness import figures
from harness.errors import UsageError
from harness.figures import heatmap
from harness.store import runs as store
from harness.store.runs import StoreError

ALL = ["error", "heatmap", "latency", "memory", "roofline", "scaling", "speedup"]
OTHERS = {"curves", "keys", "pareto", "resolution"}  # of models, and of keys of other numbers: not in this run
ONE = {"phases": ("forward",), "dtypes": ("float32",)}
HOSTILE = "$x_{\\frac <b>&\x1b[31m\x00 _ %s \u202e漢字😀 " + "long " * 60


@pytest.fixture(scope="module")
def drawn(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> figures.Outcome:
    return figures.write(figures.load(small_run), figures.names(), tmp_path_factory.mktemp("drawn"))


def texts(figure: Any) -> str:
    """All the text on a figure."""
    import matplotlib.text

    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@cache
def draw(folder: Path, name: str) -> list[figures.Sheet]:
    """The sheets of one figure, in the style that it is written in."""
    import importlib

    import matplotlib

    from harness.figures._style import RC

    with matplotlib.rc_context(RC):
        return list(importlib.import_module(f"harness.figures.{name}").draw(figures.load(folder)))


def test_figures_are_found_by_file_name() -> None:
    found = sorted(path.stem for path in Path(figures.__file__).parent.glob("[a-z]*.py"))
    assert figures.names() == found == sorted({*ALL, *OTHERS})


def test_a_figure_is_added_by_adding_a_file(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.py").write_text(
        "from harness.figures import Sheet\nfrom matplotlib.figure import Figure\n"
        "def draw(run):\n    yield Sheet(Figure(), suffix=run.folder.name)\n"
    )
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    assert "empty" in figures.names()
    outcome = figures.write(figures.load(small_run), ["empty"], tmp_path, formats=("svg",))
    assert outcome.figures == {"empty": [tmp_path / "empty-small.svg"]}


def test_every_figure_is_written_as_png_and_svg(drawn: figures.Outcome) -> None:
    assert sorted(drawn.figures) == ALL
    assert set(drawn.skipped) == OTHERS
    for name, files in drawn.figures.items():
        assert [file.name for file in files] == [f"{name}.png", f"{name}.svg"]
        assert files[0].read_bytes().startswith(b"\x89PNG")
        ElementTree.parse(files[1])


def test_png_is_twice_readme_width_and_nothing_is_left_behind(drawn: figures.Outcome) -> None:
    from PIL import Image

    for files in drawn.figures.values():
        assert Image.open(files[0]).width == 1600
        assert not [path for path in files[0].parent.iterdir() if path.name.startswith(".")]


def test_drawing_again_in_another_process_gives_the_same_bytes(
    drawn: figures.Outcome, small_run: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from harness import figures\n"
        "run = figures.load(Path(sys.argv[1]))\n"
        "figures.write(run, ['latency', 'heatmap', 'speedup'], Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MPLBACKEND": "svg", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(small_run), str(tmp_path)], check=True, env=environment)
    again = sorted(tmp_path.iterdir())
    assert [path.name for path in again] == [
        f"{n}.{k}" for n in ("heatmap", "latency", "speedup") for k in ("png", "svg")
    ]
    for path in again:
        assert path.read_bytes() == next(f for f in drawn.figures[path.stem] if f.name == path.name).read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_each_says_device_dtype_phase_shape_and_that_masks_are_off(small_run: Path, name: str) -> None:
    (sheet,) = draw(small_run, name)
    words = " ".join(texts(sheet.figure).split())
    for said in (
        "AMD EPYC 7B13",
        "2 cores",
        "(cpu)",
        "scope core",
        "forward",
        "float32",
        "b=1 h=6 d=64",
        "No causal mask",
    ):
        assert said in words, said
    assert "xformers: unavailable (xformers has no kernel" in words


@pytest.mark.parametrize("name", ALL)
def test_no_text_leaves_the_page_and_no_tick_labels_overlap(small_run: Path, name: str) -> None:
    for sheet in draw(small_run, name):
        figure = sheet.figure
        figure.draw_without_rendering()
        page = figure.bbox
        assert figure.get_tightbbox().width * figure.dpi <= page.width + 1
        assert figure.get_tightbbox().height * figure.dpi <= page.height + 1
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
            boxes = sorted((box for box in boxes if box.width), key=lambda box: box.x0)
            assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), name


def test_units_stand_on_the_axes(small_run: Path) -> None:
    labels = {name: texts(draw(small_run, name)[0].figure) for name in ALL}
    assert "latency (ms)" in labels["latency"]
    assert "peak memory (MiB)" in labels["memory"]
    assert "speed-up over flash (×)" in labels["speedup"]
    assert "TFLOP/s" in labels["roofline"]
    assert "copy 21.4 GB/s\nmatmul 0.105 TFLOP/s" in labels["roofline"]
    assert all("n (tokens)" in labels[name] for name in ("latency", "memory", "speedup", "heatmap"))


def test_memory_marks_what_did_not_fit(small_run: Path) -> None:
    (sheet,) = draw(small_run, "memory")
    assert "full n=32k: needs 51.5 GB, 21.9 GB free" in " ".join(texts(sheet.figure).split())
    crosses = [line for line in sheet.figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[32768]]


def test_failures_are_marked_where_the_worst_values_lie(small_run: Path) -> None:
    for name, low in (("memory", False), ("latency", False), ("speedup", True)):
        axes = draw(small_run, name)[0].figure.axes[0]
        places = [y for line in axes.lines if line.get_marker() == "x" for y in line.get_ydata()]
        assert places, name
        assert all((y < 0.5) == low for y in places), name


def test_a_failed_size_breaks_the_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", variants=("full",), sizes=(1024, 32768, 2048), **ONE)
    (sheet,) = draw(folder, "latency")
    (line,) = [line for line in sheet.figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert [np.isnan(y) for y in line.get_ydata()] == [False, False, True]


def test_panels_are_phase_by_dtype_with_one_scale(wide_run: Path) -> None:
    (sheet,) = draw(wide_run, "latency")
    axes = [axes for axes in sheet.figure.axes if axes.get_visible()]
    titles = [panel.get_title(loc="left") for panel in axes]
    assert titles == ["forward · float32", "train · float32", "forward · bfloat16", "train · bfloat16"]
    assert len({panel.get_ylim() for panel in axes}) == 1


def test_unlike_settings_get_files_of_their_own(tmp_path: Path) -> None:
    changes = ({}, {"device": "cuda:0"}, {"scope": "layer"}, {"b": 4})
    folder = write_run(tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 4096), changes=changes, **ONE)
    suffixes = [sheet.suffix for sheet in draw(folder, "latency")]
    assert suffixes == ["cpu-core-b1", "cpu-core-b4", "cpu-layer-b1", "cuda_0-core-b1"]
    for sheet in draw(folder, "latency"):
        lines = [line for line in sheet.figure.axes[0].lines if len(line.get_xdata()) == 2]
        assert len(lines) == 1 + 3  # flash, and anchor with three m: nothing of another setting


def test_keys_are_an_axis_beside_the_queries_own(tmp_path: Path) -> None:
    options = ("", "kv_heads=1", "kv_heads=2", "causal=true", "causal=true;kv_heads=1", "kv_tokens=4096")
    changes = [{"options": text} for text in options]
    folder = write_run(
        tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 2048), anchors=(16,), changes=changes, **ONE
    )
    sheets = {sheet.suffix: sheet.figure for sheet in draw(folder, "keys")}
    assert sorted(sheets) == ["kv_heads-causal", "kv_heads-default", "kv_tokens-default"]

    def along(suffix: str) -> list[list[float]]:
        return [sorted({float(x) for line in axes.lines for x in line.get_xdata()}) for axes in sheets[suffix].axes]

    assert along("kv_heads-default") == [[1, 2, 6]] * 2  # at n = 1024 and 2048; 6 is plain attention
    assert along("kv_heads-causal") == [[1, 6]] * 2
    assert along("kv_tokens-default") == [[1024, 4096], [2048, 4096]]
    assert "Causal: token i attends" in " ".join(texts(sheets["kv_heads-causal"]).split())


def test_a_run_without_other_keys_has_no_such_figure(small_run: Path) -> None:
    with pytest.raises(figures.Skip, match="no two numbers of heads of keys"):
        draw(small_run, "keys")


def test_two_machines_are_never_drawn_together(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", variants=("flash", "anchor"), sizes=(1024, 4096), machine="A/../b", **ONE)
    two = write_run(tmp_path / "two", variants=("flash", "anchor"), sizes=(1024, 4096), machine="A/..%b", **ONE)
    for name in (store.MEASUREMENTS, store.SAMPLES):
        lines = (two / name).read_text().splitlines(keepends=True)[1:]
        with (one / name).open("a") as file:
            file.writelines(lines)
    suffixes = [sheet.suffix for sheet in draw(one, "latency")]
    assert len(set(suffixes)) == 2
    assert all("/" not in suffix and not suffix.startswith(".") for suffix in suffixes)


def test_speedup_is_the_ratio_of_medians_with_its_bootstrap_interval(small_run: Path) -> None:
    from harness.figures.speedup import ratios

    run = figures.load(small_run)
    speed = ratios(run.rows("latency"), run)
    assert speed is not None
    frame = store.read(small_run)
    latency = frame[(frame["metric"] == "latency") & (frame["n"] == 4096)]
    row = speed[(speed["attention"] == "anchor") & (speed["m"] == 16) & (speed["n"] == 4096)].iloc[0]
    assert row["value"] == pytest.approx(_value(latency, "flash") / _value(latency, "anchor"))
    assert row["resampled"]
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert "flash" not in set(speed["attention"])


def _value(rows: Any, attention: str) -> float:
    own = rows[(rows["attention"] == attention) & (rows["m"].isna() | (rows["m"] == 16))]
    return own["value"].iloc[0]


def test_speedup_without_samples_takes_the_ratio_of_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", variants=("full", "anchor"), sizes=(1024,), with_samples=False, **ONE)
    (sheet,) = draw(folder, "speedup")
    words = " ".join(texts(sheet.figure).split())
    assert "No flash in this run: full is the base." in words
    assert "the ratio of both 95 % intervals" in words


def test_speedup_says_where_the_base_has_no_latency(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 4096, 65536), phases=("train",), dtypes=("float32",)
    )
    (sheet,) = draw(folder, "speedup")  # flash timed out at 65536
    words = " ".join(texts(sheet.figure).split())
    assert "No ratio at sizes where flash has no latency." in words
    lines = [line for line in sheet.figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert all(np.isnan(line.get_ydata()[2]) for line in lines)


def test_samples_of_two_machines_are_not_pooled(small_run: Path) -> None:
    run = figures.load(small_run)
    row = next(row for row in run.rows("latency").itertuples() if row.status == "ok")
    assert len(run.samples(row)) == 24
    assert run.samples(row._replace(samples=48)) is None


def test_scaling_fits_the_upper_half_and_shows_what_is_declared(small_run: Path) -> None:
    (sheet,) = draw(small_run, "scaling")
    assert [axes.get_title(loc="left") for axes in sheet.figure.axes] == ["latency", "FLOPs", "peak memory"]
    names = [label.get_text() for label in sheet.figure.axes[0].get_yticklabels()]
    assert names == ["full", "flash", *(f"{v} m={m}" for v in ("linformer", "nystrom", "anchor") for m in (16, 64))]
    assert "1.00 ±0.00" in texts(sheet.figure)


@pytest.mark.parametrize("backend", ["sdpa", "chunked"])
def test_scaling_fits_one_backend_of_a_line_that_changes_it(tmp_path: Path, backend: str) -> None:
    folder = write_run(tmp_path / "r", variants=("anchor",), sizes=(1024, 2048, 4096, 8192), anchors=(16,), **ONE)
    file = folder / "measurements.csv"
    rows = pandas.read_csv(file, dtype=str, keep_default_na=False)
    assert set(rows["backend"]) == {"sdpa"}
    last = rows["n"] == "8192"
    fewer = last & rows["metric"].isin(["peak_memory", "flops", "latency"])
    rows.loc[fewer, "value"] = (rows.loc[fewer, "value"].astype(float) / 8).astype(str)
    rows.loc[last, "backend"] = backend
    file.write_text(rows.to_csv(index=False))
    (sheet,) = draw(folder, "scaling")
    words = " ".join(texts(sheet.figure).split())
    assert ("1.00 ±0.00" in words) == ("A line that changes its backend" in words) == (backend == "chunked")


def test_a_backend_that_changes_along_a_line_has_hollow_marks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", variants=("anchor",), sizes=(1024, 2048, 4096), anchors=(16,), **ONE)
    file = folder / "measurements.csv"
    (before,) = draw.__wrapped__(folder, "memory")
    rows = pandas.read_csv(file, dtype=str, keep_default_na=False)
    rows.loc[rows["n"] == "4096", "backend"] = "chunked"
    file.write_text(rows.to_csv(index=False))
    (after,) = draw.__wrapped__(folder, "memory")
    hollow = [
        [
            line
            for line in sheet.figure.axes[0].lines
            if line.get_markerfacecolor() == "white" and len(line.get_xdata()) == 1
        ]
        for sheet in (before, after)
    ]
    assert [[line.get_xdata().tolist() for line in lines] for lines in hollow] == [[], [[4096.0]]]
    meaning = "Hollow marks: another backend (anchor m=16: chunked at n=4k)."
    assert [meaning in " ".join(texts(sheet.figure).split()) for sheet in (before, after)] == [False, True]


def test_error_draws_as_exact_what_the_run_says_is_exact(tmp_path: Path) -> None:
    """A variant without m that computes something else, as `linear`, is a point, not a line at an error of rounding."""
    folder = write_run(tmp_path / "r", variants=("flash", "anchor"), sizes=(1024,), anchors=(16,), **ONE)
    file = folder / "measurements.csv"
    rows = pandas.read_csv(file, dtype=str, keep_default_na=False)
    linear = rows[rows["attention"] == "flash"].assign(attention="linear", case_id="000000000001")
    linear.loc[linear["metric"] == "approximation_error", "value"] = "0.76"
    file.write_text(pandas.concat([rows, linear]).to_csv(index=False))

    def vertical(environment: dict[str, Any]) -> int:
        (folder / "environment.json").write_text(json.dumps({**ENVIRONMENT, **environment}))
        (sheet,) = draw.__wrapped__(folder, "error")
        first = sheet.figure.axes[0]
        assert first.get_ylabel().startswith("approximation error")
        assert any(0.76 in line.get_ydata() for line in first.lines)
        return sum(list(line.get_ydata()) == [0, 1] for line in first.lines)

    assert vertical({"kinds": {"flash": "exact", "anchor": "approximate", "linear": "approximate"}}) == 1
    assert vertical({}) == 1  # not told: the error itself says


def test_error_keeps_approximation_and_numeric_error_apart(wide_run: Path) -> None:
    sheets = {sheet.suffix: sheet.figure for sheet in draw(wide_run, "error")}
    assert sorted(sheets) == ["forward-bfloat16", "forward-float32", "train-bfloat16", "train-float32"]
    labels = [axes.get_ylabel() for axes in sheets["forward-float32"].axes if axes.get_ylabel()]
    assert labels == ["approximation error\n(against full)", "numeric error\n(against float64)"]
    labels = [axes.get_ylabel() for axes in sheets["train-float32"].axes if axes.get_ylabel()]
    assert labels == ["numeric error\n(against float64)"]  # approximation_error is unsupported there


def test_heatmap_cells_say_latency_speedup_or_status(small_run: Path) -> None:
    words = texts(draw(small_run, "heatmap")[0].figure)
    assert words.count("n/a") == 3 + 1  # m=64 at n=64 in three variants, and its meaning in the caption
    assert "×" in words
    assert "speed-up over flash (×)" in words


def test_heatmap_says_what_an_empty_cell_is(small_run: Path, tmp_path: Path) -> None:
    meaning = "Empty cells: not in this run."
    assert meaning not in " ".join(texts(draw(small_run, "heatmap")[0].figure).split())
    folder = write_run(tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 4096), anchors=(16,), **ONE)
    write_run(folder.parent / "s", variants=("anchor",), sizes=(4096,), anchors=(64,), **ONE)
    run = figures.load(folder)
    frame = pandas.concat([run.frame, figures.load(folder.parent / "s").frame], ignore_index=True)
    run = figures.Run(folder=folder, frame=frame, environment=run.environment, whole=frame)
    (sheet,) = heatmap.draw(run)
    assert meaning in " ".join(texts(sheet.figure).split())


def test_variants_keep_their_colour_and_marker_in_every_run(small_run: Path, tmp_path: Path) -> None:
    from harness.figures._style import FURTHER, Looks

    few = write_run(tmp_path / "r", variants=("anchor", "mine", "zeta"), sizes=(1024,), **ONE)
    one, two = (Looks(figures.load(folder).whole) for folder in (small_run, few))
    assert one.of("anchor", "anchor").color == two.of("anchor", "anchor").color
    assert one.of("anchor", "anchor").marker == two.of("anchor", "anchor").marker
    assert [two.hues[name][0] for name in ("mine", "zeta")] == list(FURTHER[:2])
    dashes = [str(one.of("anchor", "anchor", m).dash) for m in (16, 64)]
    assert len(set(dashes)) == 2


def test_backends_of_a_variant_differ_in_fill_and_shade(tmp_path: Path) -> None:
    from harness.figures._style import Looks

    changes = ({}, {"backend": "reference"}, {"backend": "compile"})
    folder = write_run(tmp_path / "r", variants=("anchor",), sizes=(1024,), anchors=(16,), changes=changes, **ONE)
    run = figures.load(folder)
    series = sorted(set(run.frame["series"]))
    assert series == ["anchor:compile", "anchor:reference", "anchor:sdpa"]
    looks = [Looks(run.whole).of("anchor", name) for name in series]
    assert len({look.fill for look in looks}) == len({look.color for look in looks}) == 3


def test_a_run_of_one_point_is_drawn_as_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", sizes=(4096,), anchors=(64,), **ONE)
    outcome = figures.write(figures.load(folder), ALL, tmp_path / "o", formats=("svg",))
    assert sorted(outcome.figures) == ["error", "latency", "memory", "roofline", "speedup"]
    assert outcome.skipped == {
        "heatmap": "there is only one n and one m",
        "scaling": "no variant has a value at two or more token counts",
    }
    (sheet,) = draw(folder, "latency")
    names = [label.get_text() for label in sheet.figure.axes[0].get_yticklabels()]
    assert names == ["full", "flash", "xformers", "linformer m=64", "nystrom m=64", "anchor m=64"]
    assert "unavailable" in texts(sheet.figure)


@pytest.mark.parametrize("status", ["oom", "timeout", "error", "unsupported", "unavailable"])
def test_a_run_in_which_everything_failed_draws_nothing_and_says_why(tmp_path: Path, status: str) -> None:
    folder = write_run(
        tmp_path / "r", variants=("full", "anchor"), sizes=(1024,), fail_all=status, note="because", **ONE
    )
    outcome = figures.write(figures.load(folder), ALL, tmp_path / "o")
    assert outcome.figures == {}
    assert sorted(outcome.skipped) == ALL
    assert outcome.skipped["latency"] == "no value of latency: all 4 cases failed"
    assert not (tmp_path / "o").exists()


def test_a_run_without_rows_draws_nothing(tmp_path: Path) -> None:
    store.Store.open(tmp_path / "r", metrics=("latency",)).__exit__()
    outcome = figures.write(figures.load(tmp_path / "r"), ALL, tmp_path / "o")
    assert sorted(outcome.skipped) == ALL
    assert outcome.skipped["latency"] == "no value of latency: it was not measured"


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_hostile_names_and_notes_are_drawn_as_they_are(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", variants=("flash", "anchor", "x_" + "y" * 300, "_hidden"), sizes=(1024, 4096), anchors=(16, 64),
        changes=({}, {"options": f"init={HOSTILE}"}), note=HOSTILE, machine=HOSTILE, environment={}, **ONE,
    )  # fmt: skip
    chosen = ["heatmap", "latency", "scaling"]
    outcome = figures.write(figures.load(folder), chosen, tmp_path / "o", formats=("svg",))
    assert sorted(outcome.figures) == chosen
    for files in outcome.figures.values():
        ElementTree.parse(files[0])  # no control character got into the XML
    (sheet,) = draw(folder, "latency")
    labels = [text.get_text() for legend in sheet.figure.legends for text in legend.get_texts()]
    assert "_hidden" in labels
    assert all(len(label) <= 40 for label in labels)
    sheet.figure.draw_without_rendering()
    assert sheet.figure.get_tightbbox().width <= 8.02


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {
            "ceilings": {"cpu": {"copy_gb_per_s": 0, "matmul_tflops": {"float32": 1}}},
            "device": "cpu",
            "environment": {},
        },
    ],
)
def test_a_poor_environment_is_survived(tmp_path: Path, environment: dict) -> None:
    folder = write_run(
        tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 4096), anchors=(16,), environment=environment, **ONE
    )
    assert "no measured ceilings" in texts(draw(folder, "roofline")[0].figure)
    assert "No exponents are declared" in " ".join(texts(draw(folder, "scaling")[0].figure).split())
    assert "EPYC-2c-3f9a1c (cpu)" in texts(draw(folder, "latency")[0].figure)


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"ceilings": None, "declared": [], "environment": 3}, "is not an object|, not an object"),
        ({"ceilings": {"cpu": {"copy_gb_per_s": "fast", "matmul_tflops": {}}}}, "ceilings.cpu.copy_gb_per_s is fast"),
        ({"declared": {"anchor": {"flops_n": "n"}}}, "declared.anchor.flops_n is n, not a number"),
    ],
)
def test_an_environment_of_another_shape_is_named(tmp_path: Path, environment: dict, what: str) -> None:
    folder = write_run(
        tmp_path / "r", variants=("flash", "anchor"), sizes=(1024, 4096), anchors=(16,), environment=environment, **ONE
    )
    with pytest.raises(StoreError, match=f"environment.json is damaged: .*({what})"):
        draw(folder, "roofline")


def test_many_lines_and_sizes_still_fit_the_page(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", variants=("flash", *(f"variant_{i}" for i in range(6))), anchors=(16, 64),
        sizes=tuple(range(1000, 30000, 2000)), with_samples=False, **ONE,
    )  # fmt: skip
    for name in ("latency", "heatmap"):
        (sheet,) = draw(folder, name)
        sheet.figure.draw_without_rendering()
        assert sheet.figure.get_tightbbox().width <= 8.02


def test_an_unwritable_place_is_a_usage_error(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*file/x/latency\.png"):
        figures.write(figures.load(small_run), ["latency"], tmp_path / "file" / "x")


def test_drawing_needs_no_torch(small_run: Path) -> None:
    code = (
        "import sys, importlib; from pathlib import Path; import harness.store.table; from harness import figures\n"
        "[importlib.import_module(f'harness.figures.{name}') for name in figures.names()]\n"
        "figures.load(Path(sys.argv[1])); sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(small_run)], check=True)
