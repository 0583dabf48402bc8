"""Finds labels that a trained detector disputes: likely mistakes of the annotators.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the original images. A detector
learns from wrong labels, too, so those that it still disputes are the clearest ones.

References:
  U. Tkachenko et al., ObjectLab: Automated Diagnosis of Mislabeled Images in Object
  Detection Data, 2023, for the kinds of mistakes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from frcnn_jax.data.records import Annotation, ImageDetections
from frcnn_jax.evaluation.matching import box_iou, share_inside

# A detection that scores less than this is not evidence of an object ...
CONFIDENT = 0.5
# ... and below this not even of something at that place.
FAINT = 0.05

_SAME_PLACE = 0.5  # IoU of boxes of the same thing
_NEAR = 0.3  # IoU from which a box may be a badly placed one of the same thing

# If the detector finds a smaller share of a class, its misses mean nothing.
_MOSTLY_FOUND = 0.5

Kind = Literal["no annotation", "never found", "other class"]


class Suspect(NamedTuple):
    """A label that is probably wrong or missing."""

    kind: Kind
    image: int  # index in the annotations
    image_id: str
    box: np.ndarray  # [4]
    label: int  # of the annotation, or of the detection if there is none
    rank: float  # those of a kind with larger ranks come first
    text: str

    def __str__(self) -> str:
        """Describes the suspect in one line."""
        y_min, x_min, y_max, x_max = np.round(self.box).astype(int).tolist()
        place = f"x {x_min} to {x_max}, y {y_min} to {y_max}"
        return f"{self.image_id}: {self.text} ({place})"


class _Image(NamedTuple):
    """What is annotated in an image, and what is found."""

    number: int
    annotation: Annotation
    found: ImageDetections
    class_names: Sequence[str]

    @property
    def objects(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and labels of the objects that are to be found."""
        is_easy = ~self.annotation.difficult
        return self.annotation.boxes[is_easy], self.annotation.labels[is_easy]

    def suspect(
        self, kind: Kind, box: np.ndarray, label: int, rank: float, text: str
    ) -> Suspect:
        """Returns a suspect of this image."""
        image_id = self.annotation.image_id
        return Suspect(kind, self.number, image_id, box, label, float(rank), text)


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
      The suspects by kind, the most suspicious first. Confident detections where
      nothing is annotated are ranked by score. Annotated objects where nothing is found
      are listed if most of their class is found, and ranked by that share, then size.
      Objects found as another class are ranked by how much surer the detector is of
      it.
    """
    images = [
        _Image(number, *pair, class_names)
        for number, pair in enumerate(zip(annotations, detections, strict=True))
    ]
    suspects: list[Suspect] = []
    rules: tuple[Callable[[_Image], Iterator[Suspect]], ...] = (
        _find_unannotated,
        functools.partial(
            _find_missed, found_shares=_found_shares(images, len(class_names))
        ),
        _find_confused,
    )
    for rule in rules:
        of_a_kind = [suspect for image in images for suspect in rule(image)]
        suspects += sorted(of_a_kind, key=lambda each: -each.rank)
    return suspects


def _found_shares(images: Sequence[_Image], num_classes: int) -> np.ndarray:
    """Returns the share of the objects of each class that are found, [L]."""
    num_objects, num_found = np.zeros((2, num_classes), int)
    for image in images:
        boxes, labels = image.objects
        is_here = box_iou(boxes, image.found.boxes) >= _SAME_PLACE  # [N, D]
        is_right = labels[:, None] == image.found.labels
        is_found = (is_here & is_right & (image.found.scores >= CONFIDENT)).any(axis=1)
        np.add.at(num_objects, labels, 1)
        np.add.at(num_found, labels[is_found], 1)
    return num_found / np.maximum(num_objects, 1)


def _find_unannotated(image: _Image) -> Iterator[Suspect]:
    annotation, found = image.annotation, image.found
    overlaps = box_iou(found.boxes, annotation.boxes)
    # A detection in a crowd, or on a part of a difficult object, is not a mistake.
    inside = share_inside(found.boxes, annotation.boxes)
    overlaps = np.where(annotation.difficult, np.maximum(inside, overlaps), overlaps)
    is_free = np.all(overlaps < _NEAR, axis=1) & (found.scores >= CONFIDENT)
    shown: list[int] = []
    for number in np.argsort(-found.scores, kind="stable"):
        # Of several classes found at the same place, report one.
        box, label = found.boxes[number], int(found.labels[number])
        is_new = np.all(box_iou(box[None], found.boxes[shown]) < _SAME_PLACE)
        if is_free[number] and is_new:
            shown.append(number)
            score = found.scores[number]
            text = f"{image.class_names[label]} found at {score:.2f}, none annotated"
            yield image.suspect("no annotation", box, label, score, text)


def _find_missed(image: _Image, found_shares: np.ndarray) -> Iterator[Suspect]:
    boxes, labels = image.objects
    overlaps = box_iou(boxes, image.found.boxes[image.found.scores >= FAINT])
    for number in np.flatnonzero(np.all(overlaps < _NEAR, axis=1)):
        box, label = boxes[number], int(labels[number])
        share, name = found_shares[label], image.class_names[label]
        if share < _MOSTLY_FOUND:
            continue
        area = np.prod(box[2:] - box[:2]) / np.prod(image.annotation.image_size)
        text = f"{name} annotated, nothing found "
        text += f"(the detector finds {share:.0%} of this class)"
        yield image.suspect("never found", box, label, share + area, text)


def _find_confused(image: _Image) -> Iterator[Suspect]:
    found, (boxes, labels) = image.found, image.objects
    overlaps = box_iou(boxes, found.boxes)  # [N, D]
    # A detection that fits another object better belongs to that one.
    best = box_iou(image.annotation.boxes, found.boxes).max(axis=0, initial=0.0)
    is_here = (overlaps >= _SAME_PLACE) & (overlaps >= best)
    is_right = labels[:, None] == found.labels
    right = np.where(is_here & is_right, found.scores, 0.0).max(axis=1, initial=0.0)
    others = np.where(is_here & ~is_right, found.scores, 0.0)
    for number in np.flatnonzero(others.max(axis=1, initial=0.0) >= CONFIDENT):
        score, label = others[number].max(), int(labels[number])
        if score > right[number]:
            names = image.class_names
            other = names[found.labels[others[number].argmax()]]
            text = f"{names[label]} annotated, {other} found at {score:.2f}"
            margin = score - right[number]
            yield image.suspect("other class", boxes[number], label, margin, text)
