"""What the page says about each run in words: the machine, the command that repeats it, and what has no figure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.answers.recommend import drifts
from harness.cases import settings
from harness.cases.space import Sweep, read_toml
from harness.errors import UsageError
from harness.figures import Run
from harness.figures._style import device_name
from harness.store import problem
from harness.store import runs as store
from harness.store.contention import banner, reason
from harness.store.documents import part
from harness.store.rows import LEFT_OUT
from harness.store.selection import Frame, size

MOST_SIZES = 12
MOST_REASONS = 5


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run: its name, the devices it ran on, (name, value) pairs, the whole environment.json, sweep and command."""

    name: str
    folder: str
    devices: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    environment: str
    sweep: str
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contention:
    """That a run's machine was not quiet: the sentence that stands above everything, and each reason with its cases."""

    run: str
    banner: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Cases of one variant, or one metric of many cases, without a figure: how many, where, and the first reason."""

    run: int
    what: str
    status: str
    count: int
    where: str
    note: str
    others: int


def of_run(run: Run, name: str) -> RunFacts:
    """The facts of a run, as far as its files tell them."""
    pairs = run.frame[["machine", "device"]].drop_duplicates().itertuples(index=False)
    text = (store.read_sweep(run.folder) or b"").decode("utf-8", errors="replace")
    return RunFacts(
        name=name, folder=str(run.folder), devices=tuple(device_name(run, row.device, row.machine) for row in pairs),
        pairs=tuple((key, value) for key, value in _pairs(run) if value), sweep=text,
        environment=json.dumps(run.environment, indent=2, sort_keys=True) if run.environment else "",
        commands=_commands(run, text),
    )  # fmt: skip


def contention(run: Run, name: str) -> Contention | None:
    """What of a run was measured beside other work; None where nothing was."""
    timed = run.frame[run.frame["metric"] == "latency"]
    marked = timed[timed["note"].map(lambda note: bool(reason(note)))]
    if marked.empty:
        return None
    told = [
        f"{row.label} n={row.n} {row.phase} {row.dtype}{_asked(row.problem)}: {reason(row.note)}"
        for row in marked.itertuples()
    ]
    more = (
        [f"and {len(told) - MOST_REASONS} more: filter the rows by note:contended"] if len(told) > MOST_REASONS else []
    )
    return Contention(run=name, banner=banner(len(marked), len(timed), "case"), reasons=(*told[:MOST_REASONS], *more))


def gaps(run: Run, at: int) -> tuple[list[Gap], list[Gap]]:
    """(variants with cases of which nothing succeeded, metrics that cases lack although others succeeded)."""
    frame = run.frame
    if frame.empty:
        return [], []
    failed = frame[frame["status"] != "ok"]
    measured = frame.groupby(["machine", "case_id"])["status"].transform(lambda status: (status == "ok").any())
    whole = failed[~measured[failed.index].astype(bool)].drop_duplicates(["machine", "case_id"])
    partial = failed[measured[failed.index].astype(bool)]
    return (
        [_gap(at, str(key[0]), str(key[1]), rows) for key, rows in whole.groupby(["label", "status"], sort=False)],
        [_gap(at, str(key[0]), str(key[1]), rows) for key, rows in partial.groupby(["metric", "status"], sort=False)],
    )


def _gap(at: int, what: str, status: str, rows: Frame) -> Gap:
    notes = list(dict.fromkeys(note for note in rows["note"] if note))
    return Gap(
        run=at, what=what, status=status, count=len(rows), where=_sizes(rows), note=notes[0] if notes else "",
        others=max(0, len(notes) - 1),
    )  # fmt: skip


def _sizes(rows: Frame) -> str:
    """`n = 16k; m = 16, 64; train, forward`."""
    texts = []
    for name, values in (("n", rows["n"]), ("m", rows["m"].dropna())):
        held = [size(int(value)) if name == "n" else str(int(value)) for value in sorted(set(values))]
        if held:
            more = f" and {len(held) - MOST_SIZES} more" if len(held) > MOST_SIZES else ""
            texts.append(f"{name} = {', '.join(held[:MOST_SIZES])}{more}")
    problems = [name for name in dict.fromkeys(rows["problem"]) if name != problem.DEFAULT]
    words = [", ".join(dict.fromkeys(held)) for held in (rows["phase"], rows["dtype"], problems)]
    return "; ".join([*texts, *filter(None, words)])


def _asked(name: str) -> str:
    return "" if name == problem.DEFAULT else f" {name}"


def _pairs(run: Run) -> list[tuple[str, str]]:
    known = run.environment
    inner = part(known, "environment")
    cpu, gpu, memory, system, torch = (part(inner, name) for name in ("cpu", "gpu", "memory", "system", "torch"))
    cores = f", {cpu['affinity_cores']} cores" if cpu.get("affinity_cores") else ""
    return [
        ("machine", ", ".join(dict.fromkeys(run.frame["machine"]))),
        ("commit", ", ".join(dict.fromkeys(filter(None, run.frame["commit"])))),
        ("rows", f"{len(run.frame)} of {run.frame['case_id'].nunique()} cases"),
        ("rows left out", _left_out(run)),
        ("started", _first(s.get("started_utc") for s in known.get("sessions") or [] if isinstance(s, dict))),
        ("took", f"{known['wall_s']:.0f} s" if isinstance(known.get("wall_s"), int | float) else ""),
        ("processor", f"{cpu['model']}{cores}" if cpu.get("model") else ""),
        ("GPU", _joined(gpu, "name", "driver")),
        ("memory", _gibibytes(gpu.get("memory_bytes") or memory.get("total_bytes"))),
        ("system", _joined(system, "os", "kernel", "container")),
        ("torch", _joined(torch, "version", "blas", "cpu_capability")),
        ("threads", str(torch.get("threads") or "")),
        ("ceilings", "; ".join(_ceilings(known))),
        ("canary drift", ", ".join(f"{100 * moved:+.1f} %" for moved in drifts(known))),
    ]


def _left_out(run: Run) -> str:
    """How many rows could not be read, and why the first."""
    wrong = run.whole.attrs.get(LEFT_OUT, ())
    return f"{len(wrong)} that cannot be read; {wrong[0]}" if wrong else ""


def _ceilings(known: Mapping[str, Any]) -> list[str]:
    """`cpu: copy 20 GB/s, float32 0.1 TFLOP/s` of the newest session; of a run on several machines of each one's."""
    held: dict[str, dict[str, Any]] = {}
    for session in known.get("sessions") or []:
        held |= part(session, "ceilings")
    if len(held) < 2:
        return _told(part(known, "ceilings"))
    return [f"{machine}: {text}" for machine, own in held.items() for text in _told(own)]


def _told(ceilings: Mapping[str, Any]) -> list[str]:
    found = []
    for device, values in ceilings.items():
        if not isinstance(values, dict):
            continue
        rates = [f"{name} {rate:.3g} TFLOP/s" for name, rate in part(values, "matmul_tflops").items()
                 if isinstance(rate, int | float)]  # fmt: skip
        copy = values.get("copy_gb_per_s")
        copied = [f"copy {copy:.3g} GB/s"] if isinstance(copy, int | float) else []
        found.append(f"{device}: {', '.join([*copied, *rates])}")
    return found


def _commands(run: Run, sweep: str) -> tuple[str, ...]:
    """The commit to stand on, the options that give the sweep, and the same by its file."""
    folder = shlex.quote(str(run.folder))
    commits = [commit.removesuffix("-dirty") for commit in dict.fromkeys(run.frame["commit"]) if commit]
    lines = [f"git checkout {shlex.quote(commits[0])}"] if len(commits) == 1 else []
    if not sweep:
        return tuple(lines)
    command = sweep_command(run)
    return (*lines, command, f"harness run --config {folder}/{store.SWEEP}") if command else tuple(lines)


def sweep_command(run: Run) -> str:
    """`harness run …` with the options of a run's sweep; "" where it has none that can be read."""
    try:
        wanted = Sweep.parse(read_toml(run.folder / store.SWEEP, of_run=True))
    except UsageError:
        return ""
    words = ["harness", "run"]
    usual = Sweep()
    for name in Sweep.model_fields:
        value = getattr(wanted, name)
        by_tokens = name == "n" and not wanted.resolution  # a model of others at so many, which n alone tells
        if (value == getattr(usual, name) and not by_tokens) or (name == "resolution" and not value):
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, dict):
            words += [word for key, text in value.items() for word in (option, f"{key}={settings.written(text)}")]
        elif name == "causal":
            words += [option] if value == (True,) else []  # both are an axis that a file alone can ask for
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def _joined(part: Mapping[str, Any], *names: str) -> str:
    return ", ".join(str(part[name]) for name in names if part.get(name))


def _first(values: Any) -> str:
    return next((str(value) for value in values if value), "")


def _gibibytes(count: Any) -> str:
    return f"{count / 2**30:.1f} GiB" if isinstance(count, int | float) else ""
