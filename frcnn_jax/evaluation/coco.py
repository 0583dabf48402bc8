"""Average precision and recall as COCO defines them, computed by pycocotools.

Boxes are in pixels of the original images and have an exclusive max edge. Two things
are not as in COCO's own annotations:

- The area of an object is that of its box; COCO takes that of its mask. Up to 32 x 32
  pixels an object is small and from 96 x 96 on large.
- Difficult objects are given as crowds. As in `voc.py` they are not to be found, and
  their detections are ignored. But a detection goes to one of them only if no other
  object is left for it, and then by the share of the detection, not of the union, that
  lies inside.

References:
  cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py, the evaluation itself.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.matching import (
    check_images,
)

# In the order of pycocotools.
_AVERAGE_PRECISIONS = ("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge")
_AVERAGE_RECALLS = ("AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge")


def average_precisions(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
) -> dict[str, float]:
    """Computes COCO's twelve figures, each a mean over the classes that have objects.

    Args:
      detections: one for each image; the 100 best of each class count.
      ground_truths: one for each image, in the same order.
      num_classes: L.

    Returns:
      By name, in [0, 1], or NaN where there is no object to find: the average precision
      over the IoU thresholds 0.5, 0.55, ... 0.95 (`AP`), at one of them (`AP50`,
      `AP75`) and by the size of the objects (`APsmall`, `APmedium`, `APlarge`); the
      recall over the same thresholds with the 1, 10 and 100 best detections of each
      image and class (`AR1`, `AR10`, `AR100`), and by size (`ARsmall`, `ARmedium`,
      `ARlarge`).

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    check_images(detections, ground_truths, num_classes)
    scores = [image.scores for image in detections]
    crowds = [image.difficult for image in ground_truths]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports each step.
        evaluation = COCOeval(
            _index(ground_truths, "iscrowd", crowds, num_classes),
            _index(detections, "score", scores, num_classes),
            iouType="bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = np.where(evaluation.stats < 0.0, np.nan, evaluation.stats)
    names = _AVERAGE_PRECISIONS + _AVERAGE_RECALLS
    return dict(zip(names, figures.tolist(), strict=True))


def _index(
    images: Sequence[ImageDetections | ImageGroundTruth],
    key: str,
    values: Sequence[np.ndarray],
    num_classes: int,
) -> COCO:
    """Builds pycocotools' index of all boxes, each with its value at `key`."""
    annotations: list[dict[str, Any]] = []
    for image_id, (image, of_image) in enumerate(zip(images, values, strict=True)):
        boxes = image.boxes.astype(np.float64)
        x_y = boxes[:, 1::-1]
        width_height = boxes[:, :1:-1] - x_y
        rows = zip(x_y, width_height, image.labels, of_image, strict=True)
        for corner, size, label, value in rows:
            annotation = {
                "id": len(annotations) + 1,  # 0 means "no match" to pycocotools.
                "image_id": image_id,
                "category_id": int(label),
                "bbox": [*corner.tolist(), *size.tolist()],
                "area": float(size.prod()),
                key: value.item(),
            }
            annotations.append(annotation)
    index = COCO()
    index.dataset = {
        "images": [{"id": image_id} for image_id in range(len(images))],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": annotations,
    }
    index.createIndex()
    return index
