"""Ranked detections of one class, and their average precision.

An image may count several times: `weights` holds how often. With all ones the figures
are those of the data set; with random weights, those of a resampled one (`bootstrap`).
"""

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """The D detections of one class in all I images, best first."""

    scores: np.ndarray  # [D] falling
    images: np.ndarray  # [D] index of each detection's image
    correct: np.ndarray  # [D] bool, found an object
    counted: np.ndarray  # [D] bool, False where it is ignored: neither right nor wrong
    num_objects: np.ndarray  # [I] objects to find in each image


def weighted_average_precision(
    ranking: Ranking, weights: np.ndarray, recall_points: np.ndarray | None
) -> np.ndarray:
    """Computes the average precision of one class for several weights of the images.

    The best precision from a recall on, `p(r) = max over r' >= r of precision(r')`, is
    averaged over the given recalls, or integrated over all of them.

    Args:
      ranking: of the class.
      weights: [B, I] integers, how often each image counts.
      recall_points: rising recalls in [0, 1]; with None the area below p.

    Returns:
      [B] in [0, 1]; NaN where there is no object to find.

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
    found = np.flatnonzero(ranking.correct)
    drawn = np.asarray(weights, np.int32)[:, ranking.images]
    num_correct = np.cumsum(drawn[:, found], axis=1, dtype=np.int64)  # [B, P]
    # The last correct detection is the last point that can raise the precision.
    drawn = drawn[:, : found[-1] + 1 if len(found) else 0]
    drawn *= ranking.counted[: drawn.shape[1]]
    num_counted = np.cumsum(drawn, axis=1, dtype=np.int32)[:, found]
    precision = num_correct / np.maximum(num_counted, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]

    num_objects = np.asarray(weights) @ ranking.num_objects
    divisor = np.where(num_objects > 0, num_objects, np.nan)
    if recall_points is None:
        gained = np.diff(num_correct, axis=1, prepend=0)
        return np.sum(gained * best, axis=1) / divisor
    needed = _needed_objects(recall_points, divisor)
    at_points = _first_reaching(num_correct, best, needed)
    return np.where(num_objects > 0, at_points.mean(axis=1), np.nan)


def _needed_objects(recall_points: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Returns [B, R], the fewest objects whose recall is at least each point."""
    total = np.nan_to_num(num_objects, nan=1.0)[:, None]
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
    rows = np.arange(num_rows)[:, None]
    beyond = max(num_correct.max(), needed.max()) + 1
    positions = np.searchsorted(
        (num_correct + rows * beyond).ravel(), (needed + rows * beyond).ravel()
    )
    positions = positions.reshape(needed.shape) - rows * num_points
    reached = positions < num_points
    return np.where(reached, values[rows, np.where(reached, positions, 0)], 0.0)
