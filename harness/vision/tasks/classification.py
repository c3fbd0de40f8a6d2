"""classification: one label an image; ImageNet and any folder of class folders, or scikit-learn's digits without one.

harness train classification --set classification.size=32 --set classification.patch=4 --out runs/digits
harness train classification --data imagenet --model anchorformer_tiny --out runs/imagenet

Source of the distillation: Touvron et al. 2021, arXiv 2012.12877, section 4: the class token learns the label and the
distillation token the teacher's decision, each with half of the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from pydantic import Field
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.errors import UsageError
from harness.vision import backbone
from harness.vision.data import classification as folders
from harness.vision.data import transforms
from harness.vision.metrics import TopK
from harness.vision.pictures import labelled, spread
from harness.vision.task import Data, Mechanism, Task


class Options(backbone.Backbone):
    """Augmentation is off by default, as small sets want it; scripts/train_imagenet has DeiT's.

    augment: a policy by timm's name, such as rand-m9-mstd0.5-inc1; flip, erase: share of images erased; crop: least
    share of the area that a random crop keeps; central: share of the side that the centre crop keeps in validation.
    mixup, cutmix: alpha, 0 for none. teacher: a file with the weights of timm's model `teacher_model`.
    """

    augment: str = ""
    flip: bool = False
    erase: float = Field(default=0.0, ge=0, le=1)
    crop: float = Field(default=1.0, gt=0, le=1)
    central: float = Field(default=1.0, gt=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    teacher: str = ""
    teacher_model: str = ""


def data(options: Options, folder: Path | None, split: str) -> Data:
    """The images of a split; digits where no folder is given."""
    transform = transforms.classification(
        options.size, augment=split == "train", flip=options.flip, smallest_crop=options.crop,
        auto_augment=options.augment or None, erase=options.erase, crop=options.central,
    )  # fmt: skip
    return folders.load(folder, split, transform) if folder else folders.digits(split, transform)


def model(options: Options, mechanism: Mechanism, data: Data) -> nn.Module:
    """The transformer with a head, or two where it is distilled."""
    if options.teacher and not options.distilled:
        raise UsageError("a teacher needs a distillation token: add --set classification.distilled=true")
    network: Any = backbone.build(options, mechanism, classes=len(data.classes))
    if options.teacher:
        network.set_distilled_training(True)
    return network


def objective(options: Options, data: Data) -> Callable[[nn.Module, Any], dict[str, Tensor]]:
    """Cross entropy of mixed labels, and of the teacher's decisions where there is one."""
    mixing = None
    if options.mixup or options.cutmix:
        mixing = Mixup(
            mixup_alpha=options.mixup, cutmix_alpha=options.cutmix, label_smoothing=options.smoothing,
            num_classes=len(data.classes),
        )  # fmt: skip
    teacher = _teacher(options, len(data.classes)) if options.teacher else None

    def losses(network: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, labels = batch
        smoothing = options.smoothing
        if mixing is not None:
            if len(images) % 2:
                raise UsageError(f"mixup pairs the images of a batch: {len(images)} a process is odd; change --batch")
            images, labels = mixing(images, labels)
            smoothing = 0.0  # it is in the mixed labels
        answers = network(images)
        if teacher is None:
            return {"loss_label": cross_entropy(answers, labels, label_smoothing=smoothing)}
        with torch.no_grad():
            decided = teacher.to(images.device)(images).argmax(dim=1)
        by_label, by_teacher = answers
        return {
            "loss_label": 0.5 * cross_entropy(by_label, labels, label_smoothing=smoothing),
            "loss_teacher": 0.5 * cross_entropy(by_teacher, decided),
        }

    return losses


def _teacher(options: Options, classes: int) -> nn.Module:
    """timm's model with the weights of a file, frozen. Raises UsageError naming what is missing or does not fit."""
    import timm
    from timm.models import load_state_dict

    path = Path(options.teacher)
    if options.teacher_model not in timm.list_models():
        raise UsageError(
            f"teacher_model {options.teacher_model!r} is none of timm's; for example regnety_160, as DeiT's was"
        )
    if not path.is_file():
        raise UsageError(f"teacher {path}: no such file")
    teacher = timm.create_model(options.teacher_model, pretrained=False, num_classes=classes)
    try:
        teacher.load_state_dict(load_state_dict(str(path), use_ema=False, weights_only=True))
    except Exception as error:  # whatever a damaged or foreign file makes a loader raise
        why = shorten(str(error), 300, placeholder=" …")  # PyTorch lists every name
        raise UsageError(f"teacher {path} does not hold weights of {options.teacher_model}: {why}") from None
    return teacher.eval().requires_grad_(False)


def draw(network: nn.Module, data: Data, device: Any) -> Any:
    """Validation images with the label given to each, and the right one where it is another."""
    names = list(data.classes)
    items = spread(data, 18)
    with torch.no_grad():
        answers = network(torch.stack([image for image, _ in items]).to(device)).argmax(dim=1).tolist()
    return labelled(
        [image for image, _ in items],
        [names[answer] for answer in answers],
        [names[label] for _, label in items],
    )


TASK = Task(
    name="classification",
    summary="one label an image: ImageNet, any folder of class folders, or scikit-learn's digits",
    metrics=("top1", "top5"),
    options=Options,
    data=data,
    model=model,
    objective=objective,
    meter=lambda options, data: TopK(),
    draw=draw,
)
