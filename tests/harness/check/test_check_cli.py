"""`harness check` through its command line: a repository whose plugin changes, every exit code, every output.

The deterministic checks run in real workers. Timings are made up except in the last test, which asserts no time: what a
shared machine takes is not the gate's fault.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.check import pairs
from harness.check.pairs import CANARY, Process
from harness.cli import main

TINY = ("--plugin", "mine.py", "--attention", "mine", "--n", "48", "--heads", "2", "--head-dim", "16", "--pairs", "8")


@pytest.fixture
def clock(monkeypatch):
    """Timings as told: factors of head over base by round, and of the canary."""
    told = {"factors": [1.0, 1.0], "canary": 1.0, "crash": "", "rounds": 0}
    generator = np.random.default_rng(0)

    def measure(side, name, slot, forms, how):
        told["rounds"] += slot == 0
        factor = told["factors"][min(told["rounds"], 2) - 1]
        samples, failures = {}, {}
        for key in forms:
            slower = 1.0 if name == "base" else told["canary"] if key == CANARY else factor
            if name == told["crash"] and key != CANARY and slot % 3 == 0:
                failures[key] = "the worker was ended by SIGSEGV"
            else:
                samples[key] = (slower * np.exp(generator.normal(0, 0.005, 9))).tolist()
        return Process(side=name, slot=slot, samples=samples, failures=failures)

    monkeypatch.setattr(pairs, "measure", measure)
    return told


def check(capsys, *arguments: str) -> tuple[int, dict]:
    """The exit code and the JSON document; {} where an error message took its place."""
    code = main(["check", *arguments, "--json"])
    heard = capsys.readouterr()
    return code, json.loads(heard.out) if heard.out else {"error": heard.err.splitlines()[-1]}


def verdicts(document: dict) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in document["findings"]}


def test_unchanged_slower_once_slower_twice_and_what_the_canary_voids(repository, clock, capsys, tmp_path, monkeypatch):
    """One pair of workers would do for all of these; each run is one command line."""
    summary = tmp_path / "summary.md"
    repository.edit("import math", "# a remark\nimport math")
    code, found = check(capsys, "--against", "HEAD", *TINY, "--junit", str(tmp_path / "ok.xml"))
    assert (code, set(verdicts(found).values())) == (0, {"ok", "not comparable"})
    assert verdicts(found)["latency"] == "ok"
    assert clock["rounds"] == 1
    assert repository.git("worktree", "list").count("\n") == 0

    clock.update(factors=[1.3, 1.3], rounds=0)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code = main(["check", "--against", "HEAD", *TINY, "--junit", str(tmp_path / "out" / "slow.xml")])
    heard = capsys.readouterr()
    assert code == 1
    assert "recurred" in heard.out
    assert "::error title=regressed" in heard.err
    assert "::error" not in heard.out
    assert "regressed" in summary.read_text()
    assert ElementTree.parse(tmp_path / "out" / "slow.xml").getroot()[0].attrib["failures"] == "1"
    assert clock["rounds"] == 2

    clock.update(factors=[1.3, 1.0], rounds=0)
    code, found = check(capsys, "--against", "HEAD", *TINY)
    assert (code, verdicts(found)["latency"]) == (0, "inconclusive")
    clock.update(factors=[1.3, 1.3], canary=1.2, rounds=0)
    code, found = check(capsys, "--against", "HEAD", *TINY, "--strict")
    assert (code, verdicts(found)["latency"]) == (3, "void")
    clock.update(factors=[0.05, 0.05], canary=1.0, rounds=0)
    code, found = check(capsys, "--against", "HEAD", *TINY)
    assert (code, verdicts(found)["latency"]) == (1, "implausible")
    clock.update(factors=[1.0, 1.0], crash="head", rounds=0)
    code, found = check(capsys, "--against", "HEAD", *TINY)
    assert (code, verdicts(found)["latency"]) == (5, "failed")


@pytest.mark.parametrize(
    ("old", "new", "code", "check_name"),
    [
        ("return compute(q, k, v)", "return compute(q, k, v) * 1.01", 5, "presence"),
        ("return compute(q, k, v)", "return compute(q, k, v) * float('nan')", 5, "presence"),
        ("return compute(q, k, v)", "import os; os.kill(os.getpid(), 9)", 5, "presence"),
        ("return compute(q, k, v)", "raise RuntimeError('broken')", 5, "presence"),
        ("return compute(q, k, v)", "return compute(q, k, v) * 1.0", 1, "kernels"),
        ('MINE = Spec(name="mine"', 'MINE = Spec(name="yours"', 5, "presence"),
    ],
    ids=["wrong", "nan", "crash", "raises", "extra", "removed"],
)
def test_what_needs_no_clock_is_found_without_one(repository, clock, capsys, old, new, code, check_name):
    repository.edit(old, new)
    got, found = check(capsys, "--against", "HEAD", *TINY[:-2], "--quick")
    assert got == code
    assert verdicts(found)[check_name] in ("failed", "regressed")
    assert clock["rounds"] == 0
    assert repository.git("worktree", "list").count("\n") == 0


def test_an_accepted_change_is_reported_and_passes(repository, clock, capsys):
    repository.edit("return compute(q, k, v)", "return compute(q, k, v) * 1.0")
    code, found = check(capsys, "--against", "HEAD", *TINY[:-2], "--quick", "--accept", "mine")
    assert (code, verdicts(found)["kernels"]) == (0, "accepted")


def test_a_plugin_that_base_lacks_has_nothing_to_compare(repository, clock, capsys):
    (repository.path / "new.py").write_text((repository.path / "mine.py").read_text().replace("mine", "fresh"))
    code, found = check(capsys, "--against", "HEAD", "--plugin", "new.py", "--attention", "fresh", *TINY[4:])
    assert code == 4
    assert "nothing to compare" in found["findings"][0]["reason"]


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
        (["--against", "HEAD", "--quick", "--thorough"], 2, "times nothing"),
        (["--against", "HEAD", "--seconds", "0"], 2, "above 0"),
        (["--against", "HEAD", "--metrics", "flops"], 2, "decides itself"),
        (["--against", "HEAD", "--base-python", "/no/python"], 2, "not an interpreter"),
        (["--against", "HEAD", "--plugin", "absent.py"], 2, "no such file"),
        (["--self-test", "folder", "--pool", "10"], 2, "at least 80"),
        (["--against", "HEAD", "--n", "many"], 2, "whole numbers"),
    ],
)
def test_what_cannot_be_asked(repository, clock, capsys, arguments, code, says):
    if "--plugin" in arguments:
        repository.edit("import math", "import math  # x")
    got, found = check(capsys, *arguments)
    assert got == code
    assert says in found["error"]


def test_a_baseline_is_written_whole_compared_and_never_from_a_failure(repository, clock, capsys):
    arguments = TINY[:-2]
    code, found = check(capsys, "--update", "sub/b.csv", *arguments)
    assert (code, found["updated"]) == (0, "sub/b.csv")
    rows = list(csv.DictReader((repository.path / "sub" / "b.csv").open()))
    assert {row["metric"] for row in rows} == {
        "definition", "numeric_error", "flops", "peak_memory", "kernels", "latency"
    }  # fmt: skip
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["latency"], verdicts(found)["flops"]) == (0, "ok", "ok")

    path = repository.path / "sub" / "b.csv"
    kept = path.read_text()
    path.write_text(kept.replace(rows[0]["machine"], "another-machine"))
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["latency"]) == (0, "not comparable")
    assert "another-machine" in next(f["reason"] for f in found["findings"] if f["check"] == "latency")

    path.write_text(kept)
    repository.edit("return compute(q, k, v)", "return compute(q, k, v) * 1.0")
    code, found = check(capsys, "--baseline", "sub/b.csv", "--update", "sub/b.csv", "--plugin", "mine.py")
    assert (code, found["updated"]) == (1, "")
    assert "was not written" in " ".join(found["notes"])
    assert path.read_text() == kept
    repository.edit("* 1.0", "* 1.01")
    code, found = check(capsys, "--update", "sub/b.csv", *arguments)
    assert (code, found["updated"]) == (5, "")
    assert path.read_text() == kept
    repository.edit('MINE = Spec(name="mine"', 'MINE = Spec(name="yours"')
    code, found = check(capsys, "--baseline", "sub/b.csv", "--plugin", "mine.py")
    assert (code, verdicts(found)["presence"]) == (5, "failed")
    assert not list((repository.path / "sub").glob(".*"))


@pytest.mark.slow
def test_real_extra_work_in_real_processes_is_a_regression(repository):
    """Twenty times the work, one thread, eight pairs: more than any neighbour's noise."""
    again = "\n    for _ in range(20):\n        out = compute(q, k, v)\n    return out"
    repository.edit("\n    return compute(q, k, v)", again)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "check", "--against", "HEAD", *TINY, "--seconds", "0.02", "--json"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert verdicts(found)["latency"] in ("regressed", "void")
    assert verdicts(found)["kernels"] == "regressed"
    assert "[16/16]" in done.stderr
