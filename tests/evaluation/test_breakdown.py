"""Confusion, sizes and shapes, proposals and anchors, against slow versions."""

import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops
from frcnn_jax.evaluation import breakdown
from frcnn_jax.evaluation.anchors import best_anchor_iou
from frcnn_jax.evaluation.confusion import confusion_matrix
from frcnn_jax.evaluation.evaluated_split import PROPOSAL_COUNTS, best_proposal_iou
from frcnn_jax.evaluation.matching import box_iou
from tests.helpers.cases import FAR, SQUARE, detected, truth
from tests.helpers.random_images import random_split

CUT = np.array([0.5, 0.5])


def matrix(detections, ground_truths, thresholds=CUT):
    return confusion_matrix([detections], [ground_truths], thresholds).tolist()


def test_confusion_counts_each_object_and_each_detection_once():
    found = detected((SQUARE, 0.9, 1), (SQUARE, 0.8, 1), (FAR, 0.9, 0), (FAR, 0.4, 1))
    there = truth((SQUARE, 0), ((20, 20, 30, 30), 1))
    assert matrix(found, there) == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]


def test_confusion_pairs_the_largest_overlap_first():
    shifted = (0.0, 0.0, 10.0, 12.0)
    found = detected((SQUARE, 0.6, 0), (shifted, 0.9, 1))
    assert matrix(found, truth((SQUARE, 0))) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_confusion_ignores_difficult_objects_and_their_detections():
    found, there = detected((SQUARE, 0.9, 1)), truth((SQUARE, 0, True))
    assert np.sum(matrix(found, there)) == 0


def test_confusion_of_many_images_has_every_object_in_its_row():
    found, there = random_split(1, num_classes=3)
    result = confusion_matrix(found, there, np.array([0.5, 0.3, np.inf]))
    labels = np.concatenate([each.labels[~each.difficult] for each in there])
    assert result[:3].sum(axis=1).tolist() == np.bincount(labels, minlength=3).tolist()
    assert result[:, 2].sum() == 0  # a threshold that nothing reaches
    assert result[3, 3] == 0


def test_found_objects_are_those_of_the_curve():
    found, there = random_split(2, num_classes=3)
    scores = breakdown.finding_scores(found, there, 3)
    difficult = np.concatenate([each.difficult for each in there])
    start = 0
    for image, each in zip(found, there, strict=True):
        for n in range(len(each.labels)):
            mine = image.labels == each.labels[n]
            iou = box_iou(image.boxes[mine], each.boxes)
            iou[:, each.labels != each.labels[n]] = -1.0
            takes = (iou.argmax(axis=1) == n) & (iou.max(axis=1, initial=0) >= 0.5)
            expected = image.scores[mine][takes].max(initial=-np.inf)
            assert scores[start + n] == expected
        start += len(each.labels)
    assert len(difficult) == len(scores) == start


def test_objects_are_counted_by_side_and_by_aspect():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 16, 16], [0, 0, 400, 200], [0, 0, 5, 40]])
    found = np.array([True, False, True, False])
    sides, aspects = (f(boxes, found) for f in (breakdown.by_side, breakdown.by_aspect))
    assert sides.num_objects.tolist() == [2, 1, 0, 0, 0, 1]
    assert sides.num_found.tolist() == [1, 0, 0, 0, 0, 1]
    assert aspects.num_objects.tolist() == [1, 0, 2, 0, 1]
    assert aspects.num_found.tolist() == [0, 0, 1, 0, 1]


def test_recall_of_proposals_grows_with_their_number():
    proposals = np.array([FAR, SQUARE, SQUARE], float)
    best = best_proposal_iou(proposals, np.array([SQUARE, (0, 0, 10, 5)]))
    assert best.shape == (len(PROPOSAL_COUNTS), 2)
    assert best[0].tolist() == [0.0, 0.0]
    assert (best[1:] == [1.0, 0.5]).all()
    recalls = breakdown.recalls(best, np.array([0.5, 0.75]))
    assert recalls[0].tolist() == [0.0, 0.0]
    assert recalls[-1].tolist() == [1.0, 0.5]
    assert np.isnan(breakdown.recalls(best[:, :0], np.array([0.5]))).all()
    assert breakdown.recalls(np.float32([0.7, 0.9]), np.array([0.7, 0.9])).tolist() == [
        1.0,
        0.5,
    ]
    nothing = best_proposal_iou(np.zeros((0, 4)), np.array([SQUARE]))
    assert (nothing == 0.0).all()


@pytest.mark.parametrize("image_size", [(96, 128), (75, 100), (30, 200)])
def test_best_anchors_are_those_of_the_whole_grid(image_size):
    random = np.random.default_rng(0)
    size = np.array(image_size, np.float32)
    corners = np.sort(random.random((2, 40, 2)) * size, axis=0)
    boxes = np.concatenate([corners[0], corners[1] + 1.0], axis=1).astype(np.float32)
    base = ops.base_anchors((1, 2, 4, 8), (0.5, 1, 2))
    result = best_anchor_iou(boxes, image_size, np.asarray(base))
    for template in range(len(base)):
        cells = tuple(side // 16 for side in image_size)
        anchors = ops.grid_anchors(cells, base[template : template + 1])
        inside = (anchors[:, :2] >= 0).all(axis=1)
        inside &= (anchors[:, 2:] <= jnp.asarray(size)[None]).all(axis=1)
        iou = box_iou(boxes, np.asarray(anchors)[np.asarray(inside)])
        np.testing.assert_allclose(
            result[:, template],
            iou.max(axis=1, initial=0.0),
            atol=1e-6,  # float32
        )


def test_image_without_objects_has_no_anchor_to_compare():
    base = np.asarray(ops.base_anchors())
    assert best_anchor_iou(np.zeros((0, 4)), (64, 64), base).shape == (0, 9)
