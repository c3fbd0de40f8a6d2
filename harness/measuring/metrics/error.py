"""numeric_error and approximation_error (1): ‖out − ref‖ / ‖ref‖ with ref in float64. Two different questions.

numeric_error: against the same definition with the same parameters, for every phase; with gradients, the largest over
the output and every gradient. It gates: a case whose error exceeds its dtype's tolerance is `error` and is not timed.
approximation_error: against softmax attention of the same q, k, v; forward only, scope core.

An exact variant is compared on at most ROWS query rows, whose reference costs n·ROWS instead of n²: the first and the
last EDGE, where kernels that work in blocks go wrong, and random ones between. The gradient entering a backward pass is
then restricted to those rows. A whole model is compared on the first image of the batch, softmax attention in blocks,
and its gradients as one vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("numeric_error", "approximation_error")
NEEDS = ("first_call",)

ROWS, EDGE = 512, 64
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
# Gradients of sums that nearly cancel lose more: anchor's with init=paper reach 6e-2 in bfloat16 by eager PyTorch.
GRADIENT_FACTOR = 4


class WrongResult(RuntimeError):
    """The output is not finite or not what the definition gives; the case is not timed."""


class ExactRows(nn.Module):
    """Softmax attention of the chosen query rows over all keys: (b, h, n, d) each → (b, h, rows, d)."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q[rows] kᵀ / √d) v, one head at a time and again in backward: a million tokens' scores take 4 GB."""
        heads = zip(q[:, :, self.rows].unbind(1), k.unbind(1), v.unbind(1), strict=True)
        return torch.stack([checkpoint(_attend, *head, use_reentrant=False) for head in heads], dim=1)


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Compare; raises WrongResult above the tolerance."""
    rows = _rows(subject)
    out = _output(subject)
    error, note = _numeric(subject, rows, out)
    tolerance = TOLERANCES[subject.case.dtype] * (GRADIENT_FACTOR if subject.needs_graph else 1)
    if not error <= tolerance:
        raise WrongResult(
            f"numeric_error {error:.3g} exceeds the tolerance {tolerance:g} of {subject.case.dtype}{note}"
        )
    yield Reading(metric="numeric_error", value=error, samples=1, note=note.lstrip("; "))
    yield _approximation(subject, rows, out)


def relative(out: Tensor, reference: Tensor) -> float:
    """‖out − ref‖ / ‖ref‖ in float64; infinite when anything is not finite or a zero reference is missed."""
    difference = (out.double() - reference).norm().item()
    size = reference.norm().item()
    if not math.isfinite(difference) or not math.isfinite(size):
        return math.inf
    return difference / size if size else (0.0 if difference == 0 else math.inf)


def _rows(subject: Subject) -> Tensor:
    n = subject.case.n
    if n <= ROWS:
        return torch.arange(n, device=subject.device)
    generator = torch.Generator().manual_seed(subject.case.seed)
    middle = torch.randperm(n - 2 * EDGE, generator=generator)[: ROWS - 2 * EDGE] + EDGE
    ends = torch.cat([torch.arange(EDGE), torch.arange(n - EDGE, n)])
    return torch.cat([ends, middle]).sort().values.to(subject.device)


def _output(subject: Subject) -> Tensor:
    versions = [tensor._version for tensor in subject.inputs]
    with torch.no_grad():
        out = subject.module(*subject.inputs)
    shape, dtype = tuple(subject.output_shape), subject.dtype
    if out.shape != shape or out.dtype != dtype:
        raise WrongResult(f"the output is {out.dtype} of shape {tuple(out.shape)}, not {dtype} of {shape}")
    if [tensor._version for tensor in subject.inputs] != versions:
        raise WrongResult("the call changes its inputs in place")
    if not torch.isfinite(out).all():
        raise WrongResult(f"the output has {int((~torch.isfinite(out)).sum())} values that are not finite")
    return out


def _numeric(subject: Subject, rows: Tensor, out: Tensor) -> tuple[float, str]:
    """The largest relative error, computed one sample of the batch at a time, and what it was computed on."""
    if subject.case.scope == "model":
        return _whole(subject, out)
    exact = subject.spec.exact
    reference = subject.reference(ExactRows(rows) if exact else None)
    partial = exact and len(rows) < subject.case.n
    note = f"; compared on {len(rows)} of {subject.case.n} query rows" if partial else ""
    if subject.needs_graph:
        return _with_gradients(subject, reference, rows if exact else None), note
    return relative(_select(out, rows) if exact else out, _by_sample(subject, reference, subject.case.b)), note


def _whole(subject: Subject, out: Tensor) -> tuple[float, str]:
    """The error of a model's first image, all its weights in float64: every token of the last block hangs on all."""
    note = f"; compared on the first of {subject.case.b} images" if subject.case.b > 1 else ""
    reference = subject.reference()
    if subject.needs_graph:
        return _with_gradients(subject, reference, None, samples=1), note
    return relative(out[:1], _by_sample(subject, reference, 1)), note


def _by_sample(subject: Subject, module: nn.Module, samples: int) -> Tensor:
    """The module's float64 outputs, one sample of the batch at a time: the reference may need much memory."""
    with torch.no_grad():
        return torch.cat([module(*(t[at : at + 1].double() for t in subject.inputs)) for at in range(samples)])


def _with_gradients(
    subject: Subject, reference: nn.Module, rows: Tensor | None, *, samples: int | None = None
) -> float:
    """The largest error over output and gradients; of the first `samples` alone where that is given."""
    samples = samples or subject.case.b
    gradient = subject.gradient.clone()
    gradient[samples:] = 0
    if rows is not None:
        mask = torch.zeros(gradient.shape[-2], 1, device=gradient.device, dtype=gradient.dtype)
        mask[rows] = 1
        gradient = gradient * mask
    subject.clear()
    out = subject.module(*subject.inputs)
    out.backward(gradient)
    mine = [t.grad for t in (*subject.inputs, *subject.module.parameters())]
    subject.clear()
    inputs = [t.detach().double().requires_grad_(t.requires_grad) for t in subject.inputs]
    expected = []
    for sample in range(samples):
        piece = reference(*(t[sample : sample + 1] for t in inputs))
        entering = gradient[sample : sample + 1].double()
        piece.backward(entering if rows is None else _select(entering, rows))
        expected.append(piece.detach())
    theirs = [t.grad for t in (*inputs, *reference.parameters())]
    if [g is None for g in mine] != [g is None for g in theirs]:
        raise WrongResult("gradients reach other tensors than in the reference")
    mine_out = out.detach()[:samples]
    errors = [relative(_select(mine_out, rows) if rows is not None else mine_out, torch.cat(expected))]
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    if subject.case.scope == "model":  # one vector, as a training step sees it: some parts of a deep model's cancel
        mine_all, theirs_all = (torch.cat([pair[side].double().flatten() for pair in pairs]) for side in (0, 1))
        pairs = [(mine_all, theirs_all)]
    return max([*errors, *(relative(a, b) for a, b in pairs)])


def _approximation(subject: Subject, rows: Tensor, out: Tensor) -> Reading:
    name = "approximation_error"
    if subject.case.scope != "core" or subject.needs_graph:
        return Reading(metric=name, status="unsupported", note="defined for phase forward of scope core")
    expected = _by_sample(subject, ExactRows(rows), subject.case.b)
    partial = len(rows) < subject.case.n
    note = f"against full on {len(rows)} of {subject.case.n} query rows" if partial else "against full"
    return Reading(metric=name, value=relative(_select(out, rows), expected), samples=1, note=note)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1) @ v


def _select(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.index_select(-2, rows)
