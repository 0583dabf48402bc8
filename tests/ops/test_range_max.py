"""Maxima over rectangles, against NumPy's on one rectangle at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax.ops.range_max import range_max

maxima_of = jax.jit(range_max)


@jax.jit
def pull_back(cotangent, features, rows, columns):
    return jax.vjp(lambda x: range_max(x, rows, columns), features)[1](cotangent)[0]


def random_intervals(rng, shape, size):
    """[shape] first cells and ends, of every length from 0 to the whole map."""
    begin = rng.integers(0, size, shape)
    length = rng.integers(0, size + 1, shape)
    return begin.astype(np.int32), np.minimum(begin + length, size).astype(np.int32)


def expected(features, rows, columns, cotangent):
    """Maxima and the gradient, which goes to the first cell that holds the maximum."""
    channels = features.shape[-1]
    maxima = np.zeros(cotangent.shape, features.dtype)
    gradient = np.zeros_like(features)
    for r, p, q in np.ndindex(*cotangent.shape[:3]):
        top, left = rows[0][r, p], columns[0][r, q]
        cells = features[top : rows[1][r, p], left : columns[1][r, q]]
        if cells.size == 0:
            continue
        flat = cells.reshape(-1, channels)
        maxima[r, p, q] = flat.max(axis=0)
        y, x = np.unravel_index(flat.argmax(axis=0), cells.shape[:2])
        gradient[top + y, left + x, np.arange(channels)] += cotangent[r, p, q]
    return maxima, gradient


def random_case(seed, map_size, num_rects, num_values):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, num_values, (*map_size, 3)).astype(np.float32)
    rows = random_intervals(rng, (num_rects, 2), map_size[0])
    columns = random_intervals(rng, (num_rects, 3), map_size[1])
    cotangent = rng.integers(1, 9, (num_rects, 2, 3, 3)).astype(np.float32)
    return features, rows, columns, cotangent


@pytest.mark.parametrize("num_values", [3, 10_000])
@pytest.mark.parametrize(
    ("map_size", "num_rects"),
    [((40, 29), 50), ((1, 1), 3), ((3, 13), 16), ((14, 2), 1)],
)
def test_maxima_and_gradient_equal_those_of_numpy(map_size, num_rects, num_values):
    *inputs, cotangent = random_case(0, map_size, num_rects, num_values)
    maxima, gradient = expected(*inputs, cotangent)
    np.testing.assert_array_equal(maxima_of(*inputs), maxima)
    np.testing.assert_array_equal(pull_back(cotangent, *inputs), gradient)


def test_a_map_of_more_cells_than_16_bits_can_count():
    *inputs, cotangent = random_case(1, (250, 140), 5, 1000)
    maxima, gradient = expected(*inputs, cotangent)
    np.testing.assert_array_equal(maxima_of(*inputs), maxima)
    np.testing.assert_array_equal(pull_back(cotangent, *inputs), gradient)


def test_no_rectangle_has_no_maximum_and_a_gradient_of_zero():
    *inputs, cotangent = random_case(2, (9, 9), 0, 3)
    assert maxima_of(*inputs).shape == (0, 2, 3, 3)
    np.testing.assert_array_equal(pull_back(cotangent, *inputs), np.zeros((9, 9, 3)))


def test_bfloat16_features_keep_their_type_and_their_values():
    features, rows, columns, cotangent = random_case(3, (9, 9), 5, 100)
    maxima, gradient = expected(features, rows, columns, cotangent)
    features, cotangent = jnp.bfloat16(features), jnp.bfloat16(cotangent)
    result = maxima_of(features, rows, columns)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.astype(np.float32), maxima)
    result = pull_back(cotangent, features, rows, columns)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.astype(np.float32), gradient, rtol=0.005)


def test_minus_infinity_is_a_value_like_others():
    features = np.full((5, 5, 1), -np.inf, np.float32)
    rows = columns = (np.zeros((1, 1), np.int32), np.full((1, 1), 5, np.int32))
    assert maxima_of(features, rows, columns).item() == -np.inf
    gradient = pull_back(np.ones((1, 1, 1, 1), np.float32), features, rows, columns)
    assert np.flatnonzero(gradient).tolist() == [0]


def test_vmap_equals_a_loop():
    # Of the two images, one has long rectangles and needs several trips.
    cases = [random_case(4, (30, 29), 20, 50), random_case(5, (30, 29), 20, 50)]
    cases[0][1][1][:] = np.minimum(cases[0][1][1], cases[0][1][0] + 4)
    cases[0][2][1][:] = np.minimum(cases[0][2][1], cases[0][2][0] + 4)
    stacked = jax.tree.map(lambda *x: np.stack(x), *cases)
    together = jax.jit(jax.vmap(range_max))(*stacked[:3])
    gradients = jax.jit(jax.vmap(pull_back))(stacked[3], *stacked[:3])
    for image, (*inputs, cotangent) in enumerate(cases):
        maxima, gradient = expected(*inputs, cotangent)
        np.testing.assert_array_equal(together[image], maxima)
        np.testing.assert_array_equal(gradients[image], gradient)
