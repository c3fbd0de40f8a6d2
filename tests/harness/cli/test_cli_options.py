"""The command line is an interface: its options are frozen, its pages fit a terminal, a shell completes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from scripting import load

from harness import cli
from harness.cli._completion import completing
from harness.cli._gate import Progress
from harness.errors import unknown
from harness.store import table

MEASURING = ("run", "check", "crossover", "doctor", "train", "eval", "recommend")


def script() -> Any:
    return load("cli_options")


def test_the_options_are_frozen() -> None:
    """Scripts depend on these names. A change that is meant: python scripts/cli_options.py --write."""
    module = script()
    frozen = set(module.FROZEN.read_text(encoding="utf-8").splitlines())
    found = set(module.lines())
    assert not frozen - found, "these went away; scripts that use them break"
    assert not found - frozen, "these are new; freeze them: python scripts/cli_options.py --write"


def test_what_measures_can_be_quiet_and_what_answers_can_be_json() -> None:
    lines = script().lines()
    commands = cli.commands()
    assert not [name for name in MEASURING if name in commands and f"{name} -q --quiet" not in lines]
    assert not [name for name in commands if f"{name} --json" not in lines]


@pytest.mark.parametrize("name", cli.commands())
def test_what_an_option_takes_is_said_in_words(name: str) -> None:
    """Not INTEGER, FLOAT or TEXT, which are a parser's."""
    root: Any = typer.main.get_command(cli._app(name))
    for parameter in root.commands[name].params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert parameter.metavar, parameter.opts
            assert parameter.metavar not in ("INTEGER", "FLOAT", "TEXT"), parameter.opts


@pytest.mark.parametrize("name", ["", *cli.commands()])
def test_help_fits_80_columns(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*filter(None, [name]), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: harness {name}".rstrip())
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_of_run_fits_two_screens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 50 lines by 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["run", "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 100


@pytest.mark.parametrize(
    ("name", "refused", "told"),
    [
        ("check", ("--metrics", "--budget", "--model"), "Default: 1024; 512 for full."),
        ("crossover", ("--attention", "--n", "--metrics"), "Smallest n tried."),
        ("recommend", ("--metrics",), "Required."),
    ],
)
def test_help_leaves_out_what_a_command_refuses(
    name: str, refused: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert told in out
    assert not [option for option in refused if f"{option} " in out]


def test_no_arguments_show_where_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "harness run --n 4096 --m 64" in out
    assert all(name in out for name in cli.commands())
    assert max(map(len, out.splitlines())) <= 80
    assert "Your newest run" not in out
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "measurements.csv").touch()
    assert cli.main([]) == 0
    assert "Your newest run is results/mine/" in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "meant"), [("rnu", "run"), ("plott", "plot"), ("cros-over", "crossover")])
def test_a_command_that_is_misspelt_is_guessed(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([typed]) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err
    assert unknown("command", typed, cli.commands()).startswith(f"unknown command {typed!r}; did you mean {meant!r}?")


def test_a_run_that_is_misspelt_is_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "measurements.csv").touch()
    assert cli.main(["show", str(tmp_path / "swep")]) == 2
    assert f"did you mean {tmp_path / 'sweep'}?" in capsys.readouterr().err
    assert cli.main(["show", str(tmp_path / "other")]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_an_option_that_is_misspelt_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--jsno"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "typed", "offered"),
    [
        ("phase", "", ["forward", "backward", "train", "step"]),
        ("phase", "forward,b", ["forward,backward"]),
        ("phase", "forward,f", []),
        ("dtype", "b", ["bfloat16"]),
        ("device", "c", ["cpu", "cuda"]),
        ("metrics", "latency,peak", ["latency,peak_memory"]),
    ],
)
def test_values_are_completed(option: str, typed: str, offered: list[str]) -> None:
    complete = completing(option)
    assert complete is not None
    assert complete(typed) == offered


def test_any_text_is_not_completed() -> None:
    assert completing("n") is None


def test_a_shell_completes(surroundings: dict[str, str]) -> None:
    """As bash asks it; variants without anything cached, so by their files."""

    def ask(line: str, place: int) -> list[str]:
        asked = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(place)}
        start = "import sys; sys.argv[0] = 'harness'; from harness.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", start], env=surroundings | asked, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert ask("harness ru", 1) == ["run", "runs"]
    assert "--attention" in ask("harness run --a", 2)
    assert ask("harness run --kv", 2) == ["--kv-heads", "--kv-tokens"]
    assert "--causal" in ask("harness show --c", 2)
    assert {"linear", "linformer"} <= set(ask("harness run --attention li", 3))


def test_progress_of_the_gate_can_be_silenced_but_not_its_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.say("something begins")
    progress.step(1, 2, "a case")
    progress.say("warning: something is odd")
    progress.close()
    assert capsys.readouterr() == ("", "warning: something is odd\n")


def test_long_lines_are_folded_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "ok  " + "word " * 30 + "x" * 90
    assert table.folded(line, 4) == line
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(table, "terminal_width", lambda: 80)
    folded = table.folded(line, 4).splitlines()
    assert all(len(part) <= 80 for part in folded[:-1])
    assert folded[0].startswith("ok  word")
    assert all(part.startswith("    ") for part in folded[1:])
    assert "x" * 90 in folded[-1]  # a word is never cut


def test_the_name_of_the_program_is_what_the_shell_asks_for() -> None:
    assert cli.COMPLETING == "_HARNESS_COMPLETE"
    assert isinstance(cli._app("list"), typer.Typer)
    assert cli.COMPLETING not in os.environ
