"""Cases shared by several processes: what is refused, rows and bytes of a real run, a rank that is killed, torchrun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from making import case

import attentions
from attentions import parallel
from harness import cli
from harness.cases.sharing import METRICS, alone, sharable, shared
from harness.cases.space import Sweep
from harness.engines import ranks
from harness.engines.local import WorkerLost
from harness.engines.ranks import Engine, Here
from harness.errors import UsageError
from harness.measuring.metrics import Settings
from harness.measuring.requests import CaseFailure, Threads
from harness.store.record import Case, parse_options
from harness.store.runs import read, read_samples

SMALL = (
    "--n",
    "65",
    "--m",
    "8",
    "--heads",
    "2",
    "--head-dim",
    "8",
    "--budget",
    "0.05",
    "--patience",
    "0",
    "--device",
    "cpu",
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sequence-parallel", "0"), "a number of processes from 1 to 16384, not '0'"),
        (("--sequence-parallel", "two"), "a number of processes from 1 to 16384, not 'two'"),
        (("--sequence-parallel", "8", "--n", "4,64", "--attention", "flash"), "n=4 has fewer than 8"),
        (
            ("--sequence-parallel", "2", "--attention", "xformers"),
            "xformers has no sequence-parallel form; agent, anchor,",
        ),
        (("--sequence-parallel", "2", "--attention", "anchor:sdpa"), "ask for anchor, not anchor:sdpa"),
        (("--sequence-parallel", "2", "--scope", "model"), "--scope model is not one of them"),
        (("--sequence-parallel", "2", "--metrics", "flops"), "valid: latency, throughput, bytes_sent"),
        (("--sequence-parallel", "1000"), "at most"),
        (("--sequence-parallel", "2", "--device", "cuda:1"), "takes one for each rank"),
        (("--sequence-parallel", "2", "--devices", "cuda:0,cuda:1"), "give one or the other"),
        (("--metrics", "bytes_sent"), "add --sequence-parallel P"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    arguments: Sequence[str], said: str, catalogue: dict[str, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *arguments, "--out", str(tmp_path / "run")]) == 2
    out, heard = capsys.readouterr()
    assert said in heard
    assert (out, heard.count("\n")) == ("", 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["plan"], ["crossover", "anchor", "flash"]])
def test_other_commands_are_of_one_process(
    words: list[str], catalogue: dict[str, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.toml").write_text("sequence_parallel = 4\n", encoding="utf-8")
    assert cli.main([*words, "--config", str(tmp_path / "sweep.toml")]) == 2
    assert "leave sequence_parallel = 4 out" in capsys.readouterr().err


def test_a_sweep_without_names_takes_what_has_a_form(catalogue: dict[str, dict]) -> None:
    found = sharable((), catalogue, ranks=2, scope=("core",), n=(4096,))
    assert set(found) == set(parallel.names()) - {"none"}


def test_metrics_are_those_of_the_kind_of_sweep() -> None:
    assert Sweep.parse({"sequence_parallel": 4}).metrics == METRICS
    assert not set(Sweep.parse({}).metrics) & {"bytes_sent", "scaling_efficiency"}
    both = Sweep.parse({"sequence_parallel": 4, "metrics": ["latency,bytes_sent"]})
    assert Sweep.parse(both.model_dump()) == both


def test_a_shared_case_names_the_ranks_and_is_another_case() -> None:
    one = case(attention="anchor", m=8, options="init=orthogonal")
    four = shared(one, 4)
    assert parse_options(four.options) == {"init": "orthogonal", "sequence_parallel": "4"}
    assert len({one.case_id, four.case_id, shared(one, 2).case_id}) == 3
    assert alone(four, one.backend) == one


@pytest.fixture(scope="module")
def run(harness: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shared") / "run"
    done = harness(
        "run", "--sequence-parallel", "2", "--attention", "anchor,flash", "--phase", "forward,train", *SMALL,
        "--out", folder, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_real_run_has_every_metric_of_every_case(run: tuple[Path, dict[str, Any]]) -> None:
    folder, document = run
    frame = read(folder)
    assert document["statuses"] == {"ok": 4}
    assert frame.groupby("case_id")["metric"].agg(tuple).map(set).eq(set(METRICS)).all()
    assert set(frame["status"]) == {"ok"}
    assert set(frame["options"]) == {"sequence_parallel=2"}
    assert set(frame["backend"]) == {"parallel"}
    assert (frame.loc[frame["metric"] == "scaling_efficiency", "value"] > 0).all()
    assert (frame.loc[frame["metric"] == "numeric_error", "value"] < 1e-5).all()
    latency = frame[frame["metric"] == "latency"]
    assert latency["note"].str.contains("slowest of 2 ranks from a barrier, 32 or 33 tokens each").all()
    kept = read_samples(folder).groupby("case_id").size()
    assert all(kept[row.case_id] == row.samples for row in latency.itertuples())


def test_bytes_sent_are_what_the_model_says_of_the_larger_shard(run: tuple[Path, dict[str, Any]]) -> None:
    frame = read(run[0])
    for row in frame[frame["metric"] == "bytes_sent"].itertuples():
        sent = row.value * 2**20
        if row.attention == "anchor":
            work = attentions.Work(b=1, h=2, n=65, d=8, m=8, phase=str(row.phase))
            assert sent == parallel.volume("anchor", work, ranks=2).wire_bytes(2)
        else:  # rank 0 sends its 33 tokens; backward them again, and its and the other's sums of gradients
            tokens = 33 if row.phase == "forward" else 33 + 33 + 65
            assert sent == 2 * 2 * tokens * 8 * 4


def test_resuming_a_finished_run_measures_nothing(
    run: tuple[Path, dict[str, Any]], harness: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run[0] / "measurements.csv").read_bytes()
    assert harness("run", "--resume", "--out", run[0]).returncode == 0
    assert (run[0] / "measurements.csv").read_bytes() == before
    assert cli.main(["run", "--resume", "--out", str(run[0]), "--sequence-parallel", "4"]) == 2
    assert "--sequence-parallel 4 differs" in capsys.readouterr().err


def test_a_killed_rank_costs_one_row_and_the_next_case_has_fresh_ones(surroundings: dict[str, str]) -> None:
    with Engine(Here(plugins=[], ranks=2), plugins=[], device="cpu") as engine:
        engine.open()
        one = case(attention="anchor", backend="", m=8)
        resolved = engine.resolve([one])[0].case
        victim: Any = engine._seats[1]
        threading.Timer(2.0, lambda: os.kill(victim._process.pid, signal.SIGKILL)).start()
        request = {"metrics": METRICS, "timeout_s": 250.0}
        endless = Settings(budget_s=200.0, precision=0.0, min_samples=10**9)
        lost = engine.measure(resolved, settings=endless, **request)
        assert lost.status == "error"
        assert lost.readings[0].note.startswith("rank 1: the worker was ended by SIGKILL")
        assert engine.measure(resolved, settings=Settings(budget_s=0.05), **request).status == "ok"


@pytest.mark.slow
def test_under_torchrun_rank_0_writes_and_the_others_serve(surroundings: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m",
            "--", "harness", "run", "--sequence-parallel", "2", "--attention", "anchor", *SMALL,
            "--out", tmp_path / "run",
        ],
        env=surroundings, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = read(tmp_path / "run")
    assert set(frame["metric"]) == set(METRICS)
    assert set(frame["status"]) == {"ok"}
    assert done.stdout.count("latency (ms)") == 1


class _Seat:
    """A rank whose answers are given: a value, an exception, or None for one that waits until it is abandoned."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.abandoned = answer, threading.Event()

    def ask(self, request: Any, timeout_s: float) -> Any:
        if self.answer is None:
            assert self.abandoned.wait(30)
            raise WorkerLost("error", "the worker was ended by SIGKILL")
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def abandon(self) -> None:
        self.abandoned.set()

    def stop(self, *, kill: bool = False) -> None:
        self.abandoned.set()


def asked(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Any:
    """What the engine makes of these answers of its ranks."""
    monkeypatch.setattr(ranks, "LEAVE_S", 0.1)
    engine = Engine(Here(plugins=[], ranks=len(answers)), plugins=[], device="cpu")
    engine._seats = [_Seat(answer) for answer in answers]
    with engine:
        return engine._all(5.0, lambda rank: Threads(threads=1))


LOST = CaseFailure(status="error", note="RankLost: rank 0 of 3 lost the others: Connection closed by peer")


def test_the_cause_is_told_not_its_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    full = CaseFailure(status="oom", note="needs more")
    with pytest.raises(WorkerLost, match="rank 1: needs more") as raised:
        asked(monkeypatch, LOST, full, LOST)
    assert raised.value.status == "oom"
    with pytest.raises(WorkerLost, match="rank 2: the worker was ended by SIGSEGV"):
        asked(monkeypatch, LOST, LOST, WorkerLost("error", "the worker was ended by SIGSEGV"))
    with pytest.raises(UsageError, match="not here"):
        asked(monkeypatch, {}, UsageError("device 'cuda:1' is not here"))


def test_who_hangs_after_anothers_failure_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="rank 1: needs more"):
        asked(monkeypatch, None, CaseFailure(status="oom", note="needs more"), None)
    assert time.monotonic() - started < 30  # each would have waited for its own end


def test_answers_come_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, {"a": 1}, {"b": 2}, {"c": 3}) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_a_case_needs_what_its_parts_need_together(surroundings: dict[str, str], monkeypatch: Any) -> None:
    engine = Engine(Here(plugins=[], ranks=4), plugins=[], device="cpu")
    from harness.cases import catalogue as known

    engine._seats, engine._devices = [_Seat(None)] * 4, ["cpu"] * 4
    monkeypatch.setattr(engine, "_resolve", lambda cases: [known.resolve(one) for one in cases])
    whole = Case(**vars(case(attention="full", backend="", n=4096)))
    found = engine.resolve([whole])[0]
    part = known.resolve(case(attention="full", backend="", n=1024)).peak_bytes
    assert part is not None
    assert found.peak_bytes == 4 * part
    assert (found.case.backend, found.case.n) == ("parallel", 4096)
