#!/usr/bin/env python3
"""Which way to merge a trained query and key keeps most? Softmax attention trained, swapped for anchors, trained on.

    python scripts/swap_merge.py --out results/cpu/swap_merge.csv

scikit-learn's digits, four pixels a token; a ViT of width 48, depth 3 and 3 heads is trained with softmax attention,
then `attentions.swap` puts anchor attention (m = 8) in its place and training goes on. `fresh` is the control: the
shared projection drawn anew. One row: a seed, a merge, steps after the swap, and top-1 on the 450 images held out.
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from attentions.merge import MERGES
from harness.vision import vit

WAYS = (*MERGES, "fresh")
BATCH, RATE, HELD_OUT = 128, 1e-3, 450
COLUMNS = ("seed", "merge", "steps", "top1")


def main() -> None:
    """Train, swap each way, train on; write a row at each look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="with softmax attention, before the swap")
    parser.add_argument("--looks", type=int, nargs="+", default=[0, 25, 100], help="steps after the swap")
    given = parser.parse_args()
    images, labels = digits()
    rows = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        held, used = order[:HELD_OUT], order[HELD_OUT:]
        model = fresh_model()
        train(model, images[used], labels[used], steps=given.steps)
        rows.append((seed, "full", given.steps, top1(model, images[held], labels[held])))
        for way in WAYS:
            swapped = copy.deepcopy(model)
            torch.manual_seed(seed)
            attentions.swap(swapped, "anchor", anchors=8, merge=way if way in MERGES else "key")
            if way == "fresh":
                redraw(swapped)
            done = 0
            for look in given.looks:
                train(swapped, images[used], labels[used], steps=look - done)
                done = look
                rows.append((seed, way, look, top1(swapped, images[held], labels[held])))
                print(*rows[-1], flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in 0 … 1 and labels."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return torch.tensor(found["images"], dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(found["target"])


def fresh_model() -> nn.Module:
    """A ViT of four pixels a token; positions start at standard deviation 1, or it takes long to tell them apart."""
    model = vit.create(
        "anchorformer_tiny", attention="full", distilled=False, img_size=8, patch_size=2, in_chans=1, embed_dim=48,
        depth=3, num_heads=3, num_classes=10,
    )  # fmt: skip
    nn.init.normal_(model.get_parameter("pos_embed"), std=1.0)
    return model


def train(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> None:
    """AdamW at a constant rate."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimiser.step()


def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images named right."""
    with torch.no_grad():
        return (model(images).argmax(dim=1) == labels).double().mean().item()


def redraw(model: nn.Module) -> None:
    """Fresh weights, as timm draws them, for the rows of query and key."""
    for module in model.modules():
        if isinstance(module, attentions.MultiHeadAttention):
            half = module.projection.weight.shape[0] // 2
            with torch.no_grad():
                nn.init.trunc_normal_(module.projection.weight[:half], std=0.02)
                module.projection.bias[:half] = 0


if __name__ == "__main__":
    main()
