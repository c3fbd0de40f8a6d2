"""Sweeps over a Ray cluster of two nodes on this machine: nodes, workers and drivers are killed, and no case is lost.

The cluster is two `ray start`, each with one processor. Where it is about who measures what, cases are measured by
light_ray.py, which needs no torch; the last test measures.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.engines import ray as engine
from harness.engines import station
from harness.errors import Failure, UsageError
from harness.machine import environment
from harness.store import runs as store

LIGHT = Path(__file__).with_name("light_ray.py")
VARIANTS = str(Path(__file__).parents[1] / "variants.py")
PATIENCE_S = 400  # a starved machine takes minutes to start what takes seconds
MOST_STARTS = 5
SIZES = 16
CASES = 2 * SIZES
AXES = ["--attention", "one,two", "--n", ",".join(str(64 + n) for n in range(SIZES)), "--metrics", "latency,flops"]


# What needs no cluster


def main(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["run", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "rya"], "unknown engine 'rya'; did you mean 'ray'? valid: local, ray"),
        (["--address", "h:1"], "--address h:1 is of a Ray cluster; add --engine ray"),
        (["--engine", "ray", "--devices", "cuda:0"], "--devices is for --engine local"),
        (["--device", "cuda", "--devices", "cuda:0"], "give --device for one device or --devices for several"),
        (["--devices", "cuda:0,gpu1"], "--devices takes GPUs by their index, such as cuda:0,cuda:1, not 'gpu1'"),
        (["--engine", "ray", "--device", "cuda:1"], "--engine ray takes --device auto, cpu or cuda, not cuda:1"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = main(capsys, "--n", "64", "--m", "16", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = main(capsys, "--engine", "ray", "--n", "64", "--m", "16")
    assert (code, out) == (2, "")
    assert err == (
        "harness: --engine ray needs the package ray, which is not installed: pip install 'attention-harness[ray]'\n"
    )


@pytest.mark.parametrize("address", ["host", "ray://host:1", "host:x", ":6379", "host:0", "host:65536", "host:²"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UsageError, match="--address takes HOST:PORT, such as"):
        engine.check_address(address)


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_nothing_listens_is_told_at_once(listener: str) -> None:
    engine.check_address(listener)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Failure, match=f"no Ray cluster answers at {address}: Connection refused; start one with"):
            engine.check_address(address)


def test_what_listens_and_is_no_ray_is_not_waited_for(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(engine, "CLUSTER_ANSWERS_S", 1.0)
    with pytest.raises(Failure, match=f"what listens at {listener} did not answer as a Ray cluster in 1 s"):
        engine._check_cluster(listener)


def test_the_reason_is_one_line() -> None:
    assert engine._reason(Exception("The actor is dead.\n\tclass_name: X\n\tpid: 1")) == "The actor is dead."
    trace = "The actor died because of an error\n  File x, line 1\nModuleNotFoundError: No module named 'torch'"
    assert engine._reason(Exception(trace)) == "ModuleNotFoundError: No module named 'torch'"
    assert engine._reason(ConnectionError()) == "ConnectionError"
    insides = type("ActorUnavailableError", (Exception,), {})("The actor a1b2 is unavailable: RpcError: rpc_code: 14")
    assert engine._reason(insides) == "its actor does not answer any more"


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"NodeID": f"{at:06d}abcdef", "Alive": True, "Resources": found} for at, found in enumerate(resources)]


def given(monkeypatch: pytest.MonkeyPatch, there: list[dict[str, Any]], device: str = "auto") -> engine.Cluster:
    """A cluster whose nodes are told; nothing is started."""
    monkeypatch.setattr(engine.Cluster, "_connect", lambda self, address: None)
    monkeypatch.setattr(engine.Cluster, "_living", lambda self: there)
    return engine.Cluster(plugins=[], device=device, address=None, warn=lambda text: None)


def test_a_gpu_is_a_place_and_so_is_a_node_without(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = nodes({"CPU": 16, "GPU": 2}, {"CPU": 8}, {"CPU": 0})
    names = [seat.name for seat in given(monkeypatch, mixed).arrivals()]
    assert names == ["node 000000 place 1", "node 000000 place 2"]
    assert [seat.name for seat in given(monkeypatch, mixed, "cpu").arrivals()] == ["node 000000", "node 000001"]
    for lacking, device in ((nodes({"CPU": 4}), "cuda"), (nodes({"CPU": 0}), "cpu")):
        with pytest.raises(Failure, match=r"the cluster has no node with (a GPU|processors)"):
            given(monkeypatch, lacking, device)


def test_a_place_is_told_of_once_and_again_when_it_was_lost_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    there = nodes({"CPU": 4})
    cluster = given(monkeypatch, there)
    for _ in range(engine.MOST_LOSSES):
        (seat,) = cluster.arrivals()
        assert cluster.arrivals() == []
        cluster.lost(seat)
    assert cluster.arrivals() == []
    there += nodes({}, {"CPU": 4})[1:]
    assert [seat.name for seat in cluster.arrivals()] == ["node 000001"]


def _held(path: Path) -> list[str]:
    """What a plugin holds: of a package each file by its name in it."""
    if path.is_file():
        return [path.read_text()]
    return [f"{file.relative_to(path)}={file.read_text()}" for file in sorted(path.rglob("*")) if file.is_file()]


class Refusing:
    """An engine that does not like the plugin."""

    def __init__(self, *, plugins: list[str], device: str) -> None:
        self.plugins = plugins

    def open(self) -> dict[str, Any]:
        texts = [f"{path}: {' '.join(map(str, _held(Path(path))))}" for path in self.plugins]
        raise UsageError("; ".join(f"plugin {text}" for text in texts))


def test_plugins_reach_the_node_and_are_called_as_the_user_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one name, and a package with its folders; what is no Python, or Python's own cache, stays here."""
    monkeypatch.setattr(station.local, "Engine", Refusing)
    monkeypatch.setattr(station, "_undo_threads", lambda: None)
    monkeypatch.chdir(tmp_path)
    there = {"mine/same.py": "one", "yours/same.py": "two", "nets/__init__.py": "three", "nets/deep/core.py": "four"}
    for name, text in {**there, "nets/notes.txt": "five", "nets/__pycache__/core.pyc": "six"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    given = [(path, engine._read(path)) for path in ("mine/same.py", "yours/same.py", "nets/")]
    assert station.Station(given, "cpu").open() == (
        "usage",
        "plugin mine/same.py: one; plugin yours/same.py: two; plugin nets/: __init__.py=three deep/core.py=four",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"plugin nets/none.py: no such file or directory"):
        engine._read("nets/none.py")


@pytest.mark.parametrize(("of_node", "left"), [({}, "None"), ({"OMP_NUM_THREADS": "2"}, "5")])
def test_threads_are_those_of_the_node_and_not_of_ray(
    surroundings: dict[str, str], of_node: dict[str, str], left: str
) -> None:
    """The shell stands for the node's raylet, which is the parent of Ray's workers."""
    script = (
        "import os; os.environ['OMP_NUM_THREADS'] = '5'; from harness.engines.station import _undo_threads; "
        "_undo_threads(); print(os.environ.get('OMP_NUM_THREADS'))"
    )
    bare = {name: value for name, value in surroundings.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{script}"; true'], env=bare | of_node, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == left, done.stderr


# A cluster of two nodes on this machine


@dataclass
class Cluster:
    """Nodes as process groups, by the id of the `ray start` that leads each."""

    address: str
    folder: Path
    environment: dict[str, str]
    nodes: list[subprocess.Popen[bytes]]
    head: int = 0
    other: int = 0

    def add(self, *how: str) -> int:
        """Start a node with one processor; the id of its process group.

        Ray gives a node 30 s to start, which a starved machine may not have: then once more.
        """
        for _ in range(MOST_STARTS):
            path = self.folder / f"node{len(self.nodes)}.log"
            with path.open("wb") as log:
                node = subprocess.Popen(
                    [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block",
                     "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", *how],
                    env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self.nodes.append(node)
            wait_for(
                "a node",
                lambda node=node, path=path: b"runtime started" in path.read_bytes() or node.poll() is not None,
            )
            if node.poll() is None:
                return node.pid
            self.kill(node.pid)
        return pytest.fail(f"no node started: {path.read_text(errors='replace')[-2000:]}")

    def kill(self, node: int) -> None:
        """All of its processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(node, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(surroundings: dict[str, str]) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a short name: sockets are made below it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # whatever the user's home holds
    made = Cluster(f"127.0.0.1:{port}", folder, surroundings | token, [])
    try:
        made.head = made.add("--head", f"--port={port}", f"--temp-dir={folder / 't'}", "--include-dashboard=false")
        made.other = made.add(f"--address={made.address}")
        yield made
    finally:
        for node in made.nodes:
            made.kill(node.pid)
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(what: str, condition: Callable[[], Any], process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process is None or process.poll() is None, f"ended with {process.poll()} before {what}"
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.05)


class Driver:
    """`harness run` over the cluster in a process, with light stations; its run folder and what cases have begun."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.run, self.begun_folder = cluster, folder / "run", folder / "begun"
        self.begun_folder.mkdir()
        self.out, self.err = folder / "stdout", folder / "stderr"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(LIGHT), "run", "--engine", "ray", "--address", self.cluster.address,
                 "--out", str(self.run), *words],
                env={
                    **self.cluster.environment, "LIGHT": str(self.begun_folder),
                    "XDG_CACHE_HOME": str(self.begun_folder.parent / "cache"),  # no catalogue of the real variants
                }, stdout=out, stderr=err,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return self.process

    def pause(self, on: bool) -> None:
        """While it is on, cases do not end."""
        pause = self.begun_folder / "pause"
        pause.touch() if on else pause.unlink(missing_ok=True)

    def begun(self) -> list[tuple[int, int, str, int]]:
        """(node, process, attention, n) of every case begun so far."""
        names = [path.name.split() for path in self.begun_folder.iterdir() if path.name != "pause"]
        return [(int(node), int(process), attention, int(n)) for node, process, attention, n in names]

    def rows(self) -> int:
        with suppress(OSError):
            return max(0, (self.run / store.MEASUREMENTS).read_bytes().count(b"\n") - 1)
        return 0

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def check(self) -> Any:
        """Every case of the sweep is there exactly once; its rows."""
        frame = store.read(self.run)
        assert len(frame) == 2 * CASES
        assert not frame.duplicated(["case_id", "metric"]).any()
        assert set(zip(frame["attention"], frame["n"], strict=True)) == {
            (name, 64 + n) for name in ("one", "two") for n in range(SIZES)
        }
        assert set(frame["status"]) == {"ok"}
        return frame


@pytest.fixture
def driver(cluster: Cluster, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(cluster, tmp_path)
    yield made
    made.pause(False)
    made.process.kill()
    made.process.wait()


@pytest.mark.slow
def test_a_node_is_killed_and_another_joins_and_every_case_is_there_once(cluster: Cluster, driver: Driver) -> None:
    lost = cluster.other
    driver.pause(True)
    process = driver.start(*AXES, "--json")
    wait_for("both nodes to hold a case", lambda: len({node for node, *_ in driver.begun()}) == 2, process)
    ((held,),) = [[case for node, _, *case in driver.begun() if node == lost]]
    cluster.kill(lost)
    joined = cluster.add(f"--address={cluster.address}")
    wait_for("the late node to hold a case", lambda: joined in {node for node, *_ in driver.begun()}, process)
    driver.pause(False)
    assert driver.wait() == 0, driver.err.read_text()
    frame = driver.check()
    own = frame[(frame["attention"] == held[0]) & (frame["n"] == held[1])]
    assert f"machine-{lost}" not in set(own["machine"])
    assert set(frame["machine"]) == {f"machine-{node}" for node in (cluster.head, joined)}
    document = json.loads(driver.out.read_text())  # and nothing of Ray's beside it
    assert document["statuses"] == {"ok": CASES}
    said = driver.err.read_text()
    assert said.count("warning: lost node ") == 1
    assert "unlike machines share this sweep" in said
    assert all(line.startswith(("[", "warning: ", f"{CASES} cases")) for line in said.splitlines()), said
    stored = store.read_environment(driver.run)  # the lost one's too, if it came first
    assert set(stored["machines"]) >= set(frame["machine"])
    assert {place["machine"] for place in stored["places"].values()} == set(stored["machines"])


@pytest.mark.slow
def test_workers_and_drivers_that_are_killed_lose_no_case(cluster: Cluster, driver: Driver) -> None:
    driver.pause(True)
    process = driver.start(*AXES)
    wait_for("a case to begin", driver.begun, process)
    node, worker, *_ = driver.begun()[0]
    os.kill(worker, signal.SIGKILL)
    wait_for("another worker there", lambda: {p for n, p, *_ in driver.begun() if n == node} - {worker}, process)
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 130)):
        before = driver.rows()
        driver.pause(False)
        wait_for("rows", lambda before=before: driver.rows() >= before + 8, driver.process)
        driver.pause(True)
        assert driver.rows() < 2 * CASES, "too quick to be killed in the middle"
        driver.process.send_signal(number)
        assert driver.wait() == code, driver.err.read_text()
        assert driver.out.read_text() == ""
        if code == 130:
            said = driver.err.read_text().splitlines()
            assert said[-1] == f"harness: interrupted; finish it with: harness run --resume --out {driver.run}"
        driver.start("--resume")
        held = {process for _, process, *_ in driver.begun()}
        wait_for("the next driver's cases", lambda held=held: {p for _, p, *_ in driver.begun()} - held, driver.process)
    driver.pause(False)
    assert driver.wait() == 0, driver.err.read_text()
    driver.check()


@pytest.mark.slow
def test_a_real_sweep_has_the_rows_and_the_machine_of_a_local_one(cluster: Cluster, tmp_path: Path) -> None:
    before, package = environment.commit(), tmp_path / "packaged"
    package.mkdir()
    (package / "__init__.py").write_text("from .core import packed\n")
    (package / "core.py").write_text(
        "import torch\n\ndef packed(q, k, v):\n    return torch.nn.functional.scaled_dot_product_attention(q, k, v)\n"
    )
    done = command(
        cluster, "run", "--plugin", VARIANTS, "--plugin", package, "--attention", "right,segfault,packed",
        "--n", "64", "--heads", "2", "--head-dim", "16", "--metrics", "latency,flops,roofline_fraction",
        "--budget", "0.05", "--patience", "0", "--engine", "ray", "--address", cluster.address,
        "--json", "--out", tmp_path / "run",
    )  # fmt: skip
    document = json.loads(done)
    assert document["statuses"] == {"ok": 2, "error": 1}
    failed = next(row for row in document["rows"] if row["status"] == "error")
    assert failed["note"].startswith("the worker was ended by SIGSEGV")
    here = json.loads(command(cluster, "env", "--json", "--device", "cpu"))
    assert {row["machine"] for row in document["rows"]} == {here["machine"]}
    assert {row["commit"] for row in document["rows"]} <= {before, here["commit"]}  # it may have moved on meanwhile
    stored = store.read_environment(tmp_path / "run")
    assert stored["machines"][here["machine"]]["torch"] == here["torch"]
    assert {row["metric"] for row in document["rows"] if row["status"] == "ok"} == {
        "latency", "flops", "roofline_fraction"
    }  # fmt: skip


def test_a_cluster_that_asks_for_a_token_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(Failure, match=rf"the Ray cluster at {cluster.address} asks for a token: set RAY_AUTH_MODE"):
        engine._check_cluster(cluster.address)


@pytest.mark.slow
def test_a_cluster_of_ones_own_leaves_nothing_at_home(surroundings: dict[str, str], tmp_path: Path) -> None:
    """Nor does it need anything: a token that Ray keeps there would shut out the nodes of the user's next cluster."""
    pytest.importorskip("ray")
    bare = {name: value for name, value in surroundings.items() if not name.startswith("RAY_")}
    home, begun = tmp_path / "home", tmp_path / "begun"
    home.mkdir()
    begun.mkdir()
    done = subprocess.run(
        [sys.executable, str(LIGHT), "run", "--engine", "ray", "--attention", "one", "--n", "64", "--m", "16",
         "--metrics", "latency", "--out", str(tmp_path / "run")],
        env={**bare, "HOME": str(home), "LIGHT": str(begun), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert store.read(tmp_path / "run")["status"].tolist() == ["ok"]
    assert not list(home.iterdir())


def command(cluster: Cluster, *words: str | Path) -> str:
    """What a command line of the harness prints, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)], env=cluster.environment, text=True, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
