"""`harness plot` and `harness show`, and the table that `harness run` ends with."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from figures.synthetic import write_run

from harness.cli import main
from harness.door.stored import Run
from harness.store import runs as store
from harness.store.pivot import pivot
from harness.store.selection import labelled, metric_rows, printable, size
from harness.store.table import comparison, render

ESCAPES = re.compile(r"\x1b\[")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases, one dtype; oom, unavailable and unsupported cases among them."""
    folder = tmp_path_factory.mktemp("results") / "mine"
    return write_run(folder, sizes=(64, 1024, 4096, 32768), anchors=(16, 64), dtypes=("float32",))


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        caught = capsys.readouterr()
        return code, caught.out, caught.err

    return call


def latency(run: Path, **where: Any) -> float:
    """The median latency of one case."""
    frame = store.read(run)
    for name, value in {"metric": "latency", "phase": "forward", **where}.items():
        frame = frame[frame[name] == value]
    (value,) = frame["value"]
    return value


# plot


def test_plot_writes_into_the_run_and_prints_the_files(harness: Any, run: Path) -> None:
    code, out, err = harness("plot", run, "--figure", "latency,scaling", "--figure", "latency", "--format", "svg")
    folder = run / "figures"
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(folder / "latency.svg"), str(folder / "scaling-forward.svg"), str(folder / "scaling-train.svg")
    ]  # fmt: skip
    assert all(Path(line).stat().st_size for line in out.splitlines())


def test_plot_takes_the_newest_run(
    harness: Any, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    monkeypatch.chdir(run.parent.parent)
    (run.parent.parent / "results").unlink(missing_ok=True)
    (run.parent.parent / "results").symlink_to(run.parent)
    code, out, _ = harness("plot", "--figure", "memory", "--format", "svg", "--out", tmp_path / "o")
    assert (code, out.splitlines()) == (0, [str(tmp_path / "o" / "memory.svg")])
    assert harness("show")[0] == 0


def test_plot_json_is_one_document(harness: Any, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", variants=("full", "anchor"), sizes=(1024,), anchors=(16,), phases=("forward",),
        dtypes=("float32",),
    )  # fmt: skip
    code, out, err = harness("plot", folder, "--figure", "memory,scaling", "--format", "png", "--json")
    assert code == 0
    assert json.loads(out) == {
        "run": str(folder),
        "figures": [{"name": "memory", "files": [str(folder / "figures" / "memory.png")]}],
        "skipped": [{"name": "scaling", "reason": "no variant has a value at two or more token counts"}],
    }
    assert err == "harness: nothing to draw for scaling: no variant has a value at two or more token counts\n"


def test_plot_says_in_one_line_after_the_files_what_it_has_nothing_for(harness: Any, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", variants=("full", "anchor"), sizes=(1024,), anchors=(16,), phases=("forward",),
        dtypes=("float32",),
    )  # fmt: skip
    code, out, err = harness("plot", folder, "--format", "png")
    assert code == 0
    assert str(folder / "figures" / "latency.png") in out.splitlines()
    assert err == (
        "harness: nothing to draw for curves, heatmap, keys, pareto, resolution, scaling (--json has the reasons)\n"
    )


def test_plot_of_a_selection(harness: Any, run: Path, tmp_path: Path) -> None:
    words = ("plot", run, "--figure", "scaling", "--out", tmp_path, "--format", "svg", "--phase", "train")
    assert harness(*words, "--attention", "anchor,flash", "--m", "64")[:2] == (0, f"{tmp_path / 'scaling.svg'}\n")
    assert harness(*words, "--attention", "xformers")[0] == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--figure", "latncy"], 2, "unknown figure 'latncy'; did you mean 'latency'? valid: curves, error, heatmap"),
        (["--figure", ""], 2, "unknown figure ''"),
        (["--format", "gif"], 2, "unknown format 'gif'; valid: png, svg, pdf"),
        (["--scale", "cubic"], 2, "unknown scale 'cubic'; valid: log, linear"),
        (["--size", "big"], 2, "--size takes inches, WIDTH or WIDTHxHEIGHT of 2 to 40 each, such as 5x3, not 'big'"),
        (["--size", "5x3x2"], 2, "not '5x3x2'"),
        (["--size", "5x1"], 2, "not '5x1'"),
        (["--style", "nicer"], 2, "unknown style 'nicer'"),
        (["--y", "latncy"], 2, "unknown metric in this run 'latncy'; did you mean 'latency'?"),
        (["--x", "width"], 2, "unknown axis or metric in this run 'width'; valid: n, m, batch, heads, head_dim, "),
        (["--x", "m", "--figure", "memory"], 2, "a figure of their own, latency-over-m; leave --figure out"),
        (["--x", "m", "--y", "energy"], 4, "holds nothing that energy-over-m could draw"),
        (["--figure", "heatmap", "--scale", "linear"], 4, "holds nothing that heatmap could draw"),
        (["--dtype", "float16"], 2, "unknown dtype in this run 'float16'"),
        (["--n", "7"], 2, "--n 7 is not in this run; it holds 64, 1024, 4096, 32768"),
        (["--n", "many"], 2, "--n: "),
        (["--attention", "anchr"], 2, "did you mean 'anchor'?"),
        (["--figure", "heatmap", "--attention", "full"], 4, "holds nothing that heatmap could draw"),
    ],
)
def test_plot_refuses_in_one_line(harness: Any, run: Path, words: list[str], code: int, said: str) -> None:
    got, out, err = harness("plot", run, *words)
    assert (got, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("harness: ")


@pytest.mark.parametrize("command", ["plot", "show"])
def test_what_is_no_run_is_refused_untouched(harness: Any, tmp_path: Path, command: str) -> None:
    assert harness(command, tmp_path / "nowhere")[0] == 2
    assert harness(command, tmp_path)[2] == f"harness: {tmp_path} is not a run: it has no measurements.csv\n"
    (tmp_path / "measurements.csv").write_text("a,b\n1,2\n")
    code, _, err = harness(command, tmp_path)
    assert code == 2
    assert "foreign columns" in err
    assert [path.name for path in tmp_path.iterdir()] == ["measurements.csv"]
    assert (tmp_path / "measurements.csv").read_text() == "a,b\n1,2\n"


def test_a_run_in_which_all_failed_has_no_figure_but_a_table(harness: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", variants=("full", "anchor"), sizes=(64,), fail_all="oom", note="needs 9 GB")
    code, out, err = harness("plot", folder)
    assert (code, out) == (4, "")
    assert "latency: no value of latency" in err
    code, out, _ = harness("show", folder, "--phase", "forward", "--dtype", "float32")
    assert code == 0
    assert "full:reference oom: needs 9 GB" in out


def test_a_place_that_cannot_be_written_is_a_usage_error(harness: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = harness("plot", run, "--figure", "memory", "--out", tmp_path / "file")
    assert code == 2
    assert "cannot write" in err


# show


def test_show_pivots_medians_with_their_interval(harness: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = harness("show", run, "--phase", "forward")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (
        "latency (ms), median ±half its 95 % interval · forward · float32 · scope core · b=1 h=6 d=64 · "
        "cpu on EPYC-2c-3f9a1c"
    )
    assert lines[1].split() == ["variant", "m", "n=64", "n=1024", "n=4096", "n=32768"]
    names = [line.split()[0] for line in lines[3:12]]
    assert names[:3] == ["full:reference", "flash:torch", "xformers"]
    assert names[3::2] == ["linformer:reference", "nystrom:reference", "anchor:sdpa"]
    anchor = next(line for line in lines if re.match(r"anchor:sdpa +16 ", line)).split()
    assert float(anchor[6]) == pytest.approx(latency(run, attention="anchor", n=4096, m=16), rel=0.01)
    assert re.fullmatch(r"±\d+(\.\d)?%", anchor[7])
    assert re.search(r"^full:reference .* oom$", out, re.MULTILINE)
    assert "full:reference oom: needs 51.5 GB, 21.9 GB free" in out
    assert "xformers unavailable: xformers has no kernel for this device" in out
    assert "anchor:sdpa unsupported: m=64 is not below n=64" in out


def switching(folder: Path) -> Path:
    """A run whose bare `anchor` took `chunked` at its largest n."""
    write_run(
        folder, variants=("anchor",), sizes=(1024, 2048, 4096), anchors=(16, 64), phases=("forward",),
        dtypes=("float32",),
    )  # fmt: skip
    file = folder / store.MEASUREMENTS
    rows = pandas.read_csv(file, dtype=str, keep_default_na=False)
    rows.loc[(rows["n"] == "4096") & (rows["m"] == "64"), "backend"] = "chunked"
    file.write_text(rows.to_csv(index=False))
    return folder


def test_a_backend_that_changes_along_a_line_is_marked(harness: Any, tmp_path: Path) -> None:
    folder = switching(tmp_path / "r")
    code, out, _ = harness("show", folder)
    lines = out.splitlines()
    assert code == 0
    assert [line.endswith(" *") for line in lines if line.startswith("anchor ")] == [False, True]
    assert lines[-1] == "* by another backend: anchor m=64 by chunked at n=4096, else by sdpa"
    document = json.loads(harness("show", folder, "--json")[1])
    cells = [cell for table in document["tables"] for row in table["rows"] for cell in row["cells"]]
    assert [(cell["n"], cell["backend"]) for cell in cells if cell["switched"]] == [(4096, "chunked")]
    tables = Run((folder,)).table("latency")
    assert "anchor m=64 by chunked at n=4096" in tables.to_markdown().splitlines()[0]


@pytest.mark.parametrize("width", [20, 50, 80, 120])
def test_a_narrow_terminal_splits_columns_and_cuts_no_value(run: Path, width: int) -> None:
    frame = store.read(run)
    wide, narrow = (comparison(frame, width=w, colour=False) for w in (500, width))
    values = r"[\d.]+ ±[\d.]+%|oom|unavailable|unsupported"
    assert sorted(re.findall(values, narrow)) == sorted(re.findall(values, wide))
    if width >= 50:
        assert max(map(len, narrow.splitlines())) <= width
    assert narrow.count("n=1024") == wide.count("n=1024") == 2
    assert all(line == line.rstrip() for line in narrow.splitlines())


def test_each_setting_has_a_table_of_its_own(tmp_path: Path) -> None:
    changes = ({}, {"device": "cuda:0"}, {"scope": "layer"}, {"b": 4})
    folder = write_run(tmp_path / "r", variants=("flash",), sizes=(64,), changes=changes)
    tables = pivot(labelled(store.read(folder)), "latency")
    assert len(tables) == 4 * 2 * 2
    assert all(len(table.cells) == 1 for table in tables)
    assert [table.setting["phase"] for table in tables][:3] == ["forward"] * 3 or len(tables) == 16
    heads = comparison(store.read(folder), width=300, colour=False)
    for said in ("cuda:0 on EPYC", "scope layer", "b=4", "train · bfloat16"):
        assert said in heads


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Two variants, causal, grouped and neither."""
    changes = ({}, {"options": "causal=true"}, {"options": "kv_heads=2"}, {"options": "kv_heads=1"})
    return write_run(
        tmp_path / "problems", variants=("flash", "anchor"), sizes=(1024, 4096), anchors=(16,), phases=("forward",),
        dtypes=("float32",), changes=changes,
    )  # fmt: skip


def test_problems_have_tables_of_their_own_or_stand_beside_each_other(harness: Any, problems: Path) -> None:
    _, out, _ = harness("show", problems, "--csv")
    table = pandas.read_csv(io.StringIO(out), keep_default_na=False)
    assert list(table["problem"].unique()) == ["default", "kv_heads=1", "kv_heads=2", "causal"]
    assert len(table) == 8
    _, out, _ = harness("show", problems, "--columns", "problem", "--n", "4k", "--csv")
    table = pandas.read_csv(io.StringIO(out))
    assert [name for name in table if name.startswith("problem=")] == [
        f"problem={name}" for name in ("default", "kv_heads=1", "kv_heads=2", "causal")
    ]
    assert table["problem=causal"].tolist() == [
        latency(problems, attention=name.partition(":")[0], n=4096, options="causal=true")
        for name in table["attention"]
    ]
    headings = [line for line in harness("show", problems, "--causal")[1].splitlines() if "latency (ms)" in line]
    assert len(headings) == 1
    assert "b=1 h=6 d=64 · cpu" in " ".join(harness("show", problems, "--kv-heads", "6", "--n", "4k")[1].split())
    assert " · causal" in " ".join(harness("show", problems, "--causal")[1].split())


def test_the_axes_have_the_names_of_a_sweep(harness: Any, problems: Path) -> None:
    assert (
        harness("show", problems, "--rows", "heads", "--csv")[1] == harness("show", problems, "--rows", "h", "--csv")[1]
    )
    for words in (["--heads", "6"], ["--head-dim", "64"], ["--batch", "1"], ["--dtype", "fp32"]):
        assert harness("show", problems, *words)[1] == harness("show", problems)[1]


def test_a_figure_is_of_one_problem_and_says_which(harness: Any, problems: Path, tmp_path: Path) -> None:
    code, out, _ = harness("plot", problems, "--figure", "latency", "--format", "svg", "--out", tmp_path / "figures")
    assert code == 0
    assert sorted(Path(line).stem for line in out.split()) == [
        "latency-causal", "latency-default", "latency-kv_heads_1", "latency-kv_heads_2"
    ]  # fmt: skip
    words = ["--figure", "latency", "--format", "svg", "--causal", "--heads", "6", "--out", tmp_path / "one"]
    _, out, _ = harness("plot", problems, *words)
    assert [Path(line).stem for line in out.split()] == ["latency"]
    from harness import figures as drawing

    run = drawing.load(problems)
    (sheet,) = [sheet for sheet in drawing.draw(run, "latency") if sheet.suffix == "causal"]
    said = " ".join(text.get_text() for text in sheet.figure.texts)
    assert "Causal: token i attends to tokens up to i; no other mask, no dropout." in " ".join(said.split())


def test_options_and_seeds_of_a_variant_are_rows_of_their_own(tmp_path: Path) -> None:
    changes = ({"options": "init=paper;scale=1"}, {"options": "init=wide;scale=1"}, {"seed": 3})
    folder = write_run(
        tmp_path / "r", variants=("anchor",), sizes=(64,), anchors=(16,), phases=("forward",), dtypes=("float32",),
        changes=changes,
    )  # fmt: skip
    (table,) = pivot(labelled(store.read(folder)), "latency")
    assert sorted(row[0] for row in table.rows) == [
        "anchor:sdpa init=paper scale=1 seed=0", "anchor:sdpa init=wide scale=1 seed=0", "anchor:sdpa seed=3"
    ]  # fmt: skip


def test_show_turns_the_table(harness: Any, run: Path) -> None:
    code, out, _ = harness(
        "show", run, "--rows", "n", "--columns", "attention", "--m", "16", "--attention", "full,anchor:sdpa",
        "--metric", "peak_memory", "--phase", "forward",
    )  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("peak_memory (MiB) · forward")
    head = next(place for place, line in enumerate(lines) if line.split()[:1] == ["n"])
    assert lines[head].split() == ["n", "m", "full:reference", "anchor:sdpa"]
    assert lines[head + 2].split()[0] == "64"


def test_show_json_holds_unrounded_values_and_statuses(harness: Any, run: Path) -> None:
    code, out, _ = harness("show", run, "--json", "--metric", "latency,flops", "--phase", "forward")
    document = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert code == 0
    assert [table["metric"] for table in document["tables"]] == ["latency", "flops"]
    first = document["tables"][0]
    assert (first["unit"], first["columns_by"], first["columns"]) == ("ms", "n", [64, 1024, 4096, 32768])
    assert first["setting"]["device"] == "cpu"
    row = next(row for row in first["rows"] if (row["attention"], row["m"]) == ("anchor:sdpa", 16))
    assert row["cells"][2]["value"] == latency(run, attention="anchor", n=4096, m=16)
    full = first["rows"][0]["cells"][3]
    assert (full["n"], full["value"], full["status"]) == (32768, None, "oom")


def test_show_csv_reads_back(harness: Any, run: Path) -> None:
    code, out, _ = harness("show", run, "--csv")
    assert code == 0
    frame = pandas.read_csv(io.StringIO(out), dtype={"n=4096": str})  # a column may also hold a status
    assert list(frame.columns)[-4:] == ["n=64", "n=1024", "n=4096", "n=32768"]
    assert len(frame) == 2 * (3 + 3 * 2)
    row = frame[(frame["attention"] == "anchor:sdpa") & (frame["m"] == 16) & (frame["phase"] == "forward")].iloc[0]
    assert float(row["n=4096"]) == latency(run, attention="anchor", n=4096, m=16)
    assert {len(line) for line in csv.reader(io.StringIO(out))} == {len(frame.columns)}


def test_show_for_a_paper_names_device_versions_and_command(harness: Any, tmp_path: Path) -> None:
    known = {
        "schema": 1, "device": "cpu",
        "environment": {
            "cpu": {"model": "AMD EPYC", "affinity_cores": 2}, "gpu": None, "torch": {"version": "2.14.0"},
            "packages": {"triton": "3.8.0", "xformers": None},
        },
    }  # fmt: skip
    folder = write_run(
        tmp_path / "r", variants=("full", "anchor"), sizes=(64, 1024), anchors=(16,), phases=("forward",),
        dtypes=("float32",), environment=known,
    )  # fmt: skip
    (folder / "sweep.toml").write_text('n = [64, 1024]\nattention = ["full", "anchor"]\n')
    caption = (
        "AMD EPYC, 2 cores (cpu) · torch 2.14.0, triton 3.8.0, commit 904f979ab01c · "
        "harness run --attention full,anchor --n 64,1024"
    )
    code, out, err = harness("show", folder, "--format", "markdown")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("**latency (ms), median ±half its 95 % interval · forward")
    assert re.search(r"^\| anchor:sdpa \| 16 \| [\d.]+ ±[\d.]+% \|", out, re.MULTILINE)
    assert f"_{caption}_" in out.replace("\\", "")
    latex = harness("show", folder, "--format", "latex")[1]
    assert "harness run --attention full,anchor --n 64,1024.}" in latex
    assert "AMD EPYC, 2 cores (cpu) $\\cdot$ torch 2.14.0" in latex
    document = json.loads(harness("show", folder, "--format", "json")[1])
    assert document["caption"] == [caption]
    assert document["tables"][0]["rows"][0]["cells"][0]["ci_low"] > 0


def test_show_as_csv_with_intervals(harness: Any, run: Path) -> None:
    code, out, _ = harness("show", run, "--format", "csv", "--phase", "forward", "--attention", "anchor")
    assert code == 0
    frame = pandas.read_csv(io.StringIO(out))
    assert list(frame.columns)[-3:] == ["n=32768", "n=32768 low", "n=32768 high"]
    row = frame[frame["m"] == 16].iloc[0]
    assert row["n=4096 low"] < row["n=4096"] == latency(run, attention="anchor", n=4096, m=16) < row["n=4096 high"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--metric", "latncy"], 2, "unknown metric in this run 'latncy'; did you mean 'latency'?"),
        (["--phase", "backward"], 2, "unknown phase in this run 'backward'; valid: forward, train"),
        (["--device", "cuda:0"], 2, "valid: cpu"),
        (["--scope", "layer"], 2, "valid: core"),
        (["--batch", "8"], 2, "--batch 8 is not in this run; it holds 1"),
        (["--m", "0"], 2, "--m"),
        (["--rows", "colour"], 2, "unknown axis 'colour'; valid: attention, m, n"),
        (["--columns", "attention"], 2, "--columns takes one axis that --rows does not name"),
        (["--columns", "n,m"], 2, "--columns takes one axis"),
        (["--json", "--csv"], 2, "--json and --csv cannot both be given"),
        (["--format", "word"], 2, "unknown format 'word'; valid: text, markdown, latex, csv, json"),
        (["--format", "latex", "--csv"], 2, "--format latex and --csv cannot both be given"),
        (["--format", "text", "--json"], 2, "--format text and --json cannot both be given"),
        (["--machine", "x"], 2, "unknown machine in this run 'x'; valid: EPYC-2c-3f9a1c"),
        (["--attention", "xformers", "--metric", "peak_memory", "--n", "64", "--json"], 0, ""),
        (["--attention", "anchor:reference"], 2, "unknown attention in this run 'anchor:reference'"),
    ],
)
def test_show_refuses_in_one_line(harness: Any, run: Path, words: list[str], code: int, said: str) -> None:
    got, out, err = harness("show", run, *words)
    assert got == code
    assert said in err
    assert (out == "") == (code != 0)
    assert err.count("\n") == (code != 0)


def test_show_of_an_empty_combination_or_run_is_nothing_to_compare(harness: Any, tmp_path: Path) -> None:
    one = {"sizes": (64,), "anchors": (16,), "dtypes": ("float32",)}
    folder = write_run(tmp_path / "r", variants=("anchor",), phases=("forward",), **one)
    extra = write_run(tmp_path / "s", variants=("linformer",), phases=("train",), **one)
    with (folder / "measurements.csv").open("a") as file:
        file.writelines((extra / "measurements.csv").read_text().splitlines(keepends=True)[1:])
    code, out, err = harness("show", folder, "--attention", "anchor", "--phase", "train")
    assert (code, out) == (4, "")
    assert "no case of all that was asked for at once" in err
    store.Store.open(tmp_path / "empty", metrics=("latency",)).__exit__()
    assert harness("show", tmp_path / "empty")[0] == 4
    assert comparison(store.read(tmp_path / "empty")) == ""


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_only_where_it_is_wanted(
    run: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert bool(ESCAPES.search(comparison(store.read(run)))) == coloured


def test_a_pipe_that_closes_early_is_no_error(run: Path) -> None:
    command = [sys.executable, "-m", "harness", "show", str(run), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_an_ascii_terminal_gets_ascii(run: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "harness", "show", str(run)]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"+/-" in done.stdout
    assert b"?" not in done.stdout


def test_hostile_labels_and_notes_print_on_one_line_each(tmp_path: Path) -> None:
    hostile = "[bold red]\x1b[31m\r\x07$x_{ <b> 漢字 " + "long " * 100
    folder = write_run(
        tmp_path / "r", variants=("full", "x_" + "y" * 200), sizes=(64,), anchors=(16,), phases=("forward",),
        dtypes=("float32",), fail_all="error", note=hostile, changes=({"options": hostile}, {}),
    )  # fmt: skip
    text = comparison(store.read(folder), width=80, colour=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_flops_are_shown_in_one_prefix(run: Path) -> None:
    (table, _) = pivot(labelled(store.read(run)), "flops")
    assert render([table], width=300, colour=False).startswith("flops (MFLOP) · forward")


# selection


def test_a_failed_case_stands_in_for_every_metric_and_carries_no_value(run: Path) -> None:
    frame = labelled(store.read(run))
    rows = metric_rows(frame, "peak_memory")
    full = rows[(rows["attention"] == "full") & (rows["n"] == 32768)]
    assert set(full["status"]) == {"oom"}
    assert full["value"].isna().all()
    energy = metric_rows(frame, "energy")
    assert set(energy["status"]) == {"oom", "unavailable", "unsupported"}  # its own unsupported rows, and failed cases


def test_a_value_on_a_failed_row_or_that_is_not_finite_is_dropped(run: Path) -> None:
    frame = labelled(store.read(run))
    frame.loc[frame["status"] == "oom", "value"] = 1.0
    frame.loc[frame.index[frame["status"] == "ok"][0], "value"] = float("inf")
    rows = metric_rows(frame, frame["metric"].iloc[0])
    assert rows.loc[rows["status"] != "ok", "value"].isna().all()
    assert "the value is not finite" in set(rows["note"])


def test_a_case_measured_twice_counts_once_by_its_last_row(run: Path) -> None:
    frame = store.read(run)
    twice = labelled(pandas.concat([frame, frame.assign(value=7.0)]))
    assert len(twice) == len(labelled(frame))
    assert set(twice["value"]) == {7.0}


def test_backends_are_told_apart_only_where_they_share_a_case(run: Path) -> None:
    frame = store.read(run)
    frame = frame[(frame["attention"] == "flash") & (frame["backend"] != "")]
    many = frame["n"] > frame["n"].min()
    picked = labelled(frame.assign(backend=frame["backend"].where(~many, "other")))  # the bare name's choice by size
    assert many.any()
    assert set(picked["series"]) == set(picked["label"]) == {"flash"}
    both = frame.assign(backend="other", case_id=frame["case_id"] + "o")
    met = labelled(pandas.concat([frame, both], ignore_index=True))
    assert set(met["series"]) == set(met["label"]) == {f"flash:{name}" for name in {*frame["backend"], "other"}}


@pytest.mark.parametrize(("n", "text"), [(196, "196"), (1000, "1000"), (1024, "1k"), (1536, "1.5k"), (1 << 20, "1M")])
def test_sizes_read_back_exactly(n: int, text: str) -> None:
    assert size(n) == text


def test_long_text_loses_its_middle() -> None:
    assert printable("a" * 50 + "b" * 50, limit=10) == "aaaaaa…bbb"
    assert printable("a\x00b\n", limit=10) == "a�b�"
