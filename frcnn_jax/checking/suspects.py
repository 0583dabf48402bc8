"""Finds labels that a trained detector disputes: likely mistakes of the annotators.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the original images. A detector
learns from wrong labels, too, so those that it still disputes are the clearest ones.

References:
  U. Tkachenko et al., ObjectLab: Automated Diagnosis of Mislabeled Images in Object
  Detection Data, 2023, for the kinds of mistakes.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from frcnn_jax.data.records import Annotation, ImageDetections
from frcnn_jax.evaluation.matching import box_iou, share_inside

# A detection that scores less than this is no evidence that an object is there ...
CONFIDENT = 0.5
# ... and below this none that something is there at all.
FAINT = 0.05

_SAME_PLACE = 0.5  # IoU of boxes of the same thing
_NEAR = 0.3  # IoU from which a box may be a badly placed one of the same thing

Kind = Literal["no annotation", "never found", "other class"]


class Suspect(NamedTuple):
    """A label, or the lack of one, that is probably wrong."""

    kind: Kind
    image: int  # index in the annotations
    box: np.ndarray  # [4]
    label: int  # of the annotation, or of the detection if there is none
    rank: float  # those of a kind with larger ranks come first
    text: str


def find_suspects(
    annotations: Sequence[Annotation],
    detections: Sequence[ImageDetections],
    class_names: Sequence[str],
) -> list[Suspect]:
    """Compares what is annotated with what is found.

    Args:
      annotations: of each image.
      detections: what is found in each, scores below `CONFIDENT` included.
      class_names: L names.

    Returns:
      The suspects, by kind, the most suspicious first: confident detections where
      nothing is annotated, by score; annotated objects where nothing at all is found,
      those of classes that are found most reliably first, then the largest; objects
      found as another class, by how much surer the detector is of that one.
    """
    found_shares = _found_shares(annotations, detections, len(class_names))
    suspects: list[Suspect] = []
    for image, pair in enumerate(zip(annotations, detections, strict=True)):
        suspects += _find_unannotated(image, *pair, class_names)
        suspects += _find_unfound(image, *pair, class_names, found_shares)
        suspects += _find_confused(image, *pair, class_names)
    kinds = ("no annotation", "never found", "other class")
    return sorted(suspects, key=lambda each: (kinds.index(each.kind), -each.rank))


def _found_shares(
    annotations: Sequence[Annotation],
    detections: Sequence[ImageDetections],
    num_classes: int,
) -> np.ndarray:
    """Returns the share of the objects of each class that are found, [L]."""
    num_objects, num_found = np.zeros(num_classes, int), np.zeros(num_classes, int)
    for annotation, found in zip(annotations, detections, strict=True):
        boxes, labels = _objects(annotation)
        is_here = box_iou(boxes, found.boxes) >= _SAME_PLACE  # [N, D]
        is_right = (labels[:, None] == found.labels) & (found.scores >= CONFIDENT)
        is_found = (is_here & is_right).any(axis=1)
        num_objects += np.bincount(labels, minlength=num_classes)
        num_found += np.bincount(labels[is_found], minlength=num_classes)
    return num_found / np.maximum(num_objects, 1)


def _find_unannotated(
    image: int,
    annotation: Annotation,
    found: ImageDetections,
    class_names: Sequence[str],
) -> Iterator[Suspect]:
    sure = np.argsort(-found.scores, kind="stable")
    sure = sure[found.scores[sure] >= CONFIDENT]
    overlaps = box_iou(found.boxes, annotation.boxes)
    # Boxes in a crowd, or on a part of a difficult object, are no mistake.
    inside = share_inside(found.boxes, annotation.boxes)
    overlaps = np.where(annotation.difficult, np.maximum(inside, overlaps), overlaps)
    is_free = np.all(overlaps < _NEAR, axis=1)
    shown: list[int] = []
    for number in sure[is_free[sure]]:
        # One of several classes that are found at a place will do.
        box, label = found.boxes[number], int(found.labels[number])
        if (box_iou(box[None], found.boxes[shown]) < _SAME_PLACE).all():
            shown.append(number)
            score = float(found.scores[number])
            text = f"{class_names[label]} found at {score:.2f}, nothing annotated"
            yield Suspect("no annotation", image, box, label, score, text)


def _find_unfound(
    image: int,
    annotation: Annotation,
    found: ImageDetections,
    class_names: Sequence[str],
    found_shares: np.ndarray,
) -> Iterator[Suspect]:
    boxes, labels = _objects(annotation)
    overlaps = box_iou(boxes, found.boxes[found.scores >= FAINT])
    for number in np.flatnonzero((overlaps < _NEAR).all(axis=1)):
        box, label = boxes[number], int(labels[number])
        area = float(np.prod(box[2:] - box[:2]) / np.prod(annotation.image_size))
        share = float(found_shares[label])
        name = class_names[label]
        text = f"annotated {name}, nothing found ({share:.0%} of {name} are found)"
        yield Suspect("never found", image, box, label, share + area, text)


def _find_confused(
    image: int,
    annotation: Annotation,
    found: ImageDetections,
    class_names: Sequence[str],
) -> Iterator[Suspect]:
    boxes, labels = _objects(annotation)
    overlaps = box_iou(boxes, found.boxes)
    # A detection that fits another object better is of that one.
    is_here = (overlaps >= _SAME_PLACE) & (
        overlaps >= box_iou(annotation.boxes, found.boxes).max(axis=0, initial=0.0)
    )
    scores = np.where(is_here, found.scores, 0.0)  # [N, D]
    for number, label in enumerate(labels.tolist()):
        is_right = found.labels == label
        others = np.where(is_right, 0.0, scores[number])
        if not len(others) or others.max() < CONFIDENT:
            continue
        margin = float(others.max() - np.where(is_right, scores[number], 0.0).max())
        if margin > 0.0:
            other = class_names[found.labels[others.argmax()]]
            text = (
                f"annotated {class_names[label]}, found {other} at {others.max():.2f}"
            )
            yield Suspect("other class", image, boxes[number], label, margin, text)


def _objects(annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes and labels of the objects that are to be found."""
    is_easy = ~annotation.difficult
    return annotation.boxes[is_easy], annotation.labels[is_easy]
