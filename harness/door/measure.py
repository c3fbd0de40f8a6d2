"""Measuring from Python: `harness.run`, and what `harness run` calls.

run = harness.run(attention=["flash", my_attention], n=[1024, 4096], m=64, out="results/mine")
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from harness.cases import foreign, shapes
from harness.cases.plugins import check_named
from harness.cases.sharing import torchrun
from harness.cases.space import DEFAULTS, Sweep, read_toml
from harness.door.bar import listening
from harness.door.defined import Defined, named
from harness.door.engine import Choice
from harness.door.stored import Run, read
from harness.errors import UsageError, brief
from harness.store import runs as store
from harness.sweep import conduct

Sizes = int | str | Iterable[int | str]
Names = str | Iterable[str]

_temporary: list[tempfile.TemporaryDirectory[str]] = []  # of runs without `out`: deleted as Python ends


class Keys(TypedDict, total=False):
    """The keys of a sweep file, each as a value or a list; what each takes and its default: `harness run --help`."""

    attention: Any  # names, Specs, functions
    n: Sizes
    m: Sizes
    batch: Sizes
    heads: Sizes
    head_dim: Sizes
    causal: bool | Iterable[bool]
    kv_heads: Sizes
    kv_tokens: Sizes
    dtype: Names
    phase: Names
    scope: Names
    model: Names
    resolution: Sizes
    compile: bool | Iterable[bool]
    amp: bool | Iterable[bool]
    device: str
    set: Mapping[str, Any]
    sequence_parallel: int
    metrics: Names
    plugin: Names
    seed: int
    budget: float
    timeout: float
    patience: float


def run(
    *, out: str | Path | None = None, name: str | None = None, resume: bool = False, config: str | Path | None = None,
    progress: bool = True, engine: str = "local", address: str | None = None, devices: str | None = None,
    **keys: Unpack[Keys],
) -> Run:  # fmt: skip
    """Measure a sweep in worker processes and return its rows; what `harness run` does, with the same words.

    keys: those of a sweep file. An entry of `attention` may also be an `attentions.Spec` or a plain function
        f(q, k, v) of (b, h, n, d) tensors, defined in a script or a notebook: its rows have its name, their notes a
        digest of its code, and the run's folder holds it (variants/). Nothing of the caller's code runs but these.
    out: the run's folder. Without one it is a temporary folder, deleted as Python ends: `save` of the Run keeps it.
    resume: finish what `out` lacks, such as after an interrupt; rows are written as they are measured. Keys may be
        left out, those given must be as before; code (plugins, and functions in `attention`) is named again.
    name: of a folder under results/, in place of `out`.
    config: a sweep file; keys go on top of it. progress: a bar on stderr or in the notebook; warnings are Python's.
    engine, address, devices: as `harness run` has them.

    Raises UsageError (a ValueError) in the words of the command line, StoreError (one, too) for a folder, Failure where
    the harness fails. A case that fails is a row that says why.
    """
    if torchrun():
        raise UsageError(
            "under torchrun start the command line, torchrun … -m harness run …; harness.run starts its own"
        )
    given, defined = split(over_file(Path(config) if config else None, keys))
    choice = Choice.parse(engine, address=address, devices=devices, given=given)
    kept = under_name(name, out=Path(out) if out is not None else None)
    if resume and kept is None:
        raise UsageError("resume=True needs out=, the folder of the run to go on with")
    folder = kept or _temporary_folder()
    try:
        with listening(progress=progress) as listener:
            measured(given, folder, choice=choice, listener=listener, resume=resume, defined=defined)
    except KeyboardInterrupt:
        if (folder / store.MEASUREMENTS).exists():
            raise KeyboardInterrupt(f"finish it with the same call and out={str(folder)!r}, resume=True") from None
        raise
    return read(folder)


def measured(
    given: Mapping[str, Any], folder: Path, *, choice: Choice, listener: conduct.Listener, resume: bool,
    defined: Sequence[Defined] = (),
) -> conduct.Result:  # fmt: skip
    """Measure a sweep into a folder, or what a folder lacks. given: keys of the sweep, variants by name.

    Raises UsageError, StoreError and Failure; rows that are written stay.
    """
    files = [str(variant.path(folder)) for variant in defined]
    if resume:
        store.check_folder(folder, resume=True)
        if files or "plugin" in given:
            given = {**given, "plugin": [*_listed(given.get("plugin", [])), *files]}
        wanted = conduct.resumed(folder, given)
        for variant in defined:
            variant.check_same(folder)
    else:
        wanted = Sweep.parse(given)
        wanted = wanted.model_copy(update={"plugin": (*wanted.plugin, *files)})
        store.check_folder(folder, resume=False)
        for variant in defined:
            variant.write(folder)
    conduct.check_names(wanted)
    with choice.open(wanted, warn=listener.warn) as measuring:
        return conduct.run(wanted, folder, engine=measuring, listener=listener, resume=resume)


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Defined]]:
    """The keys with every variant by its name, and those that the caller defined. Raises UsageError."""
    if "attention" not in given or isinstance(given["attention"], str):
        return dict(given), []
    asked = given["attention"]
    entries = [named(entry) for entry in _listed(asked)]
    defined = [entry for entry in entries if isinstance(entry, Defined)]
    for one in defined:
        if [other.name for other in defined].count(one.name) > 1:
            raise UsageError(f"attention holds two variants of the caller's called {one.name}; give them two names")
    names = [entry.name if isinstance(entry, Defined) else entry for entry in entries]
    return {**given, "attention": names}, defined


def over_file(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a sweep file with `given` on top; of `set` each pair. Iterables become lists.

    Raises UsageError; for plugins that only the file names, too.
    """
    known = read_toml(config) if config else {}
    if code := {key: known[key] for key in ("plugin", "model") if key in known}:
        check_named(Sweep.parse(code, source=str(config)).plugin, foreign.named(given), source=str(config))
    for name, value in given.items():
        if name == "set" and isinstance(value, Mapping):
            below = known.get("set", {})
            known["set"] = {**below, **value} if isinstance(below, Mapping) else below  # Sweep.parse refuses it
        else:
            known[name] = list(value) if _several(value) else value
    return shapes.stated(known, DEFAULTS, given=given) if config else known


def fresh(results: Path) -> Path:
    """results/<UTC time>, with a number when two runs start in one second."""
    name, number = f"{datetime.now(UTC):%Y%m%d-%H%M%S}", 1
    while (folder := results / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def under_name(name: str | None, *, out: Path | None, results: Path = Path("results")) -> Path | None:
    """results/NAME, or `out` where no name is given. Raises UsageError for both, and for what names no folder there."""
    if name is None:
        return out
    if out is not None:
        raise UsageError(f"--name {brief(name)} and --out {out} are two folders; give one of them")
    if not name.strip() or name.startswith(".") or "/" in name or not name.isprintable():
        raise UsageError(f"--name takes the name of a folder under {results}/, such as paper-2, not {brief(name)!r}")
    return results / name


def _several(value: Any) -> bool:
    """Whether it is a collection of values rather than one: a list, a range, an array."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Callable)


def _listed(value: Any) -> list[Any]:
    return [*value] if _several(value) else [value]


def _temporary_folder() -> Path:
    _temporary.append(tempfile.TemporaryDirectory(prefix="attention-harness-"))
    return Path(_temporary[-1].name) / "run"
