"""Recall of the anchors, against all anchors of the grid."""

import numpy as np
import pytest

from frcnn_jax import ops
from frcnn_jax.checking.anchors import IOU_THRESHOLDS, compare_anchors, suggest
from frcnn_jax.config import ModelConfig, Resizing
from frcnn_jax.data.records import Annotation
from frcnn_jax.evaluation.matching import box_iou

SIZE = (200, 300)
RESIZING = Resizing(shorter_side=400, longer_side=600, canvases=((400, 608),))


class Boxes:
    """A source of images with given boxes."""

    class_names = ("cat", "dog", "cow")

    def __init__(self, *boxes, difficult=False):
        """Takes the boxes of each image; labels are 0 and 1 in turn."""
        self.annotations = [
            Annotation(
                image_id=str(number),
                image_size=SIZE,
                boxes=np.array(each, np.float32).reshape(-1, 4),
                labels=np.arange(len(each), dtype=np.int32) % 2,
                difficult=np.full(len(each), difficult),
            )
            for number, each in enumerate(boxes)
        ]

    def read_image(self, index):
        raise AssertionError("no pixel is needed")


def random_boxes(number, low=10, high=90):
    rng = np.random.default_rng(number)
    sides = rng.uniform(low, high, (number, 2))
    corners = rng.uniform(0, 1, (number, 2)) * (SIZE - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def test_recall_is_that_of_all_anchors_inside_of_the_image():
    source = Boxes(random_boxes(60), random_boxes(41), [])
    model = ModelConfig(anchor_scales=(2, 6), anchor_ratios=(0.5, 1.0))
    first = compare_anchors(source, RESIZING, model)[0]
    assert (first.scales, first.ratios) == ((2, 6), (0.5, 1.0))

    base = ops.base_anchors(model.anchor_scales, model.anchor_ratios)
    anchors = np.asarray(ops.grid_anchors((25, 37), base))
    is_inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= (400, 600)).all(1)
    boxes = 2 * np.concatenate([each.boxes for each in source.annotations])
    labels = np.concatenate([each.labels for each in source.annotations])
    best = box_iou(boxes, anchors[is_inside]).max(axis=1)
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    for column, iou in enumerate(IOU_THRESHOLDS):
        is_found = best >= iou
        assert first.recall[column] == pytest.approx(is_found.mean())
        for label, name in enumerate(("cat", "dog")):
            expected = is_found[labels == label].mean()
            assert first.per_class[name][column] == pytest.approx(expected)
        expected = is_found[(sides >= 64) & (sides < 128)].mean()
        assert first.per_side["64-128"][column] == pytest.approx(expected)
    assert "cow" not in first.per_class


def test_other_scales_are_suggested_where_they_fit_better():
    source = Boxes(random_boxes(200, 14, 24))
    compared = compare_anchors(source, RESIZING, ModelConfig(anchor_scales=(16, 32)))
    assert compared[0].recall == [0, 0]
    better = suggest(compared)
    assert better.recall[0] > 0.7
    assert max(better.scales) < 6


def test_other_ratios_are_suggested_for_flat_objects():
    corners = random_boxes(200, 14, 15)[:, :2]
    flat = np.concatenate([corners, corners + np.array([8, 96])], axis=1)
    better = suggest(compare_anchors(Boxes(flat), RESIZING, ModelConfig()))
    assert max(better.ratios) < 0.2


def test_anchors_that_fit_are_left_alone():
    source = Boxes(random_boxes(200, 40, 90))
    first = compare_anchors(source, RESIZING, ModelConfig(anchor_scales=(16, 32)))
    better = suggest(first)
    model = ModelConfig(anchor_scales=better.scales, anchor_ratios=better.ratios)
    assert suggest(compare_anchors(source, RESIZING, model)) is None


@pytest.mark.parametrize(
    "source", [Boxes([]), Boxes(), Boxes([[0, 0, 50, 50]], difficult=True)]
)
def test_without_objects_there_is_nothing_to_compare(source):
    assert compare_anchors(source, RESIZING, ModelConfig()) == []
    assert suggest([]) is None
