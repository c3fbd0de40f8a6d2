"""Everything that reads what somebody else may have written, as functions of bytes that need nothing but a folder.

    reader = READERS["environment"]
    reader.read(b"{}", folder)            # returns, or raises one of harness' own errors; anything else is a fault

A reader gives what it read to those that use it, as far as that is quick. `seeds` are valid inputs of each.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import making

from harness.answers.compare import compare
from harness.cases import catalogue
from harness.cases.filters import only
from harness.cases.space import Sweep, expand, read_toml
from harness.check import baseline, interpreter, pool
from harness.check.contributed import faults
from harness.check.deterministic import METRICS, Facts
from harness.errors import Failure, UsageError
from harness.figures import Run, roofline, scaling
from harness.figures._style import device_name
from harness.report import facts
from harness.store import runs as store
from harness.store.curves import CURVES, read_curves
from harness.store.pivot import as_csv, as_json, pivot
from harness.store.record import COLUMNS, SAMPLE_COLUMNS, Reading
from harness.store.rows import RowsLeftOut
from harness.store.runs import Store
from harness.store.selection import labelled
from harness.store.table import render
from harness.store.tags import TAGS, change_tags, read_tags
from harness.sweep import conduct

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
CURVE_LINES = b"step,split,metric,value\n10,train,loss,0.5\n10,val,top1,0.1\n12,train,lr,1e-3\n"
OWN = (UsageError, Failure)  # what a command turns into one line and an exit code


@dataclass(frozen=True)
class Reader:
    """One kind of input: valid ones, and who reads it. share: how often it is chosen among the others."""

    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    share: int = 4


def case_rows() -> list[Any]:
    """Rows of two variants at two sizes, with a failure, an m, options and what a model was trained for."""
    cases = [making.case(attention=name, n=n) for name in ("full", "flash") for n in (64, 128)]
    cases += [making.case(attention="anchor", n=64, m=16, options="init=paper;kv_heads=2")]
    cases += [making.case(scope="model", options="data=digits;recipe.epochs=3.0;task=classification")]
    rows = [row for case in cases for row in making.rows(case, note='said "so", twice')]
    return rows + making.failed(making.case(n=256))


def csv_bytes(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """A CSV file as ours are written."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


@cache
def measurements() -> bytes:
    return csv_bytes(COLUMNS, [row.cells() for row in case_rows()])


@cache
def samples() -> bytes:
    return csv_bytes(SAMPLE_COLUMNS, [[making.case().case_id, "latency", at, 1.0 + at / 7] for at in range(12)])


@cache
def environment() -> bytes:
    place = {"copy_gb_per_s": 10.5, "matmul_tflops": {"float32": 0.1}}
    session = {"canary_ms": [[0.1, 2.5]], "canary_drift": 0.01, "wall_s": 3.5, "measuring_s": 3, "started_utc": "2026"}
    document = {
        "schema": 1, "run_id": "r", "machine": "here-2c-000000", "commit": "c0ffee", "device": "cpu", "wall_s": 3.5,
        "kinds": {"full": "exact"}, "declared": {"full": {"flops_n": 2, "flops_m": 0.5}}, "ceilings": {"cpu": place},
        "environment": {"cpu": {"model": "x", "affinity_cores": 2}, "memory": {"total_bytes": 1 << 33}, "gpu": None},
        "machines": {"here-2c-000000": {}}, "plugins": {"a.py": "00ff"}, "sessions": [session, {}],
        "places": {"a": {"machine": "here-2c-000000", "device": "cpu", "ceilings": {"cpu": place}}},
    }  # fmt: skip
    return json.dumps(document).encode()


@cache
def sweep() -> bytes:
    given = {
        "n": "1k..4k",
        "set": {"anchor.init": "paper"},
        "attention": "full,anchor",
        "plugin": "a.py",
        "m": [16, 64],
    }
    return Sweep.parse(given).to_toml().encode()


@cache
def stored_baseline() -> bytes:
    readings = {name: Reading(metric=name, value=1.5, samples=1, note="sequence=ab; output=1x2") for name in METRICS}
    definition = {"fields": "abc", "size": 2.5, "projections": [0.5, -1.25]}
    told = Facts(readings=readings, definition=definition, toolchain="torch 2")
    measured = [(making.case(n=n), told, [1.0, 1.1, 1.2]) for n in (64, 128)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "baseline.csv")
        baseline.write(path, baseline.rows_of(measured, machine="here", commit="c0ffee"))
        return path.read_bytes()


@cache
def pool_rows() -> bytes:
    rows = [(at, *key, "1.5 2.5|1.25 2", "1.5|2") for at in range(pool.BLOCK) for key in pool.timed()]
    return csv_bytes(pool.COLUMNS, rows)


@cache
def known_variants() -> bytes:
    return json.dumps({"devices": ["cpu"], "attentions": catalogue.describe(["cpu"])}).encode()


def a_run(folder: Path, **files: bytes) -> Path:
    """A run folder with valid files but for those given (measurements_csv=…)."""
    for name, data in ({"measurements_csv": measurements(), "samples_csv": samples()} | files).items():
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def loaded(folder: Path) -> Run:
    frame = labelled(store.read(folder))
    return Run(folder=folder, frame=frame, environment=store.read_environment(folder), whole=frame)


def use_rows(data: bytes, folder: Path) -> None:
    run = loaded(a_run(folder, measurements_csv=data))
    for metric in list(dict.fromkeys(run.frame["metric"]))[:3]:
        tables = pivot(run.frame, metric)
        render(tables, width=80)
        if tables:
            as_csv(tables)
            json.dumps([as_json(table) for table in tables])
    if len(run.frame):
        only(run.frame, attention=["full"], n=["64"])
    compare(folder, folder, metrics=("latency",))
    faults(folder)


def use_report(data: bytes, folder: Path) -> None:
    from harness import report

    run = loaded(a_run(folder, measurements_csv=data, environment_json=environment(), sweep_toml=sweep()))
    report.build([run], kinds={"full": "exact"})


def use_samples(data: bytes, folder: Path) -> None:
    a_run(folder, samples_csv=data)
    store.read_samples(folder)
    compare(folder, folder, metrics=("latency",))


def use_environment(data: bytes, folder: Path) -> None:
    run = loaded(a_run(folder, environment_json=data))
    facts.of_run(run, "r")
    roofline.roof_of(run, "cpu", "float32", machine="here-2c-000000")
    scaling._declared(run, "full", "flops_n")
    device_name(run, "cpu", "here-2c-000000")
    faults(folder)


def use_tags(data: bytes, folder: Path) -> None:
    (a_run(folder) / TAGS).write_bytes(data)
    held = read_tags(folder)
    assert change_tags(folder, add=["more"], drop=held[:1]) == tuple(sorted({*held[1:], "more"} - {*held[:1]}))


def use_sweep(data: bytes, folder: Path) -> None:
    (folder / store.SWEEP).write_bytes(data)
    wanted = conduct.stored_sweep(folder)
    if len(wanted.n) < 50:
        expand(wanted, json.loads(known_variants())["attentions"], device="cpu")
    assert Sweep.parse(read_toml(Path(_written(folder, wanted.to_toml())))) == wanted


def _written(folder: Path, text: str) -> str:
    (folder / "again.toml").write_text(text, encoding="utf-8")
    return str(folder / "again.toml")


def use_resume(data: bytes, folder: Path) -> None:
    """Whatever can be resumed is whole afterwards, and what cannot is left as it was."""
    begins = {b"run_id": "measurements_csv", b"case_i": "samples_csv", b'{"sche': "environment_json"}
    a_run(folder, **{begins.get(data[:6], "measurements_csv" if len(data) % 4 else "sweep_toml"): data})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    try:
        run = Store.open(folder, metrics=making.METRICS, resume=True)
    except OWN:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        raise
    with run:
        new = making.case(n=4096)
        if new.case_id not in run.done:
            run.append(making.rows(new), {"latency": [1.0]})
    assert new.case_id in set(store.read(folder)["case_id"])
    with Store.open(folder, metrics=making.METRICS, resume=True) as again:
        assert not again.warnings
        assert new.case_id in again.done


def use_curves(data: bytes, folder: Path) -> None:
    from harness.vision.runfolder import RunFolder

    (folder / CURVES).write_bytes(data)
    a_run(folder)
    read_curves(folder)
    with RunFolder.open(folder, metrics=making.METRICS, resume=True, write=True) as opened:
        opened.rewind(10)
        opened.log(20, "train", {"loss": 0.5})
    assert 20 in set(read_curves(folder)["step"])


def use_baseline(data: bytes, folder: Path) -> None:
    (folder / "baseline.csv").write_bytes(data)
    baseline.read(folder / "baseline.csv")


def use_pool(data: bytes, folder: Path) -> None:
    (folder / pool.POOL).write_bytes(data)
    pool.load(folder)


def use_catalogue(data: bytes, folder: Path) -> None:
    from harness.cli.list import _text

    (folder / "catalogue.json").write_bytes(data)
    found = catalogue._kept(folder / "catalogue.json")
    if found is not None:
        for name, entry in found["attentions"].items():
            _text(name, entry)
        catalogue.kinds(found["attentions"])
        expand(Sweep.parse({"m": 16}), found["attentions"], device="cpu")


def use_project(data: bytes, folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(data)
    interpreter._requirements(folder / "pyproject.toml")


def quietly(reader: Reader, data: bytes) -> bool:
    """Read in a folder of its own. Whether it was taken; False where it was refused in one sentence."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RowsLeftOut)
        try:
            reader.read(data, Path(folder))
        except OWN as error:
            told = " ".join(str(error).split())
            assert told, "an error without a word"
            assert len(told) <= 2000, f"an error of {len(told)} letters"
            told.encode("utf-8", errors="backslashreplace")
            return False
    return True


READERS: dict[str, Reader] = {
    "measurements": Reader(lambda: [measurements()], use_rows),
    "report": Reader(lambda: [measurements()], use_report, share=1),
    "samples": Reader(lambda: [samples()], use_samples, share=2),
    "environment": Reader(lambda: [environment()], use_environment),
    "tags": Reader(lambda: [b'{"tags": ["paper", "quiet-2"]}'], use_tags, share=1),
    "sweep": Reader(lambda: [sweep(), b'n = "1k"\nattention = "anchor"\n[set]\nanchor.init = "paper"\n'], use_sweep),
    "resume": Reader(lambda: [measurements(), samples(), environment()], use_resume),
    "curves": Reader(lambda: [CURVE_LINES], use_curves),
    "baseline": Reader(lambda: [stored_baseline()], use_baseline),
    "pool": Reader(lambda: [pool_rows()], use_pool, share=1),
    "catalogue": Reader(lambda: [known_variants()], use_catalogue, share=2),
    "project": Reader(lambda: [PROJECT.read_bytes()], use_project, share=1),
}  # fmt: skip
