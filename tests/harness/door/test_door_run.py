"""`harness.run`: the words, errors and files of the command line; a caller's function; interrupts; what it gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import torch

import attentions
import harness
from harness import cli
from harness.cases.space import Sweep
from harness.door.measure import Keys
from harness.store.record import COLUMNS

SMALL: dict[str, Any] = {"n": [96, 128], "m": 16, "heads": 1, "head_dim": 16, "budget": 0.05, "metrics": ["latency"]}
SCALE = 0.5


def half(x: torch.Tensor) -> torch.Tensor:
    return SCALE * x


def my_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(half(q) @ k.mT, -1) @ v


@pytest.fixture(scope="module")
def run(surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> harness.Run:
    """Two variants and a function of this module, which the worker cannot import."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return harness.run(attention=["flash", "anchor", my_attention], **SMALL, out=folder, progress=False)


def test_importing_it_loads_nothing(surroundings: dict[str, str]) -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'rich', 'typer'}"
    code = f"import sys, harness; print({heavy} & set(sys.modules), harness.__version__)\n"
    code += "harness.read; print({'torch', 'matplotlib'} & set(sys.modules), 'run' in dir(harness))"
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True)
    assert done.stdout == f"set() {harness.__version__}\nset() True\n"
    with pytest.raises(AttributeError, match="no attribute 'rnu'; it gives run"):
        harness.rnu  # noqa: B018


def test_the_keys_are_those_of_a_sweep_file() -> None:
    assert set(Keys.__annotations__) == set(Sweep.model_fields)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n": "x"}, ["--n", "x"]),
        ({"attention": "flsh"}, ["--attention", "flsh"]),
        ({"phase": ["forwards"]}, ["--phase", "forwards"]),
        ({"kv_heads": [4], "attention": "flash"}, ["--kv-heads", "4", "--attention", "flash"]),
        ({"causal": True, "kv_tokens": 7}, ["--causal", "--kv-tokens", "7"]),
        ({"set": {"anchor": "paper"}}, None),
        ({"budget": -1}, ["--budget", "-1"]),
        ({"engine": "rey"}, ["--engine", "rey"]),
        ({"devices": "cuda:0,cuda:0"}, ["--devices", "cuda:0,cuda:0"]),
        ({"scope": "model", "n": 512}, ["--scope", "model", "--n", "512"]),
        ({"config": "nowhere.toml"}, ["--config", "nowhere.toml"]),
    ],
)
def test_wrong_values_are_told_in_the_words_of_the_command_line(
    given: dict[str, Any], words: list[str] | None, catalogue: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is compared below
        harness.run(**given, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    if words is None:
        assert "anchor.init" in str(raised.value)
        return
    assert cli.main(["run", *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.removeprefix("harness: ").strip()
    assert re.sub(r"'(-1|512)'", r"\1", told) == re.sub(r"'(-1|512)'", r"\1", " ".join(str(raised.value).split()))


def test_an_unknown_key_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown key 'batchs'; did you mean 'batch'"):
        harness.run(batchs=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda q, k, v: v, "has a name, made with def"),
        (torch.nn.Linear, "a function f\\(q, k, v\\), not <class"),
        (7, "a function f\\(q, k, v\\), not 7"),
        (half, "half\\(.*cannot be called with three tensors"),
    ],
)
def test_what_is_no_attention_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        harness.run(attention=["flash", given], progress=False)


def test_a_name_that_is_taken_is_refused() -> None:
    def flash(q: Any, k: Any, v: Any) -> Any:
        return v

    with pytest.raises(ValueError, match="the name 'flash' is taken by"):
        harness.run(attention=[flash])
    with pytest.raises(ValueError, match="two variants of the caller's called my_attention"):
        harness.run(attention=[my_attention, my_attention])


def test_a_variant_of_the_registry_goes_by_its_name() -> None:
    from harness.door.measure import split

    given, defined = split({"attention": [attentions.spec("anchor"), "flash"]})
    assert (given["attention"], defined) == (["anchor", "flash"], [])


def test_rows_samples_and_environment(run: harness.Run) -> None:
    frame: Any = run.frame
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["status"]) == {"ok"}
    assert frame.groupby("attention")["n"].apply(sorted).to_dict() == {
        "anchor": [96, 128], "flash": [96, 128], "my_attention": [96, 128],
    }  # fmt: skip
    counts = run.samples.groupby(["run_id", "case_id", "metric"]).size()
    assert sorted(counts) == sorted(frame["samples"])
    assert run.environment["kinds"]["my_attention"] == "approximate"
    assert (run.folder / "sweep.toml").is_file()


def test_the_rows_of_a_function_tell_its_code_and_the_folder_holds_it(run: harness.Run) -> None:
    frame: Any = run.frame
    notes = frame.loc[frame["attention"] == "my_attention", "note"]
    digests = {re.search(r"code (\w{12})$", note)[1] for note in notes}  # type: ignore[index]
    text = (run.folder / "variants" / "my_attention.py").read_text(encoding="utf-8")
    assert digests == set(re.findall(r"^# code (\w+)$", text, re.MULTILINE))
    assert "#     return torch.softmax(half(q) @ k.mT, -1) @ v" in text
    assert not frame.loc[frame["attention"] == "flash", "note"].str.contains("code").any()


def test_what_it_computes_is_the_function(run: harness.Run, tmp_path: Path) -> None:
    source = (run.folder / "variants" / "my_attention.py").read_text(encoding="utf-8")
    path = tmp_path / "elsewhere.py"
    path.write_text(source, encoding="utf-8")
    assert attentions.load_plugin(path) == ["my_attention"]
    core = attentions.build("my_attention", heads=1, head_dim=4, tokens=9)
    q, k, v = torch.randn(3, 1, 1, 9, 4)
    torch.testing.assert_close(core(q, k, v), my_attention(q, k, v), rtol=0, atol=0)


def test_a_run_is_resumed_and_other_code_is_refused(run: harness.Run, tmp_path: Path) -> None:
    whole = run.save(tmp_path / "whole")
    rows = (whole.folder / "measurements.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (whole.folder / "measurements.csv").write_text("".join(rows[:-1]), encoding="utf-8")
    again = harness.run(
        attention=["flash", "anchor", my_attention], out=whole.folder, resume=True, progress=False
    )  # fmt: skip
    assert len(again.frame) == len(run.frame)
    assert set(again.frame["case_id"]) == set(run.frame["case_id"])
    other: Callable[..., Any] = lambda q, k, v: v  # noqa: E731
    other.__name__ = other.__qualname__ = "my_attention"
    with pytest.raises(ValueError, match=r"the code of my_attention \(\w+\) differs from the run being resumed"):
        harness.run(attention=["flash", "anchor", other], out=whole.folder, resume=True)
    with pytest.raises(ValueError, match="--n 64 differs from the run being resumed, which has 96,128"):
        harness.run(n=64, out=whole.folder, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        harness.run(out=whole.folder)
    with pytest.raises(ValueError, match="resume=True needs out="):
        harness.run(resume=True)


def test_what_is_saved_can_be_resumed_by_itself(run: harness.Run, tmp_path: Path) -> None:
    kept = run.save(tmp_path / "kept")
    sweep = (kept.folder / "sweep.toml").read_text(encoding="utf-8")
    assert str(kept.folder / "variants" / "my_attention.py") in sweep
    assert str(run.folder) not in sweep
    with pytest.raises(ValueError, match="already holds a run"):
        run.save(tmp_path / "kept")


def test_its_variants_run_again_only_where_the_call_names_them(
    run: harness.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's folder is data: its file of code is taken once it is named, and only as it was."""
    kept = run.save(tmp_path / "kept").folder
    rows = (kept / "measurements.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (kept / "measurements.csv").write_text("".join(rows[:-1]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names the plugin my_attention\.py, which is code"):
        harness.run(out=kept, resume=True, progress=False)
    assert cli.main(["run", "--resume", "--out", str(kept)]) == 2
    variant = kept / "variants" / "my_attention.py"
    assert f"add--plugin{variant}" in "".join(capsys.readouterr().err.split())  # folded anywhere, long as paths are
    assert cli.main(["run", "--resume", "--out", str(kept), "--plugin", str(variant), "--json", "-q"]) == 0
    capsys.readouterr()
    assert set(harness.read(kept).frame["case_id"]) == set(run.frame["case_id"])
    variant.write_text(variant.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"plugin my_attention\.py was edited since this run began"):
        harness.run(out=kept, resume=True, plugin=str(variant), progress=False)


def test_a_link_in_a_run_is_not_followed_as_it_is_saved(run: harness.Run, tmp_path: Path) -> None:
    made = run.save(tmp_path / "made").folder
    secret = tmp_path / "secret"
    secret.write_text("n = 64\n", encoding="utf-8")
    (made / "sweep.toml").unlink()
    (made / "sweep.toml").symlink_to(secret)
    with pytest.raises(ValueError, match="it is a link, and links inside a run are not followed"):
        harness.read(made).save(tmp_path / "copy")
    assert secret.read_text(encoding="utf-8") == "n = 64\n"


INTERRUPTED = """
import harness
try:
    harness.run(attention="flash,anchor", n="96,128,160,192", m=16, heads=1, head_dim=16, budget=20, metrics="latency",
                out="mine", timeout=60)
except KeyboardInterrupt as stopped:
    print(stopped)
"""


def test_an_interrupt_says_how_to_go_on(surroundings: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, env=surroundings, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "mine" / "environment.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "finish it with the same call and out='mine', resume=True\n", err
    assert "8 cases" in err  # no terminal: lines
    done = harness.run(out=tmp_path / "mine", resume=True, budget=0.05, progress=False)
    assert done.frame["case_id"].nunique() == 8


def test_without_out_the_folder_goes_as_python_ends(surroundings: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import harness, pathlib\n"
        "def mine(q, k, v):\n    return v * 2\n"
        "run = harness.run(attention=[mine], n=64, heads=1, head_dim=8, budget=0.05, metrics='latency',\n"
        "                  patience=0, progress=False)\n"
        "print(run.folder, run.folder.is_dir(), run.frame['status'].tolist())\n"
        "run.save('kept')\n"
    )
    quiet = surroundings | {"PYTHONWARNINGS": "ignore"}  # of a machine that is busy just now
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=quiet, capture_output=True, text=True, check=True
    )  # fmt: skip
    folder, there, status = done.stdout.split()
    said = [line for line in done.stderr.splitlines() if "Warned: " not in line]  # of a machine that is not quiet
    assert (there, status, said) == ("True", "['ok']", [])
    assert not os.path.exists(folder)
    assert harness.read(tmp_path / "kept").frame["attention"].tolist() == ["mine"]


def test_a_module_beside_the_script_is_carried(surroundings: dict[str, str], tmp_path: Path) -> None:
    """The worker has not its folder; neither would another machine."""
    (tmp_path / "parts.py").write_text("from torch import relu\n\ndef weights(x):\n    return relu(x) + 1e-6\n")
    (tmp_path / "mine.py").write_text(
        "from attentions import Backend, Spec\nfrom parts import weights\n\n"
        "def reference(q, k, v):\n    w = weights(q @ k.mT)\n    return w / w.sum(-1, keepdim=True) @ v\n\n"
        "SPEC = Spec(name='relu', title='ReLU attention', backends=(Backend('reference', reference),))\n"
    )
    (tmp_path / "script.py").write_text(
        "import harness, mine\n"
        "run = harness.run(attention=mine.SPEC, n=64, heads=1, head_dim=8, budget=0.05, metrics='latency',\n"
        "                  progress=False)\n"
        "print(run.frame[['attention', 'status', 'note']].to_csv(index=False))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=surroundings, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert re.search(r"^relu,ok,.*code \w{12}\"?$", done.stdout, re.MULTILINE), done.stdout


def test_a_sweep_file_and_keys_on_top(catalogue: dict, tmp_path: Path) -> None:
    from harness.door.measure import over_file

    path = tmp_path / "sweep.toml"
    path.write_text('n = [64]\nm = 8\nset.anchor.init = "paper"\nset.anchor.scale = 2.0\n', encoding="utf-8")
    merged = over_file(path, {"n": (96,), "set": {"anchor.scale": 3}})
    assert merged == {"n": [96], "m": 8, "set": {"anchor.init": "paper", "anchor.scale": 3}}
    assert over_file(None, {"n": range(64, 66), "attention": "flash"}) == {"n": [64, 65], "attention": "flash"}


def test_a_figure_and_its_title(run: harness.Run) -> None:
    figure = run.plot("latency", attention=["flash", my_attention.__name__], title="On this machine")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.get_suptitle() == "On this machine"
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert labels == {"flash", "my_attention"}
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="unknown figure 'latncy'; did you mean 'latency'"):
        run.plot("latncy")
    with pytest.raises(ValueError, match="roofline: no value of flops_rate: it was not measured"):
        run.plot("roofline")


def test_a_report(run: harness.Run, tmp_path: Path) -> None:
    path = run.report(tmp_path / "mine.html")
    assert path == tmp_path / "mine.html"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "my_attention" in text


def test_it_shows_in_a_terminal_and_in_a_notebook(run: harness.Run) -> None:
    text = repr(run)
    assert text.startswith("Run of 6 cases (6 ok) on ")
    assert all(f"{name}:" in text for name in ("flash", "anchor", "my_attention"))
    assert "n=96" in text
    html: str = run._repr_html_()
    assert html.startswith("<p>Run of 6 cases (6 ok)")
    assert html.count("<table>") == 1
