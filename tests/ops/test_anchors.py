"""Anchors, against the formula written out one anchor at a time."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops

SCALES, RATIOS, STRIDE = (2, 4.5, 8), (0.5, 1, 3), 12


def test_base_anchors_are_scale_major_and_centred_on_the_origin():
    expected = []
    for scale in SCALES:
        for ratio in RATIOS:
            height = scale * STRIDE * math.sqrt(ratio)
            width = scale * STRIDE / math.sqrt(ratio)
            expected.append([-height / 2, -width / 2, height / 2, width / 2])
    base = ops.base_anchors(SCALES, RATIOS, STRIDE)
    assert base.dtype == jnp.float32
    np.testing.assert_allclose(base, expected, rtol=1e-6)


def test_the_ratio_is_height_over_width_and_leaves_the_area_alone():
    tall = ops.base_anchors(scales=(8,), ratios=(4,), stride=16)
    np.testing.assert_allclose(tall, [[-128.0, -32.0, 128.0, 32.0]])
    np.testing.assert_allclose(ops.box_area(tall), [128.0**2])


def test_base_anchors_default_to_the_nine_of_the_paper():
    np.testing.assert_array_equal(
        ops.base_anchors(), ops.base_anchors((8, 16, 32), (0.5, 1, 2), 16)
    )


def test_grid_anchors_are_row_major_over_y_x_and_template():
    base = ops.base_anchors(SCALES, RATIOS, STRIDE)
    expected = [
        [(y + 0.5) * STRIDE, (x + 0.5) * STRIDE] * 2 + anchor
        for y in range(3)
        for x in range(5)
        for anchor in np.asarray(base)
    ]
    anchors = ops.grid_anchors((3, 5), base, STRIDE)
    assert anchors.dtype == jnp.float32
    np.testing.assert_allclose(anchors, expected, rtol=1e-6, atol=1e-5)


def test_the_first_centre_lies_at_half_a_stride():
    base = ops.base_anchors((1,), (1,), 16)
    np.testing.assert_allclose(ops.grid_anchors((1, 1), base, 16), [[0, 0, 16, 16]])


def test_the_anchors_of_a_cell_do_not_depend_on_the_size_of_the_map():
    base = ops.base_anchors((1, 2), (1,))
    small = ops.grid_anchors((2, 3), base).reshape(2, 3, 2, 4)
    large = ops.grid_anchors((4, 5), base).reshape(4, 5, 2, 4)
    np.testing.assert_array_equal(small, large[:2, :3])


@pytest.mark.parametrize("feature_size", [(0, 3), (3, 0), (0, 0)])
def test_a_map_without_cells_has_no_anchors(feature_size):
    assert ops.grid_anchors(feature_size, ops.base_anchors()).shape == (0, 4)


def test_grid_anchors_under_jit_equal_eager_ones():
    base = ops.base_anchors()
    compiled = jax.jit(ops.grid_anchors, static_argnums=(0, 2))
    np.testing.assert_array_equal(
        compiled((2, 3), base, 16), ops.grid_anchors((2, 3), base, 16)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"scales": ()},
        {"scales": (8, 0)},
        {"scales": (float("nan"), 8)},
        {"ratios": (1, float("inf"))},
        {"ratios": ()},
        {"ratios": (-1, 1)},
        {"stride": 0},
        {"stride": -16},
    ],
)
def test_base_anchors_name_the_option_that_is_wrong(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} is "):
        ops.base_anchors(**options)


def test_grid_anchors_name_the_option_that_is_wrong():
    base = ops.base_anchors()
    with pytest.raises(ValueError, match=r"^feature_size is "):
        ops.grid_anchors((-1, 2), base)
    with pytest.raises(
        ValueError, match=r"^feature_size is \(1.5, 2\), expected two i"
    ):
        inspect.unwrap(ops.grid_anchors)((1.5, 2), base)
    with pytest.raises(ValueError, match=r"^feature_size is \(1, 2, 3\), expected two"):
        inspect.unwrap(ops.grid_anchors)((1, 2, 3), base)
    with pytest.raises(ValueError, match=r"^stride is "):
        ops.grid_anchors((1, 2), base, 0)


def test_a_template_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r": base has shape"):
        ops.grid_anchors((1, 2), jnp.zeros((9, 3)))
