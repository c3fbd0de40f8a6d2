"""How far colours alone go at the generated scenes' relation: which there are and how much of each, no attention.

    python scripts/scene_colour_floor.py --train 2000 --val 800 --out results/cpu/scene_colour_floor.csv

Features of a picture: the pixels nearest in direction to each of the six colours, among the saturated; and a histogram
of 8 × 8 × 8 bins. Classifiers are scikit-learn's.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.vision.data.scenes import generate
from harness.vision.data.shapes import COLOURS

SATURATED = 70  # of 255, the largest channel less the smallest
COLUMNS = ("features", "classifier", "seed", "size", "train", "val", "top1", "chance")


def features(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 → the six colours' areas, then the histogram, as shares of the picture."""
    flat = pixels.reshape(-1, 3).astype(float)
    palette = np.array(list(COLOURS.values()), float)
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    nearest = (flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1) @ palette.T).argmax(axis=1)
    areas = np.bincount(nearest[np.ptp(flat, axis=1) > SATURATED], minlength=len(COLOURS))
    bins = (flat // 32).astype(int) @ (64, 8, 1)
    return np.concatenate([areas, np.bincount(bins, minlength=512)]) / len(flat)


def table(split: str, count: int, *, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The features and labels of a split's scenes that have a twin."""
    names = list(COLOURS)
    rows = [
        (features(scene.pixels), names.index(scene.twin))
        for scene in generate(split, count, size=size, seed=seed)
        if scene.twin is not None
    ]
    return np.stack([row for row, _ in rows]), np.array([label for _, label in rows])


def main() -> None:
    """Fit, judge, write and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--val", type=int, default=800)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    learnt, labels = table("train", given.train, size=given.size, seed=given.seed)
    judged, answers = table("val", given.val, size=given.size, seed=given.seed)
    chance = np.bincount(answers).max() / len(answers)
    rows = []
    for name, part in (("areas", slice(0, len(COLOURS))), ("areas and histogram", slice(None))):
        for kind, classifier in (
            ("logistic regression", make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))),
            ("gradient boosting", HistGradientBoostingClassifier(max_iter=50, random_state=0)),
        ):
            top1 = float(classifier.fit(learnt[:, part], labels).score(judged[:, part], answers))
            rows.append((name, kind, given.seed, given.size, len(labels), len(answers), top1, float(chance)))
            print(f"{name}, {kind}: {top1:.3f} of {len(answers)}, most frequent class {chance:.3f}", flush=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
