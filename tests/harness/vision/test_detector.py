"""RetinaNet and Mask R-CNN on a vision transformer: shapes, coordinates, gradients, and that they can learn a box."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.vision import detector, vit
from harness.vision.pyramid import Pyramid

TINY: dict[str, Any] = {"depth": 1, "embed_dim": 32, "num_heads": 2, "distilled": False, "anchors": 4}


def tiny(name: str, **given: Any) -> nn.Module:
    """A detector of three classes for images of 64 pixels."""
    torch.manual_seed(0)
    return detector.create(name, **{"num_classes": 3, "img_size": 64, "width": 16, "prior_scale": 2.0, **TINY, **given})


def scene(side: tuple[int, int] = (64, 64)) -> tuple[Tensor, dict[str, Tensor]]:
    """A grey image with a white rectangle of class 2."""
    image = torch.full((3, *side), 0.3)
    image[:, 16:40, 8:40] = 1.0
    mask = torch.zeros(1, *side, dtype=torch.uint8)
    mask[:, 16:40, 8:40] = 1
    return image, {"boxes": torch.tensor([[8.0, 16, 40, 40]]), "labels": torch.tensor([2]), "masks": mask}


def empty(side: tuple[int, int] = (64, 64)) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of background."""
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return torch.rand(3, *side), {**nothing, "masks": torch.zeros(0, *side, dtype=torch.uint8)}


@pytest.mark.parametrize("patch", [8, 16])
def test_the_pyramid_has_the_strides_that_it_says(patch: int) -> None:
    backbone = vit.create(
        "anchorformer_tiny", num_classes=0, img_size=64, patch_size=patch, dynamic_img_size=True, **TINY
    )
    pyramid = Pyramid(backbone, width=16)
    assert pyramid.strides() == tuple(patch * factor // 4 for factor in (1, 2, 4, 8, 16))
    maps = pyramid(torch.rand(2, 3, 128, 192))
    assert list(maps) == ["2", "3", "4", "5", "6"]
    for each, stride in zip(maps.values(), pyramid.strides(), strict=True):
        assert each.shape == (2, 16, 128 // stride, 192 // stride)


def test_every_level_depends_on_the_whole_backbone() -> None:
    backbone = vit.create("anchorformer_tiny", num_classes=0, img_size=64, dynamic_img_size=True, **TINY)
    pyramid = Pyramid(backbone, width=16)
    for level in ("2", "3", "4", "5", "6"):
        pyramid.zero_grad()
        pyramid(torch.rand(1, 3, 64, 64))[level].square().sum().backward()
        weight = backbone.patch_embed.proj.weight
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", detector.names())
def test_losses_are_finite_and_reach_every_parameter(name: str) -> None:
    model = tiny(name)
    images, targets = zip(scene(), empty(), strict=True)
    losses = model(list(images), list(targets))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("name", detector.names())
def test_a_batch_of_background_alone_has_finite_losses(name: str) -> None:
    model = tiny(name)
    images, targets = zip(empty(), empty(), strict=True)
    losses = model(list(images), list(targets))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("name", detector.names())
def test_detections_are_in_each_images_own_pixels_whatever_its_batch(name: str) -> None:
    model = tiny(name, score_threshold=0.0).eval()
    images = [torch.rand(3, 64, 64), torch.rand(3, 30, 90), torch.rand(3, 200, 120)]
    with torch.no_grad():
        together, alone = model(images), model(images[1:2])
    for image, found in zip(images, together, strict=True):
        height, width = image.shape[1:]
        assert 0 < len(found["boxes"]) <= 100
        assert found["boxes"].min() >= 0
        assert (found["boxes"][:, [0, 2]] <= width + 1e-3).all()
        assert (found["boxes"][:, [1, 3]] <= height + 1e-3).all()
        assert set(found["labels"].tolist()) <= {0, 1, 2, 3}
        if name == "mask_rcnn":
            assert found["masks"].shape == (len(found["boxes"]), 1, height, width)
    assert len(together[1]["boxes"]) == len(alone[0]["boxes"])
    torch.testing.assert_close(together[1]["scores"], alone[0]["scores"], atol=1e-4, rtol=1e-4)


def test_images_reach_the_backbone_at_one_size_made_up_to_the_coarsest_stride() -> None:
    model = tiny("retinanet", img_size=100).eval()
    images, _ = model.transform([torch.rand(3, 50, 20), torch.rand(3, 80, 240)])
    assert images.tensors.shape == (2, 3, 128, 128)
    assert images.image_sizes == [(100, 40), (33, 100)]
    model([torch.rand(3, 50, 20)])


def test_prior_boxes_are_centred_on_their_strides_and_scale_with_them() -> None:
    pyramid = tiny("retinanet").backbone
    priors = detector.prior_boxes(pyramid, 4.0, sizes=3)
    assert priors.num_anchors_per_location() == [9] * 5
    sides = [(cell[:, 2:] - cell[:, :2]).prod(dim=1).sqrt() for cell in priors.cell_anchors]
    for stride, side in zip(pyramid.strides(), sides, strict=True):
        assert side.min() == pytest.approx(4 * stride, rel=0.1)
        assert side.max() == pytest.approx(4 * stride * 2 ** (2 / 3), rel=0.1)


def test_finest_3_leaves_out_level_2() -> None:
    model = tiny("retinanet", finest=3)
    assert list(model.backbone(torch.rand(1, 3, 64, 64))) == ["3", "4", "5", "6"]
    model([scene()[0]], [scene()[1]])
    tiny("mask_rcnn", finest=3)([scene()[0]], [scene()[1]])


@pytest.mark.slow
@pytest.mark.parametrize("name", detector.names())
def test_a_tiny_detector_learns_where_one_box_is(name: str) -> None:
    """From chance to the right class at an overlap above a half, on one picture: coordinates and labels fit."""
    model = tiny(name)
    image, target = scene()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        losses = model([image], [target])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval()([image])[0]
    best = found["scores"].argmax()
    assert int(found["labels"][best]) == 2
    from torchvision.ops import box_iou

    assert box_iou(found["boxes"][best : best + 1], target["boxes"]).item() > 0.5


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("retina", {}, "unknown detector 'retina'; did you mean 'retinanet'"),
        ("retinanet", {"num_classes": 0}, "num_classes=0: must be at least 1"),
        ("retinanet", {"finest": 5}, "levels 5 … 6: valid are 2 … 4 to 4 … 6"),
        ("retinanet", {"backbone": "anchorformer_tinny"}, "did you mean 'anchorformer_tiny'"),
        ("retinanet", {"dept": 3}, "did you mean 'depth'"),
        ("retinanet", {"backbone": nn.Identity()}, "options of a backbone made by name"),
    ],
)
def test_wrong_names_and_options_are_answered(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(name, **given)
