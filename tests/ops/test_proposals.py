"""Proposals, against `tests.reference.propose`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops
from tests import reference

NUM_ANCHORS = 40
IMAGE_SIZE = np.array([70.0, 80.0], np.float32)
STATIC = {"pre_nms": 25, "post_nms": 20, "iou_threshold": 0.5}
OPTIONS = {**STATIC, "min_size": 8.0}

_propose = jax.jit(ops.propose, static_argnames=tuple(STATIC))


def propose(*arguments, **options):
    """Runs the op under jit and fetches NumPy arrays."""
    return jax.device_get(_propose(*arguments, **options))


@pytest.fixture(scope="module")
def inputs():
    """(objectness, deltas, anchors); the scores are all different."""
    rng = np.random.default_rng(0)
    objectness = rng.permutation(NUM_ANCHORS).astype(np.float32) / 10 - 2
    deltas = rng.normal(0, 0.2, (NUM_ANCHORS, 4)).astype(np.float32)
    return objectness, deltas, reference.random_boxes(rng, NUM_ANCHORS, limit=90)


def assert_proposals(proposals, boxes, scores):
    count = len(scores)
    num_slots = proposals.mask.shape[0]
    assert proposals.mask.tolist() == [p < count for p in range(num_slots)]
    np.testing.assert_array_equal(proposals.scores[:count], scores)
    np.testing.assert_allclose(proposals.boxes[:count], boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(proposals.boxes[count:], 0.0)
    np.testing.assert_array_equal(proposals.scores[count:], 0.0)


def assert_same(a, b):
    for array, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("min_size", [0.0, 8.0, 20.0])
@pytest.mark.parametrize("image_size", [IMAGE_SIZE, IMAGE_SIZE / 2])
def test_propose_equals_the_reference(inputs, image_size, min_size):
    options = {**STATIC, "min_size": min_size}
    expected = reference.propose(*inputs, image_size, **options)
    assert_proposals(propose(*inputs, image_size, **options), *expected)


def test_only_the_best_enter_nms_and_only_so_many_leave_it(inputs):
    options = {"pre_nms": 12, "post_nms": 3, "iou_threshold": 0.7, "min_size": 0.0}
    expected = reference.propose(*inputs, IMAGE_SIZE, **options)
    assert len(expected[1]) == 3
    assert_proposals(propose(*inputs, IMAGE_SIZE, **options), *expected)


def test_proposals_lie_inside_the_image_and_are_sorted(inputs):
    objectness, deltas, anchors = inputs
    result = propose(objectness, 20 * deltas, anchors, IMAGE_SIZE, **OPTIONS)
    boxes, scores = result.boxes[result.mask], result.scores[result.mask]
    assert len(boxes) > 3
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= IMAGE_SIZE).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= OPTIONS["min_size"]).all()
    assert (np.diff(scores) <= 0).all()


def test_a_box_of_just_the_smallest_size_stays():
    anchors = jnp.array([[0.0, 0, 16, 16], [20, 0, 35, 40]])
    result = propose(
        jnp.array([0.1, 0.9]),
        jnp.zeros((2, 4)),
        anchors,
        IMAGE_SIZE,
        min_size=16.0,
        **STATIC,
    )
    assert_proposals(result, [[0, 0, 16, 16]], np.float32([0.1]))


def test_equal_scores_go_to_the_lower_index(inputs):
    objectness, deltas, anchors = inputs
    tied = np.floor(objectness)
    expected = reference.propose(tied, deltas, anchors, IMAGE_SIZE, **OPTIONS)
    assert_proposals(propose(tied, deltas, anchors, IMAGE_SIZE, **OPTIONS), *expected)


def test_nothing_is_proposed_where_every_score_is_minus_infinity(inputs):
    _, deltas, anchors = inputs
    scores = np.full(NUM_ANCHORS, -np.inf, np.float32)
    result = propose(scores, deltas, anchors, IMAGE_SIZE, **OPTIONS)
    assert_proposals(result, np.zeros((0, 4)), [])


def test_anchors_that_are_padding_change_nothing(inputs):
    objectness, deltas, anchors = inputs
    padded = (
        np.concatenate([objectness, np.full(9, -np.inf, np.float32)]),
        np.concatenate([deltas, np.full((9, 4), 3, np.float32)]),
        np.concatenate([anchors, np.tile(np.float32([0, 0, 70, 80]), (9, 1))]),
    )
    order = np.random.default_rng(1).permutation(NUM_ANCHORS + 9)
    padded = [array[order] for array in padded]
    expected = propose(*inputs, IMAGE_SIZE, **OPTIONS)
    assert_same(propose(*padded, IMAGE_SIZE, **OPTIONS), expected)


def test_a_prediction_that_is_not_a_number_is_no_proposal(inputs):
    objectness, deltas, anchors = inputs
    broken_scores, broken_deltas = objectness.copy(), deltas.copy()
    broken_scores[3], broken_deltas[5, 1], broken_deltas[7, 2] = np.nan, np.nan, np.inf
    result = propose(broken_scores, broken_deltas, anchors, IMAGE_SIZE, **OPTIONS)
    assert all(np.isfinite(array).all() for array in result)


def test_no_gradient_goes_through_proposals(inputs):
    objectness, deltas, anchors = inputs

    @functools.partial(jax.jit, static_argnums=2)
    def total(objectness, deltas, function):
        proposals = function(objectness, deltas, anchors=jnp.asarray(anchors))
        return (proposals.boxes**2).sum() + (proposals.scores**2).sum()

    function = functools.partial(
        ops.propose, image_size=jnp.asarray(IMAGE_SIZE), **OPTIONS
    )
    gradients = jax.grad(total, argnums=(0, 1))(objectness, deltas, function)
    assert_same(gradients, (np.zeros(NUM_ANCHORS), np.zeros((NUM_ANCHORS, 4))))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("pre_nms", [0, 3])
def test_sizes_zero_and_one(inputs, count, pre_nms):
    options = {**OPTIONS, "pre_nms": pre_nms, "min_size": 0.0}
    inputs = [array[:count] for array in inputs]
    expected = reference.propose(*inputs, IMAGE_SIZE, **options)
    assert_proposals(propose(*inputs, IMAGE_SIZE, **options), *expected)


def test_jit_equals_eager(inputs):
    eager = ops.propose(*map(jnp.asarray, inputs), (70, 80), **OPTIONS)
    compiled = propose(*inputs, IMAGE_SIZE, **OPTIONS)
    assert_same((eager.scores, eager.mask), (compiled.scores, compiled.mask))
    np.testing.assert_allclose(eager.boxes, compiled.boxes, rtol=1e-6, atol=1e-5)


def test_vmap_equals_a_loop(inputs):
    batch = [array.reshape(2, 20, *array.shape[1:]) for array in inputs]
    sizes = np.stack([IMAGE_SIZE, IMAGE_SIZE / 2])
    min_sizes = np.float32([8, 4])

    def one(objectness, deltas, anchors, image_size, min_size):
        return _propose(
            objectness, deltas, anchors, image_size, min_size=min_size, **STATIC
        )

    together = jax.jit(jax.vmap(one))(*batch, sizes, min_sizes)
    for image in range(2):
        alone = one(*(array[image] for array in (*batch, sizes, min_sizes)))
        np.testing.assert_array_equal(together.mask[image], alone.mask)
        np.testing.assert_array_equal(together.scores[image], alone.scores)
        np.testing.assert_allclose(together.boxes[image], alone.boxes, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"pre_nms": -1}, {"post_nms": -1}, {"iou_threshold": 0.0}]
)
def test_the_option_that_is_wrong_is_named(inputs, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} is "):
        propose(*inputs, IMAGE_SIZE, **{**OPTIONS, **options})


def test_arrays_that_do_not_match_are_refused(inputs):
    objectness, deltas, anchors = inputs
    with pytest.raises(ValueError, match=r": deltas has shape"):
        propose(objectness[:9], deltas, anchors, IMAGE_SIZE, **OPTIONS)
    with pytest.raises(ValueError, match=r": deltas has shape"):
        propose(objectness, deltas[:, :3], anchors, IMAGE_SIZE, **OPTIONS)
