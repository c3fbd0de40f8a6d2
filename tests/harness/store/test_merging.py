"""Several runs as one folder: every case once, by whom and when it was measured; nothing is mixed or half written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest

from harness.errors import UsageError
from harness.store import differing, merging
from harness.store import runs as store
from harness.store.runs import Store, StoreError, StoreFull

HERE, THERE = "here-2c-000000", "there-8c-111111"
CEILINGS = {"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.1}}


def write(
    folder: Path, sizes: tuple[int, ...], *, at: str, machine: str = HERE, device: str = "cpu", value: float = 1.5,
    sweep: str = "n = [64]\n", **more: Any,
) -> Path:  # fmt: skip
    """A run of these sizes, measured at a time on a machine."""
    with Store.open(folder, metrics=making.METRICS, sweep=sweep) as run:
        for n in sizes:
            rows = making.rows(making.case(n=n, device=device), value=value, note='said "so", twice')
            run.append([replace(row, run_id=folder.name, machine=machine, time_utc=at) for row in rows],
                       {"latency": [value - 0.5, value, value + 0.5]})  # fmt: skip
        session = {"wall_s": 2.0, "measuring_s": 1.0, "canary_ms": [], **more.pop("session", {})}
        run.write_json(store.ENVIRONMENT, {
            "schema": 1, "run_id": folder.name, "machine": machine, "commit": "c0ffee", "device": device,
            "environment": {"cpu": {"model": machine}}, "ceilings": {device: CEILINGS}, "sessions": [session],
            "kinds": {"full": "exact"}, "declared": {}, **more,
        })  # fmt: skip
    return folder


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def test_rows_and_samples_are_carried_to_the_byte(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64, 128), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (256,), at="2026-01-02T00:00:00Z", machine=THERE)
    done = merging.merge([b, a], tmp_path / "both")
    assert (done.cases, done.replaced) == (3, 0)
    for name in (store.MEASUREMENTS, store.SAMPLES):
        assert lines(tmp_path / "both" / name) == [*lines(a / name), *lines(b / name)]
    frame = store.read(tmp_path / "both")
    assert dict(zip(frame["n"], frame["machine"], strict=True)) == {64: HERE, 128: HERE, 256: THERE}
    assert dict(zip(frame["n"], frame["run_id"], strict=True)) == {64: "a", 128: "a", 256: "b"}
    assert len(store.read(a)) == 4  # the runs themselves stay


def test_the_environment_keeps_every_session_machine_and_place(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (128,), at="2026-01-02T00:00:00Z", machine=THERE, device="cuda:0")
    merging.merge([a, b], tmp_path / "both")
    document = store.read_environment(tmp_path / "both")
    assert [(one["run_id"], one["machine"]) for one in document["sessions"]] == [("a", HERE), ("b", THERE)]
    assert document["machines"] == {name: {"cpu": {"model": name}} for name in (HERE, THERE)}
    assert {place["machine"]: list(place["ceilings"]) for place in document["places"].values()} == {
        HERE: ["cpu"], THERE: ["cuda:0"]
    }  # fmt: skip
    assert (document["machine"], document["wall_s"]) == (THERE, 4.0)
    assert document["merged"] == [
        {"run_id": "a", "folder": "a", "cases": 1},
        {"run_id": "b", "folder": "b", "cases": 1},
    ]


def test_ceilings_of_one_machine_are_pooled(tmp_path: Path) -> None:
    """A figure takes the first place of a machine: it must know the devices of all its runs."""
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (128,), at="2026-01-02T00:00:00Z", device="cuda:0")
    merging.merge([a, b], tmp_path / "both")
    document = store.read_environment(tmp_path / "both")
    assert all(set(place["ceilings"]) == {"cpu", "cuda:0"} for place in document["places"].values())
    assert set(document["ceilings"]) == {"cpu", "cuda:0"}


def test_a_case_of_one_machine_is_the_newest_runs(tmp_path: Path) -> None:
    case = making.case(n=64).case_id
    old = write(tmp_path / "old", (64, 128), at="2026-01-01T00:00:00Z", session={"suspect_cases": {case: 2.0}})
    new = write(tmp_path / "new", (64,), at="2026-02-01T00:00:00Z", value=7.5)
    done = merging.merge([new, old], tmp_path / "both")
    assert (done.cases, done.replaced) == (2, 1)
    frame = store.read(tmp_path / "both")
    mine = frame[(frame["n"] == 64) & (frame["metric"] == "latency")]
    assert (mine["value"].tolist(), mine["run_id"].tolist()) == ([7.5], ["new"])
    assert "contended" not in mine["note"].iloc[0]  # what the old session says of it is of the old figure
    samples = store.read_samples(tmp_path / "both")
    assert samples.loc[samples["case_id"] == case, "value"].tolist() == [7.0, 7.5, 8.0]


def test_a_case_of_two_machines_has_no_place_in_one_run(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (64, 128), at="2026-01-02T00:00:00Z", machine=THERE)
    with pytest.raises(UsageError, match="1 of the same cases were measured on two machines"):
        merging.merge([a, b], tmp_path / "both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_one_sweep_in_parts_keeps_its_description(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (128,), at="2026-01-02T00:00:00Z")
    c = write(tmp_path / "c", (256,), at="2026-01-03T00:00:00Z", sweep="n = [256]\n")
    merging.merge([a, b], tmp_path / "same")
    merging.merge([a, c], tmp_path / "other")
    assert store.read_sweep(tmp_path / "same") == b"n = [64]\n"
    assert store.read_sweep(tmp_path / "other") is None


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z", plugins={"mine.py": "00"})
    b = write(tmp_path / "b", (128,), at="2026-01-02T00:00:00Z", plugins={"mine.py": "ff"})
    torn = write(tmp_path / "torn", (256,), at="2026-01-02T00:00:00Z")
    path = torn / store.MEASUREMENTS
    path.write_bytes(path.read_bytes().replace(b",256,16,", b",many,16,"))
    before = sorted(tmp_path.rglob("*"))
    for runs, told in (
        ([a], "two runs or more, not 1"), ([a, a], "two runs or more, not 1"), ([a, b], "is another in"),
        ([a, torn], "rows that cannot be read"), ([a, tmp_path / "nowhere"], "is not a run"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            merging.merge(runs, tmp_path / "both")
    with pytest.raises(StoreError, match="already holds a run"):
        merging.merge([a, b], torn)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (write(tmp_path / name, (n,), at=f"2026-01-0{n // 64}T00:00:00Z") for name, n in (("a", 64), ("b", 128)))

    def full(*anything: Any) -> None:
        raise StoreFull("cannot write: no space left on the disk")

    monkeypatch.setattr(merging.CsvFile, "append", full)
    with pytest.raises(StoreFull):
        merging.merge([a, b], tmp_path / "both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_variants_that_a_caller_defined_go_along(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, (n,), at=f"2026-01-0{n // 64}T00:00:00Z") for name, n in (("a", 64), ("b", 128)))
    for run, name, text in ((a, "one.py", "1"), (b, "two.py", "2")):
        (run / "variants").mkdir()
        (run / "variants" / name).write_text(text)
    merging.merge([a, b], tmp_path / "both")
    assert sorted(path.name for path in (tmp_path / "both" / "variants").iterdir()) == ["one.py", "two.py"]
    (b / "variants" / "one.py").write_text("other")
    with pytest.raises(UsageError, match="differs from the variant of that name"):
        merging.merge([a, b], tmp_path / "again")
    assert not (tmp_path / "again").exists()


# Differences


def test_differences_name_the_keys_of_environment_and_sweep(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64, 128), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (128, 256), at="2026-01-02T00:00:00Z", sweep="n = [128]\nseed = 3\n", commit="beef")
    found = differing.differences(a, b)
    assert [(one.document, one.key, one.a, one.b) for one in found.differences] == [
        ("environment", "commit", "c0ffee", "beef"), ("sweep", "n", [64], [128]), ("sweep", "seed", None, 3)
    ]  # fmt: skip
    assert (found.shared, found.only_a, found.only_b) == (1, 1, 1)
    assert differing.differences(a, a).differences == ()
    (b / store.SWEEP).write_text("n = [")
    with pytest.raises(StoreError, match=r"sweep\.toml is damaged"):
        differing.differences(a, b)


def test_a_merged_run_is_a_run(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (64,), at="2026-01-01T00:00:00Z")
    b = write(tmp_path / "b", (128,), at="2026-01-02T00:00:00Z", machine=THERE)
    merging.merge([a, b], tmp_path / "both")
    store.check_folder(tmp_path / "both", resume=True)
    again = write(tmp_path / "c", (256,), at="2026-01-03T00:00:00Z")
    merging.merge([tmp_path / "both", again], tmp_path / "three")
    document = json.loads((tmp_path / "three" / store.ENVIRONMENT).read_text())
    assert len(document["sessions"]) == 3
    assert set(document["machines"]) == {HERE, THERE}
    assert store.read(tmp_path / "three")["case_id"].nunique() == 3


def test_a_run_that_goes_on_elsewhere_keeps_the_first_environment() -> None:
    first = {"machine": HERE, "environment": {"cpu": {"model": "x"}}}
    assert store.machines_of({}, HERE, {"cpu": {}}) == {}
    assert store.machines_of(first, HERE, {"cpu": {}}) == {}
    second = store.machines_of(first, THERE, {"cpu": {"model": "y"}})
    assert second == {HERE: {"cpu": {"model": "x"}}, THERE: {"cpu": {"model": "y"}}}
    third = store.machines_of({**first, "machine": THERE, "machines": second}, "third", {})
    assert list(third) == [HERE, THERE, "third"]
