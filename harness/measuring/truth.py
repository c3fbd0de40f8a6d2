"""What is right: the float64 result of a problem and its gradients, computed once for all cases that share it.

truth = truth_of(subject, chosen_rows(subject, 512, 64), samples=1)      # Truth(out, gradients, entering)

A problem is its inputs and parameters, bit for bit, and what is made of them. Backends of one definition share it, all
exact variants share softmax attention's, its phases share the output, and the error of an approximation is read
against the same softmax attention of the same q, k and v for every variant and m. dtypes do not share: their inputs are
rounded first, and 1e-9 of float64 is far below what that rounding moves. What is kept is bounded (`Kept`); the rest is
computed again.

An exact variant is compared on some query rows only, whose reference costs n·rows instead of n²: the first and the
last, where kernels that work in blocks go wrong, and random ones between.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.machine.memory import free_bytes
from harness.measuring.outputs import WrongResult, fingerprint
from harness.measuring.subject import Subject

SOFTMAX = "softmax attention"
SCORES = 1 << 25  # held at once, 256 MB of float64: 512 rows of 65536 keys; of a million keys they would be 12 GB
FEW = 4096  # tokens on which a frugal backend has to be what the reference is before it stands for it
ALIKE = 1e-9
SHARE_KEPT = 1 / 16  # of the memory that is free as the first truth is kept


@dataclass(frozen=True)
class Truth:
    """out: the float64 output, of the chosen rows where a problem has them.

    gradients: of inputs, then parameters, for the output gradient whose digest is `entering`; () without one.
    """

    out: Tensor
    gradients: tuple[Tensor | None, ...] = ()
    entering: Hashable = None

    @property
    def nbytes(self) -> int:
        """Bytes that keeping it takes."""
        return sum(t.nbytes for t in (self.out, *self.gradients) if t is not None)


class Kept:
    """Truths of recent problems, the ones used longest ago dropped beyond a bound of bytes."""

    def __init__(self) -> None:
        self._truths: OrderedDict[Hashable, Truth] = OrderedDict()
        self._bounds: dict[str, int] = {}

    def find(self, key: Hashable, entering: Hashable = None) -> Truth | None:
        """The truth of a problem, where it is kept, and with the gradients for `entering` where that is given."""
        truth = self._truths.get(key)
        if truth is None or entering not in (None, truth.entering):
            return None
        self._truths.move_to_end(key)
        return truth

    def keep(self, key: Hashable, truth: Truth) -> None:
        """Keep a truth, if it is not too large."""
        device = str(truth.out.device)
        bound = self._bounds.setdefault(device, int(SHARE_KEPT * free_bytes(device)))
        self._truths.pop(key, None)
        if truth.nbytes > bound:
            return
        self._truths[key] = truth
        while self.nbytes > bound:
            self._truths.popitem(last=False)

    def make_room(self, device: str, needed: int | None) -> None:
        """Forget all where a case that needs so many bytes, and as many for its comparison, would not fit beside it."""
        if self._truths and 2 * (needed or 0) > free_bytes(device):
            self._truths.clear()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(truth.nbytes for truth in self._truths.values())


KEPT = Kept()


class ExactRows(nn.Module):
    """Softmax attention of the chosen query rows: q (b, h, n, d), k and v (b, kv_heads, keys, d) → (b, h, rows, d).

    causal: token i attends to tokens ≤ i. Heads of queries share one of keys in equal groups where there are fewer.
    """

    def __init__(self, rows: Tensor, *, causal: bool = False) -> None:
        super().__init__()
        self.rows, self.causal = rows, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q[rows] kᵀ / √d) v, some rows of one head at a time, and again in backward: see SCORES."""
        shared = q.shape[1] // k.shape[1]
        keys, values = k.unbind(1), v.unbind(1)
        together = max(1, SCORES // (q.shape[0] * k.shape[2]))
        heads = [
            torch.cat([
                checkpoint(
                    _attend, some, keys[at // shared], values[at // shared], rows if self.causal else None,
                    use_reentrant=False,
                )
                for some, rows in zip(one.split(together, dim=1), self.rows.split(together), strict=True)
            ], dim=1)
            for at, one in enumerate(q[:, :, self.rows].unbind(1))
        ]  # fmt: skip
        return torch.stack(heads, dim=1)


def chosen_rows(subject: Subject, rows: int, edge: int, *, draw: int = 0) -> Tensor:
    """Indices of the query rows to compare: all of a few, else the first and last `edge` and random ones between."""
    n = subject.case.n
    if n <= rows:
        return torch.arange(n, device=subject.device)
    generator = torch.Generator().manual_seed(subject.case.seed + draw)
    middle = torch.randperm(n - 2 * edge, generator=generator)[: rows - 2 * edge] + edge
    ends = torch.cat([torch.arange(edge), torch.arange(n - edge, n)])
    return torch.cat([ends, middle]).sort().values.to(subject.device)


def truth_of(subject: Subject, rows: Tensor | None, *, samples: int, gradient: Tensor | None = None) -> Truth:
    """The reference on the subject's current inputs, its first `samples`, one at a time: it may need much memory.

    rows: those of softmax attention, for exact variants. gradient: of the whole output; where it is given, the
    gradients that it leads to are found too.
    """
    spec, case = subject.spec, subject.case
    exact = rows is not None or (case.scope == "model" and spec.exact)
    definition = subject.backend if subject.backend.layer else spec  # each layer of a plugin, and a model as it is
    what = SOFTMAX if exact else (definition, subject.definition, tuple(sorted(subject.options.items())), case.m)
    key = _key(subject, what, case.scope, samples, rows, list(subject.module.state_dict().values()))
    entering = None if gradient is None else _digest(gradient)
    found = KEPT.find(key, entering)
    if found is None:
        if subject.definition != "reference":
            _agree(subject, subject.definition, gradient)
        core = None if rows is None else ExactRows(rows, causal=case.problem.causal)
        reference = subject.reference(core, backend=subject.definition)
        found = replace(
            _computed(reference, subject.inputs, rows, samples=samples, gradient=gradient), entering=entering
        )
        KEPT.keep(key, found)
    return found


def softmax_rows(subject: Subject, rows: Tensor) -> Tensor:
    """Softmax attention of the chosen rows of a core's own q, k and v, in float64: what it approximates.

    Of the case's own problem: a causal approximation is held against causal attention.
    """
    key = _key(subject, SOFTMAX, "core", subject.case.b, rows, ())
    found = KEPT.find(key)
    if found is None:
        exact = ExactRows(rows, causal=subject.case.problem.causal)
        found = Truth(_outputs(exact, subject.inputs, subject.case.b))
        KEPT.keep(key, found)
    return found.out


def _key(
    subject: Subject, what: Hashable, scope: str, samples: int, rows: Tensor | None, parameters: Sequence[Tensor]
) -> Hashable:
    """What a truth depends on: definition, sizes, inputs and parameters bit for bit, and which part of it it is."""
    case = subject.case
    return (
        what, scope, case.h, case.problem, tuple(sorted(case.model_options.items())), samples, str(subject.device),
        str(subject.dtype), *map(_digest, (*subject.inputs, *parameters)),
        None if rows is None else tuple(rows.tolist()),
    )  # fmt: skip


def _computed(
    reference: nn.Module, inputs: Sequence[Tensor], rows: Tensor | None, *, samples: int, gradient: Tensor | None
) -> Truth:
    """Of the first samples, one at a time; with gradients where `gradient`, of the whole output, is given."""
    if gradient is None:
        return Truth(_outputs(reference, inputs, samples))
    return Truth(*_with_gradients(reference, inputs, rows, samples, gradient))


def _outputs(module: nn.Module, inputs: Sequence[Tensor], samples: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(*(_wide(t[at : at + 1]) for t in inputs)) for at in range(samples)])


def _with_gradients(
    reference: nn.Module, inputs: Sequence[Tensor], rows: Tensor | None, samples: int, gradient: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    inputs = [_wide(t.detach()).requires_grad_(t.requires_grad) for t in inputs]
    expected = []
    for sample in range(samples):
        piece = reference(*(t[sample : sample + 1] for t in inputs))
        entering = gradient[sample : sample + 1].double()
        piece.backward(entering if rows is None else entering.index_select(-2, rows))
        expected.append(piece.detach())
    found = tuple(None if t.grad is None else t.grad.detach() for t in (*inputs, *reference.parameters()))
    return torch.cat(expected), found


def _agree(subject: Subject, name: str, gradient: Tensor | None) -> None:
    """Raise WrongResult where a frugal backend is not what the reference is on the first tokens of the first sample."""
    few = [t.detach()[:1, ..., :FEW, :].requires_grad_(t.requires_grad) for t in subject.inputs]
    entering = None if gradient is None else gradient[..., :FEW, :]
    right, mine = (
        _computed(subject.reference(backend=each), few, None, samples=1, gradient=entering)
        for each in ("reference", name)
    )
    apart = relative(mine.out, right.out)
    for wanted, found in zip(right.gradients, mine.gradients, strict=True):
        if wanted is not None and found is not None:
            apart = max(apart, relative(found, wanted))
        elif wanted is not found:  # one of them has a gradient
            apart = math.inf
    if not apart <= ALIKE:
        raise WrongResult(
            f"{subject.case.attention}:{name}, which stands for the reference that does not fit, differs "
            f"from it by {apart:.3g} on {FEW} tokens in float64, over {ALIKE:g}"
        )


def relative(out: Tensor, reference: Tensor) -> float:
    """‖out − ref‖ / ‖ref‖ in float64; infinite when anything is not finite or a zero reference is missed."""
    difference = (out.double() - reference).norm().item()
    size = reference.norm().item()
    if not math.isfinite(difference) or not math.isfinite(size):
        return math.inf
    return difference / size if size else (0.0 if difference == 0 else math.inf)


def _wide(tensor: Tensor) -> Tensor:
    """In float64; the ids of tokens as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def _digest(tensor: Tensor) -> tuple[tuple[int, ...], int]:
    """A tensor's shape and one number of its bits, in which each row has a weight of its own."""
    rows = fingerprint(tensor)
    weights = torch.arange(1, 2 * len(rows) + 1, 2, device=rows.device)
    return tuple(tensor.shape), int((rows * weights).sum())


def _attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None) -> Tensor:
    """One head's. rows: the indices of q's tokens, each of which attends to none after it."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if rows is not None:
        scores = scores.masked_fill(rows[:, None] < torch.arange(k.shape[-2], device=k.device), -math.inf)
    return torch.softmax(scores, dim=-1) @ v
