"""What the vision tests share: generated scenes, in all three layouts."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scene_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classes, coco and ade20k: 40 scenes of 48 pixels for training, 10 for validation. Read only."""
    from harness.vision.data.scenes import write

    folder = tmp_path_factory.mktemp("scenes") / "sets"
    write(folder, images=40, validation=10, size=48, seed=3)
    return folder
