"""RoI pooling and aligning, against the loops of `tests.reference`.

The map has 9 x 6 cells of 16 pixels, unless a test says otherwise.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from frcnn_jax import ops
from tests import reference

HEIGHT, WIDTH, STRIDE = 9, 6, 16
STATIC = ("output_size", "stride", "rounding")
ROUNDINGS = ("round", "floor")
SIZES = ((7, 7), (2, 3))
DEFAULT = {"output_size": (7, 7), "stride": STRIDE}

pool = jax.jit(ops.roi_pool, static_argnames=STATIC)
align = jax.jit(
    ops.roi_align,
    static_argnames=("output_size", "stride", "sampling_ratio", "aligned"),
)


@functools.partial(jax.jit, static_argnames=("function", *STATIC))
def pull_back(cotangent, function, features, rois, **options):
    """Computes the gradient in the features of `(function(...) * cotangent).sum()`."""
    return jax.vjp(lambda x: function(x, rois, **options), features)[1](cotangent)[0]


@pytest.fixture(scope="module")
def features():
    """No two cells of a channel are equal, and about half are negative."""
    cells = np.random.default_rng(0).permutation(HEIGHT * WIDTH * 3)
    return ((cells - 80) / 8).reshape(HEIGHT, WIDTH, 3).astype(np.float32)


@pytest.fixture(scope="module")
def rois():
    """RoIs of every kind, 40 of them."""
    special = [
        [0, 0, 144, 96],  # the whole map
        [-500, -500, 700, 700],  # more than that
        [40, 40, 40, 40],  # a point
        [33.0, 33, 34, 34],  # a pixel
        [0, 0, 0, 0],  # padding
        [-100, -100, -40, -50],  # outside, on each side
        [150, 20, 300, 90],
        [20, 110, 90, 300],
        [160, 110, 300, 300],
        [-50, 50, 60, 160],  # partly outside
        [100, 60, 50, 20],  # upside down
        [8, 8, 24, 24],  # edges at half a cell
        [-8, -24, 56, 72],
        [20, 24, 120, 26],  # long and thin
    ]
    rng = np.random.default_rng(1)
    begin = rng.uniform(-40, [150, 100], (40 - len(special), 2))
    side = rng.uniform(0, 150, begin.shape)
    random = np.concatenate([begin, begin + side], axis=1)
    return np.concatenate([special, random]).astype(np.float32)


def bins(rounding, roi, output_size, size=(HEIGHT, WIDTH)):
    """Yields (p, q, cells) of a RoI, cells as a pair of slices."""
    edges = {"round": reference.rounded_bins, "floor": reference.truncated_bins}
    roi = roi / STRIDE
    rows = edges[rounding](roi[0], roi[2], output_size[0], size[0])
    columns = edges[rounding](roi[1], roi[3], output_size[1], size[1])
    for p, row in enumerate(rows):
        for q, column in enumerate(columns):
            yield p, q, (slice(*row), slice(*column))


@pytest.mark.parametrize("output_size", SIZES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_roi_pool_equals_the_reference(features, rois, rounding, output_size):
    options = {"output_size": output_size, "stride": STRIDE, "rounding": rounding}
    expected = reference.roi_pool(features, rois, **options)
    np.testing.assert_array_equal(pool(features, rois, **options), expected)


@pytest.mark.parametrize("num_bins", [7, 14])
def test_the_bins_of_a_roi_of_any_length_are_those_of_float32(num_bins):
    # The channels mark the last and the first cell of each bin. XLA is apt to multiply
    # by 1 / 7 where it should divide by 7, which adds a cell to every other RoI.
    cells = np.arange(130, dtype=np.float32)[:, None, None] * np.float32([1, -1])
    last = np.arange(120) * STRIDE
    rois = np.stack([0 * last, 0 * last, last, 0 * last], axis=1)
    rois = np.stack([rois, rois + np.array([[144, 0, 144, 0]])])
    rois = rois.reshape(240, 4).astype(np.float32)
    options = {"output_size": (num_bins, 1), "stride": STRIDE, "rounding": "round"}
    pooled = pool(cells, rois, **options)
    np.testing.assert_array_equal(pooled, reference.roi_pool(cells, rois, **options))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rois_outside_the_map_pool_to_zero(features, rois, rounding):
    outside = np.concatenate([rois[5:9]] * 9 + [[[-900, -900, -800, -800]] * 4])
    pooled = pool(features, outside.astype(np.float32), **DEFAULT, rounding=rounding)
    np.testing.assert_array_equal(pooled, np.zeros((40, 7, 7, 3)))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_roi_of_one_cell_fills_all_bins_with_it(features, rounding):
    rois = np.tile(np.float32([[33, 49, 36, 50]]), (40, 1))
    pooled = pool(features, rois, **DEFAULT, rounding=rounding)
    expected = np.broadcast_to(features[2, 3], (40, 7, 7, 3))
    np.testing.assert_array_equal(pooled, expected)


def test_halves_round_away_from_zero():
    features = jnp.arange(8.0).reshape(8, 1, 1)
    # 8, 40 and 72 pixels are 0.5, 2.5 and 4.5 cells: 1, 3 and 5, never 0, 2 and 4.
    rois = jnp.array([[edge, 0.0, edge, 0.0] for edge in (8.0, 40.0, 72.0)])
    pooled = pool(features, rois, output_size=(1, 1), rounding="round")
    np.testing.assert_array_equal(pooled.ravel(), [1.0, 3.0, 5.0])


@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 1, 2), (8, 3, 1)])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_maps_of_odd_sizes_pool_like_the_reference(rois, rounding, shape):
    features = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    options = {"output_size": (3, 2), "stride": STRIDE, "rounding": rounding}
    expected = reference.roi_pool(features, rois, **options)
    np.testing.assert_array_equal(pool(features, rois, **options), expected)


@pytest.mark.parametrize("size", [(5, 4), (1, 1), (9, 6)])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_feature_size_pools_as_if_the_map_were_cut(features, rois, rounding, size):
    cut = features[: size[0], : size[1]]
    expected = reference.roi_pool(
        cut, rois, output_size=(7, 7), stride=STRIDE, rounding=rounding
    )
    size = np.array(size)
    pooled = pool(features, rois, rounding=rounding, feature_size=size)
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_lies_beyond_feature_size_does_not_matter(features, rois, function, bad):
    padded = features.copy()
    padded[5:] = padded[:, 4:] = bad
    options = {} if function is ops.roi_align else {"rounding": "round"}
    options["feature_size"] = np.array([5, 4])
    cotangent = np.ones((40, 7, 7, 3), np.float32)
    for call in (
        {ops.roi_pool: pool, ops.roi_align: align}[function],
        functools.partial(pull_back, cotangent, function),
    ):
        np.testing.assert_array_equal(
            call(padded, rois, **options), call(features, rois, **options)
        )


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
def test_no_gradient_reaches_cells_beyond_feature_size(features, rois, function):
    cotangent = np.ones((40, 7, 7, 3), np.float32)
    options = {} if function is ops.roi_align else {"rounding": "round"}
    options["feature_size"] = np.array([5, 4])
    gradient = np.array(pull_back(cotangent, function, features, rois, **options))
    assert np.isfinite(gradient).all()
    assert (gradient[:5, :4] != 0).any()
    gradient[:5, :4] = 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(features))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_gradient_of_roi_pool_goes_to_the_maxima(features, rois, rounding):
    weights = np.random.default_rng(3).integers(1, 9, (40, 7, 7, 3))
    expected = np.zeros_like(features)
    for r, roi in enumerate(rois):
        for p, q, cells in bins(rounding, roi, (7, 7)):
            if features[cells].size > 0:
                maximum = features[cells].max(axis=(0, 1))
                expected[cells] += weights[r, p, q] * (features[cells] == maximum)
    options = {"rounding": rounding, "feature_size": np.array(features.shape[:2])}
    weights = weights.astype(np.float32)
    gradient = pull_back(weights, ops.roi_pool, features, rois, **options)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_where_cells_tie_the_gradient_goes_to_the_first_in_reading_order(
    rois, rounding
):
    # Few different values, so that most maxima are ties; one bin of a RoI at a time.
    features = np.random.default_rng(4).integers(0, 3, (HEIGHT, WIDTH, 3))
    features = features.astype(np.float32)
    options = {"rounding": rounding, "feature_size": np.array(features.shape[:2])}
    for r, roi in enumerate(rois):
        p, q, cells = list(bins(rounding, roi, (7, 7)))[r]
        cotangent = np.zeros((40, 7, 7, 3), np.float32)
        cotangent[r, p, q] = 1.0
        gradient = pull_back(cotangent, ops.roi_pool, features, rois, **options)
        expected = np.zeros_like(features)
        if features[cells].size > 0:
            _, width, channels = features[cells].shape
            first = features[cells].reshape(-1, channels).argmax(axis=0)
            expected[cells][first // width, first % width, range(channels)] = 1.0
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("output_size", SIZES)
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_equals_the_reference(features, rois, aligned, output_size):
    # Off the whole pixels, so that no sample lies on the border between 0 and not 0.
    rois = rois + np.float32(0.3)
    options = {"output_size": output_size, "stride": STRIDE, "aligned": aligned}
    for sampling_ratio in (1, 2, 3) if output_size == (2, 3) else (2,):
        options["sampling_ratio"] = sampling_ratio
        expected = reference.roi_align(features, rois, **options)
        result = align(features, rois, **options)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_roi_align_averages_a_linear_map_to_the_centre_of_each_bin():
    y, x = np.meshgrid(np.arange(9.0), np.arange(12.0), indexing="ij")
    features = np.stack([y, x], axis=-1).astype(np.float32)
    roi = jnp.array([[24.0, 32.0, 88.0, 160.0]])
    aligned = align(features, roi, output_size=(2, 4))[0]
    np.testing.assert_allclose(aligned[:, 0, 0], [2.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(aligned[0, :, 1], [2.5, 4.5, 6.5, 8.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("center", "expected"),
    [(-1.0, 0.0), (-1.25, None), (-0.5, 0.0), (9.0, 8.0), (9.25, None), (8.5, 8.0)],
)
def test_samples_up_to_one_cell_outside_read_the_border(center, expected):
    features = jnp.broadcast_to(10.0 + jnp.arange(9.0)[:, None, None], (9, 1, 1))
    edge = (center + 0.5) * STRIDE
    roi = jnp.array([[edge - 4.0, 4.0, edge + 4.0, 12.0]])
    result = align(features, roi, output_size=(1, 1), sampling_ratio=1)
    border = 0.0 if expected is None else 10.0 + expected
    np.testing.assert_array_equal(result.ravel(), [border])


@pytest.mark.parametrize("aligned", [True, False])
def test_an_empty_roi_is_a_point_or_without_alignment_a_cell(features, aligned):
    roi = jnp.array([[40.0, 56, 40, 56]])
    options = {"output_size": (1, 1), "sampling_ratio": 2, "aligned": aligned}
    expected = reference.roi_align(features, roi, stride=STRIDE, **options)
    result = align(features, roi, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    if aligned:
        np.testing.assert_allclose(result[0, 0, 0], features[2, 3], rtol=1e-6)


def test_feature_size_aligns_as_if_the_map_were_cut(features, rois):
    rois = rois + np.float32(0.3)
    expected = align(features[:5, :4], rois)
    result = align(features, rois, feature_size=np.array([5, 4]))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
def test_the_gradient_of_roi_align_equals_finite_differences(rois, aligned):
    features = np.random.default_rng(5).normal(size=(5, 6, 1)).astype(np.float32)
    function = functools.partial(
        align, rois=rois[:14], output_size=(2, 2), aligned=aligned
    )
    jax.test_util.check_grads(function, (features,), order=1, eps=1.0)


@pytest.mark.parametrize("function", [pool, align])
def test_no_roi_pools_to_nothing(features, function):
    assert function(features, np.zeros((0, 4), np.float32)).shape == (0, 7, 7, 3)


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3), (5, 5, 0)])
@pytest.mark.parametrize("num_rois", [0, 2])
def test_a_map_without_cells_or_channels_pools_to_zero(function, shape, num_rois):
    rois = np.tile(np.float32([[0, 0, 30, 30]]), (num_rois, 1))

    @jax.jit
    @jax.vmap
    def pool_with_gradient(features):
        pooled, pull_back = jax.vjp(lambda x: function(x, rois), features)
        return pooled, pull_back(pooled)[0]

    pooled, gradient = pool_with_gradient(np.ones((1, *shape), np.float32))
    np.testing.assert_array_equal(pooled, np.zeros((1, num_rois, 7, 7, shape[2])))
    np.testing.assert_array_equal(gradient, np.zeros((1, *shape)))


@pytest.mark.parametrize("function", [pool, align])
def test_a_map_of_which_no_cell_is_real_pools_to_zero(features, rois, function):
    pooled = function(features, rois, feature_size=np.array([0, 0]))
    np.testing.assert_array_equal(pooled, np.zeros((40, 7, 7, 3)))


def test_roi_pool_is_differentiable_twice_in_reverse_mode_only(features, rois):
    features, rois = jnp.asarray(features), jnp.asarray(rois)

    def total(features):
        return (ops.roi_pool(features, rois, output_size=(1, 1)) ** 3).sum()

    gradient = jax.jit(jax.grad(total))
    product = jax.jit(jax.grad(lambda x: jnp.vdot(gradient(x), x)))(features)
    # The gradient is homogeneous of degree 2, and this the derivative of x * x**2.
    np.testing.assert_allclose(product, 3 * gradient(features), rtol=1e-4)
    for forward in (jax.jit(jax.jacfwd(total)), jax.hessian(total)):
        with pytest.raises(TypeError, match="custom_vjp function"):
            forward(features)
    assert '"custom_vjp function"' in ops.roi_pool.__doc__


@pytest.mark.parametrize("function", [pool, align])
def test_the_type_of_the_features_stays(features, rois, function):
    half = jnp.asarray(features[:4, :4], jnp.bfloat16)
    result = function(half, rois, output_size=(1, 1))
    assert result.dtype == jnp.bfloat16
    expected = function(half.astype(jnp.float32), rois, output_size=(1, 1))
    result = result.astype(jnp.float32)
    np.testing.assert_allclose(result, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("function", [pool, align])
def test_gradient_of_bfloat16_features_is_summed_in_float32(function):
    # RoIs on one cell, 16 handled at once: to 256 bfloat16 cannot add 1, in any order.
    rois = np.tile(np.array([[0.0, 0.0, 15.0, 15.0]], np.float32), (18 * 16, 1))
    cotangent = np.zeros((18, 16), np.float32)
    cotangent[:, 0] = [256.0] + 16 * [1.0] + [256.0]
    cotangent = jnp.asarray(cotangent.reshape(-1, 1, 1, 1), jnp.bfloat16)
    half = jnp.ones((1, 1, 1), jnp.bfloat16)
    _, pull_back = jax.vjp(lambda x: function(x, rois, output_size=(1, 1)), half)
    (gradient,) = pull_back(cotangent)
    assert gradient.dtype == jnp.bfloat16
    assert gradient.item() == 528.0


@pytest.mark.parametrize(
    ("function", "eager"), [(pool, ops.roi_pool), (align, ops.roi_align)]
)
def test_jit_equals_eager(features, rois, function, eager):
    features, rois = jnp.asarray(features[:3, :2]), jnp.asarray(rois)
    expected = eager(features, rois, output_size=(2, 1))
    result = function(features, rois, output_size=(2, 1))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [pool, align])
def test_vmap_equals_a_loop(features, rois, function):
    maps, boxes = np.stack([features, -features]), rois.reshape(2, 20, 4)
    sizes = np.array([[9, 6], [5, 4]])

    def one(features, rois, size):
        return function(features, rois, feature_size=size)

    together = jax.jit(jax.vmap(one))(maps, boxes, sizes)
    one_by_one = [one(*image) for image in zip(maps, boxes, sizes, strict=True)]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
@pytest.mark.parametrize(
    "options", [{"output_size": (0, 7)}, {"output_size": (7, -1)}, {"stride": 0}]
)
def test_the_option_that_is_wrong_is_named(features, rois, function, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} is "):
        function(jnp.asarray(features), jnp.asarray(rois), **options)


def test_the_rounding_and_the_sampling_ratio_are_checked(features, rois):
    arrays = jnp.asarray(features), jnp.asarray(rois)
    with pytest.raises(ValueError, match=r"^sampling_ratio is 0"):
        ops.roi_align(*arrays, sampling_ratio=0)
    with pytest.raises(TypeCheckError):
        ops.roi_pool(*arrays, rounding="ceil")
    # Without the type checks of pytest, the op itself complains.
    with pytest.raises(ValueError, match=r"^rounding is 'ceil'"):
        inspect.unwrap(ops.roi_pool)(*arrays, rounding="ceil")


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
def test_arrays_of_the_wrong_shape_are_refused(features, rois, function):
    with pytest.raises(ValueError, match=r": features has shape"):
        function(jnp.asarray(features)[None], jnp.asarray(rois))
    with pytest.raises(ValueError, match=r": rois has shape"):
        function(jnp.asarray(features), jnp.asarray(rois)[:, :3])
