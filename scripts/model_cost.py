#!/usr/bin/env python3
"""GMAC of the vision transformers over the resolution, with anchor against softmax attention, as a Markdown table.

    python scripts/model_cost.py                                  # nothing is built or timed: the cost models' figures
    python scripts/model_cost.py --attention linformer --m 64

A multiply-add is 2 FLOP; counted are matrix products and the patches' convolution, as `harness run --scope model`
counts them, where the same formula is held against what PyTorch's dispatcher sees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import attentions
from attentions import AttentionError
from harness.cases.axes import sizes
from harness.errors import USAGE
from harness.vision.models import ANCHORS, ARCHITECTURES, PATCH, Architecture


def gmac(model: Architecture, attention: str, *, resolution: int, m: int | None = None) -> float:
    """Billions of multiply-adds of one image of `resolution` pixels, distilled."""
    spec = attentions.spec(attention)
    cost = spec.cost(1, model.heads, model.tokens(resolution), model.head_dim, m if spec.bottleneck else None)
    shared = spec.shares_query_key
    return model.flops(resolution, b=1, phase="forward", core=cost.flops, shared=shared) / 2e9


def table(attention: str, *, m: int, resolutions: Sequence[int]) -> list[str]:
    """Lines of the table: a row a resolution, for each model GMAC with softmax attention, with `attention`, and the
    saving."""
    names = [name.removeprefix("anchorformer_") for name in ARCHITECTURES]
    lines = [
        f"| resolution | n | {' | '.join(f'{name}: full | {attention} | saved' for name in names)} |",
        "|" + "---:|" * (2 + 3 * len(names)),
    ]
    for resolution in resolutions:
        cells = []
        for model in ARCHITECTURES.values():
            full = gmac(model, "full", resolution=resolution)
            other = gmac(model, attention, resolution=resolution, m=m)
            cells += [f"{full:.2f}", f"{other:.2f}", f"{100 * (1 - other / full):.1f} %"]
        tokens = next(iter(ARCHITECTURES.values())).tokens(resolution)
        lines.append(f"| {resolution} | {tokens} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--attention", default="anchor", help="compared with full")
    parser.add_argument("--m", type=int, default=ANCHORS, help=f"its bottleneck; default {ANCHORS}")
    parser.add_argument(
        "--resolution", default="224,384,448,896,1792", help="sides in pixels, as `harness run` takes them"
    )
    given = parser.parse_args()
    try:
        resolutions = sizes(given.resolution, axis="resolution")
        if odd := [side for side in resolutions if side % PATCH]:
            raise ValueError(f"resolution {odd[0]} is no multiple of the {PATCH} pixels of a patch")
        if given.m < 1:
            raise ValueError(f"--m takes a whole number of at least 1, not {given.m}")
        print("\n".join(table(given.attention, m=given.m, resolutions=resolutions)))
    except (AttentionError, ValueError) as error:
        print(f"model_cost: {error}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
