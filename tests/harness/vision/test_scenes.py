"""Generated scenes: the same bytes for the same options, true to what they say, and never over someone's files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from harness.errors import UsageError
from harness.vision.data import identity, legend, scenes
from harness.vision.data.composing import CLASSES, compose
from harness.vision.data.shapes import COLOURS, KINDS, coverage, outlines


def digest(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("theme", scenes.THEMES)
def test_the_same_options_write_the_same_bytes(tmp_path: Path, theme: str) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        scenes.write(tmp_path / name, images=4, validation=2, size=40, seed=seed, theme=theme)
    first, second, other = (digest(tmp_path / name) for name in "abc")
    assert first == second
    pictures = [name for name in first if name.endswith(".jpg") and name.startswith("coco")]
    assert len(pictures) == 6
    assert all(first[name] != other[name] for name in pictures)


def test_a_larger_set_begins_with_the_smaller() -> None:
    few, many = (list(scenes.generate("val", count, size=32, seed=1)) for count in (2, 8))
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.twin == other.twin
    train = next(scenes.generate("train", 1, size=32, seed=1))
    assert not np.array_equal(few[0].pixels, train.pixels)


def test_the_twin_is_the_one_other_object_of_the_marked_shape() -> None:
    for number, colour in enumerate(COLOURS):
        scene = compose(np.random.default_rng(number), size=64, twin=colour)
        kinds = Counter(each.kind for each in scene.instances if not each.crowd)
        twice = [each for each in scene.instances if kinds[each.kind] == 2 and not each.crowd]
        wanted = np.array(COLOURS[colour], float)
        cosines = []
        for each in twice:
            mean = scene.pixels[each.mask].mean(axis=0)
            cosines.append(mean @ wanted / np.linalg.norm(mean) / np.linalg.norm(wanted))
        assert max(cosines) > 0.97, "no shape that is there twice has the colour that the label says"


def test_every_scene_with_objects_has_white_brackets() -> None:
    for seed in range(4):
        marked, empty = (compose(np.random.default_rng(seed), size=96, twin=twin).pixels for twin in ("red", None))
        near_white = [(picture.min(axis=2) > 195).sum() for picture in (marked, empty)]
        assert near_white[0] > 40 > near_white[1]


def framed(scene: scenes.Scene) -> list[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
    """(row, column), frame colour, and sign of each framed sign of a legend of 64 pixels, read from the picture."""
    found = []
    for row, column in np.ndindex(legend.SIDE, legend.SIDE):
        cell = scene.pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].astype(float)
        blocks = cell[1:7, 1:7].mean(axis=2).reshape(3, 2, 3, 2).mean(axis=(1, 3))
        if blocks.max() > 150:
            found.append(((row, column), cell[0].mean(axis=0), (blocks > 100).astype(np.uint8)))
    return found


def test_what_a_sign_asks_for_is_the_colour_that_frames_it_elsewhere() -> None:
    for number, colour in enumerate(COLOURS):
        scene = legend.compose(np.random.default_rng(number), size=64, twin=colour)
        signs = framed(scene)
        assert len(signs) == legend.KEYS + legend.ASKED
        told = {}
        for _, frame, sign in signs:
            if np.ptp(frame) > 70:
                likeness = [frame @ each / np.linalg.norm(each) for each in np.array(list(COLOURS.values()), float)]
                assert sign.tobytes() not in told, "a legend has each sign once"
                told[sign.tobytes()] = list(COLOURS)[int(np.argmax(likeness))]
        assert len(told) == legend.KEYS
        asked = {place: (frame, told[sign.tobytes()]) for place, frame, sign in signs if np.ptp(frame) <= 70}
        answers = {}
        for each in scene.instances:
            rows, columns = np.nonzero(each.mask)
            answers[int(rows[0]) // 8, int(columns[0]) // 8] = each.kind
            assert set(scene.semantic[each.mask]) == {1 + list(COLOURS).index(each.kind)}
        assert answers == {place: answer for place, (_, answer) in asked.items()}
        assert (scene.semantic > 0).sum() == 64 * legend.ASKED
        brightest = max(asked.values(), key=lambda each: each[0].mean())
        assert brightest[1] == colour
        assert sum(frame.mean() > 180 for frame, _ in asked.values()) == 1


def test_signs_differ_and_a_mirrored_picture_has_the_same() -> None:
    signs = legend.signs()
    assert len(signs) >= legend.KEYS
    assert {each.tobytes() for each in signs} == {each[:, ::-1].tobytes() for each in signs}
    distances = (signs[:, None] != signs[None]).sum(axis=(2, 3))
    assert (distances + 9 * np.eye(len(signs)) >= legend.APART).all()


def test_a_legend_is_written_with_colours_as_categories_and_classes(tmp_path: Path) -> None:
    scenes.write(tmp_path / "sets", images=20, validation=2, size=45, theme="legend")
    truth = COCO(str(tmp_path / "sets/coco/annotations/instances_train2017.json"))
    assert [each["name"] for each in truth.loadCats(truth.getCatIds())] == list(COLOURS)
    assert len(truth.anns) == 19 * legend.ASKED, "one picture of twenty is empty"
    for image_id in truth.getImgIds():
        semantic = np.asarray(Image.open(tmp_path / f"sets/ade20k/annotations/training/ADE_train_{image_id:08d}.png"))
        for annotation in truth.imgToAnns[image_id]:
            assert set(semantic[truth.annToMask(annotation).astype(bool)]) == {annotation["category_id"]}
    names = (tmp_path / "sets/ade20k/objectInfo6.txt").read_text().splitlines()[1:]
    assert [line.rpartition("\t")[2] for line in names] == list(COLOURS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_shape_has_a_shape_of_its_own(kind: str) -> None:
    masks = {name: coverage(64, *outlines(name, centre=(32, 32), radius=24, angle=0.4)) for name in KINDS}
    area = masks[kind].sum()
    assert area > 0.15 * np.pi * 24**2
    for other in set(KINDS) - {kind}:
        overlap = np.minimum(masks[kind], masks[other]).sum() / np.maximum(masks[kind], masks[other]).sum()
        assert overlap < 0.9, f"{kind} and {other} look alike"


def test_coco_and_ade20k_agree_pixel_by_pixel(scene_sets: Path) -> None:
    """What an annotation's mask covers is of its class, whichever way the segmentation is written."""
    truth = COCO(str(scene_sets / "coco/annotations/instances_train2017.json"))
    written: Counter[str] = Counter()
    for image_id in truth.getImgIds():
        semantic = np.asarray(Image.open(scene_sets / f"ade20k/annotations/training/ADE_train_{image_id:08d}.png"))
        for annotation in truth.imgToAnns[image_id]:
            mask = truth.annToMask(annotation).astype(bool)
            kind = truth.cats[annotation["category_id"]]["name"]
            polygon = isinstance(annotation["segmentation"], list)
            written["polygon" if polygon else type(annotation["segmentation"]["counts"]).__name__] += 1
            share = (semantic[mask] == 1 + CLASSES.index(kind)).mean()
            assert share > 0.75 if polygon else share == 1, (annotation, share)  # polygons are rasterised otherwise
            if not polygon:
                assert mask.sum() == annotation["area"]
                rows, columns = np.nonzero(mask)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["bbox"] == box
    assert set(written) == {"polygon", "str", "list"}, "polygons, encoded and plain run lengths are all written"


def test_there_are_crowds_small_objects_and_empty_images(scene_sets: Path) -> None:
    content = json.loads((scene_sets / "coco/annotations/instances_train2017.json").read_text())
    with_objects = {each["image_id"] for each in content["annotations"]}
    assert 0 < len(content["images"]) - len(with_objects) <= 4
    assert any(each["iscrowd"] for each in content["annotations"])
    areas = sorted(each["area"] for each in content["annotations"])
    assert areas[0] < 30 < 200 < areas[-1]


def test_classes_are_balanced_and_leave_out_the_empty(scene_sets: Path) -> None:
    counts = {path.name: len(list(path.iterdir())) for path in (scene_sets / "classes/train").iterdir()}
    assert set(counts) == set(COLOURS)
    assert sum(counts.values()) == 38
    assert max(counts.values()) - min(counts.values()) <= 2


def test_ignored_pixels_and_every_class_are_there(scene_sets: Path) -> None:
    files = (scene_sets / "ade20k/annotations/training").iterdir()
    values = set(np.unique(np.concatenate([np.asarray(Image.open(path)).ravel() for path in files])).tolist())
    assert values == set(range(len(CLASSES) + 1))


def test_a_folder_of_ours_is_replaced_and_what_else_lies_in_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    scenes.write(folder, images=2, size=32)
    (folder / "notes.txt").write_text("mine")
    scenes.write(folder, images=1, size=32)
    assert len(list((folder / "coco/train2017").iterdir())) == 1
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]


@pytest.mark.parametrize("theme", scenes.THEMES)
def test_a_row_names_generated_scenes_and_not_their_layout(tmp_path: Path, theme: str) -> None:
    scenes.write(tmp_path / "sets", images=1, size=64, theme=theme)
    for part in ("coco", "ade20k", "classes"):
        assert identity.name_of(f"{tmp_path}/sets/{part}") == identity.name_of(f"{tmp_path}/sets/{part}/")
        assert identity.name_of(str(tmp_path / "sets" / part)) == f"generated-{theme}"
    assert identity.name_of(str(tmp_path / "sets" / "mine")) == "mine"


def test_a_row_names_other_data_by_their_folder(tmp_path: Path) -> None:
    assert identity.name_of(str(tmp_path / "ADEChallengeData2016")) == "ADEChallengeData2016"
    assert identity.name_of("") == ""
    (tmp_path / "scenes.json").write_text('{"written_by": "someone", "theme": "shapes"}')
    assert identity.name_of(str(tmp_path / "coco")) == "coco"


def test_someones_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="not empty and was not written by this command"):
        scenes.write(tmp_path, images=1, size=32)
    (tmp_path / scenes.MARKER).write_text("[]")
    with pytest.raises(UsageError, match="not empty"):
        scenes.write(tmp_path, images=1, size=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == [scenes.MARKER, "thesis.txt"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--images", "0"], "--images 0: must be 1"),
        (["--size", "8"], "--size 8: must be 32"),
        (["--seed", "-1"], "--seed -1: must be 0"),
        (["--validation", "-5"], "--validation -5: must be 1"),
        (["--theme", "legend", "--size", "32"], "--size 32: must be 40"),
        (["--theme", "lgend"], "unknown theme 'lgend'; did you mean 'legend'? valid: shapes, legend"),
    ],
)
def test_bad_numbers_are_refused(
    tmp_path: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scenes.main([str(tmp_path / "new"), *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_it_wrote_and_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.vision.data.scenes"]
    made = subprocess.run(
        [*command, "sets", "--images", "1", "--size", "32"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "sets: classes, coco, ade20k\n", "")
    (tmp_path / "file").write_text("")
    refused = subprocess.run([*command, "file"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == ["python -m harness.vision.data.scenes: file is a file, not a folder"]
