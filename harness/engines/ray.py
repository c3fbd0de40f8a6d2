"""The nodes of a Ray cluster as the places of a crew: on CPU a node is one place, on GPU each of its GPUs is. No torch.

    with Crew(Cluster(plugins=[], device="auto", address="10.0.0.1:6379", warn=print), warn=print) as crew: ...

A place is a Ray actor that holds what must not be shared, one whole GPU or all processors of the node, and in it the
same worker process that measures locally. This process keeps the rows: a node that is lost loses nothing but the case
that it held, which goes to another. Nodes that join later are given cases. The code and the plugins of this process
are sent along, so that every node measures the same; PyTorch and its companions must be installed there.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from signal import SIGTERM, getsignal, signal
from typing import Any

from harness.cases.catalogue import Resolution
from harness.cases.plugins import files
from harness.engines.local import START_TIMEOUT_S
from harness.engines.place import Lost, Seat, Task, Visit
from harness.engines.station import Station
from harness.engines.watch import RETAKES
from harness.errors import Failure, UsageError, reason
from harness.machine import environment
from harness.store.record import Case

PORT_ANSWERS_S, CLUSTER_ANSWERS_S = 5.0, 60.0
MOST_LOSSES = 3  # of a node's places, after which the node is left alone
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
DRIVER_PACKAGES = ("attentions", "harness")
PLAINLY = {  # for errors whose own message is about Ray's insides
    "ActorUnavailableError": "its actor does not answer any more",
    "GetTimeoutError": "its actor did not answer in time",
}


class Node:
    """The driver's side of a station. The actor is created when it is opened."""

    def __init__(self, name: str, node: str, actor: Callable[[], Any], commit: str) -> None:
        self.name, self.node, self._create, self._commit = name, node, actor, commit
        self._actor: Any = None
        self._left = False

    def open(self) -> dict[str, Any]:
        """Wait until the node has what the place needs. The code came from here, so the commit is this process'."""
        self._actor = self._create()
        if self._left:
            self.leave()
        return {**self._ask("open"), "commit": self._commit}

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return self._ask("resolve", list(cases))

    def visit(self, resolution: Resolution, task: Task) -> Visit:
        return self._ask("visit", resolution, task, within_s=_longest(task))

    def look(self) -> float:
        return self._ask("look", within_s=START_TIMEOUT_S)

    def examine(self, seconds: float) -> str:
        return self._ask("examine", seconds, within_s=START_TIMEOUT_S + seconds)

    def leave(self) -> None:
        """End the actor; whoever waits for it hears Lost."""
        import ray

        self._left = True
        if self._actor is not None:
            with suppress(Exception):  # it may be gone, and so may the cluster
                ray.kill(self._actor)

    def _ask(self, method: str, *arguments: Any, within_s: float | None = None) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            kind, value = ray.get(getattr(self._actor, method).remote(*arguments), timeout=within_s)
        except (RayError, ConnectionError) as error:
            raise Lost(_reason(error)) from None
        if kind == "usage":
            raise UsageError(value)
        if kind == "failure":
            raise Failure(value)
        return value


class Cluster:
    """A source of places: the living nodes of a cluster, one already there or, without an address, of this machine."""

    whole, patience_s = False, 60.0

    def __init__(
        self, *, plugins: Sequence[str], device: str, address: str | None, warn: Callable[[str], None]
    ) -> None:  # fmt: skip
        check_device(device)
        self._warn, self._commit, self._closing = warn, environment.commit(), ExitStack()
        self._plugins = [(path, _read(path)) for path in plugins]
        self._seats: list[Node] = []
        self._losses: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        try:
            self._connect(address)
            self._device = device.partition(":")[0]
            if device == "auto":
                self._device = "cuda" if any(map(_gpus, self._living())) else "cpu"
            if not any(self._capacity(node) for node in self._living()):
                raise Failure(f"the cluster has no node with {'a GPU' if self._device == 'cuda' else 'processors'}")
        except BaseException:
            self.close()
            raise

    def arrivals(self) -> list[Seat]:
        """A new place for each that a living node could have and has not."""
        arrived: list[Seat] = []
        for node in self._living():
            key = node["NodeID"]
            held = sum(seat.node == key for seat in self._seats)
            free = 0 if self._losses[key] >= MOST_LOSSES else self._capacity(node) - held
            arrived += [self._seat(node) for _ in range(free)]
        return arrived

    def leave(self, seat: Seat) -> None:
        """End a place."""
        assert isinstance(seat, Node)
        seat.leave()

    def lost(self, seat: Seat) -> None:
        """End a place that failed; its node is given another, until it has lost too many."""
        assert isinstance(seat, Node)
        seat.leave()
        self._seats.remove(seat)
        self._losses[seat.node] += 1
        if self._losses[seat.node] == MOST_LOSSES and any(node["NodeID"] == seat.node for node in self._living()):
            self._warn(f"{seat.name}: lost {MOST_LOSSES} times; this node is given no other place")

    def close(self) -> None:
        """Leave the cluster, which ends a cluster that was started for this run."""
        self._closing.close()

    def _connect(self, address: str | None) -> None:
        ray = _ray()
        stated = os.environ.get("RAY_ADDRESS", "")
        if not address and ":" in stated and "//" not in stated:  # else "auto", "local" or Ray Client's
            address = stated
        if address:
            check_address(address)
            _check_cluster(address)
        handler = getsignal(SIGTERM)
        self._closing.enter_context(redirect_stdout(io.StringIO()))  # Ray prints there of lost nodes, at length
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it announces a change to come
        root = Path(__file__).resolve().parents[2]
        code = {"py_modules": [str(root / name) for name in DRIVER_PACKAGES], "excludes": ["**/__pycache__"]}
        logging.getLogger("ray").setLevel(logging.ERROR)
        if not address:
            self._closing.enter_context(_secret())
        self._closing.callback(ray.shutdown)
        try:
            ray.init(  # "local": without it Ray waits for the last cluster that it remembers, dead or not
                address=address or "local", runtime_env=code, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False, include_dashboard=False,
            )  # fmt: skip
        except Exception as error:
            where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
            raise Failure(f"cannot use {where}: {_reason(error)}") from None
        finally:
            signal(SIGTERM, handler)  # Ray's own would exit with status 15

    def _living(self) -> list[dict[str, Any]]:
        import ray

        try:
            return [node for node in ray.nodes() if node["Alive"]]
        except Exception as error:
            raise Failure(f"the Ray cluster does not answer any more: {_reason(error)}") from None

    def _capacity(self, node: Mapping[str, Any]) -> int:
        return _gpus(node) if self._device == "cuda" else int(_processors(node) >= 1)

    def _seat(self, node: Mapping[str, Any]) -> Node:
        key, device = node["NodeID"], self._device
        self._numbers[key] += 1
        name = f"node {key[:6]}" + (f" place {self._numbers[key]}" if device == "cuda" else "")
        needs = (
            {"num_gpus": 1, "num_cpus": min(1, _processors(node))} if device == "cuda"
            else {"num_gpus": 0, "num_cpus": _processors(node)}
        )  # fmt: skip

        def create() -> Any:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(node_id=key, soft=False)
            return ray.remote(Station).options(scheduling_strategy=here, max_restarts=0, **needs).remote(
                self._plugins, "cuda:0" if device == "cuda" else device
            )  # fmt: skip

        self._seats.append(Node(name, key, create, self._commit))
        return self._seats[-1]


def _longest(task: Task) -> float:
    """Seconds after which a visit is given up: every try of the case, and what its place does beside it."""
    return 2 * (1 + RETAKES) * task.timeout_s + task.patience_s + 4 * START_TIMEOUT_S


def check_device(device: str) -> None:
    """Raise UsageError for a GPU by its index: which one a place gets is Ray's to say."""
    if device.startswith("cuda:") and device != "cuda:0":
        raise UsageError(f"--engine ray takes --device auto, cpu or cuda, not {device}: Ray gives each place its GPU")


def check_address(address: str) -> None:
    """Raise UsageError for what is no HOST:PORT, Failure where nothing listens there."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"--address takes HOST:PORT, such as 10.0.0.1:6379, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PORT_ANSWERS_S).close()
    except OSError as error:
        raise Failure(
            f"no Ray cluster answers at {address}: {reason(error)}; start one with: ray start --head"
        ) from None


def _check_cluster(address: str) -> None:
    """Raise Failure unless a Ray cluster answers: a process asks it, which can be ended; Ray's patience is long."""
    ask = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "status", "--address", address]
    try:
        done = subprocess.run(
            ask, capture_output=True, stdin=subprocess.DEVNULL, timeout=CLUSTER_ANSWERS_S, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"what listens at {address} did not answer as a Ray cluster in {CLUSTER_ANSWERS_S:g} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        if any("AuthenticationError" in line for line in lines):
            raise Failure(
                f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token and give the token of its head"
                " as RAY_AUTH_TOKEN or in ~/.ray/auth_token"
            )
        raise Failure(f"what listens at {address} is no Ray cluster that this one can use: {(lines or ['?'])[-1]}")


@contextmanager
def _secret() -> Iterator[None]:
    """A token for this run's own cluster, held by its processes only, unless the user has chosen how Ray asks for one.

    Ray would write one to ~/.ray and leave it there. The user's next `ray start --head` would find it and ask for it,
    and refuse every other node, since Ray looks for it on the head alone.
    """
    before = {name: os.environ.get(name) for name in AUTHENTICATION}
    if not any(before.values()):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    finally:  # Ray sets the mode
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray needs the package ray, which is not installed: pip install 'attention-harness[ray]'"
        ) from None
    return ray


def _gpus(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("GPU", 0))


def _processors(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))


def _read(path: str) -> dict[str, bytes]:
    try:
        return files(Path(path))
    except OSError as error:
        raise UsageError(f"plugin {path}: {reason(error).lower()}") from None


def _reason(error: Exception) -> str:
    """What Ray says, as one short sentence: its messages begin with it, and those with a trace end with it."""
    if (kind := type(error).__name__) in PLAINLY:
        return PLAINLY[kind]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [kind]
    trace = any(line.startswith(("Traceback", "File ")) for line in lines)
    return (lines[-1] if trace else lines[0])[:200]
