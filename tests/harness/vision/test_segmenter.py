"""Semantic FPN and UPerNet on a vision transformer: resolution, the ignored label, gradients, and that they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import UsageError
from harness.vision import segmenter

TINY: dict[str, Any] = {"depth": 1, "embed_dim": 32, "num_heads": 2, "distilled": False, "anchors": 4}


def tiny(name: str, **given: Any) -> nn.Module:
    """A segmenter of four classes for images of 32 pixels."""
    torch.manual_seed(0)
    return segmenter.create(name, **{"num_classes": 4, "img_size": 32, "width": 16, **TINY, **given})


@pytest.mark.parametrize("name", segmenter.names())
@pytest.mark.parametrize("side", [(32, 32), (64, 32), (33, 50), (16, 16)])
def test_logits_have_the_images_resolution_whatever_it_is(name: str, side: tuple[int, int]) -> None:
    assert tiny(name)(torch.rand(2, 3, *side)).shape == (2, 4, *side)


@pytest.mark.parametrize("name", segmenter.names())
def test_the_loss_reaches_every_parameter_from_a_single_image(name: str) -> None:
    model = tiny(name)
    segmenter.loss(model(torch.rand(1, 3, 32, 32)), torch.randint(0, 4, (1, 32, 32))).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("name", segmenter.names())
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model, images = tiny(name), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", segmenter.names())
def test_every_level_is_used(name: str) -> None:
    torch.manual_seed(0)
    head = segmenter.HEADS[name](16, 4)
    maps = [torch.rand(1, 16, 16 // 2**i, 16 // 2**i, requires_grad=True) for i in range(4)]
    out = head(maps)
    assert out.shape == (1, 4, 16, 16)
    out.square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in maps)


def test_the_ignored_label_counts_nowhere() -> None:
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    masks = torch.randint(0, 4, (2, 8, 8))
    masks[:, :3] = 255
    expected = nn.functional.cross_entropy(logits[:, :, 3:], masks[:, 3:])
    value = segmenter.loss(logits, masks)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[:, :, :3].abs().sum() == 0
    assert segmenter.loss(logits, torch.full((2, 8, 8), 255)).item() == 0, "no pixel: no loss, and no NaN"


def test_the_loss_takes_masks_of_any_size() -> None:
    logits, masks = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    assert segmenter.loss(logits, list(masks)).item() == pytest.approx(segmenter.loss(logits, masks).item(), rel=1e-6)
    mixed = [torch.randint(0, 4, (5, 9)), torch.full((7, 7), 255)]
    scaled = nn.functional.interpolate(logits[:1], (5, 9), mode="bilinear")
    expected = nn.functional.cross_entropy(scaled, mixed[0][None])
    assert segmenter.loss(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", segmenter.names())
def test_a_tiny_segmenter_learns_a_picture(name: str) -> None:
    model = tiny(name)
    torch.manual_seed(1)
    image = 0.1 * torch.randn(1, 3, 32, 32)
    mask = torch.zeros(1, 32, 32, dtype=torch.int64)
    mask[:, 8:24, 4:16] = 2
    image[:, 0][mask == 2] += 1.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        value = segmenter.loss(model(image), mask)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    found = model(image).argmax(dim=1)
    both = ((found == 2) & (mask == 2)).sum() / ((found == 2) | (mask == 2)).sum()
    assert both > 0.7


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("upernett", {}, "unknown segmenter 'upernett'; did you mean 'upernet'"),
        ("upernet", {"num_classes": 0}, "num_classes=0: must be at least 1"),
        ("upernet", {"img_size": -5}, "img_size=-5: must be at least 1"),
        ("upernet", {"patch_size": (16, 8)}, "strides need square ones"),
    ],
)
def test_wrong_names_and_options_are_answered(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(name, **given)
