"""The region proposal network: of all anchors, and of some alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax import ops
from frcnn_jax.config import AnchorTargetConfig
from frcnn_jax.models import FasterRCNN
from frcnn_jax.models.rpn import RPN
from tests.helpers import tiny

NUM_ANCHORS, NUM_CELLS = 3, 4 * 5


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2, 4, 5, 6)), jnp.float32)


def make_rpn(**options):
    rpn = RPN(6, 8, NUM_ANCHORS, rngs=nnx.Rngs(0), **options)
    # Drawn small, around zero: scores of different anchors would be nearly the same.
    for layer in (rpn.conv, rpn.score, rpn.delta):
        layer.kernel[...] *= 30.0
    return rpn


def take(outputs, anchors):
    return tuple(jnp.take_along_axis(x, anchors[..., None], axis=1) for x in outputs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_some_anchors_alone_have_the_outputs_of_all(features, dtype):
    rpn = make_rpn(compute_dtype=dtype)
    all_anchors = jnp.arange(NUM_CELLS * NUM_ANCHORS)
    anchors = jnp.stack([all_anchors, all_anchors[::-1]])
    expected = take(rpn(features), anchors)
    for actual, wanted in zip(rpn.at(features, anchors), expected, strict=True):
        assert actual.shape == wanted.shape
        assert actual.dtype == wanted.dtype == jnp.float32
        # bfloat16 rounds sums that were added up in another order.
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance)


def test_some_anchors_alone_have_the_gradient_of_all(features):
    graphdef, params = nnx.split(make_rpn())
    # Two anchors of one cell, one twice, and corners of the map.
    anchors = jnp.array([[0, 1, 30, 30, 59], [59, 14, 45, 2, 31]])
    weights = jnp.arange(1.0, 6.0)[None, :, None]

    def gradient(compute):
        def total(params, features):
            logits, deltas = compute(nnx.merge(graphdef, params), features)
            return (weights * logits**2).sum() + (weights * deltas**2).sum()

        return jax.grad(total, (0, 1))(params, features)

    actual = gradient(lambda rpn, features: rpn.at(features, anchors))
    expected = gradient(lambda rpn, features: take(rpn(features), anchors))
    for got, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


# The second asks for more samples than there are anchors to draw, or anchors at all.
@pytest.mark.parametrize("num_samples", [16, 10_000])
def test_losses_are_those_of_all_outputs_without_their_gradient(num_samples):
    targets = AnchorTargetConfig(num_samples=num_samples)
    config = dataclasses.replace(tiny.MODEL, anchor_targets=targets)
    model = FasterRCNN(config, tiny.NUM_CLASSES, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    batch = jax.tree.map(jnp.asarray, tiny.first_batch())
    keys = jax.random.split(jax.random.key(0), len(batch.images))
    objects = batch.boxes, batch.labels, batch.box_mask

    @jax.jit
    def compute(params):
        model = nnx.merge(graphdef, params)
        outputs = model(batch.images, batch.image_sizes, batch.scales)

        def total(logits, deltas):
            changed = outputs._replace(logits=logits, deltas=deltas)
            losses, _ = model.losses(keys, changed, *objects)
            return losses.total.sum(), losses

        gradient, losses = jax.grad(total, (0, 1), has_aux=True)(
            outputs.logits, outputs.deltas
        )
        return outputs, model.stages(keys, outputs, *objects), losses, gradient

    outputs, stages, losses, dense_gradient = compute(params)
    num_anchors = outputs.logits.shape[1]
    assert stages.sampled_anchors.shape[1] == min(num_samples, num_anchors)
    drawn = (stages.anchor_targets.labels >= 0).sum(axis=1)
    assert (drawn == 16).all() if num_samples == 16 else (drawn < num_anchors).all()
    expected = jax.vmap(
        functools.partial(
            ops.rpn_loss,
            beta=config.losses.rpn_beta,
            normalizer=config.losses.normalizer,
            localization_weight=config.losses.localization_weight,
        )
    )(outputs.logits, outputs.deltas, stages.anchor_targets)
    np.testing.assert_allclose(losses[:2], expected, rtol=1e-5)
    assert (losses[0] > 0.0).all()
    assert not any(gradient.any() for gradient in dense_gradient)
