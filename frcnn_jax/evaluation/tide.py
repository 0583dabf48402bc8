"""The six error types of TIDE, and the average precision that each one loses.

A detection that finds no object has the first of these errors that applies. `best` is
its largest IoU with an object, P = 0.5 the foreground IoU, Q = 0.1 the background IoU.

- location: Q <= best < P for an object of its class.
- class: best >= P for an object of another class.
- duplicate: best >= P for an object of its class, which a better detection has found.
- background: best <= Q for every object.
- both: everything else; class and location are both wrong.

An object is missed if it is neither found nor the target of a class or location error.
The delta AP of an error type is the average precision gained by fixing that type alone.
Fixing a class or location error whose target is not found yet makes the detection with
the highest score correct and removes the others; other false positives are removed; a
missed object no longer counts. The gains do not add up to the total loss.

Matching and average precision are COCO's at IoU 0.5 (`greedy.py`), also for difficult
objects: they do not have to be found, and detections of them are not errors.

References:
  Bolya et al., TIDE: a general toolbox for identifying object detection errors, ECCV
  2020, sections 2.2 and 2.3.
  dbolya/tide:tidecv/quantify.py. It includes classes with detections but no object in
  the mean, and after fixing missed objects gives 0 to a class whose objects were all
  missed; here that is 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.coco import RECALL_POINTS
from frcnn_jax.evaluation.greedy import match_greedily
from frcnn_jax.evaluation.matching import (
    FlatDetections,
    FlatObjects,
    box_iou,
    check_images,
    flatten,
)
from frcnn_jax.evaluation.ranking import Ranking, average_precision_of

ERRORS = ("class", "location", "both", "duplicate", "background", "missed")
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
_CLASS, _LOCATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(ERRORS))


class TIDEErrors(NamedTuple):
    """The errors of L classes; the axis of length 6 is that of `ERRORS`."""

    average_precision: np.ndarray  # [L] COCO's at IoU 0.5; NaN without objects
    counts: np.ndarray  # [6, L] errors, by the class of the detection or missed object
    delta_ap: np.ndarray  # [6, L] average precision gained by fixing each type alone
    mean_delta_ap: np.ndarray  # [6] its mean over the classes with objects
    detection_errors: np.ndarray  # [all D] index into `ERRORS`; -1 correct or ignored
    detection_objects: np.ndarray  # [all D] object of a class or location error, or -1
    missed: np.ndarray  # [all N] bool


class _Judged(NamedTuple):
    """The verdict on every detection and object."""

    found: FlatDetections
    truth: FlatObjects
    kept: np.ndarray  # detections that are not ignored
    correct: np.ndarray  # [all D] bool
    errors: np.ndarray  # [all D] index into `ERRORS`, or -1
    objects: np.ndarray  # [all D] object of a class or location error, or -1
    fixable: np.ndarray  # detections that fixing their error makes correct
    missed: np.ndarray  # [all N] bool


def tide_errors(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
) -> TIDEErrors:
    """Classifies the errors, and computes the delta AP of each type.

    Args:
      detections: one for each image; the 100 best of each class count.
      ground_truths: one for each image, in the same order.
      num_classes: L.

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    check_images(detections, ground_truths, num_classes)
    judged = _judge(detections, ground_truths)
    to_find = judged.truth.labels[~judged.truth.difficult]
    has_objects = np.bincount(to_find, minlength=num_classes) > 0
    before = _precisions_without(judged, None, num_classes)
    before = np.where(has_objects, before, np.nan)
    after = [_precisions_without(judged, n, num_classes) for n in range(len(ERRORS))]
    delta_ap = np.nan_to_num(np.maximum(np.stack(after) - before, 0.0))
    labels = [judged.found.labels[judged.errors == error] for error in range(_MISSED)]
    labels.append(judged.truth.labels[judged.missed])
    return TIDEErrors(
        average_precision=before,
        counts=np.stack([np.bincount(each, minlength=num_classes) for each in labels]),
        delta_ap=delta_ap,
        mean_delta_ap=delta_ap.sum(axis=1) / max(has_objects.sum(), 1),
        detection_errors=judged.errors,
        detection_objects=judged.objects,
        missed=judged.missed,
    )


def _judge(
    detections: Sequence[ImageDetections], ground_truths: Sequence[ImageGroundTruth]
) -> _Judged:
    found, truth = flatten(detections, ground_truths)
    matches = match_greedily(detections, ground_truths, np.array([FOREGROUND_IOU]))
    is_counted = ~matches.ignored[:, 0, 0]
    kept, taken = matches.detections[is_counted], matches.objects[is_counted, 0, 0]
    correct = np.zeros(len(found.labels), bool)
    correct[kept[taken >= 0]] = True
    is_found = np.zeros(len(truth.labels), bool)
    is_found[taken[taken >= 0]] = True

    wrong = kept[taken < 0]
    errors, objects = (np.full(len(found.labels), -1) for _ in range(2))
    best = _best_overlaps(detections, ground_truths)
    errors[wrong], objects[wrong] = _classify(*(each[wrong] for each in best))
    fixable = _select_fixable(kept, found.scores, objects, is_found)
    missed = ~truth.difficult & ~is_found
    missed[objects[fixable]] = False
    return _Judged(found, truth, kept, correct, errors, objects, fixable, missed)


def _precisions_without(
    judged: _Judged, error: int | None, num_classes: int
) -> np.ndarray:
    """Computes each class's average precision after fixing one type of error."""
    found, truth, kept, correct, errors, objects, fixable, missed = judged
    of_type = fixable[errors[fixable] == error]
    labels, correct = found.labels.copy(), correct.copy()
    labels[of_type] = truth.labels[objects[of_type]]
    correct[of_type] = True
    left = kept[correct[kept] | (errors[kept] != error)]
    to_find = ~truth.difficult & ~(missed & (error == _MISSED))
    num_objects = np.bincount(truth.labels[to_find], minlength=num_classes)
    return _average_precisions(
        found.scores[left], labels[left], correct[left], num_objects
    )


def _best_overlaps(
    detections: Sequence[ImageDetections], ground_truths: Sequence[ImageGroundTruth]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Finds the object of its class, and of another, that each detection overlaps most.

    Returns:
      [D] IoU and index of that of its class, then of that of another. Difficult objects
      are left out.
    """
    columns, num_before = [], 0
    for found, truth in zip(detections, ground_truths, strict=True):
        is_same = found.labels[:, None] == truth.labels
        iou = np.where(truth.difficult, 0.0, box_iou(found.boxes, truth.boxes))
        # A column for images without objects, where there is no maximum to take.
        iou, is_same = (np.pad(each, ((0, 0), (0, 1))) for each in (iou, is_same))
        parts = [np.where(is_same, iou, 0.0), np.where(is_same, 0.0, iou)]
        columns.append(
            [x for part in parts for x in (part.max(1), num_before + part.argmax(1))]
        )
        num_before += len(truth.labels)
    same_iou, same, other_iou, other = map(np.concatenate, zip(*columns, strict=True))
    return same_iou, same, other_iou, other


def _classify(
    same_iou: np.ndarray, same: np.ndarray, other_iou: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each wrong detection's error, and the object that it concerns, or -1."""
    is_near = same_iou >= BACKGROUND_IOU
    types = {
        _LOCATION: is_near & (same_iou < FOREGROUND_IOU),
        _CLASS: other_iou >= FOREGROUND_IOU,
        _DUPLICATE: same_iou >= FOREGROUND_IOU,
        _BACKGROUND: np.maximum(same_iou, other_iou) <= BACKGROUND_IOU,
    }
    errors = np.select(list(types.values()), list(types), _BOTH)
    objects = np.select([errors == _LOCATION, errors == _CLASS], [same, other], -1)
    return errors, objects


def _select_fixable(
    kept: np.ndarray, scores: np.ndarray, objects: np.ndarray, is_found: np.ndarray
) -> np.ndarray:
    """Returns the best detection that concerns each object not yet found."""
    concerned = np.append(is_found, True)[objects[kept]]  # index -1 is the True
    chosen = kept[~concerned]
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return chosen[np.unique(objects[chosen], return_index=True)[1]]


def _average_precisions(
    scores: np.ndarray, labels: np.ndarray, correct: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """Computes [L] average precisions; 1 for a class without objects to find."""
    order = np.argsort(-scores, kind="stable")
    result = np.ones(len(num_objects))
    for label in np.flatnonzero(num_objects):
        chosen = order[labels[order] == label]
        ranking = Ranking(
            scores=scores[chosen],
            images=np.zeros(len(chosen), int),
            correct=correct[chosen],
            counted=np.ones(len(chosen), bool),
            num_objects=num_objects[label : label + 1],
        )
        result[label] = average_precision_of(ranking, RECALL_POINTS)
    return result
