"""What a training step is beside its forward pass: a loss, the backward pass, AdamW and zeroed gradients.

    step = Step(module, out_shape, seed)
    step.take(module(x))               # the weights are other ones after it

The loss is the cross-entropy of the output's last dimension against random classes, one for each of the others: of an
image's logits, or of every token's. The learning rate is so small that thousands of steps leave the numbers what they
were; what a step costs does not depend on it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.measuring.inputs import whole_numbers

LEARNING_RATE = 1e-6


class Step:
    """The optimizer of a module, with its state, and the classes that its output is held against."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...], seed: int) -> None:
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
        place = next(module.parameters()).device
        *places, classes = shape
        self.classes = whole_numbers(tuple(places), classes, place, (seed, 0, -1)).flatten()

    def take(self, out: Tensor) -> None:
        """Loss, backward, update, gradients to None. Under autocast the loss is in float32, as everywhere."""
        loss: Any = functional.cross_entropy(out.flatten(0, -2).float(), self.classes)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
