"""Whether a module is the attention that it looks like: run beside a layer of ours, both must agree.

    source = proven(module, read(module), tokens=197)       # the source, or a sentence why the module is refused

Softmax attention is held against `full`, Physics-Attention against `transolver`. Names of parts do not tell what a
module computes with them: timm's ChannelAttention has the qkv, proj and num_heads of softmax attention, and attends
over channels. So a copy in float64 with random weights (its own may be zero, which would prove nothing) sees small
random inputs of two lengths, in train and in eval mode, with dropout off. Both outputs agree to 1e-13 or so where the
module is what it looks like, and differ by some per cent where it is anything else.

Not seen here: what a module does only with inputs longer than 49 tokens, and what its parents read from it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attentions.base import AttentionError
from attentions.hosts import PHYSICS, BlockAttention, EncoderAttention, Source, hooks, read
from attentions.layer import MultiHeadAttention
from attentions.separate import MASK, SeparateAttention, needed, silence
from attentions.standin import fill, stand_in

AGREES = 1e-9  # of the largest output; rounding in float64 gives 1e-13
LENGTHS = (10, 49)  # one square, as some modules want, and one not
GRIDS = ((2, 5), (7, 7))  # rows and columns of inputs with four dimensions
OURS = (MultiHeadAttention, BlockAttention, EncoderAttention, SeparateAttention)


@dataclass(frozen=True)
class _Trial:
    """The largest difference of the outputs as a share of the largest output; or why there was no output."""

    difference: float = 0.0
    failed: str = ""

    def why(self, source: Source) -> str:
        """The sentence that a module is refused with."""
        kind = "softmax attention" if source.attention == "full" else "Physics-Attention"
        share = f"{self.difference:.2g}" if self.difference < 0.001 else f"{100 * self.difference:.3g} %"
        return self.failed or f"is not {kind}: its output differs by {share} of the largest on random inputs"

    @property
    def agrees(self) -> bool:
        return not self.failed and self.difference <= AGREES  # False for NaN


def proven(module: nn.Module, source: Source, *, tokens: int | None = None) -> Source | str:
    """The source, told how the module takes inputs of four dimensions; a sentence why the module is refused.

    tokens: the longest input that the module has to take.
    """
    if type(module) in OURS:
        return source  # any variant, and nothing else
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        torch.manual_seed(0)
        try:
            theirs, ours = _pair(module, source)
        except Exception as error:  # whatever another library's module raises when it is copied
            return f"cannot be tried: {_said(error)}"
        if source.host is SeparateAttention:
            return _separate(theirs, ours, source, tokens)
        if source.host is not BlockAttention:
            flat = _worst(theirs, ours, _flat_inputs(source, tokens))
            return source if flat.agrees else flat.why(source)
        assert isinstance(ours, BlockAttention)
        flat = _worst(theirs, ours, _flat_inputs(source, tokens))
        if not flat.agrees and not flat.failed:
            return flat.why(source)
        grids: dict[str, _Trial] = {}
        for grid in ("joined", "rows"):
            ours.grid = grid
            grids[grid] = _worst(theirs, ours, _grid_inputs(source, tokens))
            if grids[grid].agrees:
                return replace(source, keywords={**source.keywords, "grid": grid})
        nearest = min(grids.values(), key=lambda trial: trial.difference)
        if nearest.failed:
            return flat.why(source) if flat.failed else source
        return f"{nearest.why(source)} of four dimensions"


def _separate(theirs: nn.Module, ours: nn.Module, source: Source, tokens: int | None) -> Source | str:
    """The source, told whether the module is causal and what it returns; a sentence why it is refused."""
    x = next(_flat_inputs(source, tokens))
    try:
        found = _asked(theirs, x)
    except Exception as error:  # as in _try
        return f"cannot be called with a tensor of {_shape(x)}: {_said(error)}"
    returns = len(found) if isinstance(found, tuple) else 0
    if returns and any(part is not None for part in found[2:]):
        return f"returns {len(found)} things, and more than its output and weights"
    trials: list[_Trial] = []
    for causal in (False, True):
        told = {**source.keywords, "returns": returns, **({"causal": True} if causal else {})}
        layer = stand_in(
            replace(source, keywords=told), "full:reference", anchors=None, tokens=max(LENGTHS), options={}
        )
        layer.double().load_state_dict(ours.state_dict())
        trials.append(_worst(theirs, layer, _flat_inputs(source, tokens)))
        if trials[-1].agrees:
            return replace(source, keywords=told)
    return min(trials, key=lambda trial: trial.difference).why(source)


def _asked(theirs: nn.Module, x: Tensor) -> Any:
    """What a module gives of the tokens alone; a mask that it insists on is None."""
    return theirs(x, **{name: None for name in needed(theirs)[1:] if name == MASK})


def _pair(module: nn.Module, source: Source) -> tuple[nn.Module, MultiHeadAttention]:
    """A copy of the module with random weights, in float64 on the CPU, and the layer that would stand in for it."""
    theirs = copy.deepcopy(module)
    for table in hooks(theirs):
        table.clear()  # a user's hooks are not called with our inputs; the swap's report names them
    elsewhere = any(tensor.is_meta for tensor in (*theirs.parameters(), *theirs.buffers()))
    theirs = theirs.to_empty(device="cpu") if elsewhere else theirs.cpu()
    theirs = theirs.double()
    for parameter in theirs.parameters():
        if not parameter.is_floating_point():
            raise AttentionError(f"has weights of {parameter.dtype}")
        spread = 0.2 if parameter.dim() < 2 else 1.2 * source.dim**-0.5  # logits of a spread of about 1.4
        parameter.normal_(std=spread)
    if elsewhere:
        for buffer in theirs.buffers():
            if buffer.is_floating_point():
                buffer.normal_()
    _without_dropout(theirs, source)
    found = read(theirs)
    if not isinstance(found, Source):
        raise AttentionError("its copy is no attention")
    ours = stand_in(found, f"{found.attention}:reference", anchors=found.anchors, tokens=max(LENGTHS), options={})
    fill(ours, theirs, found, name="", merge="symmetric")
    return theirs, ours


def _without_dropout(module: nn.Module, source: Source) -> None:
    """Off where the report would name it or the stand-in keeps it; any other shows as a difference in training."""
    if source.host is SeparateAttention:
        silence(module)
    parts = [getattr(module, name, None) for name in ("attn_drop", "proj_drop")]
    if hasattr(module, PHYSICS[0]):
        parts += [getattr(module, "dropout", None), *module.get_submodule("to_out").children()]
    for part in parts:
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    if isinstance(module, nn.MultiheadAttention):
        module.dropout = 0.0


def _flat_inputs(source: Source, tokens: int | None) -> Iterator[Tensor]:
    batch_first = source.keywords.get("batch_first", True)
    for length in LENGTHS:
        n = min(length, tokens or length)
        yield torch.randn(*((2, n) if batch_first else (n, 2)), source.dim, dtype=torch.float64)


def _grid_inputs(source: Source, tokens: int | None) -> Iterator[Tensor]:
    for rows, columns in GRIDS:
        if rows * columns <= (tokens or rows * columns):
            yield torch.randn(2, rows, columns, source.dim, dtype=torch.float64)


def _worst(theirs: nn.Module, ours: MultiHeadAttention, inputs: Iterator[Tensor]) -> _Trial:
    """The larger difference of all inputs and both modes; the first failure where there is one."""
    worst = _Trial()
    for x in inputs:
        for training in (True, False):
            trial = _try(theirs.train(training), ours.train(training), x)
            if trial.failed:
                return trial
            worst = worst if worst.difference >= trial.difference else trial  # a NaN is kept: nothing is above it
    return worst


def _try(theirs: nn.Module, ours: MultiHeadAttention, x: Tensor) -> _Trial:
    three, several = isinstance(ours, EncoderAttention), isinstance(ours, SeparateAttention)
    shape = _shape(x)
    try:
        found = theirs(x, x, x)[0] if three else _asked(theirs, x) if several else theirs(x)
        found = found[0] if several and isinstance(found, tuple) else found
    except Exception as error:  # whatever another library's module raises: it cannot be called as a stand-in is
        return _Trial(failed=f"cannot be called with a tensor of {shape}: {_said(error)}", difference=float("inf"))
    if not isinstance(found, Tensor) or found.shape != x.shape:
        got = " × ".join(map(str, found.shape)) if isinstance(found, Tensor) else type(found).__name__
        return _Trial(failed=f"makes {got} of a tensor of {shape}", difference=float("inf"))
    expected: Any = ours(x, x, x) if three else ours(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    return _Trial(difference=((found - expected).abs().max() / expected.abs().max()).item())


def _shape(x: Tensor) -> str:
    return " × ".join(map(str, x.shape))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
