"""The command line: what it takes, what it says of what it does not take, and runs that survive every way to end."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import making
import pytest

from harness import cli
from harness.cases.space import Sweep
from harness.cli._axes import AXES
from harness.door import progress as _progress
from harness.errors import Failure, NothingToCompare, UsageError
from harness.store import runs as store
from harness.store.record import Reading
from harness.store.runs import Store

VARIANTS = str(Path(__file__).parents[1] / "variants.py")
SMALL = ["--attention", "full,anchor,linformer", "--n", "64,96,128,160", "--m", "8,16,24", "--heads", "2",
         "--head-dim", "16", "--metrics", "latency,flops", "--budget", "0.05", "--patience", "0"]  # fmt: skip
CASES = 28


def main(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line run in this process."""
    code = cli.main(list(map(str, words)))
    return code, *capsys.readouterr()


def everything(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# What it takes


def test_the_axes_are_the_sweeps_keys() -> None:
    assert set(AXES) == set(Sweep.model_fields) - {"sequence_parallel"}  # of `harness run` alone


IMPORTED = """
import sys
from harness import cli
code = cli.main(sys.argv[1:])
heavy = {"torch", "pandas", "numpy", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("words", [["--help"], [], ["run", "--help"], ["crossover", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(surroundings: dict[str, str], words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, env=surroundings, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    start = {"--version": "attention-harness ", "": "Which attention, "}.get("".join(words), "Usage: harness ")
    assert done.stdout.startswith(start)


def test_list_and_wrong_names_are_answered_without_torch(surroundings: dict[str, str], catalogue: dict) -> None:
    for words, code in ((["list", "--json"], 0), (["run", "--attention", "nope"], 2)):
        script = IMPORTED.replace('{"torch", "pandas", "numpy", "matplotlib"}', '{"torch", "pandas"}')
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, env=surroundings, check=False
        )
        assert done.returncode == code, done.stderr


# What it says of what it does not take

WRONG = [
    (["--n", "-5"], "n: '-5' is not valid: n takes whole numbers from 1 to 1073741824"),
    (["--n", "0"], "n: '0' is out of range"),
    (["--n", "1" + "0" * 30], "is out of range: n takes whole numbers"),
    (["--n", "many"], "n: 'many' is not valid"),
    (["--n", "1e3"], "n: '1e3' is not valid"),
    (["--n", ""], "n: '' is not valid"),
    (["--m", "-1"], "m: '-1' is not valid: m takes whole numbers from 1 to 1048576"),
    (["--m", "0"], "m: '0' is out of range"),
    (["--m", "9" * 30], "is out of range: m takes whole numbers"),
    (["--m", "few"], "m: 'few' is not valid"),
    (["--kv-heads", "4"], "--kv-heads 4 must divide --heads, which is 6"),
    (["--kv-heads", "none"], "kv_heads: 'none' is not valid: kv_heads takes whole numbers from 1 to 4096"),
    (["--kv-tokens", "-1"], "kv_tokens: '-1' is not valid"),
    (["--causal", "--n", "64", "--kv-tokens", "32"], "--causal with --kv-tokens 32 at n=64 leaves open which token"),
    (["--causal", "--scope", "model"], "--causal means nothing in scope model"),
    (["--heads", "0"], "heads: '0' is out of range"),
    (["--head-dim", "x"], "head_dim: 'x' is not valid"),
    (["--batch", "1.5"], "batch: '1.5' is not valid"),
    (
        ["--attention", "anchr"],
        "unknown attention 'anchr'; did you mean 'anchor'? valid: agent, anchor, flare, flash, full",
    ),
    (["--attention", "flash:fa9"], "unknown backend of flash 'fa9'; did you mean 'fa"),
    (["--attention", ","], "attention: [','] names nothing"),
    (
        ["--set", "anchor.inti=x"],
        "--set anchor.inti: unknown option of anchor 'inti'; did you mean 'init'? valid: init",
    ),
    (["--set", "anchor.init"], "--set takes variant.option=value, such as anchor.init=paper, not 'anchor.init'"),
    (["--set", "init=paper"], "set: 'init' is not of the form variant.option"),
    (["--set", 'anchor.init="paper'], "--set anchor.init: '\"paper' cannot be read"),
    (["--set", "anchor.causal=true"], "--set anchor.causal: causal is asked of every variant; give --causal"),
    (["--set", "nope.init=paper"], "unknown attention 'nope'"),
    (["--set", "anchor.init=paper", "--attention", "full"], "anchor is not part of this sweep"),
    (["--metrics", "speed"], "unknown metric 'speed'; valid: latency, host, first_call"),
    (["--dtype", "int8"], "dtype: unknown dtype 'int8'; valid: auto, float32, bfloat16, float16, float64"),
    (["--device", "gpu"], "device: unknown device 'gpu'; valid: auto, cpu, cuda, cuda:<index>"),
    (["--phase", "both"], "phase: unknown phase 'both'; valid: forward, backward, train"),
    (["--scope", "modle"], "scope: unknown scope 'modle'; did you mean 'model'? valid: core, layer, model"),
    (["--seed", "-1"], "seed takes a whole number from 0 to 2147483647, not '-1'"),
    (["--seed", "x"], "seed takes a whole number from 0 to 2147483647, not 'x'"),
    (["--budget", "nan"], "budget takes seconds, more than 0 and at most 3600, not 'nan'"),
    (["--budget", "inf"], "budget takes seconds, more than 0 and at most 3600, not 'inf'"),
    (["--budget", "0"], "budget takes seconds"),
    (["--timeout", "soon"], "timeout takes seconds, more than 0 and at most 86400, not 'soon'"),
    (["--config", "missing.toml"], "sweep file missing.toml: no such file"),
    (["--config", "folder"], "sweep file folder cannot be read: Is a directory"),
    (["--config", "torn.toml"], "sweep file torn.toml is not valid TOML: "),
    (
        ["--config", "key.toml"],
        "sweep file key.toml: unknown key 'atention'; did you mean 'attention'? valid: attention, n, m, batch",
    ),
    (["--config", "set.toml"], "set: set takes variant.option = value pairs, not 'anchor.init=paper'"),
    (
        ["--config", "set.toml", "--set", "anchor.init=paper"],
        "set takes variant.option = value pairs, not 'anchor.init",
    ),
    (["--config", "size.toml"], "n: 'x' is not valid"),
    (["--plugin", "missing.py"], "plugin missing.py: no such file"),
    (["--unknown"], "No such option: --unknown"),
    (["extra"], "unexpected extra argument"),
    (["--n"], "Option '--n' requires an argument"),
]
OUT = [
    (["--out", "torn.toml"], "torn.toml is a file, not a folder"),
    (["--out", "torn.toml/run"], "cannot write in torn.toml/run: "),
    (["--out", "folder"], "folder holds other files and no run; choose an empty or a new folder"),
    (["--out", "run"], "run already holds a run; add --resume to finish it or choose another --out"),
    (["--out", "x" * 300], "the name is too long: 255 bytes at most"),
    (["--out", "foreign"], "foreign columns and was left untouched: unknown date, ms"),
    (["--resume", "--out", "missing"], "cannot resume missing: no such folder"),
    (["--resume", "--out", "folder"], "cannot resume folder: it has neither measurements.csv nor sweep.toml"),
    (["--resume", "--out", "foreign"], "foreign columns and was left untouched: unknown date, ms"),
    (["--resume", "--out", "newer"], "newer was written by a newer harness (schema 99; this one reads up to 1)"),
    (["--resume"], "no run under results/; make one with: harness run --n 4096 --m 64"),
    (["--resume", "--out", "run", "--n", "128"], "--n 128 differs from the run being resumed, which has 64;"),
    (
        ["--resume", "--out", "run", "--attention", "full"],
        "--attention full differs from the run being resumed, which has",
    ),
    (
        ["--resume", "--out", "run", "--config", "other.toml"],
        "--heads 3 differs from the run being resumed, which has 6;",
    ),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that are wrong in every way, as the current one."""
    files = {
        "torn.toml": "n = [1,\n", "key.toml": "atention = 'full'\n", "set.toml": "set = 'anchor.init=paper'\n",
        "size.toml": "n = ['x']\n", "other.toml": "heads = 3\n", "folder/thesis.tex": "mine",
        "foreign/measurements.csv": "date,ms\n1,2\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("run", "newer"):
        sweep = Sweep.parse({"n": 64, "m": 16, "attention": "anchor"})
        with Store.open(tmp_path / name, metrics=sweep.metrics, sweep=sweep.to_toml()) as run:
            run.append(making.failed(making.CASE), {})
    (tmp_path / "newer" / "environment.json").write_text('{"schema": 99}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_input_is_one_line_and_changes_nothing(
    place: Path, catalogue: dict, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = everything(place)
    for command in ("run", "plan"):
        code, out, err = main(capsys, command, *words)
        assert (code, out) == (2, ""), (command, out, err)
        assert err.startswith("harness: ")
        assert message in err
        assert err.count("\n") == 1
    assert everything(place) == before


@pytest.mark.parametrize(("words", "message"), OUT)
def test_wrong_folders_are_one_line_and_stay_as_they_are(
    place: Path, catalogue: dict, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = everything(place)
    code, out, err = main(capsys, "run", *words)
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("\n") == 1
    assert everything(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "unknown command 'rum'; did you mean 'run'? valid: "),
        (["--nope"], "No such option: --nope"),
        (["list", "--plugin", "missing.py"], "plugin missing.py: no such file"),
        (["list", "--plugin", "."], "plugin .: no such file"),
        (["list", "--plugin", "several.py"], "plugin several.py: ImportError: no such thing and it says so on lines"),
        (["list", "--plugin", "nothing.py"], "plugin nothing.py: defines no attentions.Spec at its top level"),
        (["list", "--plugin", "syntax.py"], "plugin syntax.py: SyntaxError: "),
        (["list", "--plugin", "taken.py"], "plugin taken.py: the name 'full' is taken by 'Softmax attention"),
    ],
)
def test_other_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str], words: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    plugins(tmp_path)
    code, out, err = main(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def plugins(folder: Path) -> None:
    """Plugin files that cannot be used."""
    spec = "from attentions import *\nX = Spec(name='full', title='x', backends=(Backend('reference', print),))\n"
    files = {
        "several.py": "raise ImportError('no such thing\\nand it says so\\n  on lines')\n", "nothing.py": "x = 1\n",
        "syntax.py": "def\n", "taken.py": spec,
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plugin", "several.py"], "plugin several.py: ImportError: no such thing and it says so on lines"),
        (["--set", "anchor.init=nope"], "anchor: option init='nope' is not valid; it takes one of paper, orthogonal"),
        (
            ["--set", "anchor.init=paper,nope"],
            "anchor: option init='nope' is not valid; it takes one of paper, orthogonal",
        ),
        (["--device", "cuda:31"], "device 'cuda:31' is not there: torch sees 0 CUDA devices; valid here: cpu"),
    ],
)
def test_what_only_the_worker_knows_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str], words: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And without a catalogue in the cache, so that nothing was known before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    plugins(tmp_path)
    before = everything(tmp_path)
    code, out, err = main(capsys, "run", *words)
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("\n") == 1
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("that\nis wrong"), 2, "that is wrong"),
        (NothingToCompare("none"), 4, "none"),
        (Failure("all failed"), 5, "all failed"),
        (ZeroDivisionError("x"), 5, "ZeroDivisionError: x (this is a fault of harness; HARNESS_DEBUG=1 shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("go on so"), 130, "interrupted; go on so"),
    ],
)
def test_each_error_has_its_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr(cli, "_module", lambda name: type("Module", (), {"command": staticmethod(command)}))
    assert main(capsys, "list") == (code, "", f"harness: {said}\n")


# A run, and the ways to end it


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, harness: Any) -> tuple[Path, Any]:
    """A small run with --json, left alone."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return folder, harness("run", *SMALL, "--json", "--out", folder)


def wanted(folder: Path) -> list[tuple[str, str]]:
    frame = store.read(folder)
    return sorted(zip(frame["case_id"], frame["metric"], strict=True))


@pytest.mark.slow
def test_json_is_one_document_and_nothing_else(undisturbed: tuple[Path, Any]) -> None:
    folder, done = undisturbed
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert document["run"] == str(folder)
    assert document["statuses"] == {"ok": CASES}
    frame = store.read(folder)
    assert len(document["rows"]) == len(frame) == 2 * CASES
    for row, stored in zip(document["rows"], frame.to_dict("records"), strict=True):
        assert row["value"] == stored["value"]
        assert row["m"] is None or row["m"] == stored["m"]
        assert list(row) == list(frame.columns)
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{CASES} cases: ")
    assert sum(line.startswith("[") for line in lines) == CASES
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_ended_in_every_way_is_finished_by_resuming(
    tmp_path: Path, surroundings: dict[str, str], undisturbed: tuple[Path, Any], harness: Any
) -> None:
    """Ctrl-C, SIGTERM, kill -9, each at a random moment: what resuming leaves is the undisturbed run, each row once."""
    folder, chance = tmp_path / "run", random.Random()
    kept = 0
    for place, (number, code) in enumerate(((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9))):
        words = ["--resume", "--out", str(folder)] if place else [*SMALL, "--out", str(folder)]
        with (tmp_path / "stderr").open("w+") as err, (tmp_path / "stdout").open("w+") as out:
            driver = subprocess.Popen(
                [sys.executable, "-m", "harness", "run", *words], stdout=out, stderr=err, env=surroundings
            )
            moment = kept + chance.randint(1, 3)
            wait_for(lambda moment=moment, driver=driver: rows(folder) >= 2 * moment or driver.poll() is not None)
            time.sleep(0.2 * chance.random())
            workers = children(driver.pid)
            driver.send_signal(number)
            assert driver.wait(timeout=60) == code, err.seek(0) or err.read()
            wait_for(lambda workers=workers: not any(map(alive, workers)))
            err.seek(0)
            said = err.read().splitlines()
            assert out.read() == ""
        assert len(workers) == 1
        if code == 130:
            assert said[-1] == f"harness: interrupted; finish it with: harness run --resume --out {folder}"
            assert not any("Traceback" in line for line in said)
        assert moment <= rows(folder) // 2 < CASES
        kept = rows(folder) // 2
    done = harness("run", "--resume", "--out", folder, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statuses"] == {"ok": CASES}
    assert wanted(folder) == wanted(undisturbed[0])
    samples = store.read_samples(folder)
    assert not samples.duplicated(["case_id", "metric", "index"]).any()
    frame = store.read(folder).set_index("case_id")
    counted = samples.groupby("case_id").size()
    assert counted.to_dict() == frame[frame["metric"] == "latency"]["samples"].astype(int).to_dict()


def rows(folder: Path) -> int:
    """Whole lines of measurements.csv after its header."""
    try:
        return max(0, (folder / store.MEASUREMENTS).read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited two minutes"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_run_in_which_all_failed_is_exit_code_5_also_when_resumed(
    tmp_path: Path, surroundings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ["--plugin", VARIANTS, "--attention", "refused,limited,huge", "--n", "64", "--metrics", "latency"]
    code, out, err = main(capsys, "run", *axes, "--out", tmp_path / "run")
    assert code == 5
    assert "needs a thing that nobody has; get it from nowhere" in err
    assert "1152921504.6 GB" in err
    assert str(tmp_path / "run") in out
    code, out, _ = main(capsys, "run", "--resume", "--plugin", VARIANTS, "--out", tmp_path / "run", "--json", "--quiet")
    assert (code, json.loads(out)["statuses"]) == (5, {"unavailable": 1, "unsupported": 1, "oom": 1})


@pytest.mark.parametrize("words", ["list", "list --json", "--help", "run --help"])
def test_a_closed_pipe_is_no_error(surroundings: dict[str, str], catalogue: dict, words: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m harness {words} | head -c 1"], env=surroundings,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_closed_before_the_first_word_is_no_error(surroundings: dict[str, str], catalogue: dict) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "list", "--json"], stdout=closed, stderr=subprocess.PIPE, text=True,
            env=surroundings, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ascii_terminal_is_enough(harness: Any, catalogue: dict) -> None:
    done = harness("list", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "anchor" in done.stdout


# Progress


class Screen(io.StringIO):
    """A stderr that is a terminal, or that nobody reads any more."""

    def __init__(self, *, terminal: bool = False, closed: bool = False) -> None:
        super().__init__()
        self.terminal, self.gone = terminal, closed

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(text)

    def fileno(self) -> int:
        return os.dup(2)


def show(monkeypatch: pytest.MonkeyPatch, screen: Screen, *, quiet: bool = False) -> str:
    """All that the progress of two cases writes."""
    monkeypatch.setattr(sys, "stderr", screen)
    progress = _progress.Progress(quiet=quiet)
    progress.begin(3, 1)
    figure = Reading(metric="latency", value=2.0, ci_low=1.9, ci_high=2.1)
    for readings in ([Reading(metric="flops", value=1), figure], [Reading(metric="flops", status="oom", note="no")]):
        progress.start(making.CASE)
        progress.finish(making.CASE, readings)
    progress.warn("drift")
    progress.close()
    return screen.getvalue()


def test_a_pipe_gets_one_plain_line_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress.Progress, "_eta", lambda self, form: "")
    assert show(monkeypatch, Screen()).splitlines() == [
        "3 cases, 1 already measured",
        f"[2/3] {making.CASE}: 2 ms ± 5 %",
        f"[3/3] {making.CASE}: oom: no",
        "warning: drift",
    ]
    assert show(monkeypatch, Screen(), quiet=True) == "warning: drift\n"


def test_a_terminal_gets_a_live_line_unless_it_is_dumb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    live = show(monkeypatch, Screen(terminal=True))
    assert live.count("\r\x1b[K[") == 4  # a line to look at, then the one that stays in its place
    assert "warning: drift\n" in live
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in show(monkeypatch, Screen(terminal=True))


def test_the_time_left_is_not_what_a_narrow_terminal_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    lines = show(monkeypatch, Screen(terminal=True)).split("\r\x1b[K")
    assert any(re.fullmatch(r"\[3/3, about \d+:\d\d left\] \S.*", line) and len(line) == 59 for line in lines), lines


def test_a_line_says_what_differs_and_a_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(_progress.Progress, "_eta", lambda self, form: "")
    cases = [making.case(n=n) for n in (64, 128, 256)]
    absent = [Reading(metric="latency", status="unavailable", note=f"needs a GPU; it also needs {90 * 'x'}")]
    progress = _progress.Progress()
    progress.begin(3, 0, cases)
    for case, readings in zip(cases, (absent, absent, [Reading(metric="latency", value=2.0)]), strict=True):
        progress.finish(case, readings)
    first, *lines = screen.getvalue().splitlines()
    assert first.startswith("3 cases: ")
    assert {cases[0].dtype, cases[0].phase, cases[0].scope} <= set(first.split())
    label = cases[0].label
    assert lines == [
        f"[1/3] {label} n=64: unavailable: needs a GPU",
        f"[2/3] {label} n=128: unavailable",
        f"[3/3] {label} n=256: 2 ms ± 0 %",
    ]


def test_a_figure_is_not_cut_by_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    lines = show(monkeypatch, Screen(terminal=True)).replace("\r\x1b[K", "\n").splitlines()
    assert "    2 ms ± 5 %" in lines
    assert "    oom: no" in lines


def test_a_wide_interval_is_told_without_an_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = _progress.Progress()
    progress.begin(1, 0)
    progress.finish(making.CASE, [Reading(metric="latency", value=2.0, ci_low=0.1, ci_high=8.0)])
    assert screen.getvalue().endswith(": 2 ms ± 198 %\n")


def test_a_closed_stderr_does_not_end_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Screen(closed=True)
    assert show(monkeypatch, opened) == ""


def test_the_live_line_keeps_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_progress.Progress, "_eta", lambda self, form: "")
    for told, columns, wide in (("40", 200, 40), ("", 50, 50), ("", 0, 80)):  # 0: a terminal that was given no size
        monkeypatch.setenv("COLUMNS", told)
        monkeypatch.setattr(os, "get_terminal_size", lambda *where, size=columns: os.terminal_size((size, 24)))
        lines = show(monkeypatch, Screen(terminal=True)).split("\r\x1b[K")
        live = [line for line in lines if line.startswith("[") and not line.endswith("\n")]
        assert len(live) == 2
        assert {len(line) for line in live} == {min(wide - 1, len(f"[2/3] {making.CASE}"))}, (told, columns)
