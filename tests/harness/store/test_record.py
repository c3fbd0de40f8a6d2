"""Cases have stable names, rows are CSV that every reader and spreadsheet takes as text and numbers."""

from __future__ import annotations

import csv
import io
import math

import making
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.store.record import (
    COLUMNS,
    CONTROLS,
    FORMULA_STARTS,
    TASK_UNITS,
    UNITS,
    Case,
    Reading,
    alike,
    canonical_options,
    cell,
    off_default,
    parse_options,
    stated,
)


def test_a_case_keeps_its_id() -> None:
    """Stored runs are matched by this id: a change to it orphans them all."""
    assert making.CASE.case_id == "e3cc8806c676"
    anchor = making.case(attention="anchor", backend="sdpa", m=16, options="init=paper;scale=2.0", seed=7)
    assert anchor.case_id == "0684dba10a15"


@pytest.mark.parametrize("field", list(Case.__dataclass_fields__))
def test_every_field_tells_cases_apart(field: str) -> None:
    old = getattr(making.CASE, field)
    changed = making.case(**{field: old + 1 if isinstance(old, int) else 8 if field == "m" else f"{old}x"})
    assert changed.case_id != making.CASE.case_id


def test_parsed_options_at_their_defaults_are_left_out() -> None:
    usual = {"init": "sharp", "scale": 1.0, "bias": False}
    assert off_default({"init": "sharp", "scale": 1.0, "bias": False}, usual) == {}
    assert off_default({"init": "paper", "scale": 2.0, "bias": False}, usual) == {"init": "paper", "scale": 2.0}


def test_an_option_at_its_default_is_not_stated() -> None:
    usual = {"init": "sharp", "scale": "1.0", "bias": "False", "local": "0"}
    assert stated({"init": "sharp", "scale": "1", "bias": "false", "local": "0"}, usual) == {}
    told = {"init": "paper", "scale": "2", "bias": "true", "local": "3", "other": "sharp"}
    assert stated(told, usual) == told
    assert stated(told, {}) == told


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True), ("1e0", "1", True), ("True", "true", True), ("yes", "true", True), ("0", "False", True),
        ("1", "false", False), ("sharp", "sharp", True), ("sharp", "Sharp", False), ("nan", "nan", True),
        ("maybe", "true", False), ("true", "maybe", False), ("2", "1", False), ("", "0", False),
    ],
)  # fmt: skip
def test_texts_of_one_value(one: str, other: str, same: bool) -> None:
    assert alike(one, other) == alike(other, one) == same


def test_a_case_reads_as_it_is_asked_for() -> None:
    assert str(making.case(attention="anchor", backend="", m=16, options="init=paper")) == (
        "anchor n=64 m=16 b=1 h=2 d=16 float32 forward core cpu init=paper"
    )
    assert making.CASE.label == "full:reference"


def test_the_columns_are_frozen() -> None:
    assert ",".join(COLUMNS) == (
        "run_id,case_id,time_utc,machine,commit,attention,backend,scope,phase,b,h,n,d,m,dtype,device,options,seed,"
        "metric,unit,value,ci_low,ci_high,p20,p80,samples,status,note"
    )


def test_a_row_has_a_cell_for_each_column_and_the_unit_of_its_metric() -> None:
    for metric, unit in (UNITS | TASK_UNITS).items():
        row = making.row(making.CASE, Reading(metric=metric, value=2.0))
        named = dict(zip(COLUMNS, row.cells(), strict=True))
        assert (named["unit"], named["value"], named["m"], named["ci_low"]) == (unit, "2.0", "", "")


def test_a_rate_turns_the_interval_round() -> None:
    latency = Reading(metric="latency", value=2.0, ci_low=1.0, ci_high=4.0, p20=1.5, p80=3.0, samples=9)
    rate = latency.per(8.0, metric="throughput")
    assert (rate.value, rate.ci_low, rate.ci_high, rate.p20, rate.p80, rate.samples) == (4, 2, 8, 8 / 3, 8 / 1.5, 9)
    assert Reading(metric="latency").per(8.0, metric="throughput").value is None


@given(st.one_of(st.floats(), st.floats(width=32).map(np.float32), st.floats().map(np.float64)))
def test_a_float_reads_back_equal(value: float) -> None:
    back = float(cell(value))
    assert back == value or (math.isnan(back) and math.isnan(value))


@given(st.text())
def test_text_is_one_cell_of_one_line(text: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["first", cell(text), "last"])
    line = buffer.getvalue()
    assert len(line.splitlines()) == 1
    first, middle, last = next(csv.reader([line]))
    assert (first, last) == ("first", "last")
    assert middle.removeprefix("'") == CONTROLS.sub(" ", text).encode("utf-8", "replace").decode().removeprefix("'")


@given(st.sampled_from(["", " ", "\t", "\r\n", "\u00a0"]), st.sampled_from(FORMULA_STARTS), st.text())
def test_a_spreadsheet_runs_nothing(space: str, start: str, rest: str) -> None:
    assert cell(f"{space}{start}{rest}").startswith("'")


@pytest.mark.parametrize("formula", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1"])
def test_formulas_are_inert(formula: str) -> None:
    assert cell(formula).startswith("'")


def test_numbers_and_harmless_text_stay_as_they_are() -> None:
    assert [cell(x) for x in (-1.5, -3, "a=b", "5-4", "", "'x")] == ["-1.5", "-3", "a=b", "5-4", "", "'x"]


@given(st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), st.from_regex("[^;\n\r]{0,9}", fullmatch=True)))
def test_options_have_one_spelling(options: dict[str, str]) -> None:
    text = canonical_options(options)
    assert text == canonical_options(dict(reversed(options.items())))
    assert parse_options(text) == options
