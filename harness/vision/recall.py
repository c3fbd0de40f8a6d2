"""Associative recall under load: the smallest problem that an attention solves and an average over tokens does not.

    load = Load(shapes=96, colours=8, items=56, tokens=64)
    batch = draw(load, 64, torch.Generator().manual_seed(0))
    model = RecallModel(load, attention="anchor", anchors=16)
    answers = model(batch.symbols, batch.noise)                # (64, colours): logits, read at token 0
    readings = list(run(Trial(load=load, attention="anchor", anchors=16)))    # trains one: top1, loss, params, flops

Of the tokens 1 … n−1, `items` at random places hold a shape and a colour each, all shapes of a sample different; the
others hold Gaussian noise. Token 0 shows one of those shapes without its colour, and the answer is the colour. With
`questions` > 1 the first so many tokens show as many different ones of the shapes, and each has its answer. Nothing is
stored: every sample comes from a seeded generator, training never sees one twice.

With attention removed (`attention="none"`) the same model gets the average of what it computed for each token: that is
the floor which an accuracy here is read against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from attentions import MultiHeadAttention
from attentions.counting import counted
from harness.stats import proportion_interval
from harness.store.record import Reading

NOISE = 16  # numbers in a background token, projected to the model's width
EVALUATED = 4096  # samples: the interval of a proportion is then at most ±1.5 points
EVALUATION_SEED = 1 << 40  # far from the training seeds: the same samples judge every model


@dataclass(frozen=True, kw_only=True)
class Load:
    """How hard: shapes and colours to choose from, items (the load) among n tokens, questions. Raises ValueError."""

    shapes: int = 24
    colours: int = 8
    items: int = 12
    tokens: int = 64
    questions: int = 1

    def __post_init__(self) -> None:
        for name, least in (("shapes", 1), ("colours", 2), ("items", 1), ("tokens", 2), ("questions", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is not valid; it takes at least {least}")
        if self.items > self.shapes:
            raise ValueError(f"items={self.items} need as many different shapes; shapes={self.shapes}")
        if self.questions > self.items:
            raise ValueError(f"questions={self.questions} ask for as many different items; items={self.items}")
        if self.items > self.tokens - self.questions:
            beside = "the question" if self.questions == 1 else f"{self.questions} questions"
            free = self.tokens - self.questions
            raise ValueError(f"items={self.items} do not fit: {free} of tokens={self.tokens} are free beside {beside}")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples: symbols (b, n, 2), shape and colour of each token with 0 for none; noise (b, n, NOISE), zero where
    there are symbols; answers (b,), the colours from 0; (b, questions) of more questions than one."""

    symbols: Int[Tensor, "b n 2"]
    noise: Float[Tensor, "b n noise"]
    answers: Int[Tensor, " b"] | Int[Tensor, "b questions"]


def draw(load: Load, count: int, generator: torch.Generator | None = None) -> Batch:
    """`count` samples from the generator, or from PyTorch's own. The same generator state gives the same samples."""
    shapes = _choose(load.items, load.shapes, count, generator) + 1
    colours = torch.randint(load.colours, (count, load.items), generator=generator) + 1
    places = _choose(load.items, load.tokens - load.questions, count, generator) + load.questions
    symbols = torch.zeros(count, load.tokens, 2, dtype=torch.int64)
    symbols.scatter_(1, places.unsqueeze(-1).expand(-1, -1, 2), torch.stack((shapes, colours), dim=-1))
    if load.questions == 1:
        asked = torch.randint(load.items, (count, 1), generator=generator)
    else:
        asked = _choose(load.questions, load.items, count, generator)
    symbols[:, : load.questions, 0] = shapes.gather(1, asked)
    noise = torch.randn(count, load.tokens, NOISE, generator=generator)
    background = symbols.sum(dim=-1, keepdim=True) == 0
    return Batch(symbols=symbols, noise=noise * background, answers=colours.gather(1, asked).squeeze(1) - 1)


def _choose(chosen: int, among: int, count: int, generator: torch.Generator | None) -> Int[Tensor, "count chosen"]:
    """Different numbers below `among` in random order, for each sample."""
    return torch.rand(count, among, generator=generator).argsort(dim=-1)[:, :chosen]


class RecallModel(nn.Module):
    """A small pre-norm transformer whose answers are read at the questions: token 0, or the first ones.

    A token is the sum of its shape's, its colour's and its position's embedding, or of its noise and its position's;
    then `depth` times x + attention(norm(x)), x + mlp(norm(x)) with a hidden width of 2·width.

    Args: load: the vocabulary and n. attention: a variant, or `variant:backend`; anchors: its m; options: its own.
    Raises: what attentions.MultiHeadAttention raises.
    """

    def __init__(
        self,
        load: Load,
        *,
        attention: str,
        anchors: int | None = 16,
        options: Mapping[str, Any] | None = None,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
    ) -> None:
        super().__init__()
        self.shape = nn.Embedding(load.shapes + 1, width, padding_idx=0)
        self.colour = nn.Embedding(load.colours + 1, width)
        self.noise = nn.Linear(NOISE, width, bias=False)
        self.position = nn.Parameter(torch.empty(load.tokens, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            Block(width, heads, attention=attention, tokens=load.tokens, anchors=anchors, **(options or {}))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, load.colours)
        self.questions = load.questions

    def forward(
        self, symbols: Int[Tensor, "b n 2"], noise: Float[Tensor, "b n noise"]
    ) -> Float[Tensor, "b *questions colours"]:
        """Logits over the colours, (b, colours), or (b, questions, colours) of more questions than one."""
        x = self.shape(symbols[..., 0]) + self.colour(symbols[..., 1]) + self.noise(noise) + self.position
        *inner, last = self.blocks
        for block in inner:
            x = block(x)
        return self.answer(self.norm(last(x, kept=self.questions))).squeeze(1)  # of one question alone


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, /, **attention: Any) -> None:  # one of anchor's options is `self`
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, **attention)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Float[Tensor, "b n width"], *, kept: int | None = None) -> Float[Tensor, "b kept width"]:
        """(b, n, width) → (b, n, width), or of the first `kept` tokens only, where no other is looked at after."""
        x = x[:, :kept] + self.attention(self.norm1(x))[:, :kept]
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to train: the load, the attention inside, the recipe and the seed of everything that is drawn."""

    load: Load = field(default_factory=Load)
    attention: str = "anchor"
    anchors: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    steps: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    width: int = 64
    heads: int = 4
    depth: int = 2
    evaluated: int = EVALUATED


def run(trial: Trial, *, device: str | torch.device = "cpu") -> Iterator[Reading]:
    """Train a model, then yield what it came to.

    top1: the share of the questions of `trial.evaluated` held-out samples answered right, with Wilson's 95 % interval;
    loss: their mean cross-entropy in nats; params; flops: of one sample's forward pass, counted by dispatch.
    Deterministic on one CPU thread. Raises FloatingPointError when the loss stops being finite.
    """
    model = trained(trial, device=device)
    right, loss = evaluate(model, trial.load, samples=trial.evaluated, device=device)
    asked = trial.evaluated * trial.load.questions
    low, high = proportion_interval(right, asked)
    yield Reading(metric="top1", value=right / asked, ci_low=low, ci_high=high, samples=asked)
    yield Reading(metric="loss", value=loss, samples=asked)
    yield Reading(metric="params", value=sum(p.numel() for p in model.parameters()), samples=1)
    yield Reading(metric="flops", value=forward_flops(model, trial.load, device=device), samples=1)


def trained(trial: Trial, *, device: str | torch.device = "cpu") -> RecallModel:
    """The model of a trial after its training. Raises as `run` does."""
    torch.manual_seed(trial.seed)
    model = RecallModel(
        trial.load, attention=trial.attention, anchors=trial.anchors, options=trial.options,
        width=trial.width, heads=trial.heads, depth=trial.depth,
    ).to(device)  # fmt: skip
    train(model, trial, device=device)
    return model


def forward_flops(model: nn.Module, load: Load, *, device: str | torch.device = "cpu") -> int:
    """Matrix products and convolutions of one sample's forward pass, as PyTorch's dispatcher counts them."""
    batch = draw(load, 1, torch.Generator().manual_seed(EVALUATION_SEED))
    with torch.no_grad():
        return counted(lambda: model(batch.symbols.to(device), batch.noise.to(device)))


def train(model: nn.Module, trial: Trial, *, device: str | torch.device = "cpu") -> None:
    """AdamW with a one-cycle rate over `trial.steps` batches, each drawn from a generator of the trial's seed."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=trial.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, trial.learning_rate, total_steps=trial.steps)
    generator = torch.Generator().manual_seed(trial.seed)
    model.train()
    for step in range(trial.steps):
        batch = draw(trial.load, trial.batch, generator)
        loss = cross_entropy(model(batch.symbols.to(device), batch.noise.to(device)), batch.answers.to(device))
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of {trial}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def evaluate(
    model: nn.Module, load: Load, *, samples: int = EVALUATED, batch: int = 256, device: str | torch.device = "cpu"
) -> tuple[int, float]:
    """(how many right, mean cross-entropy) of held-out samples, the same for every model of a load."""
    model.eval()
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    right, loss, left = 0, 0.0, samples
    while left:
        drawn = draw(load, min(batch, left), generator)
        logits, answers = model(drawn.symbols.to(device), drawn.noise.to(device)), drawn.answers.to(device)
        right += int((logits.argmax(dim=-1) == answers).sum())
        loss += float(cross_entropy(logits.float(), answers, reduction="sum"))
        left -= len(answers)
    return right, loss / (samples * load.questions)


def cross_entropy(
    logits: Float[Tensor, "*asked colours"], answers: Int[Tensor, "*asked"], *, reduction: str = "mean"
) -> Float[Tensor, ""]:
    """The mean, or the sum, over samples and their questions, in nats."""
    return F.cross_entropy(logits.flatten(0, -2), answers.flatten(), reduction=reduction)
