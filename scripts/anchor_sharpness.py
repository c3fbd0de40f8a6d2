"""How much of anchor attention's output varies from token to token, for each way to start the anchors?

    python scripts/anchor_sharpness.py --out results/cpu/anchor_sharpness.csv

The token-varying share of the output's energy is Σ‖o_i − ō‖² / Σ‖o_i‖², ō the mean over the tokens of one sample and
head: 0 when every token gets the same answer. Inputs are LayerNormed Gaussian tokens projected by a linear layer of
default initialisation, as in the first layer of a model; b4 n196 h3 d64 m30 is DeiT-tiny's shape. Anchor takes its
shared query/key from one projection, softmax attention has two.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

import attentions

STARTS = [
    ("full", {}),
    ("anchor", {"init": "paper"}),
    ("anchor", {"init": "paper", "scale": 4.0}),
    ("anchor", {"init": "paper", "scale": 32.0}),
    ("anchor", {"init": "orthogonal"}),
    ("anchor", {"init": "orthogonal", "scale": 4.0}),
    ("anchor", {"init": "orthogonal", "scale": 32.0}),
    ("anchor", {"init": "sharp"}),
    ("anchor", {"init": "paper", "logits": "cosine"}),
    ("anchor", {"init": "orthogonal", "logits": "cosine", "temperature": 1.0}),
    ("anchor", {"init": "orthogonal", "logits": "cosine"}),
    ("anchor", {"init": "orthogonal", "logits": "cosine", "temperature": 4.0}),
]
COLUMNS = ("attention", "options", "seeds", "share_median", "share_lowest", "share_highest")


def main() -> None:
    """Measure every start over the seeds and write one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    rows = []
    for name, options in STARTS:
        shares = [share(output(name, options, seed)) for seed in range(given.seeds)]
        text = ";".join(f"{key}={value}" for key, value in sorted(options.items()))
        rows.append((name, text, given.seeds, statistics.median(shares), min(shares), max(shares)))
        print(f"{name:>6} {text:<45} {rows[-1][3]:.2e}  ({rows[-1][4]:.1e} to {rows[-1][5]:.1e})")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def share(out: Tensor) -> float:
    """Σ‖o_i − ō‖² / Σ‖o_i‖² of an output (b, h, n, d), as a number from 0 to 1."""
    varying = out - out.mean(dim=-2, keepdim=True)
    return (varying.square().sum() / out.square().sum()).item()


def output(name: str, options: dict[str, object], seed: int) -> Tensor:
    """The core's output for one seed, in float64."""
    torch.manual_seed(seed)
    b, n, h, d, m = 4, 196, 3, 64, 30
    tokens = nn.functional.layer_norm(torch.randn(b, n, h * d), (h * d,))
    project = nn.Linear(h * d, 3 * h * d)
    core = attentions.build(f"{name}:reference", heads=h, head_dim=d, tokens=n, anchors=m, **options).double()
    q, k, v = project(tokens).double().view(b, n, 3, h, d).permute(2, 0, 3, 1, 4)
    with torch.no_grad():
        return core(q, k, v)


if __name__ == "__main__":
    main()
