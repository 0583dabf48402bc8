"""COCO's figures as pycocotools computes them: one box, image and class at a time."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = (
    *("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"),
    *("AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"),
)


def average_precisions(detections, ground_truths, num_classes) -> dict[str, float]:
    """Returns the twelve figures; difficult objects are crowds."""
    crowds = [image.difficult for image in ground_truths]
    scores = [image.scores for image in detections]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports each step
        evaluation = COCOeval(
            _index(ground_truths, "iscrowd", crowds, num_classes),
            _index(detections, "score", scores, num_classes),
            iouType="bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = np.where(evaluation.stats < 0.0, np.nan, evaluation.stats)
    return dict(zip(NAMES, figures.tolist(), strict=True))


def _index(images, key, values, num_classes) -> COCO:
    """Builds pycocotools' index of all boxes, each with its value at `key`."""
    annotations = []
    for image_id, (image, of_image) in enumerate(zip(images, values, strict=True)):
        boxes = image.boxes.astype(np.float64)
        x_y = boxes[:, 1::-1]
        width_height = boxes[:, :1:-1] - x_y
        rows = zip(x_y, width_height, image.labels, of_image, strict=True)
        for corner, size, label, value in rows:
            annotation = {
                "id": len(annotations) + 1,  # 0 means "no match" to pycocotools
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
