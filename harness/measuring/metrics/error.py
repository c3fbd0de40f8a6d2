"""numeric_error and approximation_error (1): ‖out − ref‖ / ‖ref‖ with ref in float64. Two different questions.

numeric_error: against the same definition with the same parameters, for every phase; with gradients, the largest over
the output and every gradient. It gates: a case whose error exceeds its dtype's tolerance is `error` and is not timed.
approximation_error: against softmax attention of the same q, k, v; forward only, scope core.

An exact variant is compared on at most ROWS query rows. The gradient entering a backward pass is then restricted to
those rows. A whole model is compared on the first image of the batch, softmax attention in blocks, and its gradients
as one vector.

What the call allocates is poisoned (harness.measuring.poison). `check_again` is the same after the timing: other values
below the addresses that the call knows, and on CUDA the stream held until the call is enqueued, so that work on a
stream of its own that does not wait for its inputs reads the old ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.measuring.metrics import Settings
from harness.measuring.outputs import WrongResult, called, called_back
from harness.measuring.poison import poisoned
from harness.measuring.subject import Subject
from harness.measuring.truth import chosen_rows, relative, softmax_rows, truth_of
from harness.store.record import Reading

PROVIDES = ("numeric_error", "approximation_error")
NEEDS = ("first_call",)

ROWS, EDGE = 512, 64
ROWS_AGAIN, EDGE_AGAIN = 128, 32
UNSEEN = 1 + secrets.randbits(60)  # which draw of inputs: one that nobody could prepare for, the same in this process
CHANCE = 2  # times the tolerance: other inputs round otherwise, and who just passed must not fail by chance
HOLD_CYCLES = 40_000_000  # some 20 ms of a GPU: longer than enqueuing what follows
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
# Gradients of sums that nearly cancel lose more: anchor's with init=paper reach 6e-2 in bfloat16 by eager PyTorch.
GRADIENT_FACTOR = 4


@dataclass(frozen=True)
class _Taken:
    """What a call gave: its output, and the gradients of inputs and parameters for the output gradient `entering`."""

    out: Tensor
    gradients: Sequence[Tensor | None] = ()
    entering: Tensor | None = None


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Compare; raises WrongResult above the tolerance."""
    subject.rewind()
    rows = chosen_rows(subject, ROWS, EDGE)
    with poisoned(subject.device):
        out = called(subject)
        taken = _call_with_gradients(subject, rows) if subject.needs_graph else _Taken(out)
    error, note = _error(subject, rows, taken), _compared_on(subject, rows)
    _judge(error, subject, note)
    yield Reading(metric="numeric_error", value=error, samples=1, note=note)
    yield _approximation(subject, rows, out)


def check_again(subject: Subject, *, told: Callable[[], object] = lambda: None) -> None:
    """Raise WrongResult where the call, now that it has been timed, is wrong on inputs that it has not seen.

    told: called once the inputs are the new ones, for whoever has to pass them on.
    """
    rows = chosen_rows(subject, ROWS_AGAIN, EDGE_AGAIN, draw=UNSEEN)
    values = subject.drawn(UNSEEN)
    with poisoned(subject.device):
        if subject.device.type == "cuda":
            torch.cuda._sleep(HOLD_CYCLES)
        subject.renew(values)
        told()
        taken = _call_with_gradients(subject, rows) if subject.needs_graph else _Taken(called(subject))
    _judge(_error(subject, rows, taken), subject, _compared_on(subject, rows), factor=CHANCE)


def _judge(error: float, subject: Subject, note: str, *, factor: float = 1) -> None:
    tolerance = factor * TOLERANCES[subject.case.dtype] * (GRADIENT_FACTOR if subject.needs_graph else 1)
    if not error <= tolerance:
        text = f"numeric_error {error:.3g} exceeds the tolerance {tolerance:g} of {subject.case.dtype}"
        raise WrongResult(f"{text}; {note}" if note else text)


def _compared_on(subject: Subject, rows: Tensor) -> str:
    """What part of the result was compared, where it was not all."""
    case = subject.case
    if case.scope == "model":
        kind = "sequences" if case.is_of_tokens else "images"
        return f"compared on the first of {case.b} {kind}" if case.b > 1 else ""
    if subject.definition != "reference":
        return f"compared with {case.attention}:{subject.definition} in float64, where the reference does not fit"
    partial = subject.spec.exact and len(rows) < case.n
    return f"compared on {len(rows)} of {case.n} query rows" if partial else ""


def _part(subject: Subject, rows: Tensor) -> tuple[Tensor | None, int]:
    """The rows (None: all) and the samples of the batch that are compared.

    Of a model the first image, whose every token in the last block hangs on all.
    """
    if subject.case.scope == "model":
        return None, 1
    return (rows if subject.spec.exact else None), subject.case.b


def _call_with_gradients(subject: Subject, rows: Tensor) -> _Taken:
    """A call forward and backward, the gradient of whatever is not compared set to zero."""
    chosen, samples = _part(subject, rows)
    gradient = subject.gradient.clone()
    gradient[samples:] = 0
    if chosen is not None:
        mask = torch.zeros(gradient.shape[-2], 1, device=gradient.device, dtype=gradient.dtype)
        mask[chosen] = 1
        gradient = gradient * mask
    out, gradients = called_back(subject, gradient)
    return _Taken(out, gradients, gradient)


def _error(subject: Subject, rows: Tensor, taken: _Taken) -> float:
    """The largest error over the output and, where there are any, the gradients."""
    chosen, samples = _part(subject, rows)
    truth = truth_of(subject, chosen, samples=samples, gradient=taken.entering)
    error = relative(_select(taken.out[:samples], chosen), truth.out)
    if taken.entering is None:
        return error
    mine, theirs = taken.gradients, truth.gradients
    if [g is None for g in mine] != [g is None for g in theirs]:
        raise WrongResult("gradients reach other tensors than in the reference")
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    if subject.case.scope == "model":  # one vector, as a training step sees it: some parts of a deep model's cancel
        mine_all, theirs_all = (torch.cat([pair[side].double().flatten() for pair in pairs]) for side in (0, 1))
        pairs = [(mine_all, theirs_all)]
    return max([error, *(relative(a, b) for a, b in pairs)])


def _approximation(subject: Subject, rows: Tensor, out: Tensor) -> Reading:
    name = "approximation_error"
    if subject.case.scope != "core" or subject.needs_graph:
        return Reading(metric=name, status="unsupported", note="defined for phase forward of scope core")
    partial = len(rows) < subject.case.n
    note = f"against full on {len(rows)} of {subject.case.n} query rows" if partial else "against full"
    return Reading(metric=name, value=relative(_select(out, rows), softmax_rows(subject, rows)), samples=1, note=note)


def _select(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor.index_select(-2, rows)
