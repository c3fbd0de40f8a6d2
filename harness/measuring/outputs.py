"""A call's output looked at before its values are: that it is one, here and now, and that the inputs are as they were.

out = called(subject)                   # the phase's output, taken at once; raises WrongResult
out, gradients = called_back(subject, gradient)

What a call returns is copied in the current stream's order as soon as it returns: work that another stream or thread
has yet to do is not in the copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.measuring.subject import Subject


class WrongResult(RuntimeError):
    """What a call gives is not what its definition gives, or the time it claims cannot be; its case has no figures."""


def called(subject: Subject) -> Tensor:
    """The output of one forward call without gradients on the current inputs."""
    watch = _Watch(subject)
    with torch.no_grad():
        out = subject.forward()
    return watch.taken(out)


def called_back(subject: Subject, gradient: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """The output of one forward and backward call on the current inputs, and the gradients of inputs and parameters."""
    watch = _Watch(subject)
    subject.clear()
    out = subject.forward()
    taken = watch.taken(out)
    out.backward(gradient.to(out.dtype))
    found = [t.grad for t in (*subject.inputs, *subject.module.parameters())]
    copies = [None if grad is None else grad.clone() for grad in found]
    watch.inputs_are_as_they_were()
    subject.clear()
    return taken, copies


def fingerprint(tensor: Tensor) -> Tensor:
    """The sums of each row's bits: other values give others, wherever in the tensor they are."""
    plain = tensor.detach().contiguous()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    bits = plain.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[plain.element_size()])
    return bits.reshape(math.prod(bits.shape[:-1]), -1).sum(dim=1, dtype=torch.int64)


class _Watch:
    """What the inputs were before a call."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.versions = [tensor._version for tensor in subject.inputs]
        self.bits = [fingerprint(tensor) for tensor in subject.inputs]

    def taken(self, out: Tensor) -> Tensor:
        """A copy of the output. Raises WrongResult for one that is no plain, finite tensor of its own."""
        problem = _unlike(out, self.subject)
        if problem:
            raise WrongResult(problem)
        copy = out.detach().clone()
        self.inputs_are_as_they_were()
        if not torch.isfinite(copy).all():
            raise WrongResult(f"the output has {int((~torch.isfinite(copy)).sum())} values that are not finite")
        return copy

    def inputs_are_as_they_were(self) -> None:
        """Raise WrongResult where the call wrote into its inputs, also behind autograd's back."""
        inputs = self.subject.inputs
        versions = [tensor._version for tensor in inputs]
        same = all(torch.equal(fingerprint(t), bits) for t, bits in zip(inputs, self.bits, strict=True))
        if versions != self.versions or not same:
            raise WrongResult("the call changes its inputs in place")


def _unlike(out: object, subject: Subject) -> str | None:
    """How an output is no plain tensor of its own with the shape and dtype asked for; None where it is one."""
    if type(out) is not Tensor:
        return f"the output is a {type(out).__name__}, not a plain torch.Tensor: its values may not be there yet"
    if out.layout != torch.strided or out.device.type != subject.device.type:
        return f"the output is {out.layout} on {out.device}, not torch.strided on {subject.device}"
    shape, dtype = tuple(subject.output_shape), subject.dtype
    dtypes = (dtype, torch.float32) if subject.case.is_on("amp") else (dtype,)  # what autocast leaves in full precision
    if tuple(out.shape) != shape or out.dtype not in dtypes:
        return f"the output is {out.dtype} of shape {tuple(out.shape)}, not {dtype} of {shape}"
    if _overlaps(out.shape, out.stride()):
        return f"elements of the output share memory: strides {out.stride()} of shape {tuple(out.shape)}"
    if out.untyped_storage().data_ptr() in {t.untyped_storage().data_ptr() for t in subject.inputs}:
        return "the output lies in an input's memory"
    return None


def _overlaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements may share a place: some stride is not beyond what the smaller ones span."""
    reach = 0
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False
