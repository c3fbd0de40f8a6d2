"""Reports: every verdict with its reason, well-formed whatever a case is called."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.check import output
from harness.check.gate import Report
from harness.check.verdict import WORST_FIRST, Finding, accept, exit_code
from harness.errors import FAILURE, INCONCLUSIVE, NOTHING, OK, REGRESSION

HOSTILE = "a<b>&\"'\x00\x1b[31m]]>\ud800é\n|,:%::error::"


def report(*verdicts: str, case: str = "mine:fast n=64", reason: str = "because") -> Report:
    findings = [
        Finding(case=f"{case}{place}", tier=1, check="flops", verdict=verdict, reason=reason, variant="mine")  # type: ignore[arg-type]
        for place, verdict in enumerate(verdicts)
    ]
    return Report(base="abc", head="def", machine="m", device="cpu", findings=findings)


@pytest.mark.parametrize(
    ("verdicts", "code", "strict"),
    [
        (["ok"], OK, OK),
        (["ok", "new"], OK, OK),
        (["ok", "regressed"], REGRESSION, REGRESSION),
        (["ok", "implausible"], REGRESSION, REGRESSION),
        (["regressed", "failed"], FAILURE, FAILURE),
        (["ok", "inconclusive"], OK, INCONCLUSIVE),
        (["void"], OK, INCONCLUSIVE),
        (["not gateable"], OK, INCONCLUSIVE),
        (["changed", "ok"], OK, INCONCLUSIVE),
        (["accepted"], OK, OK),
        (["new", "not comparable"], NOTHING, NOTHING),
        ([], NOTHING, NOTHING),
    ],
)
def test_exit_codes(verdicts, code, strict):
    assert exit_code(report(*verdicts).findings, strict=False) == code
    assert exit_code(report(*verdicts).findings, strict=True) == strict


def test_where_every_case_is_new_nothing_was_compared_whatever_head_shows_alone():
    found = report("ok", "ok").findings
    new = [replace(finding, tier=0, check="presence", verdict="new") for finding in found]
    assert exit_code([*found, *new[:1]], strict=False) == OK
    assert exit_code([*found, *new], strict=False) == NOTHING


def test_acceptance_is_of_one_variant_and_never_of_a_failure():
    findings = report("regressed", "failed", "implausible", "changed").findings
    assert [f.verdict for f in accept(findings, ["mine"])] == ["accepted", "failed", "accepted", "accepted"]
    assert [f.verdict for f in accept(findings, ["other"])] == [f.verdict for f in findings]


@pytest.mark.parametrize("verdict", WORST_FIRST)
def test_every_verdict_is_told_with_its_reason_everywhere(verdict):
    made = report(verdict, reason="the reason of it")
    assert verdict in output.table(made, 0)
    assert verdict in output.markdown(made, 0)
    assert "the reason of it" in output.markdown(made, 0)
    assert json.loads(json.dumps(output.as_json(made, 0)))["findings"][0]["reason"] == "the reason of it"
    if verdict != "ok":
        assert "the reason of it" in output.table(made, 0)
        assert "the reason of it" in output.junit(made) or verdict == "accepted"


@given(st.text(), st.text())
@settings(max_examples=60, deadline=None)
def test_junit_is_well_formed_whatever_names_hold(case, reason):
    for strange in (case, HOSTILE):
        made = report("failed", "regressed", "void", "ok", case=strange, reason=reason + HOSTILE)
        suite = ElementTree.fromstring(output.junit(made).encode("utf-8"))[0]
        assert suite.attrib["tests"] == "4"
        assert (suite.attrib["errors"], suite.attrib["failures"], suite.attrib["skipped"]) == ("1", "1", "1")
        assert [len(testcase) for testcase in suite] == [1, 1, 1, 0]


def test_annotations_cannot_be_forged():
    lines = output.workflow_commands(report("regressed", "void", "ok", case=HOSTILE, reason="50%\n::error::forged"))
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning"]
    assert not any("\n" in line or "\r" in line for line in lines)
    assert lines[0].split("::")[1].startswith("error title=regressed%3A a<b>")
    assert lines[0].endswith("::flops: 50%25%0A::error::forged")


def test_a_summary_row_stays_one_row():
    text = output.markdown(report("regressed", case="a|b\nc"), 1)
    rows = [line for line in text.splitlines() if line.startswith("| regressed")]
    assert len(rows) == 1
    assert "a\\|b c" in rows[0]


def test_nothing_is_cut():
    made = report(*["ok"] * 120)
    assert output.table(made, 0).count("mine:fast") == 120
    assert output.markdown(made, 0).count("mine:fast") == 120


def test_the_table_fits_a_narrow_terminal_and_stays_whole_elsewhere():
    found = report("ok", "regressed", case="mine:fast n=64 b=1 h=6 d=64 float32 forward core cpu", reason="why " * 40)
    found.notes = ["a note of many words " * 5]
    narrow = output.table(found, REGRESSION, width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.split() == output.table(found, REGRESSION).split()
    assert any(len(line) > 60 for line in output.table(found, REGRESSION).splitlines())


def test_a_comment_can_be_found_again_and_is_never_too_long():
    short = output.comment(report("regressed", "ok"), 1)
    assert short.splitlines()[0] == output.COMMENT
    assert output.markdown(report("regressed", "ok"), 1) in short
    long = output.comment(report("regressed", *["ok"] * 900, reason="a reason of some length " * 20), 1)
    assert len(long) <= output.LONGEST_COMMENT
    rows = [line for line in long.splitlines() if line.startswith("| ")][1:]
    assert rows[0].startswith("| regressed")  # the worst come first, and are kept
    left = next(line for line in long.splitlines() if "more cases" in line)
    assert int(left.split()[0]) == 901 - len(rows) > 0
    assert long.rstrip().endswith("1 regressed, 900 ok in 0 s")
