"""Whether one run is better than another, or only luckier with the images."""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.evaluation import voc
from frcnn_jax.evaluation.bootstrap import bootstrap
from frcnn_jax.evaluation.ranking import (
    Ranking,
    mean_over_classes,
    weighted_average_precision,
)
from frcnn_jax.report.findings import Finding
from frcnn_jax.report.runs import ReportedRun

NUM_RESAMPLES = 1000


def compare(runs: Sequence[ReportedRun]) -> list[Finding]:
    """Compares the VOC07 mAP of all runs with that of the first one.

    The same images are resampled for both runs, so the interval of the difference is
    narrower than the intervals of the two figures suggest.

    Args:
      runs: at least two.
    """
    return [_compare(runs[0], run) for run in runs[1:]]


def _compare(first: ReportedRun, other: ReportedRun) -> Finding:
    old, new = first.split, other.split
    if (
        old is None
        or new is None
        or old.fingerprints["data"] != new.fingerprints["data"]
    ):
        text = f"{other.name} and {first.name} were not evaluated on the same objects."
        return Finding(text, "headline")
    rankings = [voc.rank(*split.compared) for split in (old, new)]

    def difference(weights: np.ndarray) -> np.ndarray:
        """Computes [1, B] gains, in points."""
        before, after = (_mean_precision(each, weights) for each in rankings)
        return 100.0 * (after - before)[None]

    num_images = len(old.annotations)
    gain = difference(np.ones((1, num_images), int)).item()
    if np.isnan(gain):
        text = f"{other.name} and {first.name} were evaluated without objects."
        return Finding(text, "headline")
    low, high = bootstrap(difference, num_images, num_resamples=NUM_RESAMPLES)[0]
    if low > 0.0 or high < 0.0:
        verdict = "more than the choice of images explains"
    else:
        verdict = "the choice of images may explain it"
    direction = "lower" if gain < 0.0 else "higher"
    return Finding(
        f"{other.name}'s VOC07 mAP is {abs(gain):.1f} points {direction} than "
        f"{first.name}'s (95 % interval of the difference {low:+.1f} to {high:+.1f}): "
        f"{verdict}.",
        "headline",
    )


def _mean_precision(rankings: list[Ranking], weights: np.ndarray) -> np.ndarray:
    each = [
        weighted_average_precision(ranking, weights, voc.RECALL_POINTS)
        for ranking in rankings
    ]
    return mean_over_classes(np.stack(each))
