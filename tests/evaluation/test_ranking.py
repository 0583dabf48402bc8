"""Average precision of weighted images against that of repeated images."""

import numpy as np
import pytest

from frcnn_jax.evaluation import coco, voc
from frcnn_jax.evaluation.ranking import (
    Ranking,
    average_precision_of,
    weighted_average_precision,
)
from tests.helpers import pycoco
from tests.helpers.random_images import random_split

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def split():
    return random_split(7, num_images=12, num_classes=NUM_CLASSES)


def random_weights(num_sets):
    return np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), num_sets)


def repeated(images, weights):
    return [each for each, n in zip(images, weights, strict=True) for _ in range(n)]


def test_it_is_the_best_precision_from_each_recall_on(split):
    for ranking in voc.rank(*split, NUM_CLASSES):
        precision, recall, _ = voc.curve(ranking)
        precision = np.nan_to_num(precision)
        at_points = [precision[recall >= r].max(initial=0.0) for r in voc.RECALL_POINTS]
        value = average_precision_of(ranking, voc.RECALL_POINTS)
        assert value == pytest.approx(np.mean(at_points))
        best = [precision[rank:].max() for rank in range(len(precision))]
        area = np.sum(np.diff(recall, prepend=0.0) * best)
        assert average_precision_of(ranking, None) == pytest.approx(area)


def test_weighted_image_counts_like_a_repeated_one(split):
    found, there = split
    weights = random_weights(20)
    rankings = voc.rank(found, there, NUM_CLASSES)
    coco_figures = coco.weighted_figures(coco.rank(found, there, NUM_CLASSES), weights)
    for row, counts in enumerate(weights):
        images = repeated(found, counts), repeated(there, counts)
        expected = voc.average_precisions(*images, NUM_CLASSES)
        for points, values in (
            (voc.RECALL_POINTS, expected.voc07_ap),
            (None, expected.area_ap),
        ):
            each = [
                weighted_average_precision(ranking, weights, points)[row]
                for ranking in rankings
            ]
            np.testing.assert_allclose(each, values)
        figures = {name: values[row] for name, values in coco_figures.items()}
        expected = pycoco.average_precisions(*images, NUM_CLASSES)
        assert figures == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("num_objects", [1, 3, 7, 29, 100])
def test_recall_of_exactly_a_point_reaches_it(num_objects):
    # A hundredth times the number of objects may be rounded up or down.
    for num_correct in range(1, num_objects + 1):
        ranking = Ranking(
            scores=np.ones(num_correct),
            images=np.zeros(num_correct, int),
            correct=np.ones(num_correct, bool),
            counted=np.ones(num_correct, bool),
            num_objects=np.array([num_objects]),
        )
        recall = np.arange(1, num_correct + 1) / num_objects
        expected = np.mean([recall[-1] >= point for point in coco.RECALL_POINTS])
        value = average_precision_of(ranking, coco.RECALL_POINTS)
        assert value == pytest.approx(expected, abs=1e-12)


def test_class_without_detections_has_zero_and_without_objects_nan():
    nothing = np.zeros(0, bool)
    ranking = Ranking(np.zeros(0), np.zeros(0, int), nothing, nothing, np.array([2, 0]))
    weights = np.array([[1, 1], [0, 2]])
    for points in (None, voc.RECALL_POINTS):
        value = weighted_average_precision(ranking, weights, points)
        np.testing.assert_array_equal(value, [0.0, np.nan])
