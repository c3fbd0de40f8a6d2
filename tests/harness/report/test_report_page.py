"""The report as a file: self-contained, escaped, atomic, and never written over what is not a report."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from stored import KINDS, Told, stored

from harness import report
from harness.cases.space import Sweep
from harness.cli import main
from harness.errors import Failure
from harness.figures import Run
from harness.report.facts import sweep_command

VOID = {"meta", "br", "img", "link", "input"}


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.scripts += [""] if tag == "script" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._open and self._open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module", autouse=True)
def _ready(catalogue: dict[str, dict]) -> None:
    """The catalogue is in the cache: no command of these tests has to find it out."""


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str]) -> Any:
    """`harness report WORDS`: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["report", *map(str, words)])
        caught = capsys.readouterr()
        return code, caught.out, caught.err

    return call


def test_nothing_in_the_file_points_outside_it(page_file: Path) -> None:
    page = Elements(page_file.read_text(encoding="utf-8"))
    for tag, attributes in page.found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action"} & set(attributes), (tag, attributes)
    style = page_file.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_lets_only_the_pages_own_scripts_run(page_file: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    page = Elements(html)
    policy = next(a["content"] for tag, a in page.found if tag == "meta" and "http-equiv" in a) or ""
    script = page.scripts[-1]
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == hashes[0]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert [a.get("type") for tag, a in page.found if tag == "script"] == ["application/octet-stream"] * 2 + [None]


def test_what_users_wrote_stays_text(hostile: Run) -> None:
    html = report.build([hostile], kinds=KINDS)
    page = Elements(html)
    assert not {tag for tag, _ in page.found} & {"img", "svg", "b"}
    assert not [a for _, a in page.found if any(name.startswith("on") for name in a)]
    assert sum(tag == "script" for tag, _ in page.found) == 3
    text = "".join(page.text)
    assert "<img src=x onerror=boom()>" in text
    assert "<script>boom()" not in html
    assert not any("\u2028" in script for script in page.scripts)


def test_the_answer_and_the_facts_are_there_without_a_script(page_file: Path, run: Run) -> None:
    text = " ".join("".join(Elements(page_file.read_text(encoding="utf-8")).text).split())
    assert "is the fastest at n = 4096" in text
    assert "AMD EPYC 7B13" in text
    assert "needs an NVIDIA GPU and libcudart.so.12" in text
    assert "no energy counter: NVML covers NVIDIA GPUs only" in text
    assert "harness run --n 64,1024,4096,65536 --m 16,64 --phase forward,train" in text
    assert "git checkout 904f979ab01c" in text
    assert f"{len(run.frame)} of {run.frame['case_id'].nunique()} cases" in text


def test_the_command_of_a_model_by_tokens_says_how_many(tmp_path: Path) -> None:
    """4096 is the usual n, and without it the model would be asked for at a resolution."""
    run = stored(tmp_path / "r", [Told("flash", n=4096)])
    asked = {"scope": "model", "model": "hf:gpt2", "attention": "flash", "n": 4096}
    (run.folder / "sweep.toml").write_text(Sweep.parse(asked).to_toml(), encoding="utf-8")
    command = "harness run --attention flash --n 4096 --m 30 --scope model --model hf:gpt2"
    assert sweep_command(run) == command


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=64), Told("anchor", n=64, m=16)])
    assert report.build([run], kinds=KINDS) == report.build([run], kinds=KINDS)


def test_runs_of_one_name_are_told_apart(tmp_path: Path, write: Callable[..., Path]) -> None:
    runs = [stored(tmp_path / name / "sweep", [Told("flash", n=64, ms=ms)]) for name, ms in (("a", 1.0), ("b", 2.0))]
    text = "".join(Elements(write(*runs).read_text(encoding="utf-8")).text)
    assert "a/sweep" in text
    assert "b/sweep" in text


def test_a_run_without_any_figure_still_has_a_report(tmp_path: Path, write: Callable[..., Path]) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=64, status="oom", note="needs 9 GB, 1 GB free")])
    text = " ".join("".join(Elements(write(run).read_text(encoding="utf-8")).text).split())
    assert "No case of this run has a latency." in text
    assert "needs 9 GB, 1 GB free" in text
    assert "This run has no sweep.toml" in text


def test_what_is_missing_in_a_bare_checkout_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_installed", lambda name: name != "plotly")
    with pytest.raises(Failure, match="report needs plotly: pip install plotly"):
        report.build([run], kinds=KINDS)


# the command


def test_it_is_written_into_the_run_and_replaces_its_own_kind(harness: Any, tmp_path: Path) -> None:
    folder = stored(tmp_path / "r", [Told("flash", n=64)]).folder
    for _ in range(2):
        code, out, err = harness(folder)
        assert (code, out, err) == (0, f"{folder / 'report.html'}\n", "")
    assert (folder / "report.html").read_text(encoding="utf-8").startswith(report.MARK)
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_several_runs_are_written_beside_them_all(harness: Any, tmp_path: Path) -> None:
    folders = [stored(tmp_path / "all" / name, [Told("flash", n=64)]).folder for name in ("a", "b")]
    code, out, _ = harness(*folders, "--json")
    document = json.loads(out)
    written = tmp_path / "all" / "report.html"
    assert (code, document["report"], document["runs"]) == (0, str(written), list(map(str, folders)))
    assert document["bytes"] == written.stat().st_size


@pytest.mark.parametrize("held", [b"<html>mine</html>", b"\x00\xff", b"<!doctype html>\n<!-- somebody's -->"])
def test_what_is_no_report_is_never_replaced(harness: Any, tmp_path: Path, held: bytes) -> None:
    folder = stored(tmp_path / "r", [Told("flash", n=64)]).folder
    out = tmp_path / "mine.html"
    out.write_bytes(held)
    code, _, err = harness(folder, "--out", out)
    assert code == 2
    assert "is not a report of ours; it was left untouched" in err
    assert out.read_bytes() == held


def test_bad_targets_and_runs_are_one_line(harness: Any, tmp_path: Path) -> None:
    folder = stored(tmp_path / "r", [Told("flash", n=64)]).folder
    cases = [
        ((folder, "--out", tmp_path), 2, "is a folder; name a file"),
        ((tmp_path / "nowhere",), 2, "is not a run"),
        ((folder, "--out", folder / "measurements.csv" / "x.html"), 2, "cannot"),
    ]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "measurements.csv").write_text(
        (folder / "measurements.csv").read_text().partition("\n")[0] + "\n"
    )
    cases.append(((tmp_path / "empty",), 4, "holds no rows yet"))
    for words, expected, told in cases:
        code, out, err = harness(*words)
        assert (code, out) == (expected, ""), err
        assert told in err
        assert err.count("\n") == 1


def test_a_link_is_replaced_not_followed(harness: Any, tmp_path: Path) -> None:
    folder = stored(tmp_path / "r", [Told("flash", n=64)]).folder
    target = tmp_path / "target.html"
    target.write_text(report.MARK + "old")
    link = tmp_path / "link.html"
    link.symlink_to(target)
    assert harness(folder, "--out", link)[0] == 0
    assert target.read_text() == report.MARK + "old"
    assert not stat.S_ISLNK(os.lstat(link).st_mode)


def test_a_contended_run_has_a_banner_above_everything(tmp_path: Path, run: Run) -> None:
    busy = "contended: others had 0.66 of 2 cores; stopped: converged"
    told = [Told("flash", n=n, ms=10.0, note=busy) for n in (256, 512, 1024, 2048, 4096, 8192)] + [Told("full", n=256)]
    html = report.build([stored(tmp_path / "busy", told)], kinds=KINDS)
    shown = " ".join(" ".join(Elements(html).text).split())
    assert "CONTENDED: 6 of 7 cases were measured while the machine had other work" in shown
    assert shown.index("CONTENDED: 6 of 7") < shown.index("Charts")
    assert html.index('class="card contended"') < html.index('id="answer"')
    assert "n=256 forward float32: others had 0.66 of 2 cores" in shown
    assert "and 1 more: filter the rows by note:contended" in shown
    assert "<details" not in html[: html.index('id="answer"')]  # a banner, not a fold
    assert 'class="card contended"' not in report.build([run], kinds=KINDS)
