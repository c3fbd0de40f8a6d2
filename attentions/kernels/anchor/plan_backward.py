"""The backward pass: which launches, with which tiles and workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attentions.kernels.anchor import backward as stages
from attentions.kernels.anchor import blocked, single, sums
from attentions.kernels.anchor.choices import Choice, default_choice, span_of
from attentions.kernels.anchor.devices import Device, device_of
from attentions.kernels.anchor.plan import (
    FEW_SPLITS,
    Builder,
    Memory,
    Plan,
    Strides,
    for_kernel,
    kept_places,
    strides_like,
    strides_of,
)
from attentions.kernels.anchor.plan_forward import add_denominators, add_gather

TENSORS: tuple[str, ...] = ("g", "k", "v", "anchors", "kept", "grad_k", "grad_v", "grad_anchors")


def backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, *,
    grad_k: Strides | None = None, grad_v: Strides | None = None,
    device: Device | None = None, choice: Choice | None = None, precision: str = "ieee",
) -> Plan:  # fmt: skip
    """Plan the gradients for tensors of these shapes, strides and dtypes; runs on TENSORS: g = ∂L/∂O (b, h, n, d), k,
    v, anchors, kept as a forward pass left it, and what it fills: grad_k and grad_v in k's dtype, grad_anchors in the
    anchors' shape and dtype.

    grad_k, grad_v: their strides; by default laid out as k and v are.
    """
    device = device or device_of(k.device)
    make = Builder(k, anchors, "backward", device=device, precision=precision)
    choice = choice or default_choice(make.kind, n=make.n, m=make.m, parts=make.parts, device=device)
    means, degree, _ = kept_places(make.parts, make.m, make.d)
    tokens = {
        "k": Memory("k", k.dtype), "v": Memory("v", v.dtype), "g": Memory("g", g.dtype),
        "anchors": Memory("anchors", anchors.dtype), "n": make.n, "m": make.m, "heads": make.h, "scale": make.scale,
    }  # fmt: skip
    strides = {
        "k": strides_of(k), "v": strides_of(v), "g": strides_of(g),
        "grad_k": grad_k or strides_like(k), "grad_v": grad_v or strides_like(v),
    }  # fmt: skip
    filled = {"grad_k": Memory("grad_k", k.dtype), "grad_v": Memory("grad_v", v.dtype)}
    given = tokens | filled | {"means": means, "degree": degree, "root": make.root}
    given |= {f"{name}_strides": for_kernel(x) for name, x in strides.items()}
    if choice.schedule == "single":
        tile, shares = choice.tiles["single_backward"], make.floats(make.parts, make.m, make.d)
        make.launch(
            single.single_backward_kernel, tile, make.parts, given | {"grad_partial": shares},
            WGMMA=make.wgmma,
        )  # fmt: skip
        add_anchor_gradient(make, shares, anchors, make.parts)
        return make.plan(TENSORS, choice)
    grads = {"grad_sums": make.floats(make.parts, make.m, make.d), "grad_degree": make.floats(make.parts, make.m)}
    given |= grads
    given["lse"] = add_denominators(make, choice, given)
    splits, partial, _ = add_gather(
        make, choice, {**given, "v": given["g"], "v_strides": given["g_strides"]}, degree=False
    )
    reduced = splits > FEW_SPLITS or not make.kind.whole
    if reduced:
        rows, wide = make.reduction()
        arguments = {"partial": partial, "means": means, "degree": degree, "splits": splits, "m": make.m} | grads
        make.small(
            sums.mean_gradients_kernel, make.parts * -(-make.m // rows), arguments,
            ROWS=rows, WIDE=wide, D=make.d, D_PAD=make.kind.d_pad,
        )  # fmt: skip
    if make.kind.whole:
        tile = choice.tiles["differentiate"]
        span, chunks = span_of(make.n, choice.chunks, tile.tokens)
        grad_partial = make.floats(make.parts * chunks, make.m, make.d)
        cut = {"splits": splits, "chunks": chunks, "span": span}
        arguments = _without(given, "lse") | cut | {"partial": partial, "grad_partial": grad_partial}
        make.launch(
            stages.backward_kernel, tile, make.parts * chunks, arguments, REDUCED=reduced, WGMMA=make.wgmma
        )  # fmt: skip
    else:
        # Of the kernel for tokens every stride is a number at run time: it forms few offsets, and its registers are
        # those that the compiler's report tells.
        arguments = _without(given, "degree") | {"balance": make.floats(make.parts, make.n)}
        tile = choice.tiles["tokens"]
        make.launch(
            blocked.backward_tokens_kernel, tile, make.parts * -(-make.n // tile.tokens),
            arguments | {f"{name}_strides": x for name, x in strides.items()},
        )  # fmt: skip
        tile = choice.tiles["anchors"]
        span, chunks = span_of(make.n, choice.chunks, tile.tokens)
        grad_partial = make.floats(make.parts * chunks, make.m, make.d)
        arguments = _without(arguments, "grad_k", "grad_v", "grad_k_strides", "grad_v_strides")
        make.launch(
            blocked.backward_anchors_kernel, tile, make.parts * chunks * -(-make.m // tile.anchors),
            arguments | {"splits": chunks, "span": span, "grad_partial": grad_partial},
        )  # fmt: skip
    add_anchor_gradient(make, grad_partial, anchors, make.parts * chunks)
    return make.plan(TENSORS, choice)


def add_anchor_gradient(make: Builder, partial: Memory, anchors: Tensor, parts: int) -> None:
    """dU: the sum of `parts` shares of it."""
    size = make.m * make.d
    # Where there are few elements, narrow and deep: there are hundreds of matrices, and a step waits for memory once.
    block, wide = (32, 64) if size <= 8192 else (256, 32)
    arguments = {
        "partial": partial, "grad_anchors": Memory("grad_anchors", anchors.dtype), "parts": parts, "size": size
    }  # fmt: skip
    if make.per_head:
        arguments |= {"heads": make.h, "chunks": parts // max(1, make.parts)}
        make.small(sums.head_gradient_kernel, make.h * -(-size // block), arguments, BLOCK=block, WIDE=wide)
    else:
        make.small(sums.anchor_gradient_kernel, -(-size // block), arguments, BLOCK=block, WIDE=wide)


def _without(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}
