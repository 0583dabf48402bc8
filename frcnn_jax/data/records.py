"""What a data set is made of, and the checks that every data set passes through.

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
        """[N] bool, not to be found."""


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


def drop_bad_boxes(
    annotations: Sequence[Annotation], *, empty_side: float = 0.0
) -> list[Annotation]:
    """Clips boxes to their image and drops those without area; warns of either once.

    A box that reaches outside by one pixel, as those of 0-based writers do, is clipped
    without a warning. The images themselves stay, even without any box left.

    Args:
      annotations: the ground truth of each image.
      empty_side: a box has an area if both sides are longer than this, in pixels.

    Returns:
      The same images in the same order, with good boxes only.
    """
    kept, clipped_ids, dropped_ids = [], [], []
    for annotation in annotations:
        clipped, is_outside, has_area = _clip_boxes(annotation, empty_side)
        clipped_ids += [annotation.image_id] * int((is_outside & has_area).sum())
        dropped_ids += [annotation.image_id] * int((~has_area).sum())
        kept.append(
            dataclasses.replace(
                annotation,
                boxes=clipped[has_area],
                labels=annotation.labels[has_area],
                difficult=annotation.difficult[has_area],
            )
        )
    _warn_of_boxes("clipped boxes that reach outside their image", clipped_ids)
    _warn_of_boxes("dropped boxes without area or outside their image", dropped_ids)
    return kept


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


def _warn_of_boxes(what: str, image_ids: Sequence[str]) -> None:
    """Warns of boxes, given the image of each."""
    if image_ids:
        names = abbreviate(list(dict.fromkeys(image_ids)))
        _logger.warning("%s: %d, in %s", what, len(image_ids), names)


def abbreviate(names: Sequence[str]) -> str:
    """Joins names for a message: the first ten, then how many there are more.

    Example:
      >>> abbreviate([str(n) for n in range(12)])
      '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    text = ", ".join(names[:_MAX_NAMES])
    num_more = len(names) - _MAX_NAMES
    return f"{text} and {num_more} more" if num_more > 0 else text


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
