"""VGG16: shapes, padding, frozen blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.models.vgg16 import BLOCKS, VGG16, near_identity
from tests.helpers import tiny


@pytest.fixture(scope="module")
def backbone():
    """The structure and parameters of a small VGG16 with two frozen blocks."""
    graphdef, state = nnx.split(tiny.make_backbone(0, frozen_blocks=2))
    return graphdef, nnx.to_pure_dict(state)


def image(height, width):
    return jax.random.normal(jax.random.key(1), (1, height, width, 3))


def test_full_width_has_the_parameters_of_vgg16():
    model = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    # torchvision's vgg16().features has this many.
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == 14_714_688
    assert model.conv5_3.kernel.shape == (3, 3, 512, 512)


def test_notebook_image_gives_50_by_50_by_512():
    model = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    features, _ = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state)(x, jnp.array([[800, 800]])),
        state,
        jax.ShapeDtypeStruct((1, 800, 800, 3), jnp.float32),
    )
    assert features.shape == (1, 50, 50, 512)


def test_canvas_does_not_change_features(backbone):
    height, width = 70, 45  # no multiples of 16
    x = image(height, width)
    sizes = jnp.array([[height, width]])
    graphdef, params = backbone
    features = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x, sizes))
    alone, alone_sizes = features(params, x)
    canvas = jnp.pad(x, ((0, 0), (0, 26), (0, 19), (0, 0)))
    padded, padded_sizes = features(params, canvas)
    assert alone.shape[1:3] == (4, 2)
    np.testing.assert_array_equal(padded_sizes, alone_sizes)
    np.testing.assert_array_equal(alone_sizes, [[4, 2]])
    # Rounding after 13 layers, relative to the largest feature.
    atol = 1e-6 * float(jnp.abs(alone).max())
    np.testing.assert_allclose(padded[:, :4, :2], alone, rtol=1e-5, atol=atol)
    assert not padded[:, 4:].any()
    assert not padded[:, :, 2:].any()


def test_no_gradient_reaches_frozen_blocks(backbone):
    graphdef, params = backbone
    sizes = jnp.array([[32, 32]])

    def total(params):
        return nnx.merge(graphdef, params)(image(32, 32), sizes)[0].sum()

    grads = jax.jit(jax.grad(total))(params)
    for index, block in enumerate(BLOCKS):
        for name, _ in block:
            reached = bool(jnp.any(grads[name]["kernel"] != 0.0))
            assert reached == (index >= 2), name


def test_near_identity_passes_features_on_where_the_width_stays():
    kernel = near_identity(jax.random.key(0), (3, 3, 16, 16))
    noise = kernel - jnp.zeros_like(kernel).at[1, 1].set(jnp.eye(16))
    he = np.sqrt(2.0 / (9 * 16))
    assert float(noise.std()) == pytest.approx(0.3 * he, rel=0.1)
    np.testing.assert_allclose(noise.sum(axis=(0, 1, 2)), 0.0, atol=1e-5)


def test_near_identity_widens_and_reads_pictures_as_he_does():
    kernel = near_identity(jax.random.key(0), (3, 3, 16, 32))
    assert float(kernel.std()) == pytest.approx(np.sqrt(2.0 / (9 * 16)), rel=0.1)
    np.testing.assert_allclose(kernel.sum(axis=(0, 1, 2)), 0.0, atol=1e-5)
    of_pixels = near_identity(jax.random.key(0), (3, 3, 3, 16))
    he = nnx.initializers.he_normal()(jax.random.key(0), (3, 3, 3, 16))
    np.testing.assert_array_equal(of_pixels, he)
