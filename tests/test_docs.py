"""The documentation: it builds strictly, fetches nothing, says what the code says, and its snippets run."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from scripting import load
from torch.utils.flop_counter import FlopCounterMode

import attentions
from attentions.base import PROBLEMS
from harness import cli, figures
from harness.store import record

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
KERNELS = {("transolver", "triton"), *(("anchor", name) for name in ("triton", "split", "single"))}
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(title, content) of every Python block that has a title."""
    return re.findall(r'```python title="([^"]+)"\n(.*?)```', text, re.DOTALL)


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without backticks, header left out."""
    section = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install 'attention-harness[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)], cwd=ROOT, text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_built(site: Path) -> None:
    assert {page.stem for page in DOCS.glob("*.md")} | {"notebook", "gallery"} <= {
        page.stem for page in site.glob("*.html")
    }


def test_the_notebook_is_a_page_with_its_pictures(site: Path) -> None:
    text = (site / "notebook.html").read_text(encoding="utf-8")
    assert "harness.crossover" in re.sub(r"<[^>]+>", "", text)
    for picture in re.findall(r'<img [^>]*src="(notebook-[^"]+)"', text):
        assert (site / picture).stat().st_size > 10_000
    assert 'href="notebook.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_pictures_of_stored_runs_are_in_the_site(site: Path) -> None:
    shown = [
        (page.stem, Path(path))
        for page in PAGES
        for path in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if page.parent == ROOT / "docs"
    ]
    assert len(shown) >= 4
    for name, path in shown:
        built = re.findall(
            rf'<img [^>]*src="([^"]*{re.escape(path.name)})"', (site / f"{name}.html").read_text("utf-8")
        )
        assert len(built) == 1, (name, path)
        assert (site / built[0]).read_bytes() == (DOCS / path).read_bytes(), (name, path)


def test_the_gallery_shows_every_figure_with_its_command(site: Path) -> None:
    gallery = load("docs_gallery")
    assert {one.figure for one in gallery.PICTURES} - {""} == set(figures.names()) - gallery.NOT_HERE
    text = (site / "gallery.html").read_text(encoding="utf-8")
    for one in gallery.PICTURES:
        (built,) = re.findall(rf'<img [^>]*alt="{re.escape(one.title)}"[^>]* src="([^"]+)"', text)
        assert (site / built).read_bytes() == (DOCS / one.path).read_bytes()
        assert html.escape(one.command) in re.sub(r"</?span[^>]*>", "", text), one.command


def test_the_terminals_picture_is_the_commands_output() -> None:
    script = load("docs_pictures")
    made = script.terminal()
    assert made == script.SVG.read_text(encoding="utf-8"), "python scripts/docs_pictures.py --write"
    assert "http" not in made.replace("http://www.w3.org/2000/svg", "")


def test_the_site_can_be_searched_in_a_folder(site: Path) -> None:
    """Chromium, from file:, with no server: a word of one page finds it."""
    browsers = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    found = next(browsers, None)
    if found is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright and a Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        view = browser.new_page()
        view.goto((site / "index.html").resolve().as_uri())
        view.locator("[data-md-component=search-query]").first.click()
        view.keyboard.type("RankLost", delay=20)
        view.wait_for_selector(".md-search-result__link[href*='scaling.html']", timeout=30_000)
        browser.close()


def test_the_site_fetches_nothing(site: Path) -> None:
    """Links lead elsewhere; what a browser loads by itself does not."""
    loaded = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"')
    found = {
        (page.name, address)
        for page in site.rglob("*.html")
        for address in loaded.findall(page.read_text(encoding="utf-8"))
    }
    assert not found


# What the pages say is what the code says


def test_metrics_and_columns_are_all_defined() -> None:
    text = text_of("metrics.md")
    for heading, units in (
        ("## Metrics of a sweep", record.UNITS),
        ("## Metrics of cases that several processes share", record.RANK_UNITS),
        ("## Metrics of trained models", record.TASK_UNITS),
    ):
        rows = table(text, heading)
        assert {name: unit for name, unit, _ in rows} == units
        assert all(definition for _, _, definition in rows)
    assert [name for name, _ in table(text, "## Columns of measurements.csv")] == list(record.COLUMNS)
    assert [name for name, _ in table(text, "## Columns of samples.csv")] == list(record.SAMPLE_COLUMNS)


def test_backward_flops_are_as_the_page_says() -> None:
    """Every backend's ratio to forward is two, or stands in the table."""
    told = {
        name: float(factor)
        for factor, names, _ in table(text_of("metrics.md"), "## FLOPs of a backward pass")
        for name in re.findall(r"[a-z0-9:]+", names)
    }
    assert len(told) == 11
    for spec in map(attentions.spec, attentions.names()):
        for backend in spec.backends:
            if (spec.name, backend.name) in KERNELS and importlib.util.find_spec("triton") is None:
                continue  # how they go through the anchors is told by their package
            forward, backward = (
                spec.cost(2, 3, 2**24, 64, None if spec.exact else 64, phase, backend=backend.name).flops
                for phase in ("forward", "backward")
            )
            expected = told.get(f"{spec.name}:{backend.name}", told.get(spec.name, 2))
            assert backward / forward == pytest.approx(expected, rel=1e-5), (spec.name, backend.name)


@pytest.mark.parametrize("name", attentions.names())
def test_every_variant_has_its_equation_and_paper(name: str) -> None:
    text = text_of("variants.md")
    assert f"\n| `{name}` |" in text
    section = re.search(rf"\n### {name}\n(.*?)(?=\n##|\Z)", text, re.DOTALL)
    assert section, f"docs/variants.md has no section on {name}"
    assert re.search(r"\n    \S.*=", section.group(1)), "an equation, set in"
    cited = re.findall(r"\d{4}\.\d{5}", attentions.spec(name).paper)
    assert all(number in section.group(1) for number in cited)


def test_what_each_variant_can_do_is_as_its_spec_says() -> None:
    rows = table(text_of("variants.md"), "## Causal, grouped and cross attention")
    told = {name: tuple(p for p, can in zip(PROBLEMS, cells, strict=True) if can == "yes") for name, *cells in rows}
    assert told == {name: attentions.spec(name).problems for name in attentions.names()}


def test_every_command_has_a_section() -> None:
    headings = re.findall(r"^## (.+)$", text_of("commands.md"), re.MULTILINE)
    assert sorted(headings) == cli.commands()


def lines_of(page: Path) -> Iterator[str]:
    """The command lines of `harness` in a page's blocks and inline code."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"`(harness [^`\n]+)`", text)
    for line in lines:
        found = re.match(r"\s*(?:- run: |\$ )?(harness [^#|]*)", line)
        if found:
            yield found.group(1).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_in_the_pages_exist(page: Path) -> None:
    root: Any = typer.main.get_command(cli._app(None))
    for line in lines_of(page):
        words = [word for word in shlex.split(line.replace("…", "...")) if word not in ("[", "]")][1:]
        name = next((word for word in words if not word.startswith("-")), "")
        if not name or name == "COMMAND":
            continue
        assert name in root.commands, f"{page.name}: {line}"
        known = {option for parameter in root.commands[name].params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
        assert used <= known | {"--help", "-h"}, f"{page.name}: {line}"


def test_outputs_of_stored_results_are_what_is_printed() -> None:
    script = load("docs_outputs")
    assert [page.name for page in script.PAGES] == ["commands.md", "report.md"]
    for page, least in zip(script.PAGES, (4, 2), strict=True):
        text = page.read_text(encoding="utf-8")
        assert len(script.commands(text)) >= least
        assert script.renewed(text) == text, "renew the page: python scripts/docs_outputs.py --write"


# The snippets


def plugin(folder: Path, name: str, source: str) -> list[str]:
    path = folder / Path(name).name
    path.write_text(source, encoding="utf-8")
    return attentions.load_plugin(path)


def test_the_tutorials_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, whole, tests = blocks(text_of("tutorial.md"))
    assert plugin(tmp_path, *first) == ["efficient"]
    assert plugin(tmp_path, *whole) == ["efficient"]
    definition, size = attentions.spec("efficient"), (2, 3, 512, 16)
    q, k, v = (torch.randn(size, requires_grad=True) for _ in range(3))
    core = attentions.build("efficient", heads=3, head_dim=16, tokens=512)
    with FlopCounterMode(display=False) as counter:
        core(q, k, v).sum().backward()
    assert counter.get_total_flops() == definition.cost(*size, phase="train").flops
    assert definition.cost(2, 3, 1024, 16).flops == 2 * definition.cost(*size).flops
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "test_efficient.py").write_text(tests[1], encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(compile(tests[1], "docs/tutorial.md", "exec"), namespace)
    ran = [value() for name, value in namespace.items() if name.startswith("test_")]
    assert len(ran) == 2


def test_the_gate_catches_the_tutorials_file_with_the_matrix_that_it_avoids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ends that the page promises: a cost model that is wrong, and one that is right and grows too fast."""
    (_, whole), _ = blocks(text_of("tutorial.md"))[1:]
    text = text_of("tutorial.md")
    state = next(line for line in whole.splitlines() if line.strip().startswith("state = torch.softmax"))
    product = next(line for line in whole.splitlines() if line.strip().startswith("return torch.softmax"))
    matrix = whole.replace(f"{state}\n", "").replace(product, "    return " + quoted_code(text, "torch.softmax(q, -1)"))
    flops = "matmuls(work, 4 * tensor * work.d)"
    assert flops in matrix
    follows = matrix.replace(flops, "matmuls(work, 4 * work.b * work.h * work.n**2 * work.d)")
    sizes = ["--attention", "efficient", "--n", "256", "--heads", "1", "--head-dim", "16", "--phase", "forward"]

    def check(name: str, source: str, *how: str) -> tuple[int, str]:
        file = tmp_path / name / "efficient.py"
        file.parent.mkdir()
        file.write_text(source, encoding="utf-8")
        code = cli.main(["check", "--plugin", str(file), *how])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    baseline = str(tmp_path / "baseline.csv")
    assert check("right", whole, *sizes, "--update", baseline)[0] == 0
    code, told = check("matrix", matrix, "--baseline", baseline, "--quick")
    assert (code, "the cost model says" in told, "the dispatcher counted" in told) == (5, True, True)
    code, told = check("follows", follows, "--baseline", baseline, "--quick")
    assert (code, quoted_code(text, "FLOPs grow") in told) == (1, True), told


def quoted_code(text: str, begins: str) -> str:
    """The inline code of a page that begins so."""
    (found,) = re.findall(rf"`({re.escape(begins)}[^`]*)`", text)
    return found


@pytest.fixture
def snippets() -> dict[str, str]:
    return dict(blocks(text_of("extending.md")))


def put(monkeypatch: pytest.MonkeyPatch, package: Any, folder: Path, name: str, source: str) -> None:
    """The file in its package, for the time of the test."""
    (folder / Path(name).name).write_text(source, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])


def test_the_variant_of_extending(tmp_path: Path, snippets: dict[str, str]) -> None:
    assert plugin(tmp_path, "my_attention.py", snippets["my_attention.py"]) == ["sigmoid"]
    q, k, v = (torch.randn(1, 2, 9, 4) for _ in range(3))
    expected = torch.sigmoid(q @ k.mT / 2) @ v / 9
    core = attentions.build("sigmoid", heads=2, head_dim=4, tokens=9)
    torch.testing.assert_close(core(q, k, v), expected)


def test_the_second_variant_of_extending(
    tmp_path: Path, snippets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A bottleneck, an option and a parameter, as the page says they behave, to a row of a run."""
    assert plugin(tmp_path, "induced.py", snippets["induced.py"]) == ["induced"]
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    for per_head, shape in ((False, (5, 4)), ("true", (3, 5, 4))):
        core = attentions.build("induced", heads=3, head_dim=4, tokens=9, anchors=5, per_head=per_head)
        assert {name: tuple(p.shape) for name, p in core.named_parameters()} == {"points": shape}
        taken = torch.softmax(core.points @ k.mT / 2, dim=-1)
        torch.testing.assert_close(core(q, k, v), torch.softmax(q @ (taken @ k).mT / 2, dim=-1) @ (taken @ v))
        core(q, k, v).square().sum().backward()
        assert core.points.grad.abs().sum() > 0
    with pytest.raises(attentions.AttentionError, match=r"anchors \(its inducing points\)"):
        attentions.build("induced", heads=3, head_dim=4, tokens=9)
    with pytest.raises(attentions.AttentionError, match="did you mean 'per_head'"):
        attentions.build("induced", heads=3, head_dim=4, tokens=9, anchors=5, per_heads=True)
    with pytest.raises(attentions.AttentionError, match="per_head='some' is not valid; it takes true or false"):
        attentions.build("induced", heads=3, head_dim=4, tokens=9, anchors=5, per_head="some")
    model = torch.nn.Sequential(torch.nn.TransformerEncoderLayer(12, 3, 16, batch_first=True))
    report = attentions.swap(model, "induced", anchors=5, tokens=9)
    assert report.modules[0].fresh == ("points (5, 4)",)
    words = ["run", "--plugin", str(tmp_path / "induced.py"), "--attention", "induced", "--n", "64", "--m", "4,8"]
    words += ["--heads", "2", "--head-dim", "16", "--set", "induced.per_head=true", "--metrics", "params,numeric_error"]
    assert cli.main([*words, "--device", "cpu", "--out", str(tmp_path / "run"), "--json", "-q"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["metric"] == "params"]
    assert [(row["m"], row["value"], row["options"].lower()) for row in rows] == [
        (m, 2 * m * 16, "per_head=true") for m in (4, 8)
    ]


def measured_layers(capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> dict[tuple[str, str], dict]:
    """The rows of a run in scope layer at n = 32 and h·d = 2·8, by the variant with its backend and the metric."""
    small = ["--scope", "layer", "--n", "32", "--heads", "2", "--head-dim", "8", "--device", "cpu", "--patience", "0"]
    assert cli.main(["run", *words, *small, "--budget", "0.02", "--out", str(out), "--json", "-q"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    return {(f"{row['attention']}:{row['backend']}", f"{row['metric']} {row['m'] or ''}".strip()): row for row in rows}


@pytest.mark.slow
def test_the_layers_of_extending(
    tmp_path: Path, snippets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Beside flash in the same run: checked against themselves in float64, their FLOPs counted."""
    path = tmp_path / "gated.py"
    path.write_text(snippets["gated.py"], encoding="utf-8")
    words = ["--plugin", str(path), "--attention", "gated,flash", "--metrics"]
    found = measured_layers(
        capsys, tmp_path / "run", *words, "latency,flops,params,numeric_error,approximation_error,roofline_fraction"
    )
    assert {label for label, _ in found} == {"gated:Gated", "gated:Narrow", "flash:torch"}
    assert found["gated:Gated", "params"]["value"] == 16 * 4 * 16 + 4 * 16 + 16 * 16 + 16
    assert found["gated:Gated", "flops"]["value"] == 2 * 32 * 16 * 5 * 16 + 2 * 2 * 2 * 32 * 32 * 8
    assert found["gated:Gated", "flops"]["note"].startswith("counted by dispatch")
    for label in ("gated:Gated", "gated:Narrow"):
        assert 0 < found[label, "numeric_error"]["value"] < 1e-4
        assert found[label, "latency"]["value"] > 0
        assert found[label, "approximation_error"]["status"] == "unsupported"
        assert found[label, "roofline_fraction"]["status"] == "unsupported"


@pytest.mark.slow
def test_the_package_of_extending(
    tmp_path: Path, snippets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    (tmp_path / "mixers").mkdir()
    for name, source in snippets.items():
        if name.startswith("mixers/"):
            (tmp_path / name).write_text(source, encoding="utf-8")
    words = ["--plugin", str(tmp_path / "mixers"), "--attention", "mixers:Shifted", "--m", "4,8", "--metrics"]
    found = measured_layers(capsys, tmp_path / "run", *words, "params,numeric_error")
    assert {key: row["value"] for key, row in found.items() if key[1].startswith("params")} == {
        ("mixers:Shifted", f"params {m}"): 16 * 16 + 16 for m in (4, 8)
    }


@pytest.mark.slow
def test_the_model_of_the_models_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its file and function, as it is and with anchors, in both ways of measuring that the page tells."""
    (source,) = [text for title, text in blocks(text_of("models.md")) if title == "nets.py"]
    (tmp_path / "nets.py").write_text(source, encoding="utf-8")
    words = ["run", "--scope", "model", "--model", f"{tmp_path}/nets.py:tiny", "--attention", "as-is,anchor"]
    words += [
        "--resolution",
        "64",
        "--m",
        "4",
        "--phase",
        "forward,step",
        "--metrics",
        "throughput,params,numeric_error",
    ]
    words += ["--budget", "0.02", "--patience", "0", "--device", "cpu", "--out", str(tmp_path / "run"), "--json", "-q"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["n"], row["h"], row["d"], row["options"]) for row in rows} == {
        (16, 4, 16, "model=nets:tiny;resolution=64")
    }
    assert {row["unit"] for row in rows if row["metric"] == "throughput"} == {"img/s"}
    assert {(row["attention"], row["phase"]) for row in rows} == {
        (name, phase) for name in ("as-is", "anchor") for phase in ("forward", "step")
    }


def test_the_metric_of_extending(tmp_path: Path, snippets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.measuring import metrics
    from harness.measuring.subject import Subject

    name = "harness/measuring/metrics/token_share.py"
    put(monkeypatch, metrics, tmp_path, name, snippets[name])
    monkeypatch.setitem(record.UNITS, "token_share", "1")
    metrics._files.cache_clear()
    try:
        (found,) = metrics.plan(["token_share"])
        case = record.Case(
            attention="none", backend="reference", scope="core", phase="forward", b=1, h=2, n=64, d=16, m=None,
            dtype="float32", device="cpu",
        )  # fmt: skip
        (reading,) = found.measure(Subject(case), {}, metrics.Settings())
        assert reading.value == pytest.approx(0, abs=1e-12)  # every token receives the same mean
        assert record.Row.of(case, reading, run_id="r", machine="m", commit="c", time_utc="t").unit == "1"
    finally:
        metrics._files.cache_clear()
        sys.modules.pop("harness.measuring.metrics.token_share", None)


def test_the_figure_of_extending(tmp_path: Path, snippets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import figures

    name = "harness/figures/first_call.py"
    put(monkeypatch, figures, tmp_path, name, snippets[name])
    assert "first_call" in figures.names()
    run = figures.load(ROOT / "results" / "cpu" / "sweep")
    outcome = figures.write(run, ["first_call"], tmp_path / "figures", formats=["png"])
    assert not outcome.skipped
    assert all(path.stat().st_size > 10_000 for path in outcome.figures["first_call"])
    sys.modules.pop("harness.figures.first_call", None)


def test_the_task_of_extending(tmp_path: Path, snippets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    from harness.vision import tasks
    from harness.vision.task import Mechanism

    name = "harness/vision/tasks/recall_heavy.py"
    put(monkeypatch, tasks, tmp_path, name, snippets[name])
    assert "recall_heavy" in tasks.names()
    task = tasks.get("recall_heavy")
    options = task.parse({"width": "16", "heads": "2", "depth": "1"})
    assert (options.shapes, options.items) == (96, 56)
    data = task.data(options, None, "train")
    net = task.model(options, Mechanism(attention="anchor", anchors=4), data)
    losses = task.objective(options, data)(net, task.collate([data[0], data[1]]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sys.modules.pop("harness.vision.tasks.recall_heavy", None)


def test_the_command_of_extending(
    tmp_path: Path, snippets: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "harness/cli/rows.py"
    put(monkeypatch, cli, tmp_path, name, snippets[name])
    assert cli.main(["rows", str(ROOT / "results" / "cpu" / "sweep")]) == 0
    assert re.fullmatch(r"\d+ rows\n", capsys.readouterr().out)
    sys.modules.pop("harness.cli.rows", None)


ORDERED = ("linformer", "nystrom", "agent", "pvt", "window")  # of docs/operators.md: what reads the order of tokens


def test_the_point_cloud_of_operators() -> None:
    """Its lines run, and the order of the points is no matter."""
    scope: dict[str, Any] = {}
    exec(compile(dict(blocks(text_of("operators.md")))["cloud.py"], "cloud.py", "exec"), scope)
    x, answer = scope["x"], scope["answer"]
    assert answer.shape == (2, 5000, 1)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = scope["value"](x[:, order] + scope["mix"](x[:, order]))
    torch.testing.assert_close(moved, answer[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", attentions.names())
def test_operators_says_which_attentions_read_the_order_of_points(name: str) -> None:
    if reason := attentions.why_unavailable(name, device="cpu"):
        pytest.skip(reason)
    torch.manual_seed(0)
    layer = attentions.MultiHeadAttention(
        16, 2, attention=name, tokens=64, anchors=4, **({"reach": 8} if name == "window" else {})
    )
    x, order = torch.randn(1, 64, 16), torch.randperm(64)
    with torch.no_grad():
        off = (layer(x[:, order]) - layer(x)[:, order]).abs().max().item()
    assert (off > 1e-4) == (name in ORDERED), off
    assert all(f"`{each}`" in text_of("operators.md") for each in ORDERED)


def test_every_room_is_in_the_page_and_in_its_drawing() -> None:
    rooms = {path.name for path in (ROOT / "harness").iterdir() if (path / "__init__.py").exists()}
    told = {
        name.strip("`/") for row in table(text_of("architecture.md"), "## The rooms of harness") for name in [row[0]]
    }
    assert told == rooms | {"stats`, `errors"}
    drawn = (DOCS / "rooms.svg").read_text(encoding="utf-8")
    assert all(f">{room}/ " in drawn for room in rooms)


def test_files_that_the_pages_name_exist() -> None:
    tops = ("", "harness", "attentions", "harness/vision", "harness/measuring", "harness/machine")
    for page in ("architecture.md", "traps.md", "../CONTRIBUTING.md"):
        named = [path for path in re.findall(r"`((?:\w+/)+\w+\.py)", text_of(page)) if "NAME" not in path]
        assert len(named) >= 3
        for path in named:
            assert any((ROOT / top / path).is_file() for top in tops), path


def test_the_version_is_one() -> None:
    import tomllib

    import harness

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "harness/__init__.py"
    assert f"\nversion: {harness.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_workflow_and_make_build_the_site() -> None:
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text(encoding="utf-8")
