"""Draws what was found in an image.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the image with an exclusive max
edge; labels are 0..L-1. A class has the same color in every picture.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.visualization import drawing

_MIN_LONG_SIDE = 640  # pixels, so that texts fit on a small image too


def draw_detections(
    image: np.ndarray,
    *,
    detections: ImageDetections | None = None,
    ground_truth: ImageGroundTruth | None = None,
    class_names: Sequence[str],
) -> Image.Image:
    """Draws what was found in an image, beside its ground truth.

    Detections have their class and score. Objects have their class in a panel of their
    own on the left, difficult ones dashed and with a question mark, and are white
    dashes under the detections. A small image is enlarged to a longer side of 640.

    Args:
      image: [H, W, 3] uint8, RGB.
      detections: of this image; with None only the ground truth is drawn.
      ground_truth: of this image; with None only the detections are drawn.
      class_names: by label.

    Returns:
      The picture, RGB.

    Raises:
      ValueError: if the image has another type or shape.

    Example:
      >>> small = np.zeros((96, 128, 3), np.uint8)
      >>> draw_detections(small, class_names=["cat"]).size
      (640, 480)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    scale = max(1.0, _MIN_LONG_SIDE / max(image.shape[:2]))
    height, width = (round(scale * side) for side in image.shape[:2])
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)

    found = picture.copy()
    if ground_truth is not None:
        _draw_objects(picture, scale, ground_truth, class_names)
    if detections is None:
        return picture
    if ground_truth is not None:
        for box in ground_truth.boxes:
            outline = drawing.pixel_box(scale * box, found)
            drawing.draw_dashes(found, outline, drawing.WHITE)
    _draw_found(found, scale, detections, class_names)
    if ground_truth is None:
        return found
    captions = ("ground truth (?: difficult)", "detections (dashed: ground truth)")
    return drawing.side_by_side((picture, found), captions)


def _draw_objects(
    picture: Image.Image,
    scale: float,
    ground_truth: ImageGroundTruth,
    class_names: Sequence[str],
) -> None:
    boxes = [drawing.pixel_box(scale * box, picture) for box in ground_truth.boxes]
    colors = [drawing.class_color(int(label)) for label in ground_truth.labels]
    texts = []
    for box, color, label, difficult in zip(
        boxes, colors, ground_truth.labels, ground_truth.difficult, strict=True
    ):
        draw = drawing.draw_dashes if difficult else drawing.draw_outline
        draw(picture, box, color)
        texts.append(class_names[label] + ("?" if difficult else ""))
    drawing.draw_texts(picture, boxes, texts, colors)


def _draw_found(
    picture: Image.Image,
    scale: float,
    detections: ImageDetections,
    class_names: Sequence[str],
) -> None:
    """Draws the best detection above the others, with its text in the best place."""
    order = np.argsort(-detections.scores, kind="stable")
    boxes, scores, labels = (values[order] for values in detections)
    outlines = [drawing.pixel_box(scale * box, picture) for box in boxes]
    colors = [drawing.class_color(int(label)) for label in labels]
    for outline, color in zip(reversed(outlines), reversed(colors), strict=True):
        drawing.draw_outline(picture, outline, color)
    texts = [
        f"{class_names[label]} {score:.2f}"
        for label, score in zip(labels, scores, strict=True)
    ]
    drawing.draw_texts(picture, outlines, texts, colors)
