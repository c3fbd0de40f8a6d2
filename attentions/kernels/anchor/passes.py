"""The forward and the backward pass of one call: by the plan that is known for it, else by a new one.

What decides a plan is in its key: shapes, strides, dtypes, devices, what the caller asked for, and the state of tuning.
All addresses are multiples of 16 bytes and all strides of 16 elements (Triton specialises kernels by that): what comes
otherwise is copied. A known call allocates its results and one workspace and launches; nothing else. Memory always
comes from the caching allocator at the call, so that streams, CUDA graphs and threads each get their own; a plan holds
none.

Threads: plans are looked up without a lock (a dict's get and set are atomic) and never change. Two that meet a new call
at once plan it twice; either plan may stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attentions.kernels.anchor import plan, plan_backward, plan_forward, tuning
from attentions.kernels.anchor.choices import SCHEDULES, UNIT, unsupported
from attentions.kernels.anchor.launching import DIRECT, Prepared, hooked, prepare
from attentions.kernels.anchor.plan import Allocate, Plan

PRECISIONS = ("ieee", "tf32", "tf32x3")
ODD = 15  # bits that the address of what a kernel reads must not have
MOST_KNOWN = 4096  # plans; forgotten all at once when there are more, as where every call has another n


class New(NamedTuple):
    """A result that a call allocates."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Known(NamedTuple):
    """A call that was planned: its launches and what it allocates, on the device that is to be current.

    both: kept and workspace in one, this `after_kept` bytes on; apart, apart_grad: bytes from k to v in one tensor of
    both, and between their gradients.
    """

    prepared: Prepared
    allocate: Allocate
    results: tuple[New, ...]
    kept: New
    workspace: New
    both: New
    after_kept: int
    apart: int
    apart_grad: int


_known: dict[tuple[Any, ...], Known] = {}


def forward(
    k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str, *, save: bool
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(O, kept); kept is for the backward pass and may be None unless `save`. schedule: empty for the best known."""
    at_k, at_v, at_u = k.data_ptr(), v.data_ptr(), anchors.data_ptr()
    key = (
        "forward", k.shape, k.stride(), k.dtype, k.get_device(), v.shape, v.stride(), v.dtype, v.get_device(),
        anchors.shape, anchors.stride(), anchors.dtype, anchors.get_device(), schedule, precision, tuning.generation,
    )  # fmt: skip
    known = _known.get(key)
    if known is None or (at_k | at_v | at_u) & ODD or hooked():
        return _new_forward(key, k, v, anchors, schedule, precision)
    return _run_forward(known, at_k, at_v, at_u, save)


def forward_fused(
    kv: Tensor, anchors: Tensor, schedule: str, precision: str, *, save: bool
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The same from (b, n, 2, h, d), to (b, n, h, d)."""
    at, at_u = kv.data_ptr(), anchors.data_ptr()
    key = (
        "forward_fused", kv.shape, kv.stride(), kv.dtype, kv.get_device(), anchors.shape, anchors.stride(),
        anchors.dtype, anchors.get_device(), schedule, precision, tuning.generation,
    )  # fmt: skip
    known = _known.get(key)
    if known is None or (at | at_u) & ODD or hooked():
        return _new_forward_fused(key, kv, anchors, schedule, precision)
    return _run_forward(known, at, at + known.apart, at_u, save)


def backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of k, v and the anchors."""
    at_g, at_k, at_v, at_u = g.data_ptr(), k.data_ptr(), v.data_ptr(), anchors.data_ptr()
    key = (
        "backward", k.shape, k.stride(), k.dtype, k.get_device(), v.stride(), v.dtype, v.get_device(),
        g.stride(), g.dtype, g.get_device(), anchors.shape, anchors.stride(), anchors.dtype, anchors.get_device(),
        schedule, precision, tuning.generation,
    )  # fmt: skip
    known = _known.get(key)
    if known is None or (at_g | at_k | at_v | at_u) & ODD or hooked():
        return _new_backward(key, g, k, v, anchors, kept, schedule, precision)
    prepared, allocate, (new_k, new_v, new_u) = known[:3]
    if prepared.current_device() != prepared.index:
        with torch.cuda.device(prepared.index):
            return backward(g, k, v, anchors, kept, schedule, precision)
    grad_k, grad_v, grad_u = allocate(*new_k), allocate(*new_v), allocate(*new_u)
    workspace = allocate(*known.workspace)
    prepared.launch(
        (at_g, at_k, at_v, at_u, kept.data_ptr(), grad_k.data_ptr(), grad_v.data_ptr(), grad_u.data_ptr(),
         workspace.data_ptr())
    )  # fmt: skip
    return grad_k, grad_v, grad_u


def backward_fused(
    g: Tensor, kv: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of kv, in its own shape, and of the anchors; g is (b, n, h, d)."""
    at_g, at, at_u = g.data_ptr(), kv.data_ptr(), anchors.data_ptr()
    key = (
        "backward_fused", kv.shape, kv.stride(), kv.dtype, kv.get_device(), g.stride(), g.dtype, g.get_device(),
        anchors.shape, anchors.stride(), anchors.dtype, anchors.get_device(), schedule, precision, tuning.generation,
    )  # fmt: skip
    known = _known.get(key)
    if known is None or (at_g | at | at_u) & ODD or hooked():
        return _new_backward_fused(key, g, kv, anchors, kept, schedule, precision)
    prepared, allocate, (new, new_u) = known[:3]
    if prepared.current_device() != prepared.index:
        with torch.cuda.device(prepared.index):
            return backward_fused(g, kv, anchors, kept, schedule, precision)
    grad, grad_u, workspace = allocate(*new), allocate(*new_u), allocate(*known.workspace)
    of_k, of_u, held = grad.data_ptr(), grad_u.data_ptr(), workspace.data_ptr()
    prepared.launch((at_g, at, at + known.apart, at_u, kept.data_ptr(), of_k, of_k + known.apart_grad, of_u, held))
    return grad, grad_u


def new_kept(k: Tensor, anchors: Tensor) -> Tensor:
    """Memory for what a forward pass keeps; k is (b, h, n, d)."""
    size = plan.kept_places(k.shape[0] * k.shape[1], *anchors.shape[-2:])[2]
    return plan.allocate((size,), (1,), dtype=torch.float32, device=k.device)


def views(kv: Tensor) -> tuple[Tensor, Tensor]:
    """k and v, (b, h, n, d) views of (b, n, 2, h, d)."""
    return kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)


def inner(tensor: Tensor) -> Tensor:
    """The tensor itself if its strides are what kernels take; else a copy.

    Copied is what has a strided last dimension or tokens too far apart for 32-bit offsets inside a tile (an expanded
    gradient, a transposed view), and, with its dimensions in the same order in memory, what has a stride that is no
    multiple of 16 elements (a slice of odd rows).
    """
    *strides, last = tensor.stride()
    if tensor.numel() == 0:
        return tensor
    if last != 1 or not all(0 <= stride < 2**23 for stride in strides[1:]):
        return tensor.contiguous()
    even = all(size == 1 or stride % UNIT == 0 for size, stride in zip(tensor.shape[:-1], strides, strict=True))
    return tensor if even else tensor.clone()


def readable(tensor: Tensor) -> Tensor:
    """The same, copied also where its address is no multiple of 16 bytes; not for tensors without memory."""
    read = inner(tensor)
    return read.clone() if read.data_ptr() & ODD else read


def check(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> None:
    """Raises ValueError for what the kernels do not take, saying what they take."""
    problem = unsupported(k, v, anchors)
    if problem:
        raise ValueError(f"anchor:triton {problem}")
    if schedule and schedule not in SCHEDULES:
        raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if k.shape[-1] % UNIT:
        raise ValueError(f"these operators take a head_dim that is a multiple of {UNIT}, not {k.shape[-1]}; call "
                         "anchor_attention or anchor_attention_fused, which pad it")  # fmt: skip
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")


def _run_forward(known: Known, at_k: int, at_v: int, at_u: int, save: bool) -> tuple[Tensor, Tensor | None]:
    prepared, allocate, (new,) = known[:3]
    if prepared.current_device() != prepared.index:
        with torch.cuda.device(prepared.index):
            return _run_forward(known, at_k, at_v, at_u, save)
    out = allocate(*new)
    if save:
        kept = allocate(*known.kept)
        held = allocate(*known.workspace) if known.workspace.shape[0] else kept  # which then is not read
        prepared.launch((at_k, at_v, at_u, out.data_ptr(), kept.data_ptr(), held.data_ptr()))
        return out, kept
    held = allocate(*known.both)
    at = held.data_ptr()
    prepared.launch((at_k, at_v, at_u, out.data_ptr(), at, at + known.after_kept))
    return out, None


def _new_forward(
    key: tuple[Any, ...], k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    check(k, v, anchors, schedule, precision)
    read = readable(k), readable(v), readable(anchors.contiguous())
    if any(ours is not theirs for ours, theirs in zip(read, (k, v, anchors), strict=True)):
        return forward(*read, schedule, precision, save=True)  # type: ignore[return-value]
    out, kept = plan.output_like(k), new_kept(k, anchors)
    choice = tuning.choose(k, v, anchors, "forward", schedule or None)
    planned = plan_forward.forward(k, v, anchors, out=plan.strides_of(out), choice=choice, precision=precision)
    _run(planned, dict(zip(plan_forward.TENSORS, (k, v, anchors, out, kept), strict=True)), key, (out,))
    return out, kept


def _new_forward_fused(
    key: tuple[Any, ...], kv: Tensor, anchors: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    check(*views(kv), anchors, schedule, precision)
    read = readable(kv), readable(anchors.contiguous())
    if read[0] is not kv or read[1] is not anchors:
        return forward_fused(*read, schedule, precision, save=True)  # type: ignore[return-value]
    (k, v), (b, n, _, h, d) = views(kv), kv.shape
    out = plan.allocate((b, n, h, d), (n * h * d, h * d, d, 1), dtype=kv.dtype, device=kv.device)
    kept, heads = new_kept(k, anchors), out.transpose(1, 2)
    choice = tuning.choose(k, v, anchors, "forward", schedule or None)
    planned = plan_forward.forward(k, v, anchors, out=plan.strides_of(heads), choice=choice, precision=precision)
    _run(planned, dict(zip(plan_forward.TENSORS, (k, v, anchors, heads, kept), strict=True)), key, (out,))
    return out, kept


def _new_backward(
    key: tuple[Any, ...], g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor,
    schedule: str, precision: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    read = readable(g), readable(k), readable(v), readable(anchors.contiguous())
    if any(ours is not theirs for ours, theirs in zip(read, (g, k, v, anchors), strict=True)):
        return backward(*read, kept, schedule, precision)
    results = plan.output_like(k), plan.output_like(v), _like(anchors)
    _plan_backward(key, (g, k, v, anchors, kept, *results), results, schedule, precision)
    return results


def _new_backward_fused(
    key: tuple[Any, ...], g: Tensor, kv: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    read = readable(g), readable(kv), readable(anchors.contiguous())
    if any(ours is not theirs for ours, theirs in zip(read, (g, kv, anchors), strict=True)):
        return backward_fused(*read, kept, schedule, precision)
    results = _like(kv), _like(anchors)
    tensors = (g.transpose(1, 2), *views(kv), anchors, kept, *views(results[0]), results[1])
    _plan_backward(key, tensors, results, schedule, precision)
    return results


def _plan_backward(
    key: tuple[Any, ...], tensors: tuple[Tensor, ...], results: tuple[Tensor, ...], schedule: str, precision: str
) -> None:  # fmt: skip
    g, k, v, anchors, _, grad_k, grad_v, _ = tensors
    choice = tuning.choose(k, v, anchors, "backward", schedule or None)
    planned = plan_backward.backward(
        g, k, v, anchors, grad_k=plan.strides_of(grad_k), grad_v=plan.strides_of(grad_v),
        choice=choice, precision=precision,
    )  # fmt: skip
    _run(planned, dict(zip(plan_backward.TENSORS, tensors, strict=True)), key, results)


def _run(planned: Plan, given: Mapping[str, Tensor], key: tuple[Any, ...], results: tuple[Tensor, ...]) -> None:
    """Run a new plan, and know it from now on; not where Triton is to launch, nor while tuning must wait."""
    device = given["k"].device
    if not DIRECT or hooked() or tuning.postponed(device):
        planned.run(given)
        return
    if any(x.data_ptr() & ODD for x in (*results, given["kept"])):
        raise RuntimeError("the allocator hands out addresses that are not multiples of 16, which the kernels count on")
    prepared = prepare(planned, given)
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    grads = (given["grad_k"].data_ptr(), given["grad_v"].data_ptr()) if "grad_k" in given else (0, 0)
    kept, workspace = given["kept"].numel(), planned.workspace_bytes // 4
    after = -(-kept // 32) * 32  # a workspace is aligned, alone or not
    _known[key] = Known(
        prepared, plan.allocator(device), tuple(New(tuple(x.shape), x.stride(), x.dtype) for x in results),
        kept=_floats(kept), workspace=_floats(workspace), both=_floats(after + workspace), after_kept=4 * after,
        apart=given["v"].data_ptr() - given["k"].data_ptr(), apart_grad=grads[1] - grads[0],
    )  # fmt: skip


def _floats(count: int) -> New:
    return New((count,), (1,), torch.float32)


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same shape, contiguous."""
    strides, step = [], 1
    for size in reversed(tensor.shape):
        strides.append(step)
        step *= size
    return plan.allocate(tuple(tensor.shape), tuple(reversed(strides)), dtype=tensor.dtype, device=tensor.device)
