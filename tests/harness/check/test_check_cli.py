"""`harness check` through its command line: a repository whose plugin changes, every exit code, every output.

The deterministic checks run in real workers; timings are made up, since what a shared machine takes is not the gate's
fault.
"""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.check import pairs
from harness.check.pairs import CANARY, Process
from harness.cli import main
from harness.store import runs as store

TINY = ("--plugin", "mine.py", "--attention", "mine", "--n", "48", "--heads", "2", "--head-dim", "16", "--pairs", "8")


@pytest.fixture
def clock(monkeypatch):
    """Timings as told: factors of head over base by round, and of the canary."""
    told = {"factors": [1.0, 1.0], "canary": 1.0, "rounds": 0}
    generator = np.random.default_rng(0)

    def measure(members, groups, how):
        return [one(member.name, member.slot, [key for group in groups for key in group]) for member in members]

    def one(name, slot, keys):
        told["rounds"] += slot == 0
        factor = told["factors"][min(told["rounds"], 2) - 1]
        samples = {}
        for key in keys:
            slower = 1.0 if name == "base" else told["canary"] if key == CANARY else factor
            samples[key] = (slower * np.exp(generator.normal(0, 0.005, 9))).tolist()
        return Process(side=name, slot=slot, samples={key: [values] for key, values in samples.items()})

    monkeypatch.setattr(pairs, "measure", measure)
    return told


def check(capsys, *arguments: str) -> tuple[int, dict]:
    """The exit code and the JSON document; {} where an error message took its place."""
    code = main(["check", *arguments, "--json"])
    heard = capsys.readouterr()
    return code, json.loads(heard.out) if heard.out else {"error": heard.err.splitlines()[-1]}


def verdicts(document: dict) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in document["findings"]}


def test_unchanged_code_passes_and_a_slowdown_is_told_everywhere(repository, clock, capsys, tmp_path, monkeypatch):
    summary, junit = tmp_path / "summary.md", tmp_path / "out" / "slow.xml"
    repository.edit("import math", "# a remark\nimport math")
    code, found = check(capsys, "--against", "HEAD", *TINY, "--strict")
    assert (code, set(verdicts(found).values())) == (0, {"ok", "not comparable"})
    assert verdicts(found)["latency"] == "ok"
    assert clock["rounds"] == 1
    assert repository.git("worktree", "list").count("\n") == 0

    clock.update(factors=[1.3, 1.3], rounds=0)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    comment, history = tmp_path / "comment.md", tmp_path / "history.csv"
    files = ("--junit", str(junit), "--comment", str(comment), "--history", str(history))
    code = main(["check", "--against", "HEAD", *TINY, *files])
    heard = capsys.readouterr()
    assert code == 1, found
    assert "recurred" in heard.out
    assert "::error title=regressed" in heard.err
    assert "::error" not in heard.out
    assert "regressed" in summary.read_text()
    assert ElementTree.parse(junit).getroot()[0].attrib["failures"] == "1"
    assert clock["rounds"] == 2
    assert comment.read_text().startswith("<!-- attention-harness check -->\n### harness check: regression\n")
    assert "| regressed | `mine:" in comment.read_text()
    frame = store.read(history)
    assert set(frame["attention"]) == {"mine"}
    assert {"latency", "flops", "kernels"} <= set(frame["metric"])
    assert frame["commit"].nunique() == frame["run_id"].nunique() == 1
    before = history.read_bytes()
    assert main(["check", "--against", "HEAD", *TINY, "--history", str(history)]) == 1
    assert history.read_bytes().startswith(before)
    assert store.read(history)["run_id"].nunique() == 2
    capsys.readouterr()
    assert main(["history", "mine", str(history), "--metric", "flops"]) == 0
    assert "0 steps in 2 points" in capsys.readouterr().out


def test_a_canary_that_moved_voids_the_run(repository, clock, capsys):
    repository.edit("import math", "# a remark\nimport math")
    clock.update(factors=[1.3, 1.3], canary=1.2)
    code, found = check(capsys, "--against", "HEAD", *TINY, "--strict")
    assert (code, verdicts(found)["latency"]) == (3, "void")


FAULTS = {
    "wrong": "return compute(q, k, v) * 1.01",
    "undefined": "return compute(q, k, v) * float('nan')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "raises": "raise RuntimeError('broken')",
    "extra": "return compute(q, k, v) * 1.0",
}


def with_variants(repository, bodies: dict[str, str]) -> None:
    """A plugin with one variant for each body of its fast backend."""
    lines = [(repository.path / "mine.py").read_text().split("def fast")[0]]
    for name, body in bodies.items():
        lines.append(f"def fast_{name}(q, k, v):\n    {body}\n")
        backends = f"(Backend('fast', fast_{name}), Backend('reference', compute))"
        lines.append(f"{name.upper()} = Spec(name={name!r}, title='T', exact=True, backends={backends})\n")
    (repository.path / "faulty.py").write_text("\n".join(lines))


def test_what_needs_no_clock_is_found_without_one(repository, clock, capsys):
    with_variants(repository, dict.fromkeys((*FAULTS, "sound", "removed"), "return compute(q, k, v)"))
    repository.commit()
    with_variants(repository, {**FAULTS, "sound": "return compute(q, k, v)"})
    few = ("--plugin", "faulty.py", *TINY[4:-2], "--quick")
    code, found = check(capsys, "--against", "HEAD", *few)
    assert code == 5
    told = {f["variant"]: f["check"] for f in found["findings"] if f["verdict"] in ("failed", "regressed")}
    assert told == {**dict.fromkeys(FAULTS, "presence"), "extra": "kernels", "removed": "presence"}
    assert {f["verdict"] for f in found["findings"] if f["variant"] == "sound"} == {"ok", "not comparable"}
    assert clock["rounds"] == 0
    assert repository.git("worktree", "list").count("\n") == 0
    code, found = check(capsys, "--against", "HEAD", *few, "--attention", "extra")
    assert code == 1, found
    code, found = check(capsys, "--against", "HEAD", *few, "--attention", "extra,sound", "--accept", "extra")
    assert (code, {f["verdict"] for f in found["findings"] if f["check"] == "kernels"}) == (0, {"accepted", "ok"})
    code, found = check(capsys, "--against", "HEAD", *few, "--attention", "extra", "--accept", "extr")
    assert (code, "unknown variant 'extr'; did you mean 'extra'?" in found["error"]) == (2, True)


def test_a_plugin_that_base_lacks_has_nothing_to_compare(repository, clock, capsys):
    (repository.path / "new.py").write_text((repository.path / "mine.py").read_text().replace("mine", "fresh"))
    code, found = check(capsys, "--against", "HEAD", "--plugin", "new.py", "--attention", "fresh", *TINY[4:])
    assert code == 4
    assert "nothing to compare" in found["findings"][0]["reason"]


def test_a_base_that_does_not_load_is_nothing_to_compare_with(repository, clock, capsys):
    sound = (repository.path / "mine.py").read_text()
    repository.commit(mine__py="def broken(:")
    repository.commit(mine__py=sound)
    code, found = check(capsys, "--against", "HEAD~1", *TINY)
    assert (code, "does not load, so nothing can be compared" in found["error"]) == (4, True)


def test_only_documents_changed_and_nothing_is_measured(repository, clock, capsys):
    repository.commit(README__md="words")
    code, found = check(capsys, "--against", "HEAD~1", *TINY)
    assert (code, found["findings"][0]["verdict"]) == (0, "ok")
    assert "README.md" in found["findings"][0]["reason"]
    assert clock["rounds"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "--against REV"),
        (["--against", "nowhere"], 2, "unknown revision"),
        (["--against", "HEAD"], 4, "same files"),
        (["--baseline", "none.csv"], 4, "does not exist"),
        (["--baseline", "mine.py"], 2, "foreign columns"),
        (["--update", "b.csv", "--quick"], 2, "leave --quick out"),
        (["--against", "HEAD", "--pairs", "7"], 2, "even number"),
        (["--against", "HEAD", "--pairs", "6"], 2, "at least 8"),
        (["--against", "HEAD", "--pairs", "0"], 2, "at least 8"),
        (["--against", "HEAD", "--quick", "--pairs", "0"], 2, "times nothing"),
        (["--against", "HEAD", "--quick", "--thorough"], 2, "times nothing"),
        (["--against", "HEAD", "--seconds", "0"], 2, "above 0"),
        (["--against", "HEAD", "--metrics", "flops"], 2, "decides itself"),
        (["--against", "HEAD", "--base-python", "/no/python"], 2, "not an interpreter"),
        (["--against", "HEAD", "--plugin", "absent.py"], 2, "no such file"),
        (["--against", "HEAD", "--update", "mine.py/b.csv"], 2, "mine.py is a file"),
        (["--against", "HEAD", "--junit", "."], 2, "cannot be written: it is a folder"),
        (["--self-test", "folder", "--pool", "10"], 2, "at least 80"),
        (["--self-test", "folder", "--trials", "0"], 2, "--trials takes a number of at least 1, not 0"),
        (["--self-test", "folder", "--seconds", "nan"], 2, "above 0"),
        (["--self-test", "folder", "--n", "64", "--against", "HEAD"], 2, "does not heed --n, --against; it goes with"),
        (["--self-test", "folder", "--json"], 2, "does not heed --json"),
        (["--against", "HEAD", "--pool", "240", "--busy"], 2, "--pool, --busy: only with --self-test FOLDER"),
        (["--against", "HEAD", "--n", "many"], 2, "whole numbers"),
    ],
)
def test_what_cannot_be_asked(repository, clock, capsys, arguments, code, says):
    if "--plugin" in arguments:
        repository.edit("import math", "import math  # x")
    assert main(["check", *arguments]) == code
    heard = capsys.readouterr()
    assert (says in heard.err.splitlines()[-1], heard.out) == (True, "")


def test_a_baseline_is_written_whole_compared_and_never_from_a_failure(repository, clock, capsys):
    arguments = TINY[:-2]
    code, found = check(capsys, "--update", "sub/b.csv", *arguments)
    assert (code, found.get("updated")) == (0, "sub/b.csv"), found
    rows = list(csv.DictReader((repository.path / "sub" / "b.csv").open()))
    assert {row["metric"] for row in rows} == {
        "definition", "numeric_error", "flops", "peak_memory", "kernels", "latency"
    }  # fmt: skip
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["latency"], verdicts(found)["flops"]) == (0, "ok", "ok")

    path = repository.path / "sub" / "b.csv"
    whole = path.read_text()
    timed = next(row for row in rows if row["metric"] == "latency")
    path.write_text(whole.replace(f"latency,ms,{timed['value']}", "latency,ms,99.0"))
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["latency"]) == (0, "inconclusive"), "a fall to a hundredth is not to be believed"
    path.write_text(whole.replace("; output=1x2x48x16 float32", ""))
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["output"]) == (5, "failed")
    kept = whole.replace(rows[0]["machine"], "another-machine")
    path.write_text(kept)
    repository.edit("return compute(q, k, v)", "return compute(q, k, v) * 1.0")
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["latency"], verdicts(found)["kernels"]) == (1, "not comparable", "regressed")
    assert "another-machine" in next(f["reason"] for f in found["findings"] if f["check"] == "latency")
    repository.edit('MINE = Spec(name="mine"', 'MINE = Spec(name="yours"')
    code, found = check(capsys, "--baseline", "sub/b.csv", "--update", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["presence"], found["updated"]) == (5, "failed", "")
    assert "was not written" in " ".join(found["notes"])
    assert path.read_text() == kept
    assert not list((repository.path / "sub").glob(".*"))
