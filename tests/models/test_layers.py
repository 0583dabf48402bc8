"""Convolution against XLA's own, pooling on padded maps, sums in float32."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.models import layers
from tests.helpers.lowering import each_platform, lower

NUMBERS = (((1,), (0,)), ((), ()))  # of rows times a kernel

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def few_channels(monkeypatch):
    """Makes the tests' few channels enough for the fast gradient."""
    monkeypatch.setattr(layers, "MIN_CHANNELS", 1)


def gradients(convolution, x, kernel, padding, cotangent):
    def apply(x, kernel):
        return convolution(x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS)

    result, pull_back = jax.vjp(apply, jnp.asarray(x), jnp.asarray(kernel))
    return result, *pull_back(cotangent)


@pytest.mark.parametrize("block_cells", [1, 40, 1536])
@pytest.mark.parametrize(
    ("shape", "kernel_size", "padding"),
    [
        ((2, 13, 9, 5), (3, 3), "SAME"),
        ((1, 8, 8, 4), (3, 3), ((1, 1), (1, 1))),
        ((3, 1, 1, 2), (3, 3), "SAME"),
        ((1, 7, 10, 3), (3, 2), "VALID"),
        ((1, 6, 5, 3), (1, 1), "SAME"),
        ((1, 6, 5, 3), (5, 3), ((4, 0), (1, 2))),
    ],
)
def test_the_gradients_equal_xlas(shape, kernel_size, padding, block_cells):
    rng = np.random.default_rng(0)
    # Whole numbers: the sums are exact in any order.
    x = rng.integers(-4, 5, shape).astype(np.float32)
    kernel = rng.integers(-4, 5, (*kernel_size, shape[-1], 6)).astype(np.float32)
    result = jax.eval_shape(
        lambda x, kernel: jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS
        ),
        x,
        kernel,
    )
    cotangent = rng.integers(-4, 5, result.shape).astype(np.float32)
    arguments = (x, kernel, padding, cotangent)
    expected = gradients(jax.lax.conv_general_dilated, *arguments)
    with mock.patch.object(layers, "BLOCK_CELLS", block_cells):
        actual = gradients(layers.convolve, *arguments)
    for value, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, other)


@each_platform
def test_only_the_cpu_takes_the_kernel_gradient_by_products(platform):
    x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32)

    def kernel_gradient(x, kernel, cotangent):
        return gradients(layers.convolve, x, kernel, "SAME", cotangent)[2]

    lowered = lower(kernel_gradient, x, kernel, x, platforms=(platform,))
    assert ("stablehlo.dot_general" in lowered) == (platform == "cpu")


def test_sums_of_bfloat16_products_are_float32():
    # 4096 ones add up to 256 in bfloat16.
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    kernel = jnp.zeros((1, 1, 1, 1), jnp.bfloat16)
    _, _, gradient = gradients(layers.convolve, x, kernel, "SAME", jnp.ones_like(x))
    assert gradient.dtype == jnp.bfloat16
    assert gradient.item() == 4096.0


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, (3, 2, 6, 5, 2)).astype(np.float32)
    cotangent = rng.integers(-4, 5, (3, 2, 6, 5, 4)).astype(np.float32)
    kernel = rng.integers(-4, 5, (3, 3, 2, 4)).astype(np.float32)

    def one(x, cotangent):
        return gradients(layers.convolve, x, kernel, "SAME", cotangent)

    together = jax.vmap(one)(x, cotangent)
    for index in range(3):
        alone = one(x[index], cotangent[index])
        for value, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(value[index], other)


def test_forward_mode_works_over_reverse_mode_only():
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.integers(-4, 5, (1, 4, 3, 2)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-4, 5, (3, 3, 2, 4)), jnp.float32)

    def total(convolution, kernel):
        y = convolution(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS)
        return (y**2).sum()

    def product(convolution):
        gradient = jax.grad(functools.partial(total, convolution))
        return jax.jvp(gradient, (kernel,), (kernel,))[1]

    expected = product(jax.lax.conv_general_dilated)
    np.testing.assert_array_equal(product(layers.convolve), expected)
    with pytest.raises(TypeError, match="custom_vjp function"):
        jax.jacfwd(functools.partial(total, layers.convolve))(kernel)
    assert '"custom_vjp function"' in layers.convolve.__doc__


def test_with_few_channels_the_gradient_is_xlas_own(monkeypatch):
    monkeypatch.setattr(layers, "MIN_CHANNELS", 4)
    unused = mock.Mock(side_effect=AssertionError)
    monkeypatch.setattr(layers, "_kernel_gradient", unused)
    x = jnp.ones((1, 5, 5, 8))
    for out_channels in (3, 4):
        kernel = jnp.ones((3, 3, 8, out_channels))
        cotangent = jnp.ones((1, 5, 5, out_channels))
        if out_channels < 4:
            gradients(layers.convolve, x, kernel, "SAME", cotangent)
        else:
            with pytest.raises(AssertionError):
                gradients(layers.convolve, x, kernel, "SAME", cotangent)


@pytest.mark.parametrize("num_rows", [1, 64, 100, 128, 129])
def test_products_are_those_of_dot_general_whatever_the_rows(num_rows):
    rng = np.random.default_rng(4)
    x, kernel, cotangent = (
        jnp.asarray(rng.integers(-4, 5, shape), jnp.float32)
        for shape in ((num_rows, 6), (6, 5), (num_rows, 5))
    )

    def results(product):
        def multiply(x, kernel):
            return product(x, kernel, NUMBERS, preferred_element_type=jnp.float32)

        y, transpose = jax.vjp(multiply, x, kernel)
        forward = jax.jvp(multiply, (x, kernel), (x, kernel))[1]
        each_row = jax.vmap(multiply, (0, None))(x[:, None], kernel)
        return y, *transpose(cotangent), forward, each_row

    actual, expected = results(layers.multiply), results(jax.lax.dot_general)
    for value, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, other)


@each_platform
def test_only_a_cpu_multiplies_by_parts(platform):
    def total(x, kernel):
        return layers.multiply(x, kernel, NUMBERS).sum()

    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((100, 6), (6, 5))
    )
    forward = lower(total, x, kernel, platforms=(platform,))
    gradients = lower(jax.grad(total, (0, 1)), x, kernel, platforms=(platform,))
    is_cpu = platform == "cpu"
    assert forward.count("stablehlo.dot_general") == (2 if is_cpu else 1)
    assert ("stablehlo.optimization_barrier" in gradients) == is_cpu


def test_a_layer_of_flax_takes_it_in():
    x = np.random.default_rng(2).normal(size=(1, 9, 7, 3)).astype(np.float32)
    pair = [
        nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0), **options)
        for options in ({}, {"conv_general_dilated": layers.convolve})
    ]
    grads = [nnx.grad(lambda layer: (layer(x) ** 2).sum())(layer) for layer in pair]
    np.testing.assert_array_equal(pair[0](x), pair[1](x))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *grads
    )


def test_max_pool_equals_the_librarys():
    x = jax.random.normal(jax.random.key(0), (2, 7, 9, 3))
    expected = nnx.max_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(layers.max_pool(x), expected)


def test_max_pool_gradient_goes_to_the_maximum():
    x = jnp.array([[1.0, 2.0, 9.0], [4.0, 3.0, 9.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: layers.max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 0, 0], [1, 0, 0]])


def test_zero_outside_keeps_the_image():
    x = jnp.ones((2, 3, 4, 1))
    inside = layers.zero_outside(x, jnp.array([[3, 4], [1, 2]]))
    assert inside[0].sum() == 12
    np.testing.assert_array_equal(
        inside[1, :, :, 0], [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    )


def test_gradient_of_a_bias_is_summed_in_float32():
    layer = nnx.Linear(
        1,
        1,
        dtype=jnp.bfloat16,
        promote_dtype=layers.promote_products,
        rngs=nnx.Rngs(0),
    )
    x = jnp.ones((8193, 1), jnp.bfloat16)  # bfloat16 has 8192 and then 8256
    gradient = nnx.grad(lambda layer: layer(x).astype(jnp.bfloat16).sum())(layer)
    assert gradient["bias"][...].dtype == jnp.float32
    assert gradient["bias"][...].item() == 8193.0
