"""Data sets from disk and the generated scenes.

    from harness.vision.data import ade20k, classification, coco, transforms

    classification.load(folder, "train", transforms.classification(224, augment=True))    # → (image, label)
    classification.digits("val", transforms.classification(32, augment=False, crop=1.0))
    coco.load(folder, "train", transforms.detection(1024, augment=True), masks=True)      # → (image, target)
    ade20k.load(folder, "val", transforms.segmentation(512, augment=False))               # → (image, mask)

Each is a map-style data set with `classes`, for splits "train" and "val"; `coco.collate` and `ade20k.collate` make its
batches, the default does for classification. Random transforms use the global generators of Python, NumPy and PyTorch.

- classification: image (3, s, s) normalised, label int.
- coco: image (3, h, w) float in 0…1, not normalised (the detector does that); target with boxes (k, 4) xyxy in pixels,
  labels (k,) from 1, image_id (int), area, iscrowd (0: crowds are left out), and masks (k, h, w) uint8 if asked for. An
  image without objects has k = 0. `ground_truth` is what metrics.BoxAP takes. Without augmentation images come as they
  are: the detector scales them and gives boxes in their own pixels.
- ade20k: image (3, s, s) normalised, mask int64 with 255 where nothing counts; with augmentation (s, s), without it the
  annotation's own resolution padded to a square, where metrics.MeanIoU judges.

What is missing or damaged raises reading.BadData (a UsageError), one sentence with the path, also out of a DataLoader's
worker process. `python -m harness.vision.data.scenes FOLDER` writes sets in all three layouts: FOLDER/classes,
FOLDER/coco and FOLDER/ade20k.
"""
