"""The options that describe a sweep, shared by every command that takes one.

    @with_axes                                  # or @with_axes(hidden=("n",), told={"m": "…"})
    def command(given: dict[str, Any], out: Path | None = ...) -> None: ...

`given` receives the keys that were set, the sweep file's first and the command line's on top.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from harness.cli._completion import completing
from harness.errors import UsageError, brief

AXES: dict[str, tuple[Any, str]] = {
    "attention": (list[str], "Variants, or variant:backend, by comma. Default: every variant."),
    "n": (list[str], "Token counts: 4096, 16k, 1k..64k, lists. Default: 4096."),
    "m": (list[str], "Anchors, landmarks or projected length, for variants that have one. Default: 64."),
    "batch": (list[str], "Batch sizes. Default: 1."),
    "heads": (list[str], "Heads. Default: 6."),
    "head_dim": (list[str], "Head dimensions. Default: 64."),
    "dtype": (list[str], "float32, bfloat16, float16, float64. Default: bfloat16 on a GPU, float32 on the CPU."),
    "phase": (list[str], "forward, backward, train. Default: forward."),
    "scope": (list[str], "core (q, k, v in), layer (with its projections) or model. Default: core."),
    "model": (list[str], "Scope model: anchorformer_tiny, _small or _base. Default: anchorformer_tiny."),
    "resolution": (list[str], "Scope model: side of the images in pixels, 224..1792. Default: 224."),
    "device": (str, "auto, cpu, cuda or cuda:<index>. Default: auto."),
    "set": (list[str], "A variant's option, such as anchor.init=paper; repeatable."),
    "metrics": (list[str], "Metrics by comma. Default: all."),
    "plugin": (list[str], "A Python file that defines variants of your own; it is run."),
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
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        config = values.pop("config")
        named = {name: values.pop(name) for name in AXES}
        return command(_merge(config, named), **values)

    texts = {name: text for name, (_, text) in AXES.items()} | dict(told or {})
    shared = [_parameter(name, kind, texts[name], hidden=name in hidden) for name, (kind, _) in AXES.items()]
    shared.append(_parameter("config", Path, "A sweep file in TOML; the command line goes on top of it."))
    wrapped.__signature__ = inspect.Signature(shared + [p.replace(kind=p.KEYWORD_ONLY) for p in own])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*shared, *own)}
    del wrapped.__wrapped__  # type: ignore[attr-defined]
    return wrapped


def _parameter(name: str, kind: Any, text: str, *, hidden: bool = False) -> inspect.Parameter:
    option = typer.Option(
        None, f"--{name.replace('_', '-')}", help=text, show_default=False, metavar=METAVARS.get(name, "LIST"),
        autocompletion=completing(name), hidden=hidden,
    )  # fmt: skip
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _merge(config: Path | None, named: dict[str, Any]) -> dict[str, Any]:
    from harness.door.measure import over_file

    given = {name: value for name, value in named.items() if value is not None and value != []}
    if "set" in given:
        given["set"] = _pairs(given["set"])
    return over_file(config, given)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes variant.option=value, such as anchor.init=paper, not {brief(text)!r}")
        pairs[key.strip()] = value.strip()
    return pairs
