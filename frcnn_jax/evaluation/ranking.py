"""Ranked detections of one class, and their average precision.

An image may count several times: `weights` holds how often. With all ones the figures
are those of the data set; with random weights, those of a resampled one (`bootstrap`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """The D detections of one class in all I images, best first.

    They may be judged in several ways, for example at several IoU thresholds: then
    `correct`, `counted` and `num_objects` have a second axis of these.
    """

    scores: np.ndarray  # [D] falling
    images: np.ndarray  # [D] index of each detection's image
    correct: np.ndarray  # [D] bool, found an object
    counted: np.ndarray  # [D] bool, False where it is ignored: neither right nor wrong
    num_objects: np.ndarray  # [I] objects to find in each image


def average_precision_of(ranking: Ranking, recall_points: np.ndarray | None) -> float:
    """Computes the average precision of one class, each image counting once.

    Args:
      ranking: of the class, judged in one way.
      recall_points: see `weighted_average_precision`.
    """
    once = np.ones((1, len(ranking.num_objects)), int)
    return float(weighted_average_precision(ranking, once, recall_points)[0])


def weighted_average_precision(
    ranking: Ranking, weights: np.ndarray, recall_points: np.ndarray | None
) -> np.ndarray:
    """Computes the average precision of one class for several weights of the images.

    The best precision from a recall on, `p(r) = max over r' >= r of precision(r')`, is
    averaged over the given recalls, or integrated over all of them.

    Args:
      ranking: of the class, judged in one or in J ways.
      weights: [B, I] integers, how often each image counts.
      recall_points: rising recalls in [0, 1]; with None the area below p.

    Returns:
      [B] or [J, B] in [0, 1]; NaN where there is no object to find.

    Example:
      >>> ranking = Ranking(
      ...     scores=np.array([0.9, 0.8]),
      ...     images=np.array([0, 1]),
      ...     correct=np.array([False, True]),
      ...     counted=np.array([True, True]),
      ...     num_objects=np.array([0, 1]),
      ... )
      >>> weights = np.array([[1, 1], [0, 1], [1, 0]])
      >>> print(weighted_average_precision(ranking, weights, None))
      [0.5 1.  nan]
    """
    if ranking.correct.ndim == 1:
        ranking = ranking._replace(
            correct=ranking.correct[:, None],
            counted=ranking.counted[:, None],
            num_objects=ranking.num_objects[:, None],
        )
        return weighted_average_precision(ranking, weights, recall_points)[0]
    total = weighted_sum(weights, ranking.num_objects)  # [B, J]
    results = []
    for counts, num_objects in zip(_count(ranking, weights), total.T, strict=True):
        num_correct, num_counted = counts
        precision = num_correct / np.maximum(num_counted, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        divisor = np.where(num_objects > 0, num_objects, np.nan)
        if recall_points is None:
            gained = np.diff(num_correct, axis=1, prepend=0)
            results.append(np.sum(gained * best, axis=1) / divisor)
        else:
            needed = _needed_objects(recall_points, num_objects)
            mean = _first_reaching(num_correct, best, needed).mean(axis=1)
            results.append(np.where(num_objects > 0, mean, np.nan))
    return np.stack(results)


def weighted_sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Adds up the values of the images, by weight.

    Args:
      weights: [B, I] how often each image counts.
      values: [I, J] of each image.

    Returns:
      [B, J].
    """
    # Most images have nothing of most classes.
    rows = np.flatnonzero(values.any(axis=1))
    return weights[:, rows].astype(np.float64) @ values[rows]


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Computes the mean over those of L classes that have objects.

    Args:
      values: [L, ...]; NaN for a class without objects.

    Returns:
      [...]; NaN where no class has objects.
    """
    has_objects = ~np.isnan(values)
    count = has_objects.sum(axis=0)
    total = np.sum(values, axis=0, where=has_objects)
    return total / np.where(count > 0, count, np.nan)


def _count(
    ranking: Ranking, weights: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Counts what is correct, and what counts, up to each correct detection.

    Yields:
      For each of J ways, the pair of [B, P], with P correct detections.
    """
    drawn = weights.astype(np.int32)[:, ranking.images]  # [B, D]
    base = np.zeros(len(ranking.images), bool)
    num_of_base = np.zeros_like(drawn)
    for correct, counted in zip(ranking.correct.T, ranking.counted.T, strict=True):
        found = np.flatnonzero(correct)
        num_correct = np.cumsum(drawn[:, found], axis=1, dtype=np.int32)
        # Two ways ignore almost the same detections: recount only the few that differ.
        changed = np.flatnonzero(counted != base)
        if 4 * len(changed) > len(base):
            base, changed = counted, changed[:0]
            num_of_base = np.cumsum(drawn * base, axis=1, dtype=np.int32)
        added = drawn[:, changed] * np.where(counted[changed], 1, -1)
        added = np.cumsum(np.pad(added, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
        num_added = added[:, np.searchsorted(changed, found, side="right")]
        yield num_correct, num_of_base[:, found] + num_added


def _needed_objects(recall_points: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Returns [B, R], the fewest objects whose recall is at least each point."""
    total = np.maximum(num_objects, 1.0)[:, None]
    needed = np.ceil(recall_points * total)
    # The product may be rounded to the wrong side of a whole number.
    needed -= (needed - 1.0) / total >= recall_points
    needed += needed / total < recall_points
    return needed.astype(np.int64)


def _first_reaching(
    num_correct: np.ndarray, values: np.ndarray, needed: np.ndarray
) -> np.ndarray:
    """Returns [B, R], the value where enough are correct first; 0 where they never are.

    Args:
      num_correct: [B, P] rising.
      values: [B, P].
      needed: [B, R].
    """
    num_rows, num_points = num_correct.shape
    if not num_points:
        return np.zeros(needed.shape)
    # One search for all rows: each row is moved beyond the end of the one before.
    rows = np.arange(num_rows, dtype=np.int64)[:, None]
    beyond = max(num_correct.max(), needed.max()) + 1
    positions = np.searchsorted(
        (num_correct + rows * beyond).ravel(), (needed + rows * beyond).ravel()
    )
    positions = positions.reshape(needed.shape) - rows * num_points
    reached = positions < num_points
    return np.where(reached, values[rows, np.where(reached, positions, 0)], 0.0)
