"""The parts of `evaluation.json`, each computed from an evaluated split.

Values are plain numbers, lists and dictionaries; `None` stands for NaN, which JSON
does not have. `docs/report.md` explains every figure.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from frcnn_jax.evaluation import breakdown, coco, voc
from frcnn_jax.evaluation.bootstrap import bootstrap
from frcnn_jax.evaluation.confusion import confusion_matrix
from frcnn_jax.evaluation.evaluated_split import (
    ANCHOR_SCALES,
    PROPOSAL_COUNTS,
    EvaluatedSplit,
)
from frcnn_jax.evaluation.matching import flatten
from frcnn_jax.evaluation.operating_point import OperatingPoint
from frcnn_jax.evaluation.ranking import (
    Ranking,
    average_precision_of,
    mean_over_classes,
    weighted_average_precision,
)
from frcnn_jax.evaluation.tide import ERRORS, tide_errors

AP_IOU_THRESHOLDS = tuple(round(0.3 + 0.05 * n, 2) for n in range(13))
RECALL_IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))
NUM_RESAMPLES = 1000
LEVEL = 0.95


def plain(value: Any) -> Any:
    """Turns arrays and NumPy's numbers into what JSON can hold."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def intervals(split: EvaluatedSplit, rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Computes bootstrap intervals, over the images, of average precision and recall.

    Args:
      split: that was evaluated.
      rankings: its L classes, by VOC's rules at IoU 0.5.

    Returns:
      `voc07_map`, `area_map`, `coco` and `per_class`: the two ends of each figure.
    """
    coco_rankings = coco.rank(*split.compared)

    def statistic(weights: np.ndarray) -> np.ndarray:
        voc07, area = (
            np.stack([weighted_average_precision(r, weights, p) for r in rankings])
            for p in (voc.RECALL_POINTS, None)
        )
        means = [mean_over_classes(voc07), mean_over_classes(area)]
        coco_figures = coco.weighted_figures(coco_rankings, weights).values()
        return np.stack([*means, *coco_figures, *voc07, *area])

    num_images, num_classes = len(split.annotations), len(rankings)
    ends = plain(
        bootstrap(statistic, num_images, num_resamples=NUM_RESAMPLES, level=LEVEL)
    )
    per_class = zip(
        split.class_names, ends[-2 * num_classes :], ends[-num_classes:], strict=False
    )
    return {
        "num_resamples": NUM_RESAMPLES,
        "level": LEVEL,
        "voc07_map": ends[0],
        "area_map": ends[1],
        "coco": dict(zip(coco.FIGURES, ends[2:], strict=False)),
        "per_class": {
            name: {"voc07_ap": voc07, "area_ap": area}
            for name, voc07, area in per_class
        },
    }


def precision_by_iou(split: EvaluatedSplit) -> dict[str, Any]:
    """Computes the area average precision at IoU thresholds from 0.3 to 0.9.

    Returns:
      `iou_thresholds`, `area_map`, and `per_class` by name.
    """
    values = np.array(
        [
            [average_precision_of(ranking, None) for ranking in rankings]
            for rankings in voc.rank_at_thresholds(*split.compared, AP_IOU_THRESHOLDS)
        ]
    )  # [T, L]
    return plain(
        {
            "iou_thresholds": AP_IOU_THRESHOLDS,
            "area_map": mean_over_classes(values.T),
            "per_class": dict(zip(split.class_names, values.T, strict=True)),
        }
    )


def tide(split: EvaluatedSplit) -> dict[str, Any]:
    """Counts the six errors and computes the average precision that each one loses.

    Returns:
      `ap50`, for each error its `count` and its delta AP (`cost`), and the same
      `per_class`.
    """
    errors = tide_errors(*split.compared)

    def rows(ap50: Any, counts: np.ndarray, delta_ap: np.ndarray) -> dict[str, Any]:
        pairs = zip(ERRORS, counts, delta_ap, strict=True)
        return {"ap50": ap50} | {
            name: {"count": count, "cost": cost} for name, count, cost in pairs
        }

    mean = mean_over_classes(errors.average_precision)
    per_class = {
        name: rows(*each)
        for name, *each in zip(
            split.class_names,
            errors.average_precision,
            errors.counts.T,
            errors.delta_ap.T,
            strict=True,
        )
    }
    total = rows(mean, errors.counts.sum(axis=1), errors.mean_delta_ap)
    return plain(total | {"per_class": per_class})


def confusion(split: EvaluatedSplit, points: Sequence[OperatingPoint]) -> list[Any]:
    """Counts objects by their class and that of their detection; see `confusion.py`.

    Args:
      split: that was evaluated.
      points: where each class's detections are cut off.
    """
    return plain(
        confusion_matrix(split.detections, split.annotations, _thresholds(points))
    )


def objects_by_kind(
    split: EvaluatedSplit, points: Sequence[OperatingPoint]
) -> dict[str, Any]:
    """Counts objects, and those found, by size and shape.

    Args:
      split: that was evaluated.
      points: where each class's detections are cut off.

    Returns:
      `side` and `aspect`, each with `edges`, `num_objects` and `num_found`.
    """
    _, truth = flatten(split.detections, split.annotations)
    scores = breakdown.finding_scores(*split.compared)
    to_find = ~truth.difficult
    is_found = (scores >= _thresholds(points)[truth.labels])[to_find]
    boxes = truth.boxes[to_find]
    sides = breakdown.by_side(boxes, is_found)
    aspects = breakdown.by_aspect(boxes, is_found)
    return plain({"side": sides._asdict(), "aspect": aspects._asdict()})


def proposals(split: EvaluatedSplit) -> dict[str, Any]:
    """Computes the recall of proposals.

    Returns:
      `numbers`, `iou_thresholds`, `recall` as [numbers][thresholds], and `per_class`
      with the recall of all proposals at IoU 0.5.
    """
    _, truth = flatten(split.detections, split.annotations)
    best = split.proposal_iou[:, ~truth.difficult]
    labels = truth.labels[~truth.difficult]
    per_class = {
        name: _recall(best[-1, labels == label])
        for label, name in enumerate(split.class_names)
    }
    return plain(
        {
            "numbers": PROPOSAL_COUNTS,
            "iou_thresholds": RECALL_IOU_THRESHOLDS,
            "recall": breakdown.recalls(best, np.array(RECALL_IOU_THRESHOLDS)),
            "per_class": per_class,
        }
    )


def anchors(split: EvaluatedSplit) -> dict[str, Any]:
    """Measures how well anchors fit the objects: the detector's and others.

    Returns:
      `iou_thresholds`, `recall` and `median_iou` of the detector's anchors; for each
      class the `recall` at IoU 0.5, `median_iou`, and `by_scales`, the recall at IoU
      0.5 of anchors of several scales; and of that the mean over the classes.
    """
    _, truth = flatten(split.detections, split.annotations)
    to_find = ~truth.difficult
    best, labels = split.anchor_iou[to_find], truth.labels[to_find]
    scale_iou = split.scale_iou[to_find]
    per_class: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(split.class_names):
        chosen = labels == label
        per_class[name] = {
            "recall": _recall(best[chosen]),
            "median_iou": _median(best[chosen]),
            "by_scales": _recall_by_scales(scale_iou[chosen]),
        }
    of_classes = [list(row["by_scales"].values()) for row in per_class.values()]
    mean = mean_over_classes(np.array(of_classes))
    return plain(
        {
            "iou_thresholds": RECALL_IOU_THRESHOLDS,
            "recall": breakdown.recalls(best, np.array(RECALL_IOU_THRESHOLDS)),
            "median_iou": _median(best),
            "per_class": per_class,
            "by_scales": dict(zip(_recall_by_scales(scale_iou), mean, strict=True)),
        }
    )


def _thresholds(points: Sequence[OperatingPoint]) -> np.ndarray:
    """Returns [L] thresholds; infinity where there is nothing to find."""
    return np.nan_to_num([point.threshold for point in points], nan=np.inf)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _recall(best_iou: np.ndarray) -> float:
    """Returns the share of objects that overlap by IoU 0.5."""
    return breakdown.recalls(best_iou, np.array([0.5])).item()


def _recall_by_scales(scale_iou: np.ndarray) -> dict[str, float]:
    """Tries three, four and five neighboring scales."""
    recalls = {}
    for number in (3, 4, 5):
        for start in range(len(ANCHOR_SCALES) - number + 1):
            chosen = slice(start, start + number)
            name = " ".join(f"{scale:g}" for scale in ANCHOR_SCALES[chosen])
            recalls[name] = _recall(scale_iou[:, chosen].max(axis=1))
    return recalls
