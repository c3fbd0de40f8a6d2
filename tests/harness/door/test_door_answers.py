"""`harness.compare`, `crossover` and `recommend` say what their commands print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

import harness
from harness import cli
from harness.errors import NothingToCompare

THERE = "there-8c-111111"


def told(factor: float = 1.0, **more: Any) -> list[Told]:
    flash = [Told("flash", n=n, ms=factor * n / 100, error=0.0, **more) for n in (1024, 2048)]
    return [*flash, *(Told("anchor", n=n, m=64, ms=factor * n / 400, error=0.8, **more) for n in (1024, 2048))]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_compare_is_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (stored(tmp_path / name, told(factor)).folder for name, factor in (("a", 1.0), ("b", 2.0)))
    found = harness.compare(harness.read(a), b, metrics=["latency", "approximation_error"])
    assert found.comparable
    assert len(found.frame) == 8
    assert set(found.frame.loc[found.frame["metric"] == "latency", "verdict"]) == {"inconclusive"}  # without samples
    assert cli.main(["compare", str(a), str(b), "--metrics", "latency,approximation_error"]) == 0
    assert capsys.readouterr().out == f"{found!r}\n"
    assert cli.main(["compare", str(a), str(b), "--metrics", "latency,approximation_error", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.as_json()))
    several = harness.compare(harness.read(tmp_path), b)  # the newer of each case, which is that of a or of b
    assert (several.a, len(several.lines)) == (tmp_path, 4)


def test_recommend_is_the_commands(catalogue: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = harness.read(stored(tmp_path / "a", told()).folder)
    found = harness.recommend(run, n=2048, heads=2, head_dim=16, max_error=0.5)
    assert found.choice is not None
    assert found.choice.attention == "flash"
    words = ["recommend", "--n", "2048", "--heads", "2", "--head-dim", "16", "--max-error", "0.5", str(run.folder)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{found!r}\n"
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.as_json()))


def test_recommend_answers_for_each_machine(catalogue: dict, tmp_path: Path) -> None:
    one, other = (stored(tmp_path / name, told(machine=m)).folder for name, m in (("a", "here"), ("b", THERE)))
    found = harness.recommend([one, other], n=1024, heads=2, head_dim=16)
    assert [answer.setting["machine"] for answer in found.answers] == ["here", THERE]
    with pytest.raises(ValueError, match=r"an answer for each of here \(cpu\), there-8c-111111 \(cpu\)"):
        _ = found.choice
    with pytest.raises(ValueError, match="recommend needs the number of tokens"):
        harness.recommend(one)
    with pytest.raises(NothingToCompare):
        harness.recommend(one, n=1024, heads=2, head_dim=16, dtype="float64")


def slow(q: Any, k: Any, v: Any) -> Any:
    out = v
    for _ in range(40):
        out = out + q @ (k.mT @ v)
    return out


def test_crossover_takes_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    size = {"m": 8, "heads": 1, "head_dim": 16, "budget": 0.05}
    found = harness.crossover("anchor", slow, low=64, high=256, **size)
    assert (found.a, found.b, found.device.partition(":")[0]) == ("anchor", "slow", found.device.partition(":")[0])
    assert found.answer.kind in ("always", "found", "never", "refused")  # refused: beside other work
    assert "slow" in repr(found)
    assert found.as_json()["answer"] == found.sentence
    assert capsys.readouterr().err.startswith("n=64: ")
    with pytest.raises(ValueError, match="crossover chooses n itself"):
        harness.crossover("anchor", "flash", n=64)
    with pytest.raises(ValueError, match="--low 4k must be below --high 128"):
        harness.crossover("anchor", "flash", low="4k", high=128)


def test_recommend_finds_models_and_writes_a_policy_as_the_command_does(
    catalogue: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from making import case, row

    from harness.store.record import Reading
    from harness.store.runs import Store

    with Store.open(tmp_path / "m", metrics=("latency",)) as store:
        of = case(attention="flash", scope="model", h=3, d=64, n=198, options="model=anchorformer_tiny;resolution=224")
        store.append([row(of, Reading(metric="latency", value=3.0, samples=9))], {})
    found = harness.recommend(tmp_path / "m", scope="model")
    assert found.choice is not None
    assert (found.n, found.choice.time.ms) == (198, 3.0)
    both = [*told(), Told("full", n=1024, ms=1.0), Told("full", n=2048, ms=99.0)]
    run = stored(tmp_path / "a", both).folder
    found = harness.recommend(run, emit=tmp_path / "policy.json")
    assert (found.n, found.answers) == (None, ())
    assert found.policy is not None
    assert found.policy.classes == 2
    with pytest.raises(ValueError, match="only a policy was written"):
        _ = found.choice
    assert cli.main(["recommend", str(run), "--emit", str(tmp_path / "policy.json")]) == 0
    assert capsys.readouterr().out == f"{found!r}\n"
