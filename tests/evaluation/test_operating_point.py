"""The best threshold and the calibration of scores, against slow versions."""

import numpy as np
import pytest

from frcnn_jax.evaluation import voc
from frcnn_jax.evaluation.calibration import calibration
from frcnn_jax.evaluation.operating_point import best_operating_point
from tests.helpers.cases import FAR, SQUARE, detected, truth
from tests.helpers.random_images import random_split, with_ties


def only_ranking(detections, ground_truths):
    return voc.rank(detections, ground_truths, 1)[0]


@pytest.mark.parametrize("has_ties", [False, True])
def test_best_point_is_that_of_trying_every_score(has_ties):
    found, there = random_split(2, num_classes=4)
    found = with_ties(found) if has_ties else found
    for ranking in voc.rank(found, there, 4):
        best = (-1.0, 0.0)
        for threshold in sorted(set(ranking.scores.tolist()), reverse=True):
            is_kept = ranking.scores >= threshold
            correct = (ranking.correct & is_kept).sum()
            precision = correct / max((ranking.counted & is_kept).sum(), 1)
            recall = correct / ranking.num_objects.sum()
            f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
            if f1 > best[0] + 1e-12:
                best = (f1, threshold, precision, recall)
        point = best_operating_point(ranking)
        assert (point.f1, point.threshold) == pytest.approx(best[:2])
        assert (point.precision, point.recall) == pytest.approx(best[2:])


def test_class_without_objects_has_no_point():
    point = best_operating_point(only_ranking([detected((SQUARE, 0.9, 0))], [truth()]))
    assert np.isnan(point).all()


@pytest.mark.parametrize("rows", [(), ((FAR, 0.9, 0),)])
def test_class_without_a_correct_detection_keeps_none(rows):
    point = best_operating_point(only_ranking([detected(*rows)], [truth((SQUARE, 0))]))
    assert (point.threshold, point.recall, point.f1) == (np.inf, 0.0, 0.0)


def test_calibration_is_that_of_going_through_the_bins():
    found, there = random_split(3, num_classes=3)
    rankings = voc.rank(found, there, 3)
    result = calibration(rankings, 7)
    rows = [
        (score, correct)
        for ranking in rankings
        for score, correct, counted in zip(
            ranking.scores, ranking.correct, ranking.counted, strict=True
        )
        if counted
    ]
    error = 0.0
    for index in range(7):
        low, high = index / 7, (index + 1) / 7
        inside = [row for row in rows if low <= row[0] < high]
        assert result.counts[index] == len(inside)
        if inside:
            score, correct = np.mean(inside, axis=0)
            assert result.mean_scores[index] == pytest.approx(score)
            assert result.precisions[index] == pytest.approx(correct)
            error += len(inside) / len(rows) * abs(correct - score)
    assert result.error == pytest.approx(error)


def test_probabilities_that_hold_have_no_calibration_error():
    random = np.random.default_rng(0)
    scores = random.random(20_000)
    boxes = [SQUARE if random.random() < score else FAR for score in scores]
    pairs = zip(boxes, scores, strict=True)
    found = [detected((box, score, 0)) for box, score in pairs]
    ranking = only_ranking(found, [truth((SQUARE, 0))] * len(found))
    assert calibration([ranking]).error < 0.01


def test_score_of_one_is_in_the_last_bin_and_no_detection_has_no_error():
    ranking = only_ranking([detected((SQUARE, 1.0, 0))], [truth((SQUARE, 0))])
    assert calibration([ranking]).counts.tolist() == [0] * 9 + [1]
    nothing = calibration([only_ranking([detected()], [truth((SQUARE, 0))])])
    assert np.isnan(nothing.error)
    assert np.isnan(nothing.precisions).all()
