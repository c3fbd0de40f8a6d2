"""The options that describe a sweep, shared by every command that takes one.

    @with_axes                                  # or @with_axes(hidden=("n",), told={"m": "…"})
    def command(given: dict[str, Any], out: Path | None = ...) -> None: ...

`given` receives the keys that were set, the sweep file's first and the command line's on top.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cli._given import given_first, given_of, parameter

AXES: dict[str, tuple[Any, str]] = {
    "attention": (list[str], "Variants, or variant:backend, by comma. Default: every variant."),
    "n": (list[str], "Token counts: 4096, 16k, 1k..64k, lists. Default: 4096."),
    "m": (list[str], "Anchors, landmarks or projected length, for variants that have one. Default: 64, or below n."),
    "batch": (list[str], "Batch sizes, or max: the largest that fits. Default: 1."),
    "heads": (list[str], "Heads. Default: 6."),
    "head_dim": (list[str], "Head dimensions. Default: 64."),
    "causal": (bool, "Token i attends to tokens up to i."),
    "kv_heads": (list[str], "Heads of keys and values, which divide --heads: 1,2,4. Default: as many."),
    "kv_tokens": (list[str], "Tokens of keys and values, of another sequence: 1k,16k. Default: n."),
    "dtype": (list[str], "float32, bfloat16, float16, float64. Default: bfloat16 on a GPU, float32 on the CPU."),
    "phase": (list[str], "forward, backward, train; of models step, with the optimizer. Default: forward."),
    "scope": (list[str], "core (q, k, v in), layer (with its projections) or model. Default: core."),
    "model": (list[str], "Scope model: anchorformer_tiny, _small, _base; timm:NAME, hf:NAME, FILE.py:MAKER."),
    "resolution": (list[str], "Scope model: side of the images in pixels, 224..1792. Default: 224."),
    "compile": (bool, "Scope model: by torch.compile."),
    "amp": (bool, "Scope model: weights in float32, computed under autocast in --dtype."),
    "device": (str, "auto, cpu, cuda or cuda:<index>. Default: auto."),
    "set": (list[str], "A variant's option: anchor.init=paper, or anchor.init=paper,sharp."),
    "metrics": (list[str], "Metrics by comma. Default: all."),
    "plugin": (list[str], "A Python file or package with attention of your own; it is run."),
    "seed": (str, "Seed of inputs, parameters and case order. Default: 0."),
    "budget": (str, "Seconds of samples a case. Default: 2."),
    "timeout": (str, "Seconds after which a case is given up. Default: 120."),
    "patience": (str, "Seconds a run may wait for a quiet machine; 0: take nothing again. Default: 20."),
}

METAVARS = {"device": "NAME", "seed": "WHOLE", "config": "FILE"}
METAVARS |= dict.fromkeys(("budget", "timeout", "patience"), "SECONDS")


def with_axes(
    command: Callable[..., Any] | None = None, *, hidden: Sequence[str] = (), told: Mapping[str, str] | None = None
) -> Callable[..., Any]:
    """Give a command the sweep options and `--config FILE`; it receives them as its first argument, `given`.

    hidden: those that it refuses, which its help leaves out; told: what its help says of others, where that differs.
    """
    if command is None:
        return functools.partial(with_axes, hidden=hidden, told=told)
    texts = {name: text for name, (_, text) in AXES.items()} | dict(told or {})
    shared = [
        parameter(name, kind, texts[name], hidden=name in hidden, metavar=METAVARS.get(name, "LIST"))
        for name, (kind, _) in AXES.items()
    ]
    file = parameter("config", Path, "A sweep file in TOML; the command line goes on top of it.", metavar="FILE")
    return given_first(command, [*shared, file], lambda values: _merge(values.pop("config"), values))


def _merge(config: Path | None, named: dict[str, Any]) -> dict[str, Any]:
    from harness.cases import settings
    from harness.door.measure import over_file

    given = given_of(named)
    if "set" in given:
        given["set"] = settings.pairs(given["set"])
    return over_file(config, given)
