"""The parts of a data set, and the checks that every data set passes.

Boxes are float32 `(y_min, x_min, y_max, x_max)` with the max edge exclusive: in pixels
of the original image in an `Annotation`, of the resized image in a `Batch`. Labels are
0..L-1; there is no background class here.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from frcnn_jax.errors import UserError

# PASCAL VOC's, in the order of their labels.
VOC_CLASS_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_MAX_NAMES = 10  # In a warning; a data set may have thousands of bad files.

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """The ground truth of one image."""

    image_id: str
    image_size: tuple[int, int]  #: (height, width), pixels.
    boxes: np.ndarray  #: [N, 4] float32, pixels of the original image.
    labels: np.ndarray  #: [N] int32, 0..L-1.
    difficult: np.ndarray  #: [N] bool. Not trained on, ignored in evaluation.


class ImageDetections(NamedTuple):
    """What a detector found in one image, in any order."""

    boxes: np.ndarray  #: [D, 4] float32, pixels
    scores: np.ndarray  #: [D] float32, higher is more certain
    labels: np.ndarray  #: [D] int32, 0..L-1


@runtime_checkable
class ImageGroundTruth(Protocol):
    """The objects of one image; `frcnn_jax.data.records.Annotation` is one."""

    @property
    def boxes(self) -> np.ndarray:
        """[N, 4] float32, pixels."""

    @property
    def labels(self) -> np.ndarray:
        """[N] int32, 0..L-1."""

    @property
    def difficult(self) -> np.ndarray:
        """[N] bool, ignored in evaluation."""


@runtime_checkable
class Source(Protocol):
    """A data set with random access. Must be picklable, for worker processes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def annotations(self) -> Sequence[Annotation]:
        """The ground truth of every image, available without reading the images."""

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if the image cannot be read; names its path.
        """


# NumPy arrays on the host; on the device JAX arrays, which this package never imports.
BatchArray = Any


class Batch(NamedTuple):
    """Images of one canvas size with their padded ground truth."""

    images: BatchArray  #: [B, H, W, 3] uint8 RGB, zero outside the true image.
    image_sizes: BatchArray  #: [B, 2] float32, true (height, width) after resizing.
    scales: BatchArray  #: [B, 2] float32, resized / original, (y, x).
    boxes: BatchArray  #: [B, M, 4] float32, pixels of the resized image.
    labels: BatchArray  #: [B, M] int32.
    box_mask: BatchArray  #: [B, M] bool. False where the box is padding.
    indices: BatchArray  #: [B] int32, the image's index in its source.
    image_mask: BatchArray  #: [B] bool. False for the filler of a last batch.

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) that the images are padded to."""
        height, width = self.images.shape[1:3]
        return height, width


def empty_batch(batch_size: int, canvas: tuple[int, int], max_objects: int) -> Batch:
    """Returns a batch of black images without objects, each as large as the canvas.

    Args:
      batch_size: B.
      canvas: (height, width), in pixels.
      max_objects: M.
    """
    return Batch(
        images=np.zeros((batch_size, *canvas, 3), np.uint8),
        image_sizes=np.full((batch_size, 2), canvas, np.float32),
        scales=np.ones((batch_size, 2), np.float32),
        boxes=np.zeros((batch_size, max_objects, 4), np.float32),
        labels=np.zeros((batch_size, max_objects), np.int32),
        box_mask=np.zeros((batch_size, max_objects), bool),
        indices=np.arange(batch_size, dtype=np.int32),
        image_mask=np.ones(batch_size, bool),
    )


def fingerprint(source: Source) -> str:
    """Digests class names and annotations, so that a changed data set is noticed.

    Returns:
      16 hexadecimal digits: the beginning of a SHA-256, which excludes the pixels.
    """
    digest = hashlib.sha256(json.dumps(list(source.class_names)).encode())
    for annotation in source.annotations:
        size = [int(side) for side in annotation.image_size]
        head = [annotation.image_id, *size, len(annotation.boxes)]
        digest.update(json.dumps(head).encode())
        digest.update(annotation.boxes.astype("<f4").tobytes())
        digest.update(annotation.labels.astype("<i4").tobytes())
        digest.update(annotation.difficult.astype(bool).tobytes())
    return digest.hexdigest()[:16]


class BadBox(NamedTuple):
    """An annotated box that is clipped or dropped."""

    image: int  # index in the annotations
    label: int
    box: np.ndarray  # [4] float32, as it is annotated
    is_dropped: bool  # else clipped
    reason: str


def drop_bad_boxes(
    annotations: Sequence[Annotation], *, empty_side: float = 0.0
) -> list[Annotation]:
    """Clips boxes to their image and drops those without area; warns of either once.

    Args:
      annotations: the ground truth of each image.
      empty_side: a box has an area if both sides are longer than this, in pixels.

    Returns:
      The same images in the same order, with good boxes only.
    """
    kept, bad_boxes = check_boxes(annotations, empty_side=empty_side)
    for what, is_dropped in (
        ("clipped boxes that reach outside their image", False),
        ("dropped boxes without area or outside their image", True),
    ):
        bad = [each.image for each in bad_boxes if each.is_dropped == is_dropped]
        if bad:
            names = abbreviate([annotations[i].image_id for i in dict.fromkeys(bad)])
            _logger.warning("%s: %d, in %s", what, len(bad), names)
    return kept


def check_boxes(
    annotations: Sequence[Annotation], *, empty_side: float = 0.0
) -> tuple[list[Annotation], list[BadBox]]:
    """Clips boxes to their image and drops those without area.

    A box that reaches outside by one pixel, as those of 0-based writers do, is clipped
    but not reported as bad. The images themselves stay, even without any box left.

    Args:
      annotations: the ground truth of each image.
      empty_side: a box has an area if both sides are longer than this, in pixels.

    Returns:
      The same images in the same order, with good boxes only, and the bad boxes.
    """
    kept, bad_boxes = [], []
    for index, annotation in enumerate(annotations):
        clipped, is_outside, has_area = _clip_boxes(annotation, empty_side)
        for number in np.flatnonzero(is_outside | ~has_area):
            box, is_dropped = annotation.boxes[number], not has_area[number]
            reason = _explain(box, annotation.image_size, is_dropped, empty_side)
            label = int(annotation.labels[number])
            bad_boxes.append(BadBox(index, label, box, is_dropped, reason))
        kept.append(
            dataclasses.replace(
                annotation,
                boxes=clipped[has_area],
                labels=annotation.labels[has_area],
                difficult=annotation.difficult[has_area],
            )
        )
    return kept, bad_boxes


def _clip_boxes(
    annotation: Annotation, empty_side: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clipped boxes, [N, 4], and which were outside or have an area, [N]."""
    # A box that is not finite has no area.
    is_finite = np.isfinite(annotation.boxes).all(axis=1, keepdims=True)
    boxes = np.where(is_finite, annotation.boxes, 0.0)
    limit = np.array(annotation.image_size * 2, np.float32)  # (h, w, h, w)
    clipped = np.clip(boxes, 0.0, limit)
    # A sliver beyond the edge has an area before the clipping only.
    has_area = np.all(
        (boxes[:, 2:] - boxes[:, :2] > empty_side) & (clipped[:, 2:] > clipped[:, :2]),
        axis=1,
    )
    is_outside = np.any((boxes < -1.0) | (boxes > limit + 1.0), axis=1)
    return clipped, is_outside, has_area


def _explain(
    box: np.ndarray, image_size: tuple[int, int], is_dropped: bool, empty_side: float
) -> str:
    """Says what is bad about a box."""
    if not np.isfinite(box).all():
        return "is not finite"
    height, width = box[2:] - box[:2]
    if min(height, width) <= empty_side:
        return (
            f"is {height:g} x {width:g} pixels (height x width), expected more than "
            f"{empty_side:g}"
        )
    image = f"the image of {image_size[0]} x {image_size[1]} pixels"
    if is_dropped:
        return f"lies outside of {image}"
    excess = max(-box[:2].min(), (box[2:] - image_size).max())
    return f"reaches {excess:g} pixels outside of {image}"


def abbreviate(names: Sequence[str]) -> str:
    """Joins names for a message: the first ten, then how many there are more.

    Example:
      >>> abbreviate([str(n) for n in range(12)])
      '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    text = ", ".join(names[:_MAX_NAMES])
    num_more = len(names) - _MAX_NAMES
    return f"{text} and {num_more} more" if num_more > 0 else text


def check_classes(name: str, class_names: Sequence[str], source: Source) -> None:
    """Checks that a detector and a data set have the same classes, in the same order.

    Args:
      name: what to call the detector in the error.
      class_names: of the detector.
      source: the data set.

    Raises:
      UserError: if they differ.
    """
    if tuple(class_names) != tuple(source.class_names):
        raise UserError(
            f"{name}: its classes are {', '.join(class_names)}, those of the data set "
            f"{', '.join(source.class_names)}, expected the same"
        )


def has_objects(source: Source) -> bool:
    """Returns whether any image has an object that is not difficult."""
    return any(not each.difficult.all() for each in source.annotations)


def check_max_objects(annotations: Sequence[Annotation], max_objects: int) -> None:
    """Checks that the boxes of every image fit into a batch (difficult ones stay out).

    Args:
      annotations: the ground truth of each image.
      max_objects: how many boxes a batch has room for per image.

    Raises:
      UserError: if an image has more boxes; names the first such image.
    """
    for annotation in annotations:
        num_objects = int((~annotation.difficult).sum())
        if num_objects > max_objects:
            raise UserError(
                f"image {annotation.image_id} has {num_objects} objects, "
                f"but max_objects is {max_objects}; raise max_objects"
            )
