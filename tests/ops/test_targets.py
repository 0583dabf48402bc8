"""Targets: labels against `tests.reference`, samples by their counts.

Boxes have whole coordinates, so that no IoU comparison hangs on the last bit.
"""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from frcnn_jax import ops
from tests import reference

NUM_BOXES, NUM_OBJECTS = 80, 5  # anchors or proposals; objects, the last one is padding
IMAGE_SIZE = np.array([52.0, 50.0], np.float32)
ALL = {"num_samples": 2 * NUM_BOXES, "positive_fraction": 0.5}  # no one is left out
ANCHOR_STATIC = ("num_samples", "positive_fraction", "positive_iou", "negative_iou")
PROPOSAL_STATIC = (
    "num_samples",
    "positive_fraction",
    "positive_iou",
    "negative_iou_high",
    "negative_iou_low",
    "append_gt",
)

_anchor_targets = jax.jit(ops.anchor_targets, static_argnames=ANCHOR_STATIC)
_proposal_targets = jax.jit(ops.proposal_targets, static_argnames=PROPOSAL_STATIC)


def anchor_targets(*arguments, **options):
    """Runs the op under jit and fetches NumPy arrays."""
    return jax.device_get(_anchor_targets(*arguments, **options))


def proposal_targets(*arguments, **options):
    """Runs the op under jit and fetches NumPy arrays."""
    return jax.device_get(_proposal_targets(*arguments, **options))


@pytest.fixture(scope="module")
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def objects():
    """(boxes, labels, mask); the padding is a box that would match, were it real."""
    boxes = reference.random_boxes(np.random.default_rng(0), NUM_OBJECTS, 50, 12)
    labels = np.array([4, 0, 19, 7, 2], np.int32)
    return boxes, labels, np.arange(NUM_OBJECTS) < NUM_OBJECTS - 1


@pytest.fixture(scope="module")
def boxes(objects):
    """Anchors or proposals: half of them anywhere, half next to an object."""
    rng = np.random.default_rng(1)
    anywhere = reference.random_boxes(rng, NUM_BOXES // 2, 60, 4)
    near = objects[0][rng.integers(0, NUM_OBJECTS, NUM_BOXES // 2)]
    return np.concatenate([anywhere, near + rng.integers(-2, 3, near.shape)]).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def is_proposal():
    return np.random.default_rng(2).random(NUM_BOXES) < 0.9


def anchor_arguments(boxes, objects):
    return boxes, objects[0], objects[2], IMAGE_SIZE


def none_of(objects):
    """The ways to say that an image has no object: no slots, and masked slots."""
    boxes, labels, mask = objects
    return (boxes[:0], labels[:0], mask[:0]), (boxes, labels, np.zeros_like(mask))


def assert_same(targets, others):
    for array, other in zip(targets, others, strict=True):
        np.testing.assert_array_equal(array, other)


# Anchors


@pytest.mark.parametrize("ious", [{}, {"positive_iou": 0.5, "negative_iou": 0.5}])
def test_anchor_labels_equal_the_reference(key, boxes, objects, ious):
    arguments = anchor_arguments(boxes, objects)
    labels, matched = reference.anchor_labels(*arguments, **ious)
    assert {0, 1} <= set(labels)
    targets = anchor_targets(key, *arguments, **ious, **ALL)
    assert targets.labels.dtype == jnp.int32
    np.testing.assert_array_equal(targets.labels, labels)

    positive = labels == 1
    expected = reference.encode_boxes(boxes[positive], objects[0][matched[positive]])
    deltas = targets.deltas
    np.testing.assert_allclose(deltas[positive], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(deltas[~positive], 0.0)


def test_every_anchor_that_ties_for_the_best_is_positive(key):
    anchors = jnp.array([[0.0, 0, 8, 8], [0, 4, 8, 12], [0, 8, 8, 16], [8, 0, 16, 8]])
    middle = jnp.array([[0.0, 2, 8, 10]])  # IoU 0.6 with the first two
    targets = anchor_targets(key, anchors, middle, jnp.array([True]), IMAGE_SIZE)
    assert targets.labels.tolist() == [1, 1, 0, 0]


def test_the_best_anchors_of_random_objects_are_positive_under_jit(key):
    # Equality of floats: XLA must not compute the two sides in different ways.
    rng = np.random.default_rng(3)
    anchors = np.asarray(ops.grid_anchors((10, 12), ops.base_anchors((2, 4, 8))))
    inside = (anchors[:, :2] >= 0).all(axis=1)
    inside &= (anchors[:, 2] <= 160) & (anchors[:, 3] <= 192)
    iou = jax.jit(ops.box_iou)
    for _ in range(20):
        corner = rng.uniform(0, 130, (NUM_OBJECTS, 2))
        gt_boxes = np.concatenate(
            [corner, corner + rng.uniform(5, 30, corner.shape)], 1
        )
        gt_boxes = gt_boxes.astype(np.float32)
        targets = anchor_targets(
            key, anchors, gt_boxes, np.ones(NUM_OBJECTS, bool), np.float32([160, 192])
        )
        best = np.where(inside[:, None], iou(anchors, gt_boxes), 0.0).argmax(axis=0)
        assert (targets.labels[best] == 1).all()


BASE = ops.base_anchors((2, 4, 8))


def alone(key, anchors, gt_boxes, image_size):
    gt_mask = jnp.ones(NUM_OBJECTS, bool)
    return ops.anchor_targets(key, anchors, gt_boxes, gt_mask, image_size, **ALL)


def under_vmap(key, anchors, gt_boxes, image_size):
    batch = jnp.stack([key, key]), anchors, jnp.stack([gt_boxes, gt_boxes]), image_size
    targets = jax.vmap(alone, (0, None, 0, None))(*batch)
    return jax.tree.map(lambda x: x[1], targets)


def in_a_training_step(key, anchors, gt_boxes, image_size):
    """Makes anchors and boxes before, and the losses and their gradient after."""

    def loss(params):
        moved = gt_boxes + jax.lax.stop_gradient(jnp.tanh(params).sum())
        targets = alone(key, ops.grid_anchors((10, 12), BASE), moved, image_size)
        logits = jnp.stack([params, -params], axis=1)
        losses = ops.rpn_loss(logits, jnp.outer(params, jnp.arange(4.0)), targets)
        return sum(losses), targets.labels

    gradient, labels = jax.grad(loss, has_aux=True)(jnp.zeros(len(anchors)))
    return labels, gradient


def gpu_or_cpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        return jax.devices("cpu")[0]


@pytest.mark.parametrize("surrounding", [alone, under_vmap, in_a_training_step])
def test_every_object_has_its_best_anchor_however_it_is_compiled(surrounding, key):
    rng = np.random.default_rng(5)
    anchors = np.asarray(ops.grid_anchors((10, 12), BASE))
    size = np.float32([160, 192])
    inside = (anchors[:, :2] >= 0).all(axis=1) & (anchors[:, 2:] <= size).all(axis=1)
    corners = rng.uniform(0, 130, (20, NUM_OBJECTS, 2)).astype(np.float32)
    sides = rng.uniform(5, 30, corners.shape).astype(np.float32)
    images = np.concatenate([corners, corners + sides], axis=2)
    with jax.default_device(gpu_or_cpu()):
        compiled = jax.jit(surrounding).lower(key, anchors, images[0], size).compile()
        # Computed once, for the maxima and for the comparison with them.
        shape = rf"\b{len(anchors)},{NUM_OBJECTS}\]\S*"
        assert len(re.findall(f"{shape} divide\\(", compiled.as_text())) <= 1
        for gt_boxes in images:
            labels, _ = compiled(key, anchors, gt_boxes, size)
            iou = np.where(inside[:, None], reference.box_iou(anchors, gt_boxes), 0.0)
            is_best = iou > iou.max(axis=0) - 1e-6
            assert (is_best & (labels == 1)[:, None]).any(axis=0).all()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_anchor_targets_are_exported_for_every_platform(key, boxes, objects, platform):
    function = jax.jit(jax.vmap(ops.anchor_targets, (0, None, None, None, None)))
    arguments = (key[None], *anchor_arguments(boxes, objects))
    exported = jax.export.export(function, platforms=[platform])(*arguments)
    assert "optimization_barrier" in exported.mlir_module()


def test_an_iou_at_a_threshold_is_positive_but_not_negative(key):
    anchors = np.float32([[0, 0, 10, width] for width in (10, 7, 3, 2)])
    targets = anchor_targets(key, anchors, anchors[:1], np.array([True]), IMAGE_SIZE)
    assert targets.labels.tolist() == [1, 1, -1, 0]


def test_an_object_that_no_anchor_overlaps_makes_none_positive(key, boxes):
    far = np.float32([[200, 200, 220, 220]] * NUM_OBJECTS)
    mask = np.ones(NUM_OBJECTS, bool)
    targets = anchor_targets(key, boxes, far, mask, IMAGE_SIZE, **ALL)
    inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] <= IMAGE_SIZE).all(axis=1)
    np.testing.assert_array_equal(targets.labels, np.where(inside, 0, -1))


def test_an_image_without_objects_has_background_anchors_only(key, boxes, objects):
    for gt_boxes, _, gt_mask in none_of(objects):
        targets = anchor_targets(key, boxes, gt_boxes, gt_mask, IMAGE_SIZE, **ALL)
        assert set(targets.labels.tolist()) == {-1, 0}
        np.testing.assert_array_equal(targets.deltas, np.zeros((NUM_BOXES, 4)))


def test_anchors_across_the_border_of_the_true_image_take_no_part(key):
    anchors = jnp.array(
        [[0.0, 0, 52, 50], [0, 0, 53, 50], [0, 0, 52, 51], [-1, 0, 9, 9]]
    )
    gt_boxes = anchors[1:2]  # in the canvas
    targets = anchor_targets(key, anchors, gt_boxes, jnp.array([True]), IMAGE_SIZE)
    assert targets.labels.tolist() == [1, -1, -1, -1]


@pytest.mark.parametrize(
    ("num_samples", "options"),
    [(16, {}), (16, {"positive_fraction": 0.1}), (70, {})],
)
def test_as_many_anchors_are_sampled_as_asked_for(
    key, boxes, objects, num_samples, options
):
    arguments = anchor_arguments(boxes, objects)
    candidates, _ = reference.anchor_labels(*arguments)
    options = {"num_samples": num_samples, **options}
    positive_fraction = options.get("positive_fraction", 0.5)
    labels = anchor_targets(key, *arguments, **options).labels
    num_positive = min((candidates == 1).sum(), round(num_samples * positive_fraction))
    num_negative = min((candidates == 0).sum(), num_samples - num_positive)
    assert ((labels == 1).sum(), (labels == 0).sum()) == (num_positive, num_negative)
    assert (labels[labels >= 0] == candidates[labels >= 0]).all()


def test_a_key_gives_its_anchors_again_and_another_key_others(key, boxes, objects):
    arguments = anchor_arguments(boxes, objects)
    sample = functools.partial(anchor_targets, num_samples=16)
    assert_same(sample(key, *arguments), sample(key, *arguments))
    other = sample(jax.random.key(1), *arguments)
    assert (other.labels != sample(key, *arguments).labels).any()


@pytest.fixture(scope="module")
def five_matches_and_eight_misses():
    """Anchors or proposals of which one object matches five, in between the others."""
    gt_boxes = np.array([[10.0, 10, 30, 30]], np.float32)
    match, miss = gt_boxes[0] + [0, 0, 1, 0], np.array([32.0, 10, 50, 30])
    is_match = np.isin(np.arange(13), [0, 3, 4, 7, 12])
    boxes = np.where(is_match[:, None], match, miss).astype(np.float32)
    return boxes, is_match, gt_boxes


def assert_uniform(choices, candidates):
    """One candidate a key: a chi-square test of how often each was chosen."""
    counts = np.bincount(choices, minlength=len(candidates))
    assert (counts[~candidates] == 0).all()
    assert scipy.stats.chisquare(counts[candidates]).pvalue > 1e-3


def test_every_anchor_is_equally_likely_to_be_sampled(five_matches_and_eight_misses):
    boxes, is_match, gt_boxes = five_matches_and_eight_misses

    @jax.jit
    @jax.vmap
    def sample(key):
        arguments = (boxes, gt_boxes, np.ones(1, bool), IMAGE_SIZE)
        return ops.anchor_targets(key, *arguments, num_samples=2).labels

    labels = np.asarray(sample(jax.random.split(jax.random.key(2), 2000)))
    assert ((labels == 1).sum(axis=1) == 1).all()
    assert ((labels == 0).sum(axis=1) == 1).all()
    assert_uniform((labels == 1).argmax(axis=1), is_match)
    assert_uniform((labels == 0).argmax(axis=1), ~is_match)


def test_every_proposal_is_equally_likely_to_be_sampled(five_matches_and_eight_misses):
    boxes, is_match, gt_boxes = five_matches_and_eight_misses
    boxes = (
        boxes + np.arange(13, dtype=np.float32)[:, None] / 1024
    )  # distinguishes them

    @jax.jit
    @jax.vmap
    def sample(key):
        arguments = (boxes, np.ones(13, bool), gt_boxes, np.zeros(1, int), [True])
        arguments = map(jnp.asarray, arguments)
        options = {"num_samples": 2, "positive_fraction": 0.5, "append_gt": False}
        return ops.proposal_targets(key, *arguments, **options)

    targets = jax.device_get(sample(jax.random.split(jax.random.key(3), 2000)))
    assert targets.mask.all()
    assert (targets.labels == [1, 0]).all()
    chosen = (targets.rois[:, :, None] == boxes[None, None]).all(axis=3).argmax(axis=2)
    assert_uniform(chosen[:, 0], is_match)
    assert_uniform(chosen[:, 1], ~is_match)


def test_padding_changes_no_anchor_target(key, boxes, objects):
    gt_boxes, _, gt_mask = objects
    expected = anchor_targets(key, *anchor_arguments(boxes, objects), num_samples=16)
    # A larger canvas has more anchors, in between those of the image and behind them.
    place = np.sort(np.random.default_rng(4).choice(120, NUM_BOXES, replace=False))
    padded = np.full((130, 4), -1, np.float32)
    padded[place] = boxes
    more_objects = np.concatenate([np.zeros((3, 4), np.float32), gt_boxes])
    more_mask = np.concatenate([np.zeros(3, bool), gt_mask])
    targets = anchor_targets(
        key, padded, more_objects, more_mask, IMAGE_SIZE, num_samples=16
    )
    assert_same((targets.labels[place], targets.deltas[place]), expected)
    assert (np.delete(targets.labels, place) == -1).all()
    np.testing.assert_array_equal(np.delete(targets.deltas, place, axis=0), 0.0)


def test_no_anchor_has_no_target(key, objects):
    gt_boxes, _, gt_mask = objects
    targets = anchor_targets(key, np.zeros((0, 4)), gt_boxes, gt_mask, IMAGE_SIZE)
    assert targets.labels.shape == (0,)
    assert targets.deltas.shape == (0, 4)


# Proposals


@pytest.mark.parametrize(
    ("append_gt", "ious"),
    [
        (True, {}),
        (False, {}),
        (
            False,
            {"positive_iou": 0.7, "negative_iou_high": 0.4, "negative_iou_low": 0.1},
        ),
    ],
)
def test_proposal_labels_equal_the_reference(
    key, boxes, is_proposal, objects, append_gt, ious
):
    gt_boxes, _, gt_mask = objects
    options = ious if append_gt else {"append_gt": False, **ious}
    candidates, candidate_mask = boxes, is_proposal
    if append_gt:
        candidates = np.concatenate([boxes, gt_boxes])
        candidate_mask = np.concatenate([is_proposal, gt_mask])
    labels, matched = reference.proposal_labels(
        candidates, candidate_mask, *objects, **ious
    )

    rois, *targets = proposal_targets(
        key, boxes, is_proposal, *objects, **options, **ALL
    )
    assert rois.shape == (160, 4)
    expected = []
    for i in np.flatnonzero(labels >= 0):
        deltas = np.zeros(4)
        if labels[i] > 0:
            gt_box = gt_boxes[matched[i]]
            deltas = reference.encode_boxes(candidates[i : i + 1], gt_box[None])[0]
        expected.append([*candidates[i], labels[i], *deltas])
    labels, deltas, mask = targets
    assert labels.dtype == jnp.int32
    assert mask.sum() == len(expected)
    rows = np.concatenate([rois, labels[:, None], deltas], axis=1)
    np.testing.assert_allclose(
        sorted(rows[mask].tolist()), sorted(expected), rtol=1e-5, atol=1e-6
    )


def test_objects_come_first_and_padding_is_zero(key, boxes, is_proposal, objects):
    rois, labels, deltas, mask = proposal_targets(
        key, boxes, is_proposal, *objects, **ALL
    )
    num_objects, count = (labels > 0).sum(), mask.sum()
    assert 0 < num_objects < count < 160
    assert (labels[:num_objects] > 0).all()
    assert mask[:count].all()
    np.testing.assert_array_equal(
        deltas[num_objects:], np.zeros((160 - num_objects, 4))
    )
    np.testing.assert_array_equal(rois[count:], np.zeros((160 - count, 4)))


def test_a_class_of_the_data_set_is_one_more_in_the_head(key, objects):
    _, gt_labels, _ = objects
    mask = np.zeros(NUM_BOXES, bool)
    padding = np.zeros((NUM_BOXES, 4), np.float32)
    targets = proposal_targets(key, padding, mask, *objects, **ALL)
    assert sorted(targets.labels[:4].tolist()) == sorted(gt_labels[:4] + 1)
    assert targets.mask.sum() == 4  # the objects, and not the padding


def test_without_append_gt_objects_are_no_proposals(key, objects):
    mask = np.zeros(NUM_BOXES, bool)
    padding = np.zeros((NUM_BOXES, 4), np.float32)
    targets = proposal_targets(key, padding, mask, *objects, append_gt=False, **ALL)
    assert not targets.mask.any()
    assert_same(targets[:3], (np.zeros((160, 4)), np.zeros(160), np.zeros((160, 4))))


def test_background_is_between_the_thresholds(key):
    proposals = jnp.array(
        [[0.0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 1], [0, 20, 9, 29]]
    )
    arguments = (
        key,
        proposals,
        jnp.ones(4, bool),
        jnp.array([[0.0, 0, 10, 10]]),
        jnp.array([0]),
        jnp.array([True]),
    )
    options = {"num_samples": 8, "append_gt": False, "negative_iou_low": 0.1}
    targets = proposal_targets(*arguments, **options)
    assert sorted(targets.rois[:3, 3].tolist()) == [1.0, 4.0, 5.0]
    assert targets.labels.tolist() == [1] + 7 * [0]
    assert targets.mask.sum() == 3


@pytest.mark.parametrize(
    ("num_samples", "options"), [(16, {}), (60, {"positive_fraction": 0.5}), (0, {})]
)
def test_as_many_proposals_are_sampled_as_asked_for(
    key, boxes, is_proposal, objects, num_samples, options
):
    gt_boxes, _, gt_mask = objects
    candidates = np.concatenate([boxes, gt_boxes])
    candidate_mask = np.concatenate([is_proposal, gt_mask])
    labels, _ = reference.proposal_labels(candidates, candidate_mask, *objects)
    options = {"num_samples": num_samples, **options}
    positive_fraction = options.get("positive_fraction", 0.25)
    targets = proposal_targets(key, boxes, is_proposal, *objects, **options)
    num_positive = min((labels > 0).sum(), round(num_samples * positive_fraction))
    num_negative = min((labels == 0).sum(), num_samples - num_positive)
    assert targets.labels.shape == (num_samples,)
    assert (targets.labels > 0).sum() == num_positive
    assert targets.mask.sum() == num_positive + num_negative
    rois = targets.rois[targets.mask]
    assert {tuple(roi) for roi in rois} <= {
        tuple(box) for box in candidates[candidate_mask]
    }


def test_an_image_without_objects_has_background_proposals_only(
    key, boxes, is_proposal, objects
):
    for no_objects in none_of(objects):
        targets = proposal_targets(key, boxes, is_proposal, *no_objects, **ALL)
        assert targets.mask.sum() == is_proposal.sum()
        assert not targets.labels.any()
        assert not targets.deltas.any()


def test_no_candidate_gives_padding_only(key, boxes, objects):
    for no_objects in none_of(objects):
        targets = proposal_targets(
            key, boxes, np.zeros(NUM_BOXES, bool), *no_objects, **ALL
        )
        assert not targets.mask.any()
        assert all(np.isfinite(array).all() for array in targets)
    empty = proposal_targets(
        key, boxes[:0], np.zeros(0, bool), *none_of(objects)[0], num_samples=3
    )
    assert_same(empty, (np.zeros((3, 4)), np.zeros(3), np.zeros((3, 4)), np.zeros(3)))


def test_padding_changes_no_proposal_target(key, boxes, is_proposal, objects):
    gt_boxes, gt_labels, gt_mask = objects
    expected = proposal_targets(
        key,
        boxes[is_proposal],
        np.ones(is_proposal.sum(), bool),
        gt_boxes[:4],
        gt_labels[:4],
        gt_mask[:4],
        num_samples=16,
    )
    targets = proposal_targets(key, boxes, is_proposal, *objects, num_samples=16)
    assert_same(targets, expected)


def test_a_key_gives_its_proposals_again_and_another_key_others(
    key, boxes, is_proposal, objects
):
    arguments = (boxes, is_proposal, *objects)
    sample = functools.partial(proposal_targets, num_samples=16)
    assert_same(sample(key, *arguments), sample(key, *arguments))
    other = sample(jax.random.key(1), *arguments)
    assert (other.rois != sample(key, *arguments).rois).any()


# Both


def test_jit_equals_eager(key, boxes, is_proposal, objects):
    pairs = (
        (_anchor_targets, ops.anchor_targets, anchor_arguments(boxes, objects)),
        (_proposal_targets, ops.proposal_targets, (boxes, is_proposal, *objects)),
    )
    for compiled, eager, arguments in pairs:
        arguments = [jnp.asarray(argument) for argument in arguments]
        expected = eager(key, *arguments, num_samples=16)
        for array, other in zip(
            compiled(key, *arguments, num_samples=16), expected, strict=True
        ):
            np.testing.assert_allclose(array, other, rtol=1e-6, atol=1e-6)


def test_vmap_equals_a_loop(boxes, is_proposal, objects):
    keys = jax.random.split(jax.random.key(2), 2)
    gt_boxes, gt_labels, gt_mask = (np.stack([array, array]) for array in objects)
    gt_mask[1] = False
    boxes, is_proposal = (np.stack([a, a[::-1]]) for a in (boxes, is_proposal))
    sizes = np.stack([IMAGE_SIZE, IMAGE_SIZE - 10])
    calls = (
        (_anchor_targets, (keys, boxes, gt_boxes, gt_mask, sizes)),
        (_proposal_targets, (keys, boxes, is_proposal, gt_boxes, gt_labels, gt_mask)),
    )
    for function, batch in calls:
        function = functools.partial(function, num_samples=16)
        together = jax.jit(jax.vmap(function))(*batch)
        for image in range(2):
            alone = function(*(array[image] for array in batch))
            for array, other in zip(together, alone, strict=True):
                np.testing.assert_allclose(array[image], other, rtol=1e-6, atol=1e-6)


def test_arrays_that_do_not_match_are_refused(key, boxes, is_proposal, objects):
    gt_boxes, gt_labels, gt_mask = objects
    with pytest.raises(ValueError, match=r": gt_mask has shape"):
        anchor_targets(key, boxes, gt_boxes, gt_mask[:2], IMAGE_SIZE)
    with pytest.raises(ValueError, match=r": anchors has shape"):
        anchor_targets(key, boxes[:, :3], gt_boxes, gt_mask, IMAGE_SIZE)
    with pytest.raises(ValueError, match=r": proposal_mask has shape"):
        proposal_targets(key, boxes, is_proposal[:3], *objects)
    with pytest.raises(ValueError, match=r": gt_labels has shape"):
        proposal_targets(key, boxes, is_proposal, gt_boxes, gt_labels[:2], gt_mask)


def test_a_negative_number_of_samples_is_refused(key, boxes, is_proposal, objects):
    with pytest.raises(ValueError, match=r"^num_samples is -2"):
        anchor_targets(key, *anchor_arguments(boxes, objects), num_samples=-2)
    with pytest.raises(ValueError, match=r"^num_samples is -2"):
        proposal_targets(key, boxes, is_proposal, *objects, num_samples=-2)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_share_that_is_none_is_refused(fraction, key, boxes, is_proposal, objects):
    options = {"positive_fraction": fraction}
    with pytest.raises(ValueError, match=r"^positive_fraction is .*, expected 0 to 1"):
        anchor_targets(key, *anchor_arguments(boxes, objects), **options)
    with pytest.raises(ValueError, match=r"^positive_fraction is .*, expected 0 to 1"):
        proposal_targets(key, boxes, is_proposal, *objects, **options)


@pytest.mark.parametrize("iou", [0.0, -1.0, float("nan")])
def test_iou_that_padding_reaches_is_refused(iou, key, boxes, is_proposal, objects):
    with pytest.raises(ValueError, match=r"^positive_iou is .*, expected a positive"):
        anchor_targets(key, *anchor_arguments(boxes, objects), positive_iou=iou)
    with pytest.raises(ValueError, match=r"^positive_iou is .*, expected a positive"):
        proposal_targets(key, boxes, is_proposal, *objects, positive_iou=iou)


def test_share_is_not_cut_by_the_error_of_a_product(key):
    # 100 * 0.29 is 28.999999999999996.
    boxes = jnp.tile(jnp.array([[0.0, 0, 8, 8]]), (40, 1))
    targets = anchor_targets(
        key,
        boxes,
        boxes[:1],
        jnp.array([True]),
        (16.0, 16.0),
        num_samples=100,
        positive_fraction=0.29,
    )
    assert (targets.labels == 1).sum() == 29
