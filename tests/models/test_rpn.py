"""The region proposal network: of all anchors, and of some alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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


def test_the_losses_take_every_sampled_anchor_and_their_gradient_no_other():
    model = FasterRCNN(tiny.MODEL, tiny.NUM_CLASSES, rngs=nnx.Rngs(0))
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
            return model.losses(keys, changed, *objects)[0].total.sum()

        gradient = jax.grad(total, (0, 1))(outputs.logits, outputs.deltas)
        return outputs, model.stages(keys, outputs, *objects), gradient

    outputs, stages, dense_gradient = compute(params)
    for labels, sampled in zip(
        stages.anchor_targets.labels, stages.sampled_anchors, strict=True
    ):
        assert len(set(sampled.tolist())) == tiny.MODEL.anchor_targets.num_samples
        assert set(np.flatnonzero(labels >= 0)) <= set(sampled.tolist())
    expected = take((outputs.logits, outputs.deltas), stages.sampled_anchors)
    np.testing.assert_allclose(stages.rpn_logits, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stages.rpn_deltas, expected[1], rtol=1e-4, atol=1e-6)
    assert not any(gradient.any() for gradient in dense_gradient)
