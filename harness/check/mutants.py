"""Planted faults that the gate must catch: in a variant (deterministic checks), and in the gate's own inputs.

outcomes = run(folder, device="cpu")         # each says what caught it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.cases.catalogue import Resolution
from harness.check import baseline, deterministic, revisions
from harness.check.decide import pair_up, slots
from harness.check.pairs import Process, Record, check_origin
from harness.check.probing import Prober
from harness.check.timing import failure
from harness.check.verdict import WORSE, Finding, exit_code
from harness.errors import OK, Failure, UsageError
from harness.store.record import Case, Reading

PLUGIN = "mutants.py"
CAUGHT = ("failed", *WORSE)

FAULTS: dict[str, tuple[str, str, str]] = {
    "an extra operator": ("out", "out * 1.0", "kernels"),
    "an extra allocation": ("out", "(torch.empty(3 * k.numel() * anchors.shape[0] // 8), out)[1]", "peak_memory"),
    "an extra matrix product": ("out", "out + 0 * (k @ k.transpose(-2, -1).mean(-1, keepdim=True))", "flops"),
    "float16 inside": ("k", "k.half().float()", "numeric_error"),
    "bfloat16 inside": ("k", "k.bfloat16().float()", "numeric_error"),
    "m replaced by n": ("out", "out + 0 * (k @ k.transpose(-2, -1)).sum()", "flops over n"),
    "the work left out": ("out", "v", "presence"),
    "NaN in the output": ("out", "out / 0 * 0", "presence"),
    "another output dtype": ("out", "out.double()", "presence"),
    "a crash": ("k", "__import__('os').kill(__import__('os').getpid(), 9)", "presence"),
    "a changed definition": ("reference", "compute(k * 1.0001, v, anchors)", "definition"),
}  # what is planted → (which expression, its replacement, the check that must catch it)

SOURCE = '''"""Written by harness check --self-test: anchor attention with a fault planted in each variant."""

from dataclasses import replace

import torch

import attentions
from attentions.base import Backend

compute = attentions.spec("anchor").backend("reference").compute
'''


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A planted fault and what became of it."""

    name: str
    caught: bool
    what: str


def run(folder: Path, *, device: str) -> list[Outcome]:
    """Every fault, planted in a variant and in the gate's inputs."""
    return [*in_variants(folder, device=device), *in_inputs()]


def in_variants(folder: Path, *, device: str) -> Iterator[Outcome]:
    """The deterministic checks of each faulty variant against the sound one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLUGIN).write_text(plugin(), encoding="utf-8")
    with revisions.here(plugins=[str(folder / PLUGIN)]) as side, Prober(side, device=device, timeout=120) as prober:
        session = prober.open()
        cases = {name: _case(name, session["device"]) for name in _names().values()}
        sound = prober.facts(Resolution(case=cases["sound"]))
        for fault, name in _names().items():
            if name == "sound":
                continue
            case = cases[name]
            findings = deterministic.compare(str(case), base=sound, head=prober.facts(Resolution(case=case)))
            if FAULTS[fault][2] == "flops over n":
                findings = prober.complexity(case, session["catalogue"][name]["exponents"])
            by = [finding for finding in findings if finding.verdict in CAUGHT]
            expected = any(finding.check == FAULTS[fault][2] for finding in by)
            yield Outcome(name=fault, caught=expected, what=_said(by))


def in_inputs() -> Iterator[Outcome]:
    """What is wrong with the gate's own inputs, which it must refuse or fail."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        yield _refuses("no baseline", lambda: baseline.read(folder / "none.csv"), hide=name)
        for what, damage in _DAMAGES.items():
            lines = _baseline_text(folder).splitlines(keepends=True)
            (folder / "damaged.csv").write_text("".join(damage(lines)), encoding="utf-8")
            yield _refuses(f"a baseline with {what}", lambda: baseline.read(folder / "damaged.csv"), hide=name)
    medians = [1.0] * 16
    yield _fails("a sample that is NaN", failure("case", _record(medians, broken=math.nan)))
    yield _fails("a sample of zero", failure("case", _record(medians, broken=0.0)))
    yield _fails("too few samples", failure("case", _record(medians, count=4)))
    yield _fails("a crash in one process", failure("case", _record(medians, crashed=True)))
    yield _refuses("sides in another order", lambda: pair_up([*slots(8)[1:], "head"], medians))
    side = revisions.Side(name="base", commit="", path=(), plugins=(), python="", origin=("/base/attentions",))
    yield _refuses("swapped sides", lambda: check_origin(side, ["/head/attentions"]))
    yield _refuses("base against itself", lambda: revisions.refuse_same([], "HEAD"))
    gone = deterministic.compare("case", base=deterministic.Facts(), head=None)
    yield _fails("a case gone at head", gone[0])
    crash = deterministic.compare(
        "case", base=deterministic.Facts(), head=deterministic.Facts(status="error", note="x")
    )
    yield _fails("a crash at head", crash[0])
    yield _fails("a fall to 3 %", _fell())


def plugin() -> str:
    """The plugin file: the sound variant and one for each fault."""
    lines = [SOURCE]
    for fault, name in _names().items():
        where, what, _ = FAULTS.get(fault, ("", "", ""))
        key, out = (what if where == "k" else "k"), (what if where == "out" else "out")
        reference = f"lambda k, v, anchors: {what}" if where == "reference" else "compute"
        fast = reference if where == "reference" else f"fast_{name}"
        lines += [
            f"def fast_{name}(k, v, anchors):", f"    out = compute({key}, v, anchors)", f"    return {out}", "",
            f"{name.upper()} = replace(attentions.spec('anchor'), name={name!r}, rank=None, model=None, backends=(",
            f"    Backend('fast', {fast}), Backend('reference', {reference})))", "",
        ]  # fmt: skip
    return "\n".join(lines)


def _names() -> dict[str, str]:
    """What is planted → the variant's name."""
    return {"nothing": "sound", **{fault: f"fault_{place}" for place, fault in enumerate(FAULTS)}}


def _case(name: str, device: str) -> Case:
    return Case(
        attention=name, backend="fast", scope="core", phase="forward", b=1, h=2, n=512, d=32, m=32, dtype="float32",
        device=device, options="init=paper",  # flat: what rounding costs stays within the tolerance of a right result
    )  # fmt: skip


def _record(medians: Sequence[float], *, broken: float = 1.0, count: int = 5, crashed: bool = False) -> Record:
    processes = [
        Process(side=side, slot=slot, samples={"case": [[value] * 5]})
        for slot, (side, value) in enumerate(zip(slots(len(medians) // 2), medians, strict=True))
    ]
    samples = {} if crashed else {"case": [[1.0, 1.0, 1.0, 1.0, broken][:count]]}
    processes[1] = Process(side="head", slot=1, samples=samples, failures={"case": "SIGSEGV"} if crashed else {})
    return Record(tuple(processes))


def _baseline_text(folder: Path) -> str:
    """A sound baseline of two cases."""
    facts = deterministic.Facts(
        readings={name: Reading(metric=name, value=1.0) for name in deterministic.METRICS}, toolchain="torch",
        definition={"fields": "0", "size": 1.0, "projections": [1.0]},
    )  # fmt: skip
    rows = baseline.rows_of([(_case(name, "cpu"), facts, []) for name in ("one", "two")], machine="m", commit="c")
    baseline.write(folder / "sound.csv", rows)
    baseline.read(folder / "sound.csv")  # the damage must be what is refused
    return (folder / "sound.csv").read_text(encoding="utf-8")


_DAMAGES: dict[str, Callable[[list[str]], list[str]]] = {
    "a case missing": lambda lines: [line for line in lines if ",two," not in line],
    "a metric missing": lambda lines: [line for line in lines if ",flops," not in line],
    "NaN": lambda lines: [line.replace(",FLOP,1.0,", ",FLOP,nan,") for line in lines],
    "an edited size": lambda lines: [line.replace(",512,", ",1024,") for line in lines],
    "no rows": lambda lines: lines[:1],
}


def _fell() -> Finding:
    facts = [
        deterministic.Facts(
            readings={name: Reading(metric=name, value=value) for name in deterministic.METRICS}, toolchain="torch",
            definition={"fields": "0", "size": 1.0, "projections": [1.0]},
        )
        for value in (100.0, 3.0)
    ]  # fmt: skip
    found = deterministic.compare("case", base=facts[0], head=facts[1])
    return next(finding for finding in found if finding.check == "flops")


def _refuses(name: str, attempt: Callable[[], object], *, hide: str = "") -> Outcome:
    try:
        attempt()
    except (UsageError, Failure, ValueError) as error:
        return Outcome(name=name, caught=True, what=f"refused: {str(error).replace(hide + '/', '') if hide else error}")
    return Outcome(name=name, caught=False, what="")


def _fails(name: str, finding: Finding | None) -> Outcome:
    """Whether the finding is a bad one and makes the command fail."""
    caught = finding is not None and finding.verdict in CAUGHT and exit_code([finding], strict=False) != OK
    return Outcome(name=name, caught=caught, what=_said([finding] if finding else []))


def _said(findings: Sequence[Finding]) -> str:
    return "; ".join(
        f"{f.check} {f.verdict}" + (f" ({f.base:.3g} → {f.head:.3g})" if f.base and f.head else "") for f in findings
    )
