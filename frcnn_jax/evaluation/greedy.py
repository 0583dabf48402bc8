"""Greedy matching as COCO defines it, of all images at once.

In each image and class the detections, best first, take the object that they overlap
most of those that are left; of equal overlaps the later one. An ignored object is
taken only if there is no other, and then its detection is ignored, too.

Difficult objects are ignored. They are crowds: any number of detections may take one,
and its overlap is the share of the detection that lies inside.

References:
  cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py, `evaluateImg`, which matches
  one image, class, threshold and size at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.matching import Pairs, find_pairs, flatten

MAX_DETECTIONS = 100  # of an image and class, the best ones

# Areas in pixels; one of exactly a limit belongs to both ranges.
AreaRange = tuple[float, float]
ALL_AREAS: AreaRange = (0.0, np.inf)


class GreedyMatches(NamedTuple):
    """D detections at T IoU thresholds, for objects of A ranges of area."""

    detections: np.ndarray  # [D] into those of all images, one after the other
    places: np.ndarray  # [D] place in image and class by score; the best one has 0
    objects: np.ndarray  # [D, T, A] into those of all images; -1 for none
    ignored: np.ndarray  # [D, T, A] bool, neither right nor wrong


def match_greedily(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    iou_thresholds: np.ndarray,
    area_ranges: Sequence[AreaRange] = (ALL_AREAS,),
) -> GreedyMatches:
    """Matches the 100 best detections of each image and class with its objects.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      iou_thresholds: [T] in (0, 1]; overlaps from which an object may be taken.
      area_ranges: A of them. Objects outside of a range are ignored, and so are
        detections outside of it without an object.

    Returns:
      The detections by image, class and falling score; of equal scores the earlier
      one is first.
    """
    found, truth = flatten(detections, ground_truths)
    order = np.lexsort((-found.scores, found.labels, found.images))
    groups = _number_groups(found.images[order], found.labels[order])
    places = np.arange(len(order)) - np.searchsorted(groups, groups)
    is_kept = places < MAX_DETECTIONS
    order, groups, places = order[is_kept], groups[is_kept], places[is_kept]

    new_numbers = np.full(len(found.labels), -1)
    new_numbers[order] = np.arange(len(order))
    pairs = find_pairs(
        detections, ground_truths, min(iou_thresholds), difficult_are_crowds=True
    )
    is_same = found.labels[pairs.detections] == truth.labels[pairs.objects]
    is_same &= new_numbers[pairs.detections] >= 0
    pairs = Pairs(*(values[is_same] for values in pairs))
    pairs = pairs._replace(detections=new_numbers[pairs.detections])

    is_outside = truth.difficult[:, None] | ~in_ranges(truth.boxes, area_ranges)
    objects = _take_objects(
        pairs, groups, iou_thresholds, is_ignored=is_outside, is_crowd=truth.difficult
    )
    is_detection_outside = ~in_ranges(found.boxes[order], area_ranges)
    # Index -1, no object, finds the row that is added.
    rows = np.vstack([is_outside, np.zeros((1, len(area_ranges)), bool)])
    is_object_outside = rows[objects, np.arange(len(area_ranges))]
    is_ignored = np.where(
        objects >= 0, is_object_outside, is_detection_outside[:, None]
    )
    return GreedyMatches(order, places, objects, is_ignored)


def _number_groups(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Numbers runs of the same image and label."""
    is_new = (np.diff(images, prepend=-1) != 0) | (np.diff(labels, prepend=-1) != 0)
    return np.cumsum(is_new)


def in_ranges(boxes: np.ndarray, area_ranges: Iterable[AreaRange]) -> np.ndarray:
    """Returns which boxes have an area in which range.

    Args:
      boxes: [N, 4] boxes, in pixels.
      area_ranges: A of them.

    Returns:
      [N, A] bool.
    """
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    areas = sides.prod(axis=1)[:, None]
    smallest, largest = np.array(list(area_ranges)).T
    return (smallest <= areas) & (areas <= largest)


def _take_objects(
    pairs: Pairs,
    groups: np.ndarray,
    iou_thresholds: np.ndarray,
    *,
    is_ignored: np.ndarray,
    is_crowd: np.ndarray,
) -> np.ndarray:
    """Lets detections take objects, the best detection of every group first.

    Args:
      pairs: detections and objects of the same image and class.
      groups: [D] number of each detection's image and class, rising.
      iou_thresholds: [T].
      is_ignored: [N, A] bool, the objects that are ignored.
      is_crowd: [N] bool.

    Returns:
      [D, T, A] int32 index of the object that each takes; -1 for none.
    """
    order = np.lexsort((pairs.objects, pairs.overlaps, pairs.detections))
    numbers, objects, overlaps = (values[order] for values in pairs)
    detections, starts, sizes = np.unique(
        numbers, return_index=True, return_counts=True
    )
    # A detection takes the allowed object of the largest key: the later of its pairs,
    # but any object to be found rather than an ignored one. 0 stands for none.
    keys = np.arange(len(numbers)) - np.repeat(starts, sizes) + 1
    beyond = int(sizes.max(initial=0)) + 1
    keys = keys[:, None] + beyond * ~is_ignored[objects]  # [pairs, A]
    reaches = overlaps[:, None] >= iou_thresholds  # [pairs, T]

    taken_by = np.full((len(groups), reaches.shape[1], keys.shape[1]), -1, np.int32)
    is_taken = np.zeros((len(is_crowd), *taken_by.shape[1:]), bool)
    for chosen in _rounds(groups[detections]):
        firsts = np.cumsum(sizes[chosen]) - sizes[chosen]
        rows = np.repeat(starts[chosen] - firsts, sizes[chosen])
        rows += np.arange(len(rows))
        is_free = ~is_taken[objects[rows]] | is_crowd[objects[rows], None, None]
        allowed = is_free & reaches[rows, :, None]
        best = np.maximum.reduceat(np.where(allowed, keys[rows, None], 0), firsts)
        taker, *where = np.nonzero(best)
        row = starts[chosen][taker] + best[taker, *where] % beyond - 1
        taken_by[detections[chosen][taker], *where] = objects[row]
        is_taken[objects[row], *where] = True
    return taken_by


def _rounds(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the indices of every group's first member, then of the second, ..."""
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    for place in range(sizes.max(initial=0)):
        yield starts[sizes > place] + place
