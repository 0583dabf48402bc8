"""How many objects the anchors overlap, and which anchors would overlap more.

An object without an anchor of IoU 0.7 trains only its best anchor; one without an
anchor of IoU 0.5 is rarely proposed. Boxes and sides are in pixels of the
resized images.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from frcnn_jax.config import ModelConfig, Resizing
from frcnn_jax.data import fitting
from frcnn_jax.data.records import Source
from frcnn_jax.data.transforms import resized_size_of
from frcnn_jax.evaluation.anchors import best_anchor_iou
from frcnn_jax.evaluation.breakdown import SIDE_EDGES, recalls

IOU_THRESHOLDS = (0.5, 0.7)
SIDES = (
    f"< {SIDE_EDGES[0]:g}",
    *(f"{low:g}-{high:g}" for low, high in itertools.pairwise(SIDE_EDGES)),
    f">= {SIDE_EDGES[-1]:g}",
)

_STRIDE = 16
_WORTH_A_CHANGE = 0.02  # gain of the mean recall that other anchors must bring


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorRecall:
    """The share of the objects that anchors overlap, at each of `IOU_THRESHOLDS`."""

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    recall: list[float]
    per_class: dict[str, list[float]]
    per_side: dict[str, list[float]]

    @property
    def mean(self) -> float:
        """The mean over the thresholds."""
        return float(np.mean(self.recall))


class _Objects:
    """The objects of a source that are trained on."""

    def __init__(self, source: Source, resizing: Resizing) -> None:
        annotations = source.annotations
        self.class_names = source.class_names
        self.sizes = [
            resized_size_of(each.image_size, resizing) for each in annotations
        ]
        self.boxes = [
            each.boxes[~each.difficult]
            * np.tile(np.divide(size, each.image_size), 2).astype(np.float32)
            for each, size in zip(annotations, self.sizes, strict=True)
        ]
        labels = [each.labels[~each.difficult] for each in annotations]
        self.labels = np.concatenate([np.zeros(0, int), *labels])
        boxes = np.concatenate([np.zeros((0, 4)), *self.boxes])
        self.sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]


def compare_anchors(
    source: Source, resizing: Resizing, model: ModelConfig
) -> list[AnchorRecall]:
    """Computes the recall of a config's anchors, and of others that fit the objects.

    Args:
      source: what is trained on.
      resizing: how its images are resized.
      model: has the scales and ratios of the anchors.

    Returns:
      The config's anchors, then other ones; nothing if there are no objects.
    """
    objects = _Objects(source, resizing)
    if not len(objects.labels):
        return []
    sides, ratios = objects.sides, model.anchor_ratios
    fitted_ratios = fitting.fit_anchor_ratios(sides)
    candidates = [
        (model.anchor_scales, ratios),
        (fitting.fit_anchor_scales(sides, ratios)[0], ratios),
        (fitting.fit_anchor_scales(sides, fitted_ratios)[0], fitted_ratios),
    ]
    return [_measure(objects, *each) for each in dict.fromkeys(candidates)]


def suggest(compared: Sequence[AnchorRecall]) -> AnchorRecall | None:
    """Returns the best of other anchors, None if the first ones are about as good."""
    best = max(compared, key=lambda each: each.mean, default=None)
    if best is None or best.mean < compared[0].mean + _WORTH_A_CHANGE:
        return None
    return best


def _measure(
    objects: _Objects, scales: tuple[float, ...], ratios: tuple[float, ...]
) -> AnchorRecall:
    roots = np.sqrt(ratios)
    shapes = np.stack([roots, 1 / roots], axis=1)  # [R, 2] of area 1
    halves = (0.5 * _STRIDE * np.array(scales)[:, None, None] * shapes).reshape(-1, 2)
    base = np.concatenate([-halves, halves], axis=1)
    best = np.concatenate(
        [
            best_anchor_iou(boxes, size, base, stride=_STRIDE).max(axis=1)
            for boxes, size in zip(objects.boxes, objects.sizes, strict=True)
        ]
    )
    sides = np.sqrt(objects.sides.prod(axis=1))
    bins = np.searchsorted(SIDE_EDGES, sides, side="right")
    return AnchorRecall(
        scales=scales,
        ratios=ratios,
        recall=_recall(best),
        per_class={
            objects.class_names[label]: _recall(best[objects.labels == label])
            for label in np.unique(objects.labels)
        },
        per_side={SIDES[each]: _recall(best[bins == each]) for each in np.unique(bins)},
    )


def _recall(best_iou: np.ndarray) -> list[float]:
    return recalls(best_iou, np.array(IOU_THRESHOLDS)).tolist()
