"""A run on disk survives what happens to it: torn at any byte, a full disk, two writers, foreign files."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import making
import pandas
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.store import runs as store
from harness.store.former import is_former, today
from harness.store.record import COLUMNS, SAMPLE_COLUMNS, Case, Reading, cell
from harness.store.runs import Store, StoreError, StoreFull

CASES = [making.case(n=n) for n in (64, 128, 256)]
SAMPLES = {"latency": [1.25, 1.5, 1.75]}


def fill(folder: Path) -> None:
    """A run of three cases: measured, failed, measured."""
    with Store.open(folder, metrics=making.METRICS, sweep="n = [64]\n") as run:
        for case in CASES:
            measure(run, case)


def measure(run: Store, case: Case) -> None:
    if case is CASES[1]:
        run.append(making.failed(case), {})
    else:
        run.append(making.rows(case, note='a "quoted", note' if case is CASES[0] else ""), SAMPLES)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ids(folder: Path) -> list[tuple[str, str]]:
    frame = store.read(folder)
    return list(zip(frame["case_id"], frame["metric"], strict=True))


WHOLE = [(CASES[0].case_id, "latency"), (CASES[0].case_id, "flops"), (CASES[1].case_id, "latency"),
         (CASES[2].case_id, "latency"), (CASES[2].case_id, "flops")]  # fmt: skip


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    frame = store.read(tmp_path / "run")
    assert list(frame.columns) == list(COLUMNS)
    assert ids(tmp_path / "run") == WHOLE
    assert frame["n"].tolist() == [64, 64, 128, 256, 256]
    assert frame["m"].isna().all()
    assert frame["value"].tolist()[:2] == [1.5, 1.5]
    assert frame["note"].tolist()[:3] == ['a "quoted", note', 'a "quoted", note', "too large"]
    assert frame["options"].tolist() == [""] * 5
    samples = store.read_samples(tmp_path / "run")
    assert samples["value"].tolist() == [1.25, 1.5, 1.75] * 2
    assert samples["index"].tolist() == [0, 1, 2] * 2


def test_any_csv_reader_takes_it(tmp_path: Path) -> None:
    note = "=cmd()|'x' \"y\", ü\n日本語 🙂"
    with Store.open(tmp_path / "run", metrics=making.METRICS) as run:
        run.append([making.row(CASES[0], Reading(metric="latency", value=0.1 + 0.2, note=note))], {})
    path = tmp_path / "run" / store.MEASUREMENTS
    with path.open(encoding="utf-8", newline="") as file:
        (named,) = csv.DictReader(file)
    (plain,) = pandas.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    (read,) = store.read(tmp_path / "run").to_dict("records")
    assert named == plain
    assert named["note"] == read["note"] == "'" + note.replace("\n", " ")
    assert float(named["value"]) == read["value"] == 0.1 + 0.2


@given(note=st.text(), option=st.text(st.characters(exclude_categories=["Cs"])), value=st.floats(allow_nan=False))
@example(note="", option="True", value=0.0)
@settings(max_examples=60, deadline=None)
def test_every_text_and_number_reads_back(
    tmp_path_factory: pytest.TempPathFactory, note: str, option: str, value: float
) -> None:
    folder = tmp_path_factory.mktemp("any")
    case = making.case(options=f"a={option}")
    with Store.open(folder, metrics=("latency",)) as run:
        run.append([making.row(case, Reading(metric="latency", value=value, note=note))], {"latency": [value]})
    (read,) = store.read(folder).to_dict("records")
    assert read["note"] == cell(note)
    now = today(asdict(case)) if is_former(case.options) else case  # what an earlier version wrote has both names
    assert read["options"] == cell(now.options)
    assert read["value"] == value
    assert store.read_samples(folder)["value"].tolist() == [value]
    with Store.open(folder, metrics=("latency",), resume=True) as run:
        assert run.done == {case.case_id, now.case_id}
        assert not run.warnings


@pytest.mark.slow
def test_a_run_torn_at_any_byte_is_resumed_without_loss_or_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every complete case stays, nothing of an incomplete one does, and measuring the rest gives the whole again."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a thousand runs: nothing here depends on it
    folder = tmp_path / "run"
    fill(folder)
    measurements, samples = (folder / name for name in (store.MEASUREMENTS, store.SAMPLES))
    whole, all_samples = measurements.read_bytes(), samples.read_bytes()
    ends = {case.case_id: whole.index(b"\n", whole.rindex(case.case_id.encode())) + 1 for case in CASES}
    for length in range(len(whole) + 1):
        measurements.write_bytes(whole[:length])
        samples.write_bytes(all_samples)
        with Store.open(folder, metrics=making.METRICS, resume=True) as run:
            assert run.done == {case_id for case_id, end in ends.items() if end <= length}, length
            for case in CASES:
                if case.case_id not in run.done:
                    measure(run, case)
        assert measurements.read_bytes() == whole, length
        assert samples.read_bytes() == all_samples, length


@pytest.mark.slow
def test_samples_torn_at_any_byte_lose_their_torn_line_only(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder)
    path = folder / store.SAMPLES
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Store.open(folder, metrics=making.METRICS, resume=True) as run:
            assert len(run.done) == 3
        header = len(",".join(SAMPLE_COLUMNS)) + 1
        assert path.read_bytes() == (whole[: max(whole.rfind(b"\n", 0, length) + 1, header)]), length


def test_samples_without_rows_are_dropped(tmp_path: Path) -> None:
    """A crash after a case's samples and before its rows: the case is measured again, its samples once."""
    fill(tmp_path)
    samples = tmp_path / store.SAMPLES
    before = samples.read_bytes()
    with samples.open("ab") as file:
        file.write(b"0123456789ab,latency,0,9.5\n0123456789ab,latency,1,9")
    with Store.open(tmp_path, metrics=making.METRICS, resume=True) as run:
        assert run.warnings == [f"{samples}: the last line was torn and has been cut off"]
    assert samples.read_bytes() == before


def test_a_case_whose_every_reading_failed_is_known_from_a_failed_case(tmp_path: Path) -> None:
    """Both start with a row that is not ok; torn after it, only the measured one is incomplete."""
    metrics = ("energy", "approximation_error")
    readings = [Reading(metric=name, status="unsupported", note="no") for name in metrics]
    with Store.open(tmp_path, metrics=metrics) as run:
        run.append([making.row(CASES[0], reading) for reading in readings], {})
    path = tmp_path / store.MEASUREMENTS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with Store.open(tmp_path, metrics=metrics, resume=True) as run:
        assert run.done == set()
        run.append(making.failed(CASES[0], metric="energy"), {})
    with Store.open(tmp_path, metrics=metrics, resume=True) as run:
        assert run.done == {CASES[0].case_id}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (store.MEASUREMENTS, "date,variant,ms\n2026,full,3\n", "foreign columns and was left untouched: unknown date"),
        (store.MEASUREMENTS, ",".join((*COLUMNS, "extra")) + "\n", "unknown extra; missing none"),
        (store.MEASUREMENTS, "\ufeff" + ",".join(COLUMNS) + "\n", "foreign columns"),
        (store.MEASUREMENTS, "run_idea\n", "foreign columns"),
        (store.MEASUREMENTS, ",".join(COLUMNS) + "\n1,2,3\n", "damaged and was left untouched: line 2 has 3 cells"),
        (store.MEASUREMENTS, ",".join(COLUMNS) + "\n\n1,2,3", "line 2 has 0 cells"),
        (store.SAMPLES, "a,b\n1,2\n", "foreign columns and was left untouched: unknown a, b"),
        (store.ENVIRONMENT, '{"schema": 2}', "was written by a newer harness (schema 2; this one reads up to 1)"),
        (store.ENVIRONMENT, '{"schema": "x"}', "newer harness"),
        (store.ENVIRONMENT, "[]", "is damaged: not a JSON object"),
        (store.ENVIRONMENT, "{", "is damaged"),
    ],
)
def test_what_is_not_ours_is_refused_untouched(tmp_path: Path, name: str, text: str, message: str) -> None:
    fill(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    before = content(tmp_path)
    for resume in (True, False) if name != store.MEASUREMENTS else (True,):
        with pytest.raises(StoreError) as caught:
            Store.open(tmp_path, metrics=making.METRICS, resume=resume)
        assert message in str(caught.value) or "already holds a run" in str(caught.value)
        assert resume <= (message in str(caught.value))
        assert content(tmp_path) == before


def test_folders_that_cannot_be_a_run_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    attempts = {
        (tmp_path / "run", False): "already holds a run; add --resume to finish it or choose another --out",
        (tmp_path / "other", False): "holds other files and no run; choose an empty or a new folder",
        (tmp_path / "other", True): "cannot resume .*: it has neither measurements.csv nor sweep.toml",
        (tmp_path / "missing", True): "cannot resume .*: no such folder",
        (tmp_path / "file", False): "is a file, not a folder",
        (tmp_path / "file" / "run", False): "cannot write in .*: .*file is a file",
        (tmp_path / ("x" * 300), False): "cannot read .*: the name is too long: 255 bytes at most",
        (Path("/proc/run"), False): "cannot write in /proc/run: No such file",
    }
    for (folder, resume), message in attempts.items():
        with pytest.raises(StoreError, match=message):
            Store.open(folder, metrics=making.METRICS, resume=resume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other", "run"]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_and_a_run_killed_before_its_first_row_begin_afresh(tmp_path: Path) -> None:
    with Store.open(tmp_path, metrics=making.METRICS, sweep="n = [64]\n"):
        pass
    (tmp_path / store.MEASUREMENTS).write_bytes(b"")
    with Store.open(tmp_path, metrics=making.METRICS) as run:
        assert run.done == set()
    assert store.read(tmp_path).empty
    assert store.read_samples(tmp_path).empty


def test_the_description_is_there_before_the_first_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run killed in between could be neither resumed nor begun again."""
    monkeypatch.setattr(Store, "_repair", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Store.open(tmp_path, metrics=making.METRICS, sweep="n = [64]\n")
    monkeypatch.undo()
    assert (tmp_path / store.SWEEP).read_text() == "n = [64]\n"
    assert (tmp_path / store.MEASUREMENTS).read_bytes() == b""
    for resume in (True, False):
        check = tmp_path / f"copy-{resume}"
        check.mkdir()
        for path in tmp_path.glob("*.*"):
            (check / path.name).write_bytes(path.read_bytes())
        Store.open(check, metrics=making.METRICS, resume=resume).__exit__()


HOLDER = """
    import sys, time
    from pathlib import Path
    from harness.store.runs import Store
    run = Store.open(Path(sys.argv[1]), metrics=("latency", "flops"))
    print("open", flush=True)
    time.sleep(600)
"""


def test_one_run_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path, surroundings: dict[str, str]) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)], stdout=subprocess.PIPE, env=surroundings
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    before = content(tmp_path)
    with pytest.raises(StoreError, match="is in use by another run; wait for it or choose another --out"):
        Store.open(tmp_path, metrics=making.METRICS, resume=True)
    with pytest.raises(StoreError, match="already holds a run"):
        Store.open(tmp_path, metrics=making.METRICS)
    assert content(tmp_path) == before
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with Store.open(tmp_path, metrics=making.METRICS, resume=True) as run:
        run.append(making.rows(CASES[0]), SAMPLES)


def test_a_run_that_came_and_went_before_the_lock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(handle: int) -> bool:
        monkeypatch.undo()
        fill(tmp_path)
        return store.locked(handle)

    monkeypatch.setattr(store, "locked", late)
    with pytest.raises(StoreError, match="already holds a run"):
        Store.open(tmp_path, metrics=making.METRICS)
    assert ids(tmp_path) == WHOLE


def full_after(count: int) -> Callable[[int, bytes], int]:
    """os.write of a disk with room for `count` bytes more."""
    real, left = os.write, [count]

    def write(handle: int, data: bytes) -> int:
        part = bytes(data)[: left[0]]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= len(part)
        return real(handle, part)

    return write


@pytest.mark.parametrize("room", [0, 1, 60, 90, 200, 300])
def test_a_full_disk_leaves_everything_before_it_and_no_part_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    run = Store.open(tmp_path, metrics=making.METRICS)
    run.append(making.rows(CASES[0]), SAMPLES)
    before = (tmp_path / store.MEASUREMENTS).read_bytes()
    monkeypatch.setattr(os, "write", full_after(room))
    with pytest.raises(StoreFull) as caught:
        run.append(making.rows(CASES[1]), SAMPLES)
    monkeypatch.undo()
    assert caught.value.code == 5
    assert "no space left on the disk; every earlier row is intact" in str(caught.value)
    assert (tmp_path / store.MEASUREMENTS).read_bytes() == before
    assert run.done == {CASES[0].case_id}
    run.append(making.rows(CASES[1]), SAMPLES)  # once there is room again
    run.__exit__()
    assert ids(tmp_path) == [(c.case_id, name) for c in CASES[:2] for name in making.METRICS]


LIMITED = """
    import resource, sys
    from pathlib import Path
    import making
    from harness.store.runs import Store, StoreFull
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    with Store.open(Path(sys.argv[1]), metrics=making.METRICS) as run:
        try:
            for n in range(64, 164):
                run.append(making.rows(making.case(n=n)), {})
        except StoreFull as full:
            print(full)
            try:
                run.write_text("environment.json", "x" * 5000)
            except StoreFull as also:
                print(also)
"""


def test_a_real_limit_on_file_size_is_one_sentence(tmp_path: Path, surroundings: dict[str, str]) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)], capture_output=True, text=True, check=True,
        env=surroundings | {"PYTHONPATH": f"{surroundings['PYTHONPATH']}:{Path(__file__).parents[1]}"},
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first == f"cannot write {tmp_path / 'measurements.csv'}: File too large; every earlier row is intact"
    assert second.startswith(f"cannot write {tmp_path / 'environment.json'}: File too large")
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.MEASUREMENTS, store.SAMPLES]
    stored = ids(tmp_path)
    assert len(stored) >= 8
    assert [metric for _, metric in stored] == [*making.METRICS] * (len(stored) // 2)


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path, metrics=making.METRICS) as run:
        run.write_json("environment.json", {"run_id": "a"})
        monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(StoreFull, match="no space left on the disk"):
            run.write_json("environment.json", {"run_id": "b"})
        monkeypatch.undo()
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.write_json("environment.json", {"run_id": float("nan")})
    assert json.loads((tmp_path / "environment.json").read_text()) == {"run_id": "a"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("column", "cell", "why"),
    [
        ("value", "x", "line 2: value is 'x', no number"),
        ("value", "1,5", "line 2 has 29 cells, not 28"),
        ("n", "", "line 2: n is '', no whole number from 1 to 2^53"),
        ("n", "9" * 20, "line 2: n is '99999999999999999999', no whole number from 1 to 2^53"),
        ("m", "9" * 20, "line 2: m is '99999999999999999999', no whole number from 0 to 2^53"),
        ("b", "0", "line 2: b is '0', no whole number from 1 to 2^53"),
        ("seed", "-1", "line 2: seed is '-1', no whole number from 0 to 2^53"),
        ("samples", "3.0", "line 2: samples is '3.0', no whole number"),
        ("options", "a", "line 2: options hold 'a', which is no key=value"),
        ("options", "a;b=1", "line 2: options hold 'a', which is no key=value"),
        ("status", "=cmd()", "line 2: status is '=cmd()', none of ok, oom, timeout"),
        ("machine", '"', "line 2 has "),
        ("n", "7" * 100_000, "characters)…7777777777', no whole number"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_counted_and_named(
    tmp_path: Path, column: str, cell: str, why: str
) -> None:
    fill(tmp_path)
    path = tmp_path / store.MEASUREMENTS
    header, first, *rest = path.read_text().split("\n")
    found = next(csv.reader([first]))
    found[COLUMNS.index(column)] = cell
    path.write_text("\n".join([header, ",".join(found).replace('a "quoted", note', ""), *rest]))
    with pytest.warns(store.RowsLeftOut, match="measurements.csv: 1 of 5 rows left out: line 2"):
        frame = store.read(tmp_path)
    (told,) = frame.attrs["left_out"]
    assert why in told
    assert len(told) < 200
    assert list(zip(frame["case_id"], frame["metric"], strict=True)) == WHOLE[1:]


def test_samples_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    samples = tmp_path / store.SAMPLES
    samples.write_text(samples.read_text() + "a,b,c,d,e,f,g\n")
    with pytest.warns(store.RowsLeftOut, match=r"samples.csv: 1 of 7 rows left out: line 8 has 7 cells, not 4"):
        assert len(store.read_samples(tmp_path)) == 6


def test_a_run_with_windows_line_ends_is_read_and_resumed(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in (store.MEASUREMENTS, store.SAMPLES):
        path = tmp_path / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert ids(tmp_path) == WHOLE
    with Store.open(tmp_path, metrics=making.METRICS, resume=True) as run:
        assert (len(run.done), run.warnings) == (3, [])
        measure(run, making.case(n=512))
    assert len(ids(tmp_path)) == len(WHOLE) + 2
    assert len(store.read_samples(tmp_path)) == 9
    assert len(pandas.read_csv(tmp_path / store.MEASUREMENTS)) == len(WHOLE) + 2


def test_a_torn_last_line_is_left_out_when_read(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in (store.MEASUREMENTS, store.SAMPLES):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-3])
    assert len(store.read(tmp_path)) == 4
    assert len(store.read_samples(tmp_path)) == 5
    (tmp_path / store.SAMPLES).write_bytes(b"case_i")
    assert store.read_samples(tmp_path).empty


def test_the_newest_run_is_the_one_written_last(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run under .*; make one with: harness run"):
        store.newest_run(tmp_path)
    for name in ("b", "a"):
        fill(tmp_path / name)
        os.utime(tmp_path / name / store.MEASUREMENTS, ns=(time.time_ns(), time.time_ns()))
    (tmp_path / "notes").mkdir()
    assert store.newest_run(tmp_path) == tmp_path / "a"
