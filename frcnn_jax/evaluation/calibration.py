"""Whether scores are probabilities: of detections that score 0.8, are 80 % correct?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.evaluation.ranking import Ranking


class Calibration(NamedTuple):
    """Reliability in equal bins of the score; a bin without detections has NaN."""

    edges: np.ndarray  # [bins + 1] scores, from 0 to 1
    counts: np.ndarray  # [bins] detections that are not ignored
    mean_scores: np.ndarray  # [bins]
    precisions: np.ndarray  # [bins] share of the detections that is correct
    error: float  # the expected calibration error, in [0, 1]; NaN without detections


def calibration(rankings: Sequence[Ranking], num_bins: int = 10) -> Calibration:
    """Compares the scores of detections with the share of them that is correct.

    The expected calibration error is the mean, over the detections, of the difference
    in their bin: `sum over bins of count / total * |precision - mean score|`.

    Args:
      rankings: of the classes that are taken together.
      num_bins: of equal width.

    Example:
      >>> ranking = Ranking(
      ...     scores=np.array([0.9, 0.9, 0.1]),
      ...     images=np.zeros(3, int),
      ...     correct=np.array([True, False, False]),
      ...     counted=np.ones(3, bool),
      ...     num_objects=np.array([1]),
      ... )
      >>> round(calibration([ranking]).error, 3)
      0.3

    References:
      Guo et al., On calibration of modern neural networks, ICML 2017, section 2.
    """
    scores = np.concatenate([each.scores[each.counted] for each in rankings])
    correct = np.concatenate([each.correct[each.counted] for each in rankings])
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    # A score of exactly an edge belongs to the bin above, 1 to the last one.
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    divisor = np.where(counts > 0, counts, np.nan)
    mean_scores = np.bincount(bins, scores, num_bins) / divisor
    precisions = np.bincount(bins, correct, num_bins) / divisor
    gaps = np.nan_to_num(np.abs(precisions - mean_scores))
    total = counts.sum()
    error = float(np.sum(counts * gaps) / total) if total else np.nan
    return Calibration(edges, counts, mean_scores, precisions, error)
