"""What can be measured here: the variants as data, and each case resolved to a backend. Imports torch when called.

describe(["cpu"])["anchor"]["backends"]["triton"]["unavailable"]["cpu"]      # a sentence, or None
cached([])["attentions"]                     # the same for every device here, from a file where nothing changed
resolve(case)                                # the backend it takes, or why none; and the bytes it needs
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.cases import foreign, layers
from harness.cases.plugins import contents, is_package
from harness.errors import UsageError
from harness.machine import cache
from harness.store import opening
from harness.store.documents import Damaged, misfit, parse_json
from harness.store.record import Case, canonical_options, off_default
from harness.store.replacing import replacing
from harness.vision import models

PACKAGES = (
    "torch", "triton", "xformers", "flash-attn", "flash-attn-3", "fa3-fwd", "flash-attn-4", "nvidia-cuda-runtime-cu12",
)  # fmt: skip
VARIABLES = ("CUDA_VISIBLE_DEVICES", "TRITON_INTERPRET", "PATH")
MOST_CACHE_BYTES = 1 << 24
ON_DEVICES = {str: (str, None)}  # why it does not run on each, or what runs there
SHAPE: dict[str, Any] = {"devices": [str], "attentions": {str: dict}}
ENTRY: dict[str, Any] = {  # of the cached answer: all of it is there
    "title": str, "paper": str, "exact": bool, "floor": bool, "different": bool, "not_parallel": object,
    "bottleneck": str, "shares_query_key": bool, "problems": [str],
    "options": {str: {"default": object, "choices": list, "help": str}},
    "exponents": ({str: float}, None), "unavailable": ON_DEVICES, "best": ON_DEVICES,
    "backends": {str: {"summary": str, "automatic": bool, "layer": (str, None), "unavailable": ON_DEVICES}},
}  # fmt: skip
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A case with its backend and canonical options, or a status and the reason why it cannot run.

    peak_bytes: what the cost model says it holds at its worst, inputs included; flops: of one call; None without a
    model. note: the variant's remark about this size.
    """

    case: Case
    status: str = "ok"
    note: str = ""
    peak_bytes: int | None = None
    flops: int | None = None


def describe(devices: list[str]) -> dict[str, Any]:
    """Every variant as JSON: paper, options, exponents, backends and why each is unavailable on each device."""
    import attentions

    return {name: _describe(attentions.spec(name), devices) for name in attentions.names()}


def kinds(entries: Mapping[str, Any]) -> dict[str, str]:
    """What each variant of a catalogue (see describe) is: exact, approximate, different (by design) or a floor."""
    return {
        name: next((kind for kind in ("floor", "exact", "different") if entry.get(kind)), "approximate")
        for name, entry in entries.items()
    }


def defaults(entries: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The default of each option of each variant of a catalogue, as rows write it."""
    return {
        name: {option: str(told["default"]) for option, told in entry.get("options", {}).items()}
        for name, entry in entries.items()
    }


def cached(plugins: Sequence[str], *, compute: bool = True) -> dict[str, Any] | None:
    """`describe` for every kind of device here, kept in a file: finding out imports torch and runs small cases.

    The file's name is a hash of everything the answer depends on: the code, plugins, packages, driver, environment
    variables and the interpreter. Returns None when there is no file and `compute` is off. Raises UsageError for a
    plugin that is no file.
    """
    for plugin in plugins:
        if not (Path(plugin).is_file() or is_package(Path(plugin))):
            raise UsageError(f"plugin {plugin}: no such file")
    path = cache.folder() / f"catalogue-{_cache_key(plugins)}.json"
    known = _kept(path)
    if known is not None or not compute:
        return known
    import attentions

    for plugin in plugins:
        attentions.load_plugin(plugin)
    found = {"devices": list(attentions.devices()), "attentions": describe(list(attentions.devices()))}
    with suppress(OSError):  # a read-only home costs time, not the answer
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, several=True) as partial:
            partial.write_text(json.dumps(found), encoding="utf-8")
    return found


def _kept(path: Path) -> dict[str, Any] | None:
    """What the file holds; None for one that is not there or not whole: a cache is found out and written again."""
    try:
        known = parse_json(opening.read(path, most=MOST_CACHE_BYTES))
    except (OSError, Damaged):
        return None
    whole = (
        not misfit(known, SHAPE)
        and all(key in known for key in SHAPE)
        and _whole_entries(known["attentions"], known["devices"])
    )
    return known if whole else None


def resolve(case: Case) -> Resolution:
    """Choose the backend. Raises AttentionError for names, options and sizes that do not exist."""
    import torch

    import attentions

    if case.scope == "model" and models.is_foreign(case.model_options["model"]):
        case, status, note = foreign.settled(case)
        return Resolution(case=case, status=status, note=note)
    spec = attentions.spec(case.attention)
    options = spec.parse_options(case.variant_options)
    told = {**off_default(options, spec.defaults), **case.model_options, **case.problem.options}
    case = replace(case, options=canonical_options(told))
    problem = case.problem.keywords
    if reason := spec.why_not(**problem):
        return Resolution(case=case, status="unsupported", note=reason)
    work = attentions.Work(
        b=case.b, h=case.h, n=case.n, d=case.d, m=case.m, phase=case.core_phase,
        itemsize=getattr(torch, case.dtype).itemsize, options=options, **problem,
    )  # fmt: skip
    size = attentions.Size(heads=case.h, head_dim=case.d, tokens=case.n, anchors=case.m, **problem)
    if reason := spec.check(size, options):
        return Resolution(case=case, status="unsupported", note=reason)
    dtype = getattr(torch, case.dtype)
    missing = attentions.why_unavailable(case.label, device=case.device)
    if missing is None and case.scope == "model":
        missing = models.missing()
    if missing:
        return Resolution(case=case, status="unavailable", note=missing)
    try:
        backend = attentions.resolve(case.label, device=case.device, dtype=dtype, work=work)
    except attentions.Unavailable as reason:
        return Resolution(case=case, status="unsupported", note=str(reason))
    case = replace(case, backend=backend.name)
    if reason := layers.why_not_here(case, backend):
        return Resolution(case=case, status="unsupported", note=reason)
    if spec.model is None:
        return Resolution(case=case, note=spec.note(work))
    cost = spec.cost(
        case.b, case.h, case.n, case.d, case.m, case.core_phase, itemsize=work.itemsize, backend=backend.name,
        **problem, **options,
    )  # fmt: skip
    if case.scope == "model":
        peak, flops = _whole(case, spec, backend, cost.flops)
        return Resolution(case=case, note=spec.note(work), peak_bytes=peak, flops=flops)
    vectors = (1 if case.phase == "forward" else 2) * work.tokens + 2 * work.keys  # q, its output's gradient; k and v
    peak = cost.peak + vectors * work.d * work.itemsize
    return Resolution(case=case, note=spec.note(work), peak_bytes=peak, flops=cost.flops)


def _whole(case: Case, spec: Any, backend: Any, core: int) -> tuple[int, int]:
    """Bytes at the worst moment and FLOPs of a whole model, `core` those of one block's attention."""
    import torch

    architecture, resolution = models.of_case(case)
    itemsize = 4 if case.is_on("amp") else getattr(torch, case.dtype).itemsize  # weights, and what autocast leaves
    costs = [
        spec.cost(
            case.b, case.h, case.n, case.d, case.m, phase, itemsize=itemsize, backend=backend.name,
            **case.variant_options,
        )
        for phase in ("forward", "train")
    ]  # fmt: skip
    size = {"b": case.b, "phase": case.phase, "shared": spec.shares_query_key}
    held = architecture.peak_bytes(resolution, core=(costs[0].peak, costs[1].peak), itemsize=itemsize, **size)
    return held, architecture.flops(resolution, core=core, **size)


def _whole_entries(entries: Mapping[str, Any], devices: Sequence[str]) -> bool:
    """Whether every variant of a cached answer has all that `_describe` tells, for every device."""

    def whole(entry: Mapping[str, Any]) -> bool:
        parts = [*entry["backends"].values(), entry]
        return (
            all(one.keys() >= ENTRY["options"][str].keys() for one in entry["options"].values())
            and all(one.keys() >= ENTRY["backends"][str].keys() for one in entry["backends"].values())
            and all(set(told) == {*devices} for told in (entry["best"], *(one["unavailable"] for one in parts)))
        )

    return bool(devices) and all(
        not misfit(entry, ENTRY) and entry.keys() >= ENTRY.keys() and whole(entry) for entry in entries.values()
    )


def _describe(spec: Any, devices: list[str]) -> dict[str, Any]:
    import attentions
    from attentions import parallel

    def refusals(name: str) -> dict[str, str | None]:
        return {device: refusal(name, device) for device in devices}

    def refusal(name: str, device: str) -> str | None:
        try:
            return attentions.why_unavailable(name, device=device)
        except Exception as error:  # a plugin's own `missing`; one variant's fault must not hide the others
            return f"fails to tell whether it runs on {device}: {type(error).__name__}: {error}"

    return {
        "title": spec.title,
        "paper": spec.paper,
        "exact": spec.exact,
        "floor": spec.floor,
        "different": spec.different,
        "not_parallel": parallel.why_not(spec.name),
        "bottleneck": spec.bottleneck,
        "shares_query_key": spec.shares_query_key,
        "problems": [*spec.problems],
        "options": {
            o.name: {"default": _plain(o.default), "choices": [_plain(c) for c in o.choices], "help": o.help}
            for o in spec.options
        },
        "exponents": asdict(spec.exponents) if spec.exponents else None,
        "unavailable": refusals(spec.name),
        "best": {device: _best(spec, device) for device in devices},
        "backends": {
            b.name: {
                "summary": b.summary,
                "automatic": b.automatic,
                "layer": layers.told(b),
                "unavailable": refusals(f"{spec.name}:{b.name}"),
            }
            for b in spec.backends
        },
    }


def _plain(value: Any) -> Any:
    """The value as JSON has it, or as text."""
    known = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)) or value is None
    return value if known else str(value)


def _best(spec: Any, device: str) -> str | None:
    import torch

    import attentions

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    work = attentions.Work(b=1, h=6, n=4096, d=64, m=64, itemsize=dtype.itemsize, options=spec.defaults)
    try:
        return attentions.resolve(spec.name, device=device, dtype=dtype, work=work).name
    except Exception:  # attentions.Unavailable, or a plugin's own failure, which `unavailable` tells
        return None


def _sources(value: str) -> str:
    """The files of the package that an entry point names, with their sizes and times: one under work changes in place.

    Found without importing it.
    """
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec(value.partition(":")[0].partition(".")[0])
        if found is not None:
            folders = found.submodule_search_locations or []
            files = [path for folder in folders for path in Path(folder).rglob("*.py")] or [Path(found.origin or "")]
            with suppress(OSError):
                return ",".join(f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in sorted(files))
    return ""


def _cache_key(plugins: Sequence[str]) -> str:
    digest = hashlib.sha256()
    sources = sorted((Path(__file__).resolve().parents[2] / "attentions").rglob("*.py"))
    for path in [*sources, Path(__file__), *map(Path, plugins), DRIVER]:
        with suppress(OSError):
            digest.update(f"{path}\0".encode() + contents(path))
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{name}={metadata.version(name)}\0".encode())
    entries = sorted(f"{e.name}={e.value} {_sources(e.value)}" for e in metadata.entry_points(group="attentions"))
    environment = [f"{name}={os.environ.get(name)}" for name in VARIABLES]
    facts = [
        *entries,
        *environment,
        sys.executable,
        platform.version(),
        *sorted(map(str, Path("/dev").glob("nvidia*"))),
    ]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:16]
