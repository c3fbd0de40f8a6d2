"""What an engine asks of a worker and what that answers: a frozen dataclass each. No torch.

    bytes_free: int = engine.ask(Free(device="cpu"), 60.0)

A request is a subclass of `Request[its answer's type]`, and its class' name is the operation's; harness.measuring.wire
turns both into lines. A case's failure is an answer, CaseFailure: it costs that case a row and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from harness.cases.catalogue import Resolution
from harness.machine.quiet import Gpu
from harness.measuring.metrics import Settings
from harness.store.record import Case, Reading

Answer = TypeVar("Answer", covariant=True)
Document = dict[str, Any]  # goes into environment.json as it is
START, SET_UP, LOST = OVERHEAD = ("start", "set-up", "lost")  # of the seconds of a case: those that measure nothing


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Answer]):
    """One operation of a worker; Answer is what it gives."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a worker measures on: its device, the variants there, the environment, the machine's name, the commit."""

    device: str
    catalogue: Document
    environment: Document
    machine: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class CaseFailure:
    """Why a case has no figures: the row's status and note, and the seconds by metric that it took until then.

    fit: the worker is none the worse for it and may go on with the next case.
    """

    status: str
    note: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    fit: bool = False


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The readings of a case, its raw samples, and the seconds spent in each metric.

    ceilings: those of the device, where this case showed that the ones it was given were too low.
    """

    readings: tuple[Reading, ...]
    samples: Mapping[str, list[float]]
    seconds: Mapping[str, float]
    ceilings: Document | None = None


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Milliseconds of two cases, taken in turns."""

    a: list[float]
    b: list[float]


@dataclass(frozen=True, kw_only=True)
class PairFailure:
    """Why two cases cannot be timed in turns, and which of them failed: 0, 1, or None where both were ready."""

    status: str
    note: str
    which: int | None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The variants that the plugins define, and where the measured code lies."""

    variants: tuple[str, ...]
    origin: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Milliseconds of single calls: that passed, and of CPU time; and instructions; empty where not counted."""

    milliseconds: list[float]
    cpu: list[float] = field(default_factory=list)
    instructions: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Readings that are the same in every run."""

    readings: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a variant computes: a digest of its declared fields, the size and projections of its reference's results."""

    fields: str
    size: float
    projections: list[float]


@dataclass(frozen=True, kw_only=True)
class MeetingFile:
    """Ranks of one machine meet in a file."""

    file: str


@dataclass(frozen=True, kw_only=True)
class MeetingStore:
    """Ranks under torchrun meet in its key-value store."""

    host: str
    port: int
    prefix: str


@dataclass(frozen=True, kw_only=True)
class Open(Request[Session]):
    """Load the plugins; tell the devices, the variants and the environment."""

    plugins: tuple[str, ...]
    device: str


@dataclass(frozen=True, kw_only=True)
class Reopen(Request[None]):
    """The same in a worker that takes another's place: what it would tell is known."""

    plugins: tuple[str, ...]
    device: str


@dataclass(frozen=True, kw_only=True)
class Resolve(Request[tuple[Resolution, ...]]):
    """Each case with its backend, or why it has none."""

    cases: tuple[Case, ...]


@dataclass(frozen=True, kw_only=True)
class Free(Request[int]):
    """Bytes free on the device."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Ceilings(Request[Document]):
    """What the device can do: copy bandwidth, and the matrix rate of each dtype."""

    device: str
    dtypes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Canary(Request[float]):
    """Milliseconds of the fixed matrix product."""

    device: str


@dataclass(frozen=True, kw_only=True)
class LookAtGpu(Request[Gpu | None]):
    """Who else is on a GPU, and how it stands; None where nobody can tell."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Examine(Request[str]):
    """What doctor finds wrong with the machine in so many seconds, in one line."""

    device: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measure(Request[Measured | CaseFailure]):
    """All readings of one case."""

    case: Case
    metrics: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Try(Request[None | CaseFailure]):
    """Call a case and check what it gives, or tell why it fails: whether it fits."""

    case: Case


@dataclass(frozen=True, kw_only=True)
class Pair(Request[Turns | PairFailure]):
    """Latency samples of two cases in turns, A B B A, once both are right and warm."""

    cases: tuple[Case, Case]
    budget_s: float


@dataclass(frozen=True, kw_only=True)
class Threads(Request[None]):
    """Compute with so many threads from here on."""

    threads: int


@dataclass(frozen=True, kw_only=True)
class Load(Request[Loaded]):
    """Load plugins that are not loaded yet; `threads`, where given, is how many to compute with from here on."""

    plugins: tuple[str, ...]
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hold(Request[None | CaseFailure]):
    """Make a case, the canary where it is None, ready to be timed in turns under its key."""

    key: str
    device: str
    case: Case | None


@dataclass(frozen=True, kw_only=True)
class Turn(Request[Samples | CaseFailure]):
    """Time what is held under a key for `seconds`, one call at least."""

    key: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Release(Request[None]):
    """Forget every case that is held."""


@dataclass(frozen=True, kw_only=True)
class Probe(Request[Probed | CaseFailure]):
    """What is the same in every run of a case; scaling: only what its growth is judged by."""

    case: Case
    scaling: bool = False


@dataclass(frozen=True, kw_only=True)
class Definition(Request[Described | CaseFailure]):
    """What the case's variant computes, whatever its source looks like."""

    case: Case


@dataclass(frozen=True, kw_only=True)
class Toolchain(Request[str]):
    """What peak memory and kernels depend on beside the code."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Join(Request[None]):
    """Become a rank of a group; patience_s: how long a collective may take."""

    rank: int
    ranks: int
    meeting: MeetingFile | MeetingStore
    device: str
    patience_s: float


@dataclass(frozen=True, kw_only=True)
class MeasurePart(Request[Measured | CaseFailure]):
    """This rank's part of a case that several share; rank 0 has the readings. one_process: why one cannot run it."""

    case: Case
    device: str
    metrics: tuple[str, ...]
    settings: Settings
    one_process: str | None
