"""Sizes that fit a data set."""

import numpy as np
import pytest

from frcnn_jax import ops
from frcnn_jax.config import DataConfig
from frcnn_jax.data.fitting import fit_anchor_scales, fit_canvases, fit_resizing
from frcnn_jax.data.transforms import choose_canvas, resized_size
from tests.reference import box_iou

RATIOS = (0.5, 1.0, 2.0)


def resize_all(sizes, resizing):
    return [
        resized_size(
            size,
            shorter_side=resizing.shorter_side,
            longer_side=resizing.longer_side,
        )
        for size in sizes
    ]


def random_sizes(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3000, (int(rng.integers(1, 60)), 2))
    return [(int(height), int(width)) for height, width in sizes]


@pytest.mark.parametrize("seed", range(20))
def test_every_image_has_a_canvas_and_the_config_accepts_them(seed):
    sizes = random_sizes(seed)
    resizing = fit_resizing(sizes)
    DataConfig(
        shorter_side=resizing.shorter_side,
        longer_side=resizing.longer_side,
        canvases=resizing.canvases,
    )
    assert len(resizing.canvases) <= 3
    assert all(side % 16 == 0 for canvas in resizing.canvases for side in canvas)
    for size in resize_all(sizes, resizing):
        assert choose_canvas(size, resizing.canvases) is not None


def test_images_of_one_shape_have_one_canvas():
    resizing = fit_resizing([(480, 640)] * 5)
    assert (resizing.shorter_side, resizing.longer_side) == (600, 800)
    assert resizing.canvases == ((608, 800),)


def test_upright_and_wide_images_have_a_canvas_each():
    resizing = fit_resizing([(480, 640)] * 5 + [(640, 480)])
    assert resizing.canvases == ((608, 800), (800, 608))


def test_sizes_like_those_of_voc_have_three_canvases():
    sizes = [(375, 500)] * 50 + [(333, 500)] * 30 + [(500, 375)] * 15 + [(281, 500)] * 5
    assert fit_resizing(sizes).canvases == ((608, 800), (608, 1008), (800, 608))


def test_few_odd_images_get_no_canvas_of_their_own():
    sizes = [(600, 800)] * 100 + [(600, 780), (600, 760)]
    assert fit_canvases(sizes, largest=(600, 800)) == ((608, 800),)


def test_a_canvas_is_as_large_as_asked_for_even_if_no_image_is():
    assert fit_canvases([(300, 1000)], largest=(600, 1000)) == (
        (304, 1008),
        (608, 1008),
    )


def test_small_images_are_not_enlarged_more_than_twice():
    assert fit_resizing([(96, 96)] * 3).shorter_side == 192
    assert fit_resizing([(1, 1)]).canvases == ((16, 16),)


def test_elongated_images_are_bounded_by_their_longer_side():
    resizing = fit_resizing([(100, 5000)])
    assert (resizing.shorter_side, resizing.longer_side) == (208, 347)


def anchor_sizes(scales):
    anchors = np.asarray(ops.base_anchors(scales=scales, ratios=RATIOS))
    return anchors[:, 2:] - anchors[:, :2]


def test_scales_that_made_the_boxes_are_found():
    boxes = np.concatenate([anchor_sizes((2, 8, 32))] * 4)
    assert fit_anchor_scales(boxes, RATIOS) == ((2.0, 8.0, 32.0), 1.0)


def test_more_scales_are_chosen_only_where_they_fit_more_boxes():
    boxes = anchor_sizes((1, 2, 4, 8, 16, 32))
    scales, share = fit_anchor_scales(boxes, RATIOS)
    assert (len(scales), share) == (5, pytest.approx(1.0, abs=0.2))
    boxes = np.concatenate([anchor_sizes((4,))] * 99 + [anchor_sizes((1, 2, 8, 16))])
    assert len(fit_anchor_scales(boxes, RATIOS)[0]) == 3


def test_the_share_is_that_of_boxes_with_an_anchor_of_iou_half():
    sizes = np.random.default_rng(0).uniform(4, 600, (300, 2)).astype(np.float32)
    scales, share = fit_anchor_scales(sizes, RATIOS)
    boxes = np.concatenate([-sizes, sizes], axis=1) / 2
    # The scales are printed with two digits.
    anchors = np.asarray(ops.base_anchors(scales=scales, ratios=RATIOS))
    best = box_iou(boxes, anchors).max(axis=1)
    assert share == pytest.approx((best >= 0.5).mean(), abs=0.02)


def test_one_box_is_enough():
    scales, _ = fit_anchor_scales(np.array([[100.0, 100.0]]), RATIOS)
    assert len(scales) == 3
