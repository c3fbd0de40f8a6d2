"""Damaged input of every kind: each reader answers in a sentence or takes it, and keeps what it promises.

A slice of what `make fuzz` does (campaign), by Hypothesis, which makes a failing input small; and every input that ever
failed. What raises anything but harness' own errors is a fault.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
from pathlib import Path

import pytest
from campaign import ALL, SEEDS, fault
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutation import KINDS, TRIPS, Change, changed, mutated
from readers import OWN, a_run, measurements, quietly

from harness import cli
from harness.cases.settings import pairs
from harness.cases.space import Sweep

CODES = {0, 2, 4, 5}
CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 255), st.sampled_from(TRIPS)),
    min_size=1, max_size=6,
)  # fmt: skip
AXIS_WORDS = st.lists(
    st.sampled_from([text.decode("latin-1") for text in TRIPS] + ["1k", "64", "M", "4096", "forward", "full"])
)

fuzz = settings(
    derandomize="HARNESS_FUZZ" not in os.environ, max_examples=int(os.environ.get("HARNESS_FUZZ", "20")), deadline=None,
    database=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_the_seeds_are_taken(name: str) -> None:
    """Without this, a seed that is refused at once would let every test below pass."""
    for seed in ALL[name].seeds()[: 1 if name == "checkpoint" else None]:  # its second holds weights alone
        assert quietly(ALL[name], seed)


@pytest.mark.parametrize("name", ALL)
@given(place=st.integers(0, 4), changes=CHANGES)
@fuzz
def test_a_changed_input_is_taken_or_refused_in_a_sentence(name: str, place: int, changes: list[Change]) -> None:
    seeds = ALL[name].seeds()
    quietly(ALL[name], changed(seeds[place % len(seeds)], changes))


@pytest.mark.parametrize("name", ALL)
def test_so_is_one_with_other_values(name: str) -> None:
    """Of a document, numbers where lists were, and the like."""
    draw = random.Random(5)
    for _ in range(5 if name == "report" else 15):
        data = mutated(draw, ALL[name].seeds())
        assert not fault(name, data), data


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*-*")), ids=lambda path: path.name)
def test_what_failed_once_does_not_fail_again(path: Path) -> None:
    assert not fault(path.name.split("-")[0], path.read_bytes())


@given(st.sampled_from(sorted(Sweep.model_fields)), AXIS_WORDS.map("".join) | st.text(max_size=30))
@example("n", "1..1073741824")
@example("n", "1k..")
@example("m", "٣")
@example("set", "\ud800")
@fuzz
def test_axes(key: str, text: str) -> None:
    for call in (
        lambda: Sweep.parse({key: text}), lambda: Sweep.parse({key: [text, text]}),
        lambda: Sweep.parse({"set": pairs([text])}),
    ):  # fmt: skip
        with contextlib.suppress(*OWN):
            call()


@given(changes=CHANGES, words=st.sampled_from(["show {}", "show {} --json", "show {} --csv", "compare {} {}"]))
@fuzz
def test_a_command_ends_with_one_of_its_codes_and_one_line(changes: list[Change], words: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a_run(Path(folder), measurements_csv=changed(measurements(), changes))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([word.format(folder) for word in words.split()])
        said = err.getvalue()
        assert code in CODES
        assert "a fault of harness" not in said, said
        assert len(said.splitlines()) <= 3
        assert not [letter for letter in said if not (letter.isprintable() or letter == "\n")]


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 50_000, '{"schema": 1e999}', '{"schema": "2"}', "NaN", '{"schema": [1]}', "\ufeff{}",
     '{"sessions": 3}', '{"ceilings": "fast"}', '{"wall_s": ' + "9" * 400 + "}", '{"wall_s": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_environments_that_parsers_trip_over(text: str) -> None:
    assert fault("environment", text.encode()) in ("", None)
