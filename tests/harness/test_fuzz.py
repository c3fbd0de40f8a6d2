"""Damaged input of every kind: each parser answers in a sentence or reads it, and leaves the file as it is.

Valid files are changed byte by byte, as a fuzzer does: flipped, cut, doubled, and given what parsers trip over.
What raises anything but harness' own errors, or prints "a fault of harness", is a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import making
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import cli
from harness.answers.compare import compare
from harness.cases.filters import only
from harness.cases.space import Sweep, read_toml
from harness.check import baseline
from harness.check.deterministic import METRICS, Facts
from harness.cli._axes import _pairs
from harness.errors import Failure, UsageError
from harness.store import runs as store
from harness.store.pivot import pivot
from harness.store.record import SAMPLE_COLUMNS, Reading
from harness.store.selection import labelled
from harness.store.table import render

OWN = (UsageError, Failure)  # what a command turns into one line and an exit code
CODES = {0, 2, 4, 5}
TRIPS = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b'"', b'""', b",", b";", b"=", b"'", b"\\",
    b"NaN", b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"9" * 40, b"1e-400",
    b"None", b"true", b"[]", b"{}", b"[[", b"\xc2\xa0", b"..",
    b"k", b"../../x", b"=1+1", b"\xe2\x80\xae", b"<script>", b"%s", b"{0}", b"\t", b" ",
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "double", "cut", "trip"]), st.floats(0, 1), st.integers(0, 255),
        st.sampled_from(TRIPS),
    ),
    min_size=1, max_size=6,
)  # fmt: skip

fuzz = settings(
    derandomize=True, max_examples=int(os.environ.get("HARNESS_FUZZ", "60")), deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def changed(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    """The bytes after each change in turn."""
    for kind, share, number, trip in changes:
        at = int(share * len(data))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (number or 1)]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + bytes([number]) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + number % 40 :]
        elif kind == "double":
            data = data[:at] + data[at : at + 1 + number] * 2 + data[at + 1 + number :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "trip":
            data = data[:at] + trip + data[at:]
    return data


def measurements() -> bytes:
    """A small run's rows: two variants, two sizes, one failure."""
    cases = [making.case(attention=name, n=n) for name in ("full", "flash") for n in (64, 128)]
    rows = [row for case in cases for row in making.rows(case, note='said "so", twice')]
    rows += making.failed(making.case(n=256))
    buffer = io.StringIO()
    _write(buffer, store.COLUMNS, [row.cells() for row in rows])
    return buffer.getvalue().encode()


def samples() -> bytes:
    buffer = io.StringIO()
    _write(buffer, SAMPLE_COLUMNS, [[making.case().case_id, "latency", at, 1.0 + at / 7] for at in range(12)])
    return buffer.getvalue().encode()


def stored_baseline() -> bytes:
    readings = {name: Reading(metric=name, value=1.5, samples=1, note="sequence=ab; output=1x2") for name in METRICS}
    definition = {"fields": "abc", "size": 2.5, "projections": [0.5, -1.25]}
    facts = Facts(readings=readings, definition=definition, toolchain="torch 2")
    measured = [(making.case(n=n), facts, [1.0, 1.1, 1.2]) for n in (64, 128)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "baseline.csv")
        baseline.write(path, baseline.rows_of(measured, machine="here", commit="c0ffee"))
        return path.read_bytes()


def _write(buffer: io.StringIO, header: tuple[str, ...], rows: list[list[object]]) -> None:
    import csv

    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


SWEEP = Sweep.parse({"n": "1k..4k", "set": {"anchor.init": "paper"}, "attention": "full,anchor"}).to_toml().encode()
ENVIRONMENT = json.dumps(
    {
        "schema": 1,
        "machine": "here",
        "device": "cpu",
        "kinds": {"full": "exact"},
        "wall_s": 3.5,
        "ceilings": {"cpu": {"copy_gb_per_s": 10.5, "matmul_tflops": {"float32": 0.1}}},
        "declared": {"full": {"flops_n": 2, "flops_m": 0}},
        "environment": {"cpu": {"model": "x", "affinity_cores": 2}},
        "sessions": [{"canary_ms": [[0.1, 2.5]], "canary_drift": 0.01, "wall_s": 3.5, "seconds": {"latency": 1.5}}],
    }
).encode()


@contextlib.contextmanager
def run_of(**files: bytes) -> Iterator[Path]:
    """A run folder with these files, which must hold the same bytes at the end and no other files beside them."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        folder.mkdir()
        for name, data in files.items():
            (folder / name.replace("_", ".")).write_bytes(data)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        yield folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def answered(call: Callable[[], object]) -> None:
    """The call returns, or raises one of harness' own errors with a message of one line that prints."""
    try:
        call()
    except OWN as error:
        text = str(error)
        assert text
        " ".join(text.split()).encode("utf-8", errors="backslashreplace")


def command(*words: str) -> None:
    """A command line ends with one of its codes and, where it fails, with one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(words))
    assert "a fault of harness" not in err.getvalue(), err.getvalue()
    assert code in CODES
    assert len(err.getvalue().splitlines()) <= 3


AXIS_WORDS = st.lists(
    st.sampled_from([b.decode("latin-1") for b in TRIPS] + ["1k", "64", "M", "4096", "forward", "full"])
)


@fuzz
@given(st.sampled_from(sorted(Sweep.model_fields)), AXIS_WORDS.map("".join) | st.text(max_size=30))
@example("n", "1..1073741824")
@example("n", "1k..")
@example("m", "٣")
@example("set", "\ud800")
def test_axes(key: str, text: str) -> None:
    answered(lambda: Sweep.parse({key: text}))
    answered(lambda: Sweep.parse({key: [text, text]}))
    answered(lambda: Sweep.parse({"set": _pairs([text])}))


@fuzz
@given(CHANGES)
def test_sweep_files(changes: list[tuple[str, float, int, bytes]]) -> None:
    with run_of(sweep_toml=changed(SWEEP, changes)) as folder:
        path = folder / "sweep.toml"
        answered(lambda: Sweep.parse(read_toml(path), source=str(path)))


@fuzz
@given(CHANGES)
def test_measurements(changes: list[tuple[str, float, int, bytes]]) -> None:
    with run_of(measurements_csv=changed(MEASUREMENTS, changes), samples_csv=SAMPLES) as folder:

        def use() -> None:
            frame = labelled(store.read(folder))
            for metric in list(dict.fromkeys(frame["metric"]))[:4]:
                render(pivot(frame, metric), width=80)
            only(frame, attention=["full"], n=["64"])
            compare(folder, folder, metrics=("latency",))

        answered(use)
        command("show", str(folder))
        command("show", str(folder), "--json")


@fuzz
@given(CHANGES)
def test_samples(changes: list[tuple[str, float, int, bytes]]) -> None:
    with run_of(measurements_csv=MEASUREMENTS, samples_csv=changed(SAMPLES, changes)) as folder:
        answered(lambda: store.read_samples(folder))
        answered(lambda: compare(folder, folder, metrics=("latency",)))


@fuzz
@given(CHANGES)
def test_environment(changes: list[tuple[str, float, int, bytes]]) -> None:
    with run_of(measurements_csv=MEASUREMENTS, environment_json=changed(ENVIRONMENT, changes)) as folder:
        answered(lambda: store.read_environment(folder))
        command("show", str(folder))
        command("compare", str(folder), str(folder))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 50_000, '{"schema": 1e999}', '{"schema": "2"}', "NaN", '{"schema": [1]}', "\ufeff{}"]
)  # fmt: skip
def test_environments_that_parsers_trip_over(text: str) -> None:
    with run_of(measurements_csv=MEASUREMENTS, environment_json=text.encode()) as folder:
        answered(lambda: store.read_environment(folder))
        command("show", str(folder))


@fuzz
@given(CHANGES)
def test_baselines(changes: list[tuple[str, float, int, bytes]]) -> None:
    with run_of(baseline_csv=changed(BASELINE, changes)) as folder:
        answered(lambda: baseline.read(folder / "baseline.csv"))


MEASUREMENTS, SAMPLES, BASELINE = measurements(), samples(), stored_baseline()


def test_the_seeds_are_valid() -> None:
    """Without this, a seed that is refused at once would let every test above pass."""
    with run_of(
        measurements_csv=MEASUREMENTS, samples_csv=SAMPLES, environment_json=ENVIRONMENT, sweep_toml=SWEEP,
        baseline_csv=BASELINE,
    ) as folder:  # fmt: skip
        assert len(store.read(folder)) == 9
        assert len(store.read_samples(folder)) == 12
        assert store.read_environment(folder)["machine"] == "here"
        assert Sweep.parse(read_toml(folder / "sweep.toml")).n == (1024, 2048, 4096)
        assert len(baseline.read(folder / "baseline.csv").cases) == 2


@pytest.mark.parametrize("name", ["measurements.csv", "samples.csv", "environment.json", "sweep.toml"])
def test_links_out_of_a_run_are_not_followed(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes({"measurements.csv": MEASUREMENTS, "samples.csv": SAMPLES}.get(name, ENVIRONMENT))
    run = tmp_path / "run"
    run.mkdir()
    (run / "measurements.csv").write_bytes(MEASUREMENTS)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    readers = {
        "samples.csv": store.read_samples, "environment.json": store.read_environment, "sweep.toml": store.read_sweep
    }  # fmt: skip
    with pytest.raises(store.StoreError, match="it is a link, and links inside a run are not followed"):
        readers.get(name, store.read)(run)
    with pytest.raises(store.StoreError, match="it is a link"):
        store.check_folder(run, resume=True)


def test_a_link_to_a_run_is_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "measurements.csv").write_bytes(MEASUREMENTS)
    (tmp_path / "link").symlink_to(run)
    assert len(store.read(run)) == len(store.read(tmp_path / "link")) == 9
    (run / "samples.csv").symlink_to("samples.csv")  # a loop
    answered(lambda: store.read_samples(run))


def test_figures_are_not_written_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (run / "measurements.csv").write_bytes(MEASUREMENTS)
    (run / "figures").symlink_to(outside)
    assert cli.main(["plot", str(run), "--figure", "latency", "--format", "png"]) == 2
    assert "leads out of the run" in capsys.readouterr().err
    assert not list(outside.iterdir())


def test_a_planted_partial_file_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    run = tmp_path / "run"
    with store.Store.open(run, metrics=("latency",)) as opened:
        (run / ".environment.json.partial").symlink_to(victim)
        opened.write_json("environment.json", {"schema": 1})
    assert victim.read_text() == "mine"
    assert not (run / "environment.json").is_symlink()
