"""Confidence intervals by the bootstrap: how much a figure depends on the images."""

from collections.abc import Callable

import numpy as np

_AT_ONCE = 100  # resamples, so that memory is bounded


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    num_images: int,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Computes the percentile interval of figures of a set of images.

    Sets of the same size are drawn from the images with replacement, again and again.
    The interval lies between the quantiles (1 - level) / 2 and (1 + level) / 2 of the
    figures of these sets. It estimates how much the figures vary on other images like
    these, not between training runs.

    Args:
      statistic: computes figures, [F, B], from how often each image counts, [B, I]
        integers; NaN where a figure is undefined.
      num_images: I.
      num_resamples: how many sets are drawn.
      level: share of the intervals that hold the true figure, if I is large.
      seed: of the draws.

    Returns:
      [F, 2] lower and upper ends; NaN for a figure that is undefined in every set.

    Example:
      >>> heights = np.array([1.70, 1.80, 1.75, 1.65, 1.85])
      >>> def mean(weights):
      ...     return (weights @ heights / weights.sum(axis=1))[None]
      >>> print(bootstrap(mean, len(heights)).round(2))
      [[1.69 1.81]]

    References:
      Efron, Bootstrap methods: another look at the jackknife, 1979; Efron and
      Tibshirani, An introduction to the bootstrap, section 13.3.
    """
    random = np.random.default_rng(seed)
    share = np.full(num_images, 1.0 / num_images)
    figures = []
    for start in range(0, num_resamples, _AT_ONCE):
        size = min(_AT_ONCE, num_resamples - start)
        figures.append(statistic(random.multinomial(num_images, share, size)))
    values = np.concatenate(figures, axis=1)
    ends = np.full((len(values), 2), np.nan)
    for row, of_figure in zip(ends, values, strict=True):
        defined = of_figure[~np.isnan(of_figure)]
        if len(defined):
            row[:] = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return ends
