"""Reports of runs that nobody measured, built once, and the browser that opens them where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from figures.synthetic import DECLARED, ENVIRONMENT, write_run

from harness import figures, report
from harness.figures import Run
from harness.store.record import Case, Reading, Row, canonical_options
from harness.store.runs import Store

KINDS = {"full": "exact", "flash": "exact", "xformers": "exact"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What users may name a variant, a machine or a note; the separators come through from files written by others.
TAG, SCRIPT, BOLD = "<img src=x onerror=boom()>", "</script><script>boom()</script>", "<b>bold</b> %{x} &lt;i&gt;"
LINES = "line\u2028break\u2029 '\"><svg/onload=boom()>"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two phases and dtypes; an oom, a timeout, an unavailable and unsupported cases among them."""
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "mine",
        sizes=(64, 1024, 4096, 65536),
        anchors=(16, 64),
        phases=("forward", "train"),
    )
    (folder / "sweep.toml").write_text('n = [64, 1024, 4096, 65536]\nm = [16, 64]\nphase = ["forward", "train"]\n')
    return figures.load(folder)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Names, a note and a machine that are markup."""
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "hostile", variants=("flash", TAG, SCRIPT, BOLD), sizes=(1024, 4096),
        anchors=(16, 64), phases=("forward",), dtypes=("float32",), machine=TAG, note=BOLD,
        environment=ENVIRONMENT | {"declared": DECLARED, "environment": {"cpu": {"model": SCRIPT}}},
    )  # fmt: skip
    loaded = figures.load(folder)
    loaded.frame.loc[loaded.frame["attention"] == "flash", "note"] = LINES
    return loaded


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained models: two anchors and flash over three seeds on one problem, and recall at two loads, without costs."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    digits = {"task": "classification", "data": "digits", "model.size": "16"}
    with Store.open(folder, metrics=("latency",)) as store:
        for seed in range(3):
            for name, own, top1, ms in (
                ("flash", {}, 0.90, 2.0), ("anchor", {"init": "paper"}, 0.60, 1.5),
                ("anchor", {"init": "orthogonal", "logits": "cosine"}, 0.94, 1.6),
            ):  # fmt: skip
                latency = {"ci_low": ms + seed - 0.1, "ci_high": ms + seed + 0.1, "samples": 20}
                _judge(store, name, {**own, **digits}, seed, [
                    Reading(metric="top1", value=top1 + 0.01 * seed, samples=360),
                    Reading(metric="latency", value=ms + seed, **latency), Reading(metric="peak_memory", value=0.19),
                ])  # fmt: skip
            for load, top1 in (("12", 0.99), ("56", 0.5)):
                recall = {"task": "recall", "items": load, "shapes": "96", "colours": "8", "steps": "500"}
                _judge(store, "anchor", {"init": "paper", **recall}, seed, [Reading(metric="top1", value=top1)])
        store.write_json("environment.json", {"schema": 1, "device": "cpu"})
    return figures.load(folder)


@pytest.fixture(scope="session")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three attentions trained on a differential equation, one seed each, with their latencies."""
    folder = tmp_path_factory.mktemp("runs") / "solved"
    with Store.open(folder, metrics=("latency",)) as store:
        for name, error, ms in (("flash", 0.07, 3.0), ("anchor", 0.09, 1.0), ("nystrom", 0.12, 2.0)):
            _judge(store, name, {"model.equation": "darcy", "task": "operator"}, 0, [
                Reading(metric="relative_l2", value=error, samples=200),
                Reading(metric="latency", value=ms, ci_low=ms - 0.1, ci_high=ms + 0.1, samples=20),
            ])  # fmt: skip
        store.write_json("environment.json", {"schema": 1, "device": "cpu"})
    return figures.load(folder)


def _judge(store: Store, name: str, options: dict[str, str], seed: int, readings: list[Reading]) -> None:
    case = Case(
        attention=name, backend="reference", scope="model", phase="forward", b=1, h=4, n=65, d=16, dtype="float32",
        m=None if name == "flash" else 16, device="cpu", seed=seed, options=canonical_options(options),
    )  # fmt: skip
    stamp = {"run_id": "r", "machine": "here-2c-000000", "commit": "c", "time_utc": "2026-01-01T00:00:00Z"}
    store.append([Row.of(case, reading, **stamp) for reading in readings], {})


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write(run, …)`: the report of these runs, as a file."""
    folder = tmp_path_factory.mktemp("reports")

    def written(*runs: Run) -> Path:
        out = folder / f"{len(list(folder.iterdir()))}.html"
        report.write(report.build(runs, kinds=KINDS), out)
        return out

    return written


@pytest.fixture(scope="session")
def page_file(run: Run, write: Callable[..., Path]) -> Path:
    """The report of `run`."""
    return write(run)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, of those on PATH."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()
