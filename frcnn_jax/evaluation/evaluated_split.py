"""Detections and ground truth of a split: `evaluation.npz`.

Everything in a report is computed from it, without the detector; only pictures need
the images.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frcnn_jax.data.records import Annotation, ImageDetections
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.evaluation.matching import box_iou, flatten
from frcnn_jax.files import replace_bytes

# Of proposals, best first, and of the sides of anchors in cells.
PROPOSAL_COUNTS: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
ANCHOR_SCALES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedSplit:
    """The I images of a split, with N objects in all."""

    class_names: tuple[str, ...]  # L names
    annotations: Sequence[Annotation]  # I of them
    detections: Sequence[ImageDetections]  # I of them
    # [len(PROPOSAL_COUNTS), N] float32, largest IoU with the best proposals.
    proposal_iou: np.ndarray
    anchor_iou: np.ndarray  # [N] float32, largest IoU with an anchor of the detector
    # [N, len(ANCHOR_SCALES)] float32, largest IoU with an anchor of each scale.
    scale_iou: np.ndarray
    fingerprints: dict[str, str]  # of the detector and of the data
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)  # for JSON

    @property
    def compared(self) -> tuple[Sequence[ImageDetections], Sequence[Annotation], int]:
        """Detections, ground truth and number of classes, which figures are of."""
        return self.detections, self.annotations, len(self.class_names)


def best_proposal_iou(proposals: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Computes the largest IoU of each object with the best 1, 3, 10, ... proposals.

    Args:
      proposals: [P, 4] proposals of an image, best first, in pixels.
      boxes: [N, 4] objects, in the same pixels.

    Returns:
      [len(PROPOSAL_COUNTS), N] in [0, 1].
    """
    iou = box_iou(proposals, boxes)
    rows = [iou[:number].max(axis=0, initial=0.0) for number in PROPOSAL_COUNTS]
    return np.stack(rows)


def save(split: EvaluatedSplit, path: Path) -> None:
    """Writes an evaluated split.

    Args:
      split: to be written.
      path: of the `.npz`.

    Raises:
      UserError: if it cannot be written.
    """
    found, truth = flatten(split.detections, split.annotations)
    arrays = {
        "class_names": np.array(split.class_names),
        "image_ids": np.array([each.image_id for each in split.annotations]),
        "image_sizes": np.array([each.image_size for each in split.annotations]),
        **{f"detection_{name}": values for name, values in found._asdict().items()},
        **{f"object_{name}": values for name, values in truth._asdict().items()},
        "proposal_iou": split.proposal_iou,
        "anchor_iou": split.anchor_iou,
        "scale_iou": split.scale_iou,
        "fingerprints": np.array(json.dumps(split.fingerprints)),
        "environment": np.array(json.dumps(split.environment)),
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    replace_bytes(path, content.getvalue())


def load(path: Path) -> EvaluatedSplit:
    """Reads what `save` wrote.

    Raises:
      UserError: if the file is missing or no such file.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
        return _from_arrays(arrays)
    except Exception as error:  # NumPy, zipfile and zlib have one each for damage
        raise UserError(f"{path}: no evaluated split: {first_line(error)}") from error


def _from_arrays(arrays: dict[str, np.ndarray]) -> EvaluatedSplit:
    num_images = len(arrays["image_ids"])
    parts: dict[str, list[np.ndarray]] = {}
    for kind in ("detection", "object"):
        numbers = arrays[f"{kind}_images"]
        ends = np.searchsorted(numbers, np.arange(1, num_images))
        parts |= {
            name: np.split(arrays[name], ends)
            for name in arrays
            if name.startswith(f"{kind}_")
        }
    return EvaluatedSplit(
        class_names=tuple(arrays["class_names"].tolist()),
        annotations=[
            Annotation(
                image_id=str(image_id),
                image_size=(int(size[0]), int(size[1])),
                boxes=parts["object_boxes"][index],
                labels=parts["object_labels"][index],
                difficult=parts["object_difficult"][index],
            )
            for index, (image_id, size) in enumerate(
                zip(arrays["image_ids"], arrays["image_sizes"], strict=True)
            )
        ],
        detections=[
            ImageDetections(*each)
            for each in zip(
                *(parts[f"detection_{name}"] for name in ImageDetections._fields),
                strict=True,
            )
        ],
        proposal_iou=arrays["proposal_iou"],
        anchor_iou=arrays["anchor_iou"],
        scale_iou=arrays["scale_iou"],
        fingerprints=json.loads(str(arrays["fingerprints"])),
        environment=json.loads(str(arrays["environment"])),
    )
