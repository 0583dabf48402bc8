"""Bootstrap intervals: against a simulation, and where nothing is defined."""

import numpy as np
import pytest

from frcnn_jax.evaluation import voc
from frcnn_jax.evaluation.bootstrap import bootstrap
from frcnn_jax.evaluation.ranking import weighted_average_precision
from tests.helpers.random_images import random_split


def mean_of(values):
    return lambda weights: (weights @ values / weights.sum(axis=1))[None]


def test_intervals_hold_the_true_mean_as_often_as_they_promise():
    random = np.random.default_rng(0)
    hits = 0
    for repeat in range(400):
        values = random.exponential(size=60)  # whose true mean is 1
        ((low, high),) = bootstrap(mean_of(values), 60, num_resamples=400, seed=repeat)
        hits += low <= 1.0 <= high
    # 95 % are promised; of a skewed distribution the percentiles hold a little less.
    assert 0.91 <= hits / 400 <= 0.97


@pytest.mark.slow
def test_intervals_hold_the_average_precision_of_all_images():
    """Splits are drawn from images whose average precision is known."""
    found, there = random_split(0, num_images=3000, num_classes=1)
    (everything,) = voc.rank(found, there, 1)
    once = np.ones((1, 3000), int)
    truth = weighted_average_precision(everything, once, None)[0]
    random = np.random.default_rng(1)
    hits = 0
    for repeat in range(200):
        chosen = random.choice(3000, 100, replace=False)
        (ranking,) = voc.rank([found[i] for i in chosen], [there[i] for i in chosen], 1)
        ((low, high),) = bootstrap(
            lambda w, r=ranking: weighted_average_precision(r, w, None)[None],
            100,
            num_resamples=400,
            seed=repeat,
        )
        hits += low <= truth <= high
    assert 0.91 <= hits / 200 <= 0.985


def test_interval_shrinks_with_the_square_root_of_the_number_of_images():
    values = np.random.default_rng(0).normal(size=1600)
    widths = [
        np.diff(bootstrap(mean_of(values[:size]), size))[0, 0] for size in (100, 1600)
    ]
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.15)


def test_same_seed_gives_the_same_interval_and_level_its_width():
    values = np.random.default_rng(0).normal(size=50)
    first, again = (bootstrap(mean_of(values), 50, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    narrow = bootstrap(mean_of(values), 50, seed=3, level=0.5)
    assert first[0, 0] < narrow[0, 0] < narrow[0, 1] < first[0, 1]


def test_undefined_resamples_are_left_out():
    def statistic(weights):
        has_first = weights[:, 0] > 0
        return np.stack(
            [np.where(has_first, 2.0, np.nan), np.full(len(weights), np.nan)]
        )

    ends = bootstrap(statistic, 3, num_resamples=150)
    np.testing.assert_array_equal(ends, [[2.0, 2.0], [np.nan, np.nan]])
