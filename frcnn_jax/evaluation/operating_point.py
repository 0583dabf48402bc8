"""The score threshold at which precision and recall balance best."""

from typing import NamedTuple

import numpy as np

from frcnn_jax.evaluation.ranking import Ranking


class OperatingPoint(NamedTuple):
    """What a class has at one score threshold; all NaN without objects to find."""

    threshold: float  # detections of this score or more are kept
    precision: float
    recall: float
    f1: float  # the harmonic mean of precision and recall


def best_operating_point(ranking: Ranking) -> OperatingPoint:
    """Finds the threshold of the highest F1, `2 TP / (detections + objects)`.

    Args:
      ranking: of one class.

    Returns:
      The point; of equal ones that of the highest threshold. Without a correct
      detection the threshold is infinite, so that nothing is kept.

    Example:
      >>> ranking = Ranking(
      ...     scores=np.array([0.9, 0.8, 0.1]),
      ...     images=np.zeros(3, int),
      ...     correct=np.array([True, True, False]),
      ...     counted=np.ones(3, bool),
      ...     num_objects=np.array([2]),
      ... )
      >>> best_operating_point(ranking)
      OperatingPoint(threshold=0.8, precision=1.0, recall=1.0, f1=1.0)

    References:
      van Rijsbergen, Information retrieval, chapter 7.
    """
    num_objects = int(ranking.num_objects.sum())
    if not num_objects:
        return OperatingPoint(np.nan, np.nan, np.nan, np.nan)
    num_correct, num_counted = np.cumsum(ranking.correct), np.cumsum(ranking.counted)
    f1 = 2.0 * num_correct / (num_counted + num_objects)
    # A threshold keeps all detections of equal score, or none.
    is_last = np.append(np.diff(ranking.scores) != 0.0, True)[: len(f1)]
    if not ranking.correct.any():
        return OperatingPoint(np.inf, np.nan, 0.0, 0.0)
    best = int(np.argmax(np.where(is_last, f1, -1.0)))
    return OperatingPoint(
        threshold=float(ranking.scores[best]),
        precision=float(num_correct[best] / num_counted[best]),
        recall=float(num_correct[best] / num_objects),
        f1=float(f1[best]),
    )
