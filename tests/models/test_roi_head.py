"""The RoI head: shapes and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.models.roi_head import RoIHead

KEYS = jax.random.key(2)[None]


@pytest.fixture(scope="module")
def pooled():
    return jax.random.normal(jax.random.key(0), (5, 2, 2, 3))


def make_head(**options):
    return RoIHead(12, 16, 3, rngs=nnx.Rngs(params=jax.random.key(1)), **options)


def test_shapes_count_the_background(pooled):
    logits, deltas = make_head()(pooled)
    assert logits.shape == (5, 4)
    assert deltas.shape == (5, 4, 4)


def test_without_activation_the_head_is_linear(pooled):
    head = make_head(activation=lambda x: x)
    logits, deltas = head(pooled)
    double_logits, double_deltas = head(2.0 * pooled)
    np.testing.assert_allclose(double_logits, 2.0 * logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(double_deltas, 2.0 * deltas, rtol=1e-4, atol=1e-6)


def test_dropout_needs_a_key_and_follows_it(pooled):
    head = make_head(dropout=0.5)
    np.testing.assert_array_equal(head(pooled)[0], make_head()(pooled)[0])
    first = head(pooled, KEYS)[0]
    np.testing.assert_array_equal(first, head(pooled, KEYS)[0])
    assert jnp.any(first != head(pooled, jax.random.key(3)[None])[0])


def test_dropout_does_not_depend_on_jaxs_flags(pooled):
    head = make_head(dropout=0.5)
    keep = jax.random.bernoulli(jax.random.key(2), 0.5, (5, 16))  # by default
    dropped = head._drop(jnp.ones((5, 16)), KEYS)
    np.testing.assert_array_equal(dropped, 2.0 * keep)
    expected = head(pooled, KEYS)
    keys = jax.random.key(2, impl="threefry2x32")[None]
    for flag in (jax.threefry_partitionable(False), jax.enable_x64(True)):
        with flag:
            for array, other in zip(head(pooled, keys), expected, strict=True):
                np.testing.assert_array_equal(array, other)


def test_dropout_of_an_image_depends_on_its_key_alone(pooled):
    head = make_head(dropout=0.5)
    for impl in ("threefry2x32", "rbg"):
        keys = jax.random.split(jax.random.key(2, impl=impl))
        both = head(jnp.concatenate([pooled, pooled]), keys)[0]
        alone = head(pooled, keys[1:])[0]
        np.testing.assert_allclose(both[5:], alone, rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean():
    head = make_head(dropout=0.25)
    dropped = head._drop(jnp.ones((100, 100)), KEYS)
    assert float((dropped == 0.0).mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)
