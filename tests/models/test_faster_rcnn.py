"""Faster R-CNN as a whole: an image does not depend on canvas or neighbors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.data.records import Batch
from frcnn_jax.models import Losses
from frcnn_jax.models.faster_rcnn import DenseOutputs, image_keys
from frcnn_jax.models.parameters import abstract_detector, random_params
from tests.helpers import tiny

# float32 sums over a canvas of another size, relative to the largest value.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def detector():
    graphdef, _ = abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)
    params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)

    @jax.jit
    def gradient(params, keys, batch):
        def total(params):
            losses, stats = tiny.losses(nnx.merge(graphdef, params), keys, batch)
            return losses.total.sum(), (losses, stats)

        return jax.grad(total, has_aux=True)(params)

    @jax.jit
    def detect(params, batch):
        model = nnx.merge(graphdef, params)
        return tiny.detect(model, batch)

    return params, gradient, detect


def keys_of(batch: Batch):
    return image_keys(jax.random.key(7), jnp.asarray(batch.indices))


def assert_close(got, expected):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(largest, 1e-3))


def test_losses_are_finite_and_of_every_image(detector):
    params, gradient, _ = detector
    batch = tiny.first_batch()
    grads, (losses, stats) = gradient(params, keys_of(batch), batch)
    assert isinstance(losses, Losses)
    assert all(field.shape == (2,) for field in (*losses, *stats))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    samples = stats.num_positive_anchors + stats.num_negative_anchors
    np.testing.assert_array_equal(samples, tiny.MODEL.anchor_targets.num_samples)
    samples = stats.num_positive_rois + stats.num_negative_rois
    np.testing.assert_array_equal(samples, tiny.MODEL.proposal_targets.num_samples)
    assert stats.num_negative_rois.dtype == jnp.int32
    four = [
        losses.rpn_classification_loss,
        losses.rpn_localization_loss,
        losses.roi_classification_loss,
        losses.roi_localization_loss,
    ]
    np.testing.assert_array_equal(losses.total, sum(four))
    # An untrained softmax over seven classes.
    assert float(losses.roi_classification_loss.mean()) == pytest.approx(
        np.log(7), rel=0.2
    )


def cut(batch: Batch, size: tuple[int, int]) -> Batch:
    """Cuts images and objects to (height, width); the canvas stays."""
    height, width = size
    images = np.zeros_like(batch.images)
    images[:, :height, :width] = batch.images[:, :height, :width]
    boxes = np.clip(batch.boxes, 0.0, [height, width] * 2).astype(np.float32)
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(axis=-1) & batch.box_mask
    return batch._replace(
        images=images,
        image_sizes=np.full_like(batch.image_sizes, size),
        boxes=np.where(has_area[..., None], boxes, 0.0),
        box_mask=has_area,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(56, 64), (64, 50), (37, 61), (33, 17)])
def test_losses_and_gradient_do_not_depend_on_the_canvas(detector, size):
    params, gradient, _ = detector
    small = cut(tiny.take(tiny.first_batch(2, (64, 64)), 0), size)
    large = cut(tiny.take(tiny.first_batch(2, (80, 112)), 0), size)
    assert small.box_mask.any()
    grads, losses = gradient(params, keys_of(small), small)
    large_grads, large_losses = gradient(params, keys_of(large), large)
    assert_close(large_losses, losses)
    assert_close(large_grads, grads)


@pytest.mark.slow
def test_losses_and_gradient_do_not_depend_on_neighbors(detector):
    params, gradient, _ = detector
    batch = tiny.first_batch(2)
    together_grads, together = gradient(params, keys_of(batch), batch)
    singles = [tiny.take(batch, index) for index in range(2)]
    alone = [gradient(params, keys_of(single), single) for single in singles]
    for index in range(2):
        assert_close(
            jax.tree.map(lambda x, i=index: x[i], together),
            jax.tree.map(lambda x: x[0], alone[index][1]),
        )
    assert_close(together_grads, jax.tree.map(jnp.add, alone[0][0], alone[1][0]))


def test_detections_do_not_depend_on_canvas_or_neighbors(detector):
    params, _, detect = detector
    batch = tiny.first_batch(2, (64, 64))
    together = detect(params, batch)
    for index in range(2):
        large = tiny.take(tiny.first_batch(2, (80, 112)), index)
        alone = detect(params, large)
        np.testing.assert_array_equal(alone.labels[0], together.labels[index])
        np.testing.assert_array_equal(alone.mask[0], together.mask[index])
        np.testing.assert_allclose(alone.boxes[0], together.boxes[index], atol=1e-2)
        np.testing.assert_allclose(alone.scores[0], together.scores[index], atol=1e-4)


def test_detections_lie_inside_the_true_image(detector):
    params, _, detect = detector
    batch = tiny.first_batch(2, (80, 112))
    found = detect(params, batch)
    limit = np.tile(batch.image_sizes, (1, 2))[:, None]
    assert (np.asarray(found.boxes) >= 0.0).all()
    assert (np.asarray(found.boxes) <= limit).all()
    assert found.mask.any()


def test_images_without_objects_train(detector):
    params, gradient, _ = detector
    batch = tiny.first_batch()
    empty = batch._replace(
        boxes=np.zeros_like(batch.boxes), box_mask=np.zeros_like(batch.box_mask)
    )
    grads, (losses, _) = gradient(params, keys_of(empty), empty)
    assert not losses.rpn_localization_loss.any()
    assert not losses.roi_localization_loss.any()
    assert float(losses.total.min()) > 0.0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert not grads["rpn"]["delta"]["kernel"].any()


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "max", "rounding": "round"},
        {"pooling": "max", "rounding": "floor", "activation": "none"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_pooled_features_do_not_depend_on_the_canvas(detector, options):
    params, _, _ = detector
    graphdef = abstract_detector(
        dataclasses.replace(tiny.MODEL, **options), tiny.NUM_CLASSES
    )[0]
    # Reaches over the right and lower border of the feature map of 56 x 64 pixels.
    rois = jnp.array([[[3.0, 5.0, 55.9, 64.0], [50.0, 20.0, 56.0, 30.0]]])

    @jax.jit
    def pool(params, batch):
        model = nnx.merge(graphdef, params)
        outputs = model(batch.images, batch.image_sizes, batch.scales)
        return jax.vmap(model._pool)(outputs, rois)

    small = pool(params, tiny.take(tiny.first_batch(2, (64, 64)), 1))
    large = pool(params, tiny.take(tiny.first_batch(2, (80, 112)), 1))
    np.testing.assert_allclose(large, small, rtol=1e-4, atol=1e-5)
    assert small.any()


def test_notebook_ranks_by_the_raw_logit(detector):
    # Anchor 1 has the higher object logit, anchor 0 the higher probability.
    outputs = DenseOutputs(
        features=jnp.zeros((4, 4, 1)),
        feature_sizes=jnp.array([4, 4]),
        logits=jnp.array([[0.0, 2.0], [9.0, 3.0]]),
        deltas=jnp.zeros((2, 4)),
        image_sizes=jnp.array([64.0, 64.0]),
        scales=jnp.ones(2),
    )
    anchors = jnp.array([[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 50.0, 50.0]])
    best = {}
    for rank_by in ("probability", "logit"):
        proposals = dataclasses.replace(tiny.MODEL.proposals, rank_by=rank_by)
        config = dataclasses.replace(tiny.MODEL, proposals=proposals)
        graphdef, _ = abstract_detector(config, tiny.NUM_CLASSES)
        model = nnx.merge(graphdef, detector[0])
        best[rank_by] = model._propose(outputs, anchors, 2, 2).boxes[0]
    np.testing.assert_allclose(best["probability"], anchors[0])
    np.testing.assert_allclose(best["logit"], anchors[1])
