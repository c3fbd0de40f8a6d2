"""What a run of somebody else must pass: each way of being wrong is found, by name, and a sound run passes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest

from harness import stats
from harness.check.contributed import CHECKS, Fault, faults
from harness.store import runs as store
from harness.store.contention import contended
from harness.store.record import COLUMNS, Reading, Row
from harness.store.runs import Store, StoreError

RESULTS = Path(__file__).parents[3] / "results"
COPY, RATE = 20.0, 0.1  # GB/s, TFLOP/s
RAW = [2.0 + 0.01 * at for at in range(20)]
CASES = [making.case(n=n) for n in (64, 128)]


def readings(n: int, latency: Reading) -> list[Reading]:
    """The figures of a case of one definition, as its metrics make them of the latency."""
    flops, moved = 1000 * n, 256 * n
    least = max(moved / COPY / 1e6, flops / RATE / 1e9)
    return [
        latency,
        latency.per(1e3 * n, metric="throughput"),
        Reading(metric="flops", value=flops, samples=1),
        latency.per(flops / 1e9, metric="flops_rate"),
        Reading(metric="bytes_moved", value=moved / 2**20, samples=1),
        latency.per(least, metric="roofline_fraction"),
        Reading(metric="energy", status="unsupported", note="no counter"),
    ]


def write(folder: Path, *, why: str = "") -> Path:
    """A sound run of two cases, with environment.json as a session writes it. why: the first case was contended."""
    told = stats.summarise(RAW)
    latency = Reading(
        metric="latency", value=told.median, ci_low=told.ci_low, ci_high=told.ci_high, samples=len(RAW),
        p20=told.p20, p80=told.p80,
    )  # fmt: skip
    with Store.open(folder, metrics=("latency",)) as run:
        for case in CASES:
            mine = why if case is CASES[0] else ""
            marked = [contended(reading, mine, factor=1.5) for reading in readings(case.n, latency)]
            run.append([making.row(case, reading) for reading in marked], {"latency": RAW})
        session = {
            "canary_ms": [[0.1, 4.0], [1.0, 4.2], [2.0, 4.1]], "wall_s": 3.0, "cases": 2, "cases_taken_again": 0,
            "contended_cases": {CASES[0].case_id: why} if why else {}, "suspect_cases": {},
        }  # fmt: skip
        run.write_json(store.ENVIRONMENT, {
            "schema": 1, "run_id": "run", "machine": "here-2c-000000", "commit": "c0ffee", "device": "cpu",
            "environment": {"cpu": {"caches_bytes": {"L2": 1024}, "affinity_cores": 1}},
            "ceilings": {"cpu": {"copy_gb_per_s": COPY, "matmul_tflops": {"float32": RATE}}}, "sessions": [session],
        })  # fmt: skip
    return folder


def edit_rows(folder: Path, change: Callable[[dict[str, str]], Any]) -> None:
    """Rewrite the rows of a run, those for which `change` returns False left out."""
    path = folder / store.MEASUREMENTS
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if change(row) is not False]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def edit_environment(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / store.ENVIRONMENT
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def of(metric: str, **values: str) -> Callable[[dict[str, str]], None]:
    """Give the first case's row of a metric other values."""

    def change(row: dict[str, str]) -> None:
        if (row["metric"], row["n"]) == (metric, "64"):
            row.update(values)

    return change


def environment(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit_environment(folder, lambda document: document.update(values))


def rows(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_rows(folder, change)


def session(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit_environment(folder, lambda document: document["sessions"][0].update(values))


def ceiling(copy: float, rate: float) -> Callable[[Path], None]:
    return environment(ceilings={"cpu": {"copy_gb_per_s": copy, "matmul_tflops": {"float32": rate}}})


def without_samples(folder: Path) -> None:
    (folder / store.SAMPLES).unlink()


def orphans(folder: Path) -> None:
    with (folder / store.SAMPLES).open("a") as file:
        file.write("feedfeedfeed,latency,0,1.0\n")


def damaged_samples(folder: Path) -> None:
    path = folder / store.SAMPLES
    path.write_text(path.read_text().replace(",latency,3,", ",latency,three,"))


def damaged_environment(folder: Path) -> None:
    (folder / store.ENVIRONMENT).write_text("{")


def linked_samples(folder: Path) -> None:
    (folder / store.SAMPLES).rename(folder.parent / "elsewhere.csv")
    (folder / store.SAMPLES).symlink_to(folder.parent / "elsewhere.csv")


def twice(folder: Path) -> None:
    path = folder / store.MEASUREMENTS
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")


def quicker(row: dict[str, str]) -> None:
    """Latency a thousandth, and all that is made of it: agreeing figures that no device reaches."""
    if row["metric"] in ("throughput", "flops_rate", "roofline_fraction"):
        row.update({name: repr(float(row[name]) * 1e4) for name in ("value", "ci_low", "ci_high", "p20", "p80")})
    if row["metric"] == "latency":
        row.update({name: repr(float(row[name]) / 1e4) for name in ("value", "ci_low", "ci_high", "p20", "p80")})


def quicker_with_samples(folder: Path) -> None:
    edit_rows(folder, quicker)
    path = folder / store.SAMPLES
    head, *lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    path.write_text("\n".join([head, *(",".join([*c[:3], repr(float(c[3]) / 1e4)]) for c in cells)]) + "\n")


def other_backend(folder: Path) -> None:
    """The same definition by another backend, which claims to do less."""
    case = replace(CASES[0], backend="fused")

    def change(row: dict[str, str]) -> None:
        if row["n"] == "128":
            row.update({"backend": "fused", "n": "64", "case_id": case.case_id})
            if row["metric"] in ("throughput",):
                row.update({name: repr(float(row[name]) / 2) for name in ("value", "ci_low", "ci_high")})

    edit_rows(folder, change)
    path = folder / store.SAMPLES
    path.write_text(path.read_text().replace(CASES[1].case_id, case.case_id))


WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no environment": (lambda folder: (folder / store.ENVIRONMENT).unlink(), "schema", "does not tell run_id"),
    "a damaged environment": (damaged_environment, "schema", "is damaged"),
    "a damaged sample": (damaged_samples, "schema", "a sample cannot be read: line 5: index is 'three'"),
    "samples elsewhere": (linked_samples, "schema", "links inside a run are not followed"),
    "no commit": (rows(lambda row: row.update(commit="")), "schema", "14 rows do not tell commit"),
    "no time": (rows(of("flops", time_utc="yesterday")), "schema", "no time in UTC, such as 'yesterday'"),
    "a damaged row": (rows(of("flops", n="many")), "schema", "a row cannot be read"),
    "another machine": (rows(lambda row: row.update(machine="x")), "schema", "the machine x, on which times"),
    "another size": (rows(lambda row: row.update(d="32")), "identity", "and its fields say"),
    "a row twice": (twice, "identity", "stands there twice"),
    "another unit": (rows(of("latency", unit="s")), "units", "is in 's', not 'ms'"),
    "a failure without reason": (rows(of("energy", note="")), "units", "does not say why"),
    "no figure": (rows(of("flops", value="")), "units", "ok and has no finite value"),
    "another median": (rows(of("latency", value="1.5")), "samples", "the median of its samples is 2.095"),
    "a narrower interval": (rows(of("latency", ci_low="2.09")), "samples", "the 95 % interval of its samples"),
    "no samples": (without_samples, "samples", "samples.csv holds 0"),
    "samples of nothing": (orphans, "samples", "feedfeedfeed that has no row"),
    "another throughput": (rows(of("throughput", value="1.0")), "agreement", "throughput of full:reference n=64"),
    "another rate": (rows(of("flops_rate", value="1.0")), "agreement", "FLOP a call; flops says 64000"),
    "another fraction": (rows(of("roofline_fraction", value="0.9")), "agreement", "the ceilings give"),
    "another definition": (other_backend, "one definition", "their FLOPs or least bytes differ"),
    "a ceiling of a fairy tale": (ceiling(1e6, RATE), "ceilings", "a copy on cpu of 1e+06 GB/s is none"),
    "a product of none": (ceiling(COPY, 1e-9), "ceilings", "a product in float32 on cpu of 1e-09 TFLOP/s"),
    "no ceilings": (environment(ceilings={}), "ceilings", "roofline fractions in float32 on cpu and no ceilings"),
    "too quick": (quicker_with_samples, "possible", "ms, and its device needs"),
    "an unmarked case": (session(contended_cases={CASES[1].case_id: "others"}), "quiet", "not marked contended"),
    "a slow canary": (session(canary_ms=[[0, 4.0], [1, 9.0], [2, 4.0]]), "quiet", "the canary took 2.25× its best"),
    "slow canaries of old": (
        session(canary_ms=[[0, 4.0], [1, 9.0], [2, 9.0]], contended_cases=None), "quiet", "half of its canaries took"
    ),
}  # fmt: skip


def told(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in faults(folder):
        found[one.check] = "; ".join(filter(None, [found.get(one.check, ""), str(one)]))
    return found


@pytest.mark.parametrize(("wide", "found"), [(None, True), (2e-5, True), (1e-3, False)])
def test_a_narrow_call_may_be_as_quick_as_products_of_float32(tmp_path: Path, wide: float | None, found: bool) -> None:
    """What must be wide is widened, and some CPUs multiply that quicker: as harness.measuring.floor has it."""
    folder = write(tmp_path / "run")
    edit_rows(folder, lambda row: row.update(dtype="bfloat16"))
    products = {"bfloat16": 2e-5} | ({} if wide is None else {"float32": wide})
    environment(ceilings={"cpu": {"copy_gb_per_s": COPY, "matmul_tflops": products}})(folder)
    assert ("possible" in told(folder)) == found


def test_a_sound_run_passes(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "run")) == []


def test_a_marked_run_passes(tmp_path: Path) -> None:
    """Its interval is wider than its samples', and holds theirs."""
    assert faults(write(tmp_path / "run", why="others had 0.66 of 2 cores")) == []


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_found(wrong: str, tmp_path: Path) -> None:
    spoil, check, text = WRONG[wrong]
    folder = write(tmp_path / "run")
    spoil(folder)
    found = told(folder)
    assert check in found, found
    assert text in found[check]


def test_every_check_is_tried_here() -> None:
    assert {check for _, check, _ in WRONG.values()} == set(CHECKS)


def test_a_contended_interval_that_does_not_hold_its_samples_fails(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", why="others")
    edit_rows(folder, of("latency", ci_low="2.05", ci_high="2.1"))
    assert "the 95 % interval of its samples" in told(folder)["samples"]


def test_a_suspect_is_marked_as_it_is_read(tmp_path: Path) -> None:
    """Its row in the file is as it was measured; whoever reads the run sees it marked."""
    folder = write(tmp_path / "run")
    session(suspect_cases={CASES[0].case_id: 2.0}, canary_ms=[[0, 4.0], [1, 8.0], [2, 4.0]])(folder)
    assert faults(folder) == []


def test_figures_that_fail_alike_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    edit_rows(folder, lambda row: row.update(unit="x"))
    (one,) = [fault for fault in faults(folder) if fault.check == "units"]
    assert one.count == 14
    assert str(one).endswith("(and 13 more)")
    assert str(Fault(check="a", told="b")) == "a: b"


@pytest.mark.parametrize(
    "document",
    [
        {"sessions": [{"canary_ms": 3}, 4, {"canary_ms": [3, [1], [1, "x"], [1, 2, 3]], "contended_cases": 5}]},
        {"machines": {"here-2c-000000": {"cpu": 3, "gpu": "x"}}, "environment": {"cpu": []}},
        {"ceilings": {"cpu": {}}, "places": {"a": {"machine": "here-2c-000000"}}},
        {"environment": {"cpu": {"caches_bytes": {"L2": "much"}, "affinity_cores": True}}},
    ],
)  # fmt: skip
def test_any_document_is_judged(document: dict[str, Any], tmp_path: Path) -> None:
    """environment.json may hold anything below what the store checks; it is told, or proves nothing."""
    folder = write(tmp_path / "run")
    edit_environment(folder, lambda known: known.update(document))
    assert set(told(folder)) <= set(CHECKS)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run"):
        faults(tmp_path)


# A study that was resumed on another machine when that still replaced the first one's environment.
KNOWN = {
    "legend": ["schema: environment.json says nothing of the machine AMD-EPYC-2c-a97283, on which times were taken"]
}


@pytest.mark.parametrize("run", sorted(RESULTS.glob("*/*/measurements.csv")), ids=lambda path: str(path.parent.name))
def test_the_runs_kept_here_pass(run: Path) -> None:
    """What a contributed run must pass, those of this repository pass."""
    assert [str(fault) for fault in faults(run.parent)] == KNOWN.get(run.parent.name, [])


def test_a_run_of_a_row_that_fails_whole_passes(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    with Store.open(folder, metrics=("latency",), resume=True) as run:
        failed: list[Row] = making.failed(making.case(n=4096))
        run.append(failed, {})
    assert faults(folder) == []
