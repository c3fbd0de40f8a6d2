"""Was the machine quiet while something was measured? Counters before and after it, and one verdict with its figures.

    before = Moment.take()
    ...                                                    # what is measured, in processes that this one started
    verdict = judge(Span.of(before, Moment.take()), canaries_ms=(4.2, 9.0), best_ms=4.1, threads=2)
    verdict.reason                                         # "the canary took 2.2× its best (9 ms against 4.1)", or ""
    verdict.factor                                         # 2.2: how much of a time may be the disturbance's

Counted on the cores that this process may use, so work elsewhere is nobody's neighbour. What a system does not count
is None, and then judged by nobody. No torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.machine import system
from harness.machine.nvml import throttle_names

CANARY_BAD = 1.2  # times the best that this machine has shown
GPU_SHARED = 1.05  # of the canary, where another process has work on the GPU
TAKEN = 0.1  # cores that others had of those that the case needs
WAITED = 0.1  # share of its threads' time for which they were ready and had no core
PRESSED, SWITCHED = 0.25, 50.0  # where waiting is not counted: share of time under pressure, and switches a second
STOPPED = 0.01  # share of the time for which a quota stopped us
FEWEST_TICKS = 3  # CPU time is counted in ticks: fewer of others' are no evidence
SLOWED = 0x8 | 0x20 | 0x40 | 0x80  # of NVML's mask: hardware slowdown, heat, power brake


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU's other half of a moment: how many processes hold it, ours among them, its clock and throttle mask."""

    processes: int | None = None
    sm_mhz: int | None = None
    throttle_mask: int | None = None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Counters at one moment, all since boot. workers: of each process started from here, its involuntary switches and
    the seconds for which its threads waited for a core."""

    seconds: float
    cores: int = 0
    busy_s: float | None = None
    steal_s: float | None = None
    own_s: float | None = None
    workers: Mapping[int, tuple[int, float | None]] = field(default_factory=dict)
    pressure_s: float | None = None
    throttled_s: float | None = None
    heat: int | None = None
    gpu: Gpu | None = None

    @classmethod
    def take(cls, root: Path = Path("/"), *, me: int | None = None, gpu: Gpu | None = None) -> Moment:
        """The counters now, for this process and all that it has started. root and me let a test fake a machine."""
        cores = system.affinity()
        ticks = system.cpu_ticks(root, cores=cores)
        tree = family(root, os.getpid() if me is None else me)
        throttled = system.throttled_us(root)
        rate = os.sysconf("SC_CLK_TCK")
        return cls(
            seconds=time.monotonic(), cores=len(cores), gpu=gpu,
            busy_s=sum(ticks[name] for name in system.BUSY) / rate if ticks else None,
            steal_s=ticks["steal"] / rate if "steal" in ticks else None,
            own_s=sum(tree.values()) / rate if tree else None,
            workers={process: _waits(root, process) for process in list(tree)[1:]},
            pressure_s=system.pressure_s(root), throttled_s=None if throttled is None else throttled / 1e6,
            heat=system.throttles(root, cores),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Span:
    """What passed between two moments. others: cores' worth of CPU time that others and the host had of ours; stolen:
    the host's part; pressed, waited, stopped: shares of the time; switches: a second; waited in threads' seconds."""

    seconds: float
    cores: int = 0
    others: float | None = None
    stolen: float | None = None
    switches: float | None = None
    waited_s: float | None = None
    pressed: float | None = None
    stopped: float | None = None
    heat: int | None = None
    gpu: Gpu | None = None

    @classmethod
    def of(cls, before: Moment, after: Moment) -> Span:
        """The differences; a counter that went backwards, as a process' does with its end, counts from nothing."""
        seconds = max(after.seconds - before.seconds, 1e-9)
        busy, own, steal = (
            _between(getattr(before, name), getattr(after, name)) for name in ("busy_s", "own_s", "steal_s")
        )
        taken = None if busy is None or own is None else max(0.0, busy - own) + (steal or 0.0)
        if taken is not None and taken * os.sysconf("SC_CLK_TCK") < FEWEST_TICKS:
            taken = 0.0
        gone = {process: before.workers.get(process, (0, 0.0)) for process in after.workers}
        waits = [
            None if now[1] is None else max(0.0, now[1] - (gone[process][1] or 0.0))
            for process, now in after.workers.items()
        ]
        known = [wait for wait in waits if wait is not None]
        switches = sum(max(0, now[0] - gone[process][0]) for process, now in after.workers.items())
        pressure, throttled = (
            _between(getattr(before, name), getattr(after, name)) for name in ("pressure_s", "throttled_s")
        )
        return cls(
            seconds=seconds, cores=after.cores, gpu=after.gpu,
            others=None if taken is None else taken / seconds, stolen=None if steal is None else steal / seconds,
            switches=switches / seconds if after.workers else None, waited_s=sum(known) if known else None,
            pressed=None if pressure is None else pressure / seconds,
            stopped=None if throttled is None else throttled / seconds,
            heat=None if before.heat is None or after.heat is None else max(0, after.heat - before.heat),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a span was disturbed, and all that was seen. reasons: in words, the weightiest first; factor: how many
    times slower the machine may have been, 1 where nothing says so."""

    reasons: tuple[str, ...]
    factor: float
    span: Span
    canaries_ms: tuple[float, ...]
    best_ms: float | None

    @property
    def disturbed(self) -> bool:
        """Whether anything was amiss."""
        return bool(self.reasons)

    @property
    def reason(self) -> str:
        """`the canary took 11.7× its best (48 ms against 4.1) and others had 0.66 cores`; "" for a quiet machine."""
        return " and ".join(self.reasons)


def judge(
    span: Span, *, canaries_ms: Sequence[float], best_ms: float | None, threads: int = 1, cuda: bool = False
) -> Verdict:  # fmt: skip
    """The verdict on a span in which `threads` of ours computed, between canaries; best_ms: this machine's best."""
    threads = 1 if cuda else max(1, threads)
    worst = max(canaries_ms, default=0.0)
    slower = worst / best_ms if best_ms else 1.0
    found = [*_canary(slower, worst, best_ms, _shared(span)), *_taken(span, threads), *_waiting(span, threads)]
    if span.stopped is not None and span.stopped > STOPPED:
        found.append(
            (1 / max(1 - span.stopped, 0.1), f"its CPU quota stopped it for {100 * span.stopped:.0f} % of the time")
        )
    if span.heat:
        found.append((1.0, f"heat slowed the cores {span.heat} times"))
    if span.gpu is not None and (span.gpu.throttle_mask or 0) & SLOWED:
        found.append((1.0, f"the GPU was slowed: {', '.join(throttle_names(span.gpu.throttle_mask or 0))}"))
    factor = max([1.0, slower if found else 1.0, *(by for by, _ in found)])
    reasons = tuple(text for _, text in sorted(found, key=lambda entry: -entry[0]))
    return Verdict(reasons=reasons, factor=factor, span=span, canaries_ms=tuple(canaries_ms), best_ms=best_ms)


def family(root: Path, me: int) -> dict[int, int]:
    """Of a process and all that descend from it, itself first: the ticks of CPU time that each, and its ended children,
    had; {} where processes cannot be seen."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for process, fields in _processes(root):
        parents[process] = int(fields[1])
        ticks[process] = sum(map(int, fields[11:15]))  # utime, stime and those of waited-for children
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    found, waiting = {}, [me] if me in ticks else []
    while waiting:
        process = waiting.pop()
        found[process] = ticks[process]
        waiting += children.get(process, [])
    return found


def _canary(slower: float, worst: float, best_ms: float | None, shared: bool) -> Iterator[tuple[float, str]]:
    """Too slow a canary; where a GPU has other processes, a little too slow is enough."""
    if best_ms and slower > (GPU_SHARED if shared else CANARY_BAD):
        also = " while another process has work on the GPU" if shared else ""
        yield slower, f"the canary took {slower:.3g}× its best ({worst:.3g} ms against {best_ms:.3g}){also}"


def _shared(span: Span) -> bool:
    return span.gpu is not None and (span.gpu.processes or 0) > 1


def _taken(span: Span, threads: int) -> Iterator[tuple[float, str]]:
    """What others had beyond the cores that we leave free."""
    excess = (span.others or 0.0) - max(0, span.cores - threads)
    if span.cores and excess > TAKEN:
        of_host = f" ({span.stolen:.2g} of them the host's)" if (span.stolen or 0) > TAKEN / 2 else ""
        yield (
            threads / max(threads - excess, threads / 10),
            f"others had {span.others:.2g} of {span.cores} cores{of_host}",
        )


def _waiting(span: Span, threads: int) -> Iterator[tuple[float, str]]:
    """Our threads' wait for a core: shown where /proc/stat tells of one container only. More threads than cores wait
    for each other, which is their own doing."""
    if not span.cores or threads > span.cores:
        return
    if span.waited_s is not None:
        share = span.waited_s / span.seconds / threads
        if share > WAITED:
            yield (
                1 / max(1 - share, 0.1),
                f"its threads waited for a core for {100 * min(share, 1):.0f} % of their time",
            )
    elif (span.pressed or 0) > PRESSED and (span.switches or 0) > SWITCHED * threads:
        pressed, switches = 100 * (span.pressed or 0), span.switches or 0
        text = f"pressure on the CPUs for {pressed:.0f} % of the time with {switches:.0f} switches a second"
        yield 1.0, text


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _processes(root: Path) -> Iterator[tuple[int, list[str]]]:
    """Of each visible process the fields of its stat that follow its name."""
    try:
        names = os.listdir(root / "proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            fields = (system.text(root, f"proc/{name}/stat") or "").rpartition(")")[2].split()
            if len(fields) > 14 and all(field.lstrip("-").isdecimal() for field in fields[1:15]):
                yield int(name), fields


def _waits(root: Path, process: int) -> tuple[int, float | None]:
    """Involuntary switches of a process' threads, and the seconds that they waited for a core."""
    switches, waited = 0, None
    try:
        threads = os.listdir(root / f"proc/{process}/task")
    except OSError:
        return 0, None
    for thread in threads:
        status = system.text(root, f"proc/{process}/task/{thread}/status") or ""
        switches += system.number(status.partition("nonvoluntary_ctxt_switches:")[2].strip()) or 0
        schedule = (system.text(root, f"proc/{process}/task/{thread}/schedstat") or "").split()
        if len(schedule) == 3 and schedule[1].isdecimal():
            waited = (waited or 0.0) + int(schedule[1]) / 1e9
    return switches, waited
