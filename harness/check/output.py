"""What the gate came out with, as text, JSON, JUnit XML, a Markdown summary and GitHub annotations. Pure formatting.

print(table(report, code)); junit(report)    # well-formed whatever a case or reason holds
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from harness.check.gate import Report
from harness.check.verdict import EMPTY, OPEN, WORSE, WORST_FIRST, Finding, worst
from harness.errors import FAILURE, INCONCLUSIVE, NOTHING, OK, REGRESSION

MEANING = {
    OK: "ok", REGRESSION: "regression", INCONCLUSIVE: "inconclusive", NOTHING: "nothing was compared",
    FAILURE: "a variant fails",
}  # fmt: skip
NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
BAD = ("failed", *WORSE)
WIDEST, NARROWEST = 104, 40
COMMENT, LONGEST_COMMENT = "<!-- attention-harness check -->", 65_000  # GitHub takes 65,536 letters


def table(report: Report, code: int, *, width: int | None = None) -> str:
    """One block a case: its verdict, its time ratio, and every check that is not ok with its reason.

    width: of the terminal that it is for, where it is for one; a name is never cut.
    """
    lines = [*_wrapped(_heading(report), 0, width), ""]
    for case, findings in _by_case(report).items():
        deciding = worst(findings)
        timing = next((f for f in findings if f.check == "latency"), None)
        lines += _wrapped(f"{deciding.verdict:<15} {case}{_ratio(timing)}", 16, width)
        counted = [f for f in findings if f.verdict == "ok" and f is not timing]
        if counted:
            lines += _wrapped(f"{'':<15} ok: {', '.join(f.check for f in counted)}", 18, width)
        for finding in findings:
            if finding.verdict != "ok" or finding is timing:
                text = f"{'':<15} {finding.check} {finding.verdict}: {finding.reason}"
                lines += _wrapped(text, 18, min(width or WIDEST, WIDEST))
    lines += [""] if report.notes else []
    for note in report.notes:
        lines += _wrapped(f"note: {note}", 6, width)
    if report.updated:
        lines.append(f"wrote {report.updated}")
    return "\n".join([*lines, "", _sum(report, code)])


def as_json(report: Report, code: int) -> dict[str, Any]:
    """The whole report as one JSON object."""
    return {**asdict(report), "exit_code": code, "verdict": MEANING[code]}


def junit(report: Report) -> str:
    """JUnit XML: one test case a check; regressions are failures, crashes errors, what is open or empty skipped."""
    groups = Counter(_kind(finding) for finding in report.findings)
    suite = ElementTree.Element(
        "testsuite", name="harness check", tests=str(len(report.findings)), failures=str(groups["failure"]),
        errors=str(groups["error"]), skipped=str(groups["skipped"]), time=f"{report.wall_s:.3f}",
    )  # fmt: skip
    for finding in report.findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(finding.case), name=_xml(finding.check), time="0"
        )  # fmt: skip
        kind = _kind(finding)
        if kind:
            inner = ElementTree.SubElement(case, kind, message=_xml(f"{finding.verdict}: {finding.reason}"))
            if kind != "skipped":
                inner.set("type", finding.verdict)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(report: Report, code: int) -> str:
    """For $GITHUB_STEP_SUMMARY: the cases worst first, never cut."""
    lines = [f"### harness check: {MEANING[code]}", "", _heading(report), ""]
    lines += ["| verdict | case | time, head / base | why |", "|---|---|---|---|"]
    cases = sorted(_by_case(report).items(), key=lambda entry: WORST_FIRST.index(worst(entry[1]).verdict))
    for case, findings in cases:
        timing = next((f for f in findings if f.check == "latency"), None)
        why = [f"{f.check} {f.verdict}: {f.reason}" for f in findings if f.verdict != "ok"] or [worst(findings).reason]
        cells = (worst(findings).verdict, f"`{case}`", _ratio(timing).strip() or "not timed", "<br>".join(why))
        lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    lines += ["", *(f"- {_markdown(note)}" for note in report.notes), "", _sum(report, code), ""]
    return "\n".join(lines)


def comment(report: Report, code: int) -> str:
    """For a comment on a pull request: the same below a mark to find it by, cut where a comment may be no longer."""
    text = f"{COMMENT}\n{markdown(report, code)}"
    if len(text) <= LONGEST_COMMENT:
        return text
    lines = text.splitlines()
    rows = [at for at, line in enumerate(lines) if line.startswith("| ")][1:]  # without the heading
    end = _sum(report, code)
    room, kept = LONGEST_COMMENT - len(end) - 200, 0
    for at in rows:
        if sum(map(len, lines[: at + 1])) + at > room:
            break
        kept += 1
    first = lines[: rows[kept]] if kept < len(rows) else lines[: rows[-1] + 1]
    return "\n".join([*first, "", f"{len(rows) - kept} more cases: the job's summary has them.", "", end, ""])


def workflow_commands(report: Report) -> list[str]:
    """GitHub workflow commands: an error for what fails the gate, a warning for what stays open."""
    lines = []
    for finding in report.findings:
        level = "error" if finding.verdict in BAD else "warning" if finding.verdict in OPEN else None
        if level:
            title = _command(f"{finding.verdict}: {finding.case}", {":": "%3A", ",": "%2C"})
            lines.append(f"::{level} title={title}::{_command(f'{finding.check}: {finding.reason}', {})}")
    return lines


def _heading(report: Report) -> str:
    sides = f"{report.head or 'this checkout'}" + (f" against {report.base}" if report.base else "")
    where = f" on {report.machine} ({report.device})" if report.machine else ""
    pairs = f", {report.pairs} pairs of processes" if report.pairs else ""
    return f"{sides}{where}{pairs}"


def _sum(report: Report, code: int) -> str:
    counted = Counter(worst(findings).verdict for findings in _by_case(report).values())
    parts = ", ".join(f"{counted[verdict]} {verdict}" for verdict in WORST_FIRST if counted[verdict])
    return f"{MEANING[code]}: {parts or 'no case'} in {report.wall_s:.0f} s"


def _by_case(report: Report) -> Mapping[str, Sequence[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.case, []).append(finding)
    return found


def _ratio(timing: Finding | None) -> str:
    if timing is None or timing.ratio is None:
        return ""
    interval = f" ({timing.low:.3f} to {timing.high:.3f})" if timing.low is not None and timing.high is not None else ""
    clock = " CPU time" if timing.clock == "cpu" else ""
    return f"  ×{timing.ratio:.3f}{interval}{clock}"


def _kind(finding: Finding) -> str:
    if finding.verdict in WORSE:
        return "failure"
    if finding.verdict == "failed":
        return "error"
    return "skipped" if finding.verdict in (*OPEN, *EMPTY) else ""


def _wrapped(text: str, indent: int, width: int | None) -> list[str]:
    """The text as lines of at most `width`, as one where that is None; those after the first set in by `indent`."""
    if width is None or len(text) <= width:
        return [text]
    room = max(width, NARROWEST)
    return textwrap.wrap(text, room, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _xml(text: str) -> str:
    """The text without the characters that XML 1.0 has no way to hold."""
    return NOT_XML.sub("\ufffd", text)


def _markdown(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _command(text: str, more: Mapping[str, str]) -> str:
    for plain, coded in {"%": "%25", "\r": "%0D", "\n": "%0A", **more}.items():
        text = text.replace(plain, coded)
    return text
