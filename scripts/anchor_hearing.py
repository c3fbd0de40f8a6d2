"""Who is heard? What tokens take from each other in trained recall models, by attention, layer and head.

    python scripts/anchor_hearing.py --out results/cpu/anchor_hearing.csv

At the hard load of docs/recall.md (56 items among 64 tokens), m = 8, 500 steps: token 0 shows a shape, and the answer
is the colour of the item with that shape. S (n, n) is what a token's output takes from every token's v. On held-out
samples, the mean of:

    question_heard   the sum of S over column 0: how often the question is heard, by all tokens together
    most_heard       the largest sum of a column
    item_taken       S from token 0 to the item asked for; 1/64 is no choice at all

Anchor attention's S is symmetric, so each of its columns sums to one; with importance or softmax attention none need.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from recall_study import BOTH, COUNTED, LOADS, Mechanism  # noqa: E402

from harness.store.record import canonical_options  # noqa: E402
from harness.vision import recall  # noqa: E402

MECHANISMS = (Mechanism("full"), Mechanism("anchor", {"init": "sharp"}), Mechanism("anchor", BOTH), COUNTED)
COLUMNS: tuple[str, ...] = (
    "attention", "options", "m", "seed", "top1", "layer", "head", "question_heard", "most_heard", "item_taken",
)  # fmt: skip
ANCHORS, SAMPLES = 8, 256


def main() -> None:
    """Train each model and write a line a layer and head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for mechanism in MECHANISMS for seed in range(given.seeds) for row in lines(mechanism, seed)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def lines(mechanism: Mechanism, seed: int) -> list[dict[str, Any]]:
    """Of one trained model."""
    trial = recall.Trial(
        load=LOADS["hard"], attention=mechanism.name, options=mechanism.options, anchors=ANCHORS, seed=seed, steps=500
    )
    model = recall.trained(trial)
    right, _ = recall.evaluate(model, trial.load)
    batch = recall.draw(trial.load, SAMPLES, torch.Generator().manual_seed(recall.EVALUATION_SEED))
    shape, is_item = batch.symbols[..., 0], torch.arange(trial.load.tokens) > 0
    place = ((shape == shape[:, :1]) & is_item).int().argmax(dim=-1)
    named = {
        "attention": mechanism.name, "options": canonical_options(mechanism.options),
        "m": ANCHORS if mechanism.name == "anchor" else "", "seed": seed, "top1": right / recall.EVALUATED,
    }  # fmt: skip
    print(*named.values())
    found = []
    for layer, s in enumerate(matrices(model, batch), 1):
        columns = s.sum(dim=-2)
        taken = s[:, :, 0].gather(-1, place.view(-1, 1, 1).expand(-1, s.shape[1], 1)).squeeze(-1)
        for head in range(s.shape[1]):
            means = (columns[:, head, 0], columns[:, head].amax(dim=-1), taken[:, head])
            numbers = dict(zip(COLUMNS[-3:], (f"{x.mean().item():.5f}" for x in means), strict=True))
            found.append({**named, "layer": layer, "head": head, **numbers})
    return found


@torch.no_grad()
def matrices(model: recall.RecallModel, batch: recall.Batch) -> list[Tensor]:
    """S (b, h, n, n) of each layer: its core applied to what each token alone would hand it."""
    found: list[Tensor] = []

    def read(core: Any, tensors: tuple[Tensor, ...], out: Tensor) -> None:
        q, k, v = tensors
        n, d = v.shape[-2:]
        alone = torch.eye(n).split(d, dim=-1)
        parts = [core.forward(q, k, F.pad(one, (0, d - one.shape[-1])).expand_as(v)) for one in alone]
        found.append(torch.cat(parts, dim=-1)[..., :n])

    blocks: Any = model.blocks
    hooks = [block.attention.core.register_forward_hook(read) for block in blocks]
    model(batch.symbols, batch.noise)
    for hook in hooks:
        hook.remove()
    return found


if __name__ == "__main__":
    main()
