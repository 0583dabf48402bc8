"""The losses, against `tests.reference`, and their gradients."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from frcnn_jax import ops
from tests import reference

NUM_ANCHORS, NUM_ROIS, NUM_CLASSES = 12, 10, 5
STATIC = ("beta", "normalizer", "localization_weight")
PAPER = {"beta": 1.0, "normalizer": "positives", "localization_weight": 10.0}
CAFFE = {"beta": 1 / 9, "normalizer": "samples", "localization_weight": 1.0}

smooth_l1 = jax.jit(ops.smooth_l1, static_argnames="beta")
rpn_loss = jax.jit(ops.rpn_loss, static_argnames=STATIC)
roi_loss = jax.jit(ops.roi_loss, static_argnames=(*STATIC, "delta_std"))


@functools.partial(jax.jit, static_argnames=("function", *STATIC))
def gradients(logits, deltas, targets, function, **options):
    """The gradient of the sum of both losses in logits and deltas."""

    def total(logits, deltas):
        return sum(function(logits, deltas, targets, **options))

    return jax.grad(total, argnums=(0, 1))(logits, deltas)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def rpn():
    """(logits, deltas, targets): 3 anchors have an object, 5 none, 4 take no part."""
    labels = np.array([1, 0, -1, 0, 1, -1, 0, 0, 1, -1, 0, -1], np.int32)
    targets = ops.AnchorTargets(labels, 2 * normal(0, NUM_ANCHORS, 4))
    return normal(1, NUM_ANCHORS, 2), normal(2, NUM_ANCHORS, 4), targets


@pytest.fixture(scope="module")
def roi():
    """(logits, deltas, targets): 3 objects, 4 without, 3 slots of padding."""
    labels = np.array([2, 4, 1, 0, 0, 0, 0, 0, 0, 0], np.int32)
    targets = ops.ProposalTargets(
        np.zeros((NUM_ROIS, 4), np.float32),
        labels,
        2 * normal(3, NUM_ROIS, 4),
        np.arange(NUM_ROIS) < 7,
    )
    logits = normal(4, NUM_ROIS, NUM_CLASSES)
    return logits, normal(5, NUM_ROIS, NUM_CLASSES, 4), targets


@pytest.mark.parametrize("beta", [1.0, 1 / 9, 3.0])
def test_smooth_l1_equals_the_reference(beta):
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    expected = [reference.smooth_l1(value, beta) for value in x]
    np.testing.assert_allclose(smooth_l1(x, beta), expected, rtol=1e-5, atol=1e-6)


def test_smooth_l1_takes_any_shape():
    assert ops.smooth_l1(jnp.float32(2.0)) == 1.5
    assert smooth_l1(np.zeros((0, 3, 2), np.float32)).shape == (0, 3, 2)


def test_the_slope_of_smooth_l1_is_finite_and_at_most_one():
    x = jnp.array([0.0, 1e-30, 0.5, 1.0, -2.0, 1e30, -1e38])
    slope = jax.jit(jax.vmap(jax.grad(ops.smooth_l1)))(x)
    np.testing.assert_allclose(slope, [0, 1e-30, 0.5, 1, -1, 1, -1])


def test_smooth_l1_of_an_infinite_difference_is_infinite_with_the_slope_of_the_line():
    x = jnp.array([np.inf, -np.inf])
    value, slope = jax.vmap(jax.value_and_grad(ops.smooth_l1))(x)
    assert value.tolist() == [np.inf, np.inf]
    assert slope.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("options", [PAPER, CAFFE])
def test_rpn_loss_equals_the_reference(rpn, options):
    logits, deltas, targets = rpn
    expected = reference.rpn_loss(logits, deltas, *targets, **options)
    result = rpn_loss(*rpn, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("delta_std", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
@pytest.mark.parametrize("options", [PAPER, CAFFE])
def test_roi_loss_equals_the_reference(roi, options, delta_std):
    logits, deltas, targets = roi
    options = {**options, "delta_std": delta_std}
    expected = reference.roi_loss(logits, deltas, *targets[1:], **options)
    np.testing.assert_allclose(roi_loss(*roi, **options), expected, rtol=1e-5)


def test_defaults_are_those_of_py_faster_rcnn_but_for_beta(rpn, roi):
    options = {**CAFFE, "beta": 1.0}
    np.testing.assert_array_equal(rpn_loss(*rpn), rpn_loss(*rpn, **options))
    np.testing.assert_array_equal(roi_loss(*roi), roi_loss(*roi, **options))


@pytest.mark.parametrize("options", [PAPER, CAFFE])
def test_rpn_gradients_are_zero_where_an_anchor_takes_no_part(rpn, options):
    targets = rpn[2]
    of_logits, of_deltas = map(
        np.asarray, gradients(*rpn, function=ops.rpn_loss, **options)
    )
    np.testing.assert_array_equal((of_logits != 0).any(axis=1), targets.labels >= 0)
    np.testing.assert_array_equal((of_deltas != 0).any(axis=1), targets.labels == 1)


@pytest.mark.parametrize("options", [PAPER, CAFFE])
def test_roi_gradients_reach_the_deltas_of_the_own_class_only(roi, options):
    targets = roi[2]
    of_logits, of_deltas = map(
        np.asarray, gradients(*roi, function=ops.roi_loss, **options)
    )
    np.testing.assert_array_equal((of_logits != 0).any(axis=1), targets.mask)
    own_class = targets.labels[:, None] == np.arange(NUM_CLASSES)
    is_object = (targets.mask & (targets.labels > 0))[:, None]
    np.testing.assert_array_equal((of_deltas != 0).any(axis=2), own_class & is_object)


def test_the_gradients_of_the_classification_are_probabilities_minus_one_hot(rpn):
    logits, _, targets = rpn
    of_logits, _ = gradients(*rpn, function=ops.rpn_loss, **CAFFE)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (probabilities - np.eye(2)[targets.labels]) / 8
    expected[targets.labels < 0] = 0
    np.testing.assert_allclose(of_logits, expected, rtol=1e-4, atol=1e-7)


def test_what_stands_in_padding_changes_no_loss_and_no_gradient(roi):
    logits, deltas, targets = (jax.tree.map(np.copy, part) for part in roi)
    logits[7:], deltas[7:], targets.deltas[7:], targets.labels[7:] = 9.0, -9.0, 8.0, 3
    changed = (logits, deltas, targets)
    np.testing.assert_array_equal(roi_loss(*changed), roi_loss(*roi))
    for array, other in zip(
        gradients(*changed, function=ops.roi_loss, **CAFFE),
        gradients(*roi, function=ops.roi_loss, **CAFFE),
        strict=True,
    ):
        np.testing.assert_array_equal(array, other)


def test_more_slots_of_padding_change_no_loss(rpn, roi):
    def padded(array, fill):
        widths = [(0, 5)] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths, constant_values=fill)

    logits, deltas, targets = rpn
    longer = ops.AnchorTargets(padded(targets.labels, -1), padded(targets.deltas, 0))
    result = rpn_loss(padded(logits, 1), padded(deltas, 1), longer)
    np.testing.assert_allclose(result, rpn_loss(*rpn), rtol=1e-6)

    logits, deltas, targets = roi
    longer = ops.ProposalTargets(*(padded(array, 0) for array in targets))
    result = roi_loss(padded(logits, 1), padded(deltas, 1), longer)
    np.testing.assert_allclose(result, roi_loss(*roi), rtol=1e-6)


@pytest.mark.parametrize("options", [PAPER, CAFFE])
def test_both_losses_and_their_gradients_are_zero_without_samples(rpn, roi, options):
    no_anchor = rpn[2]._replace(labels=np.full(NUM_ANCHORS, -1, np.int32))
    no_roi = roi[2]._replace(mask=np.zeros(NUM_ROIS, bool))
    for function, arguments in (
        (ops.rpn_loss, (*rpn[:2], no_anchor)),
        (ops.roi_loss, (*roi[:2], no_roi)),
    ):
        compiled = {ops.rpn_loss: rpn_loss, ops.roi_loss: roi_loss}[function]
        np.testing.assert_array_equal(compiled(*arguments, **options), [0.0, 0.0])
        for gradient in gradients(*arguments, function=function, **options):
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize("slots", [0, 2])
def test_an_image_without_objects_has_no_localization_loss(slots):
    """With no slots for objects, and with masked ones."""
    key = jax.random.key(0)
    boxes = reference.random_boxes(np.random.default_rng(6), NUM_ANCHORS)
    gt_boxes, gt_mask = np.zeros((slots, 4), np.float32), np.zeros(slots, bool)
    gt_labels = np.zeros(slots, np.int32)

    @jax.jit
    def losses(anchor_logits, anchor_deltas, roi_logits, roi_deltas):
        anchors = ops.anchor_targets(key, boxes, gt_boxes, gt_mask, (64, 64))
        proposals = ops.proposal_targets(
            key,
            boxes,
            jnp.ones(NUM_ANCHORS, bool),
            gt_boxes,
            gt_labels,
            gt_mask,
            num_samples=NUM_ROIS,
        )
        pairs = (
            ops.rpn_loss(anchor_logits, anchor_deltas, anchors, **PAPER),
            ops.roi_loss(roi_logits, roi_deltas, proposals, **PAPER),
        )
        return sum(map(sum, pairs)), pairs

    boxes, gt_boxes, gt_mask, gt_labels = map(
        jnp.asarray, (boxes, gt_boxes, gt_mask, gt_labels)
    )
    arguments = (
        normal(7, NUM_ANCHORS, 2),
        normal(8, NUM_ANCHORS, 4),
        normal(9, NUM_ROIS, NUM_CLASSES),
        normal(10, NUM_ROIS, NUM_CLASSES, 4),
    )
    gradient = jax.jit(jax.grad(losses, argnums=range(4), has_aux=True))
    (a_logits, a_deltas, r_logits, r_deltas), (rpn, roi) = gradient(*arguments)
    assert np.isfinite([*rpn, *roi]).all()
    assert rpn[0] > 0
    assert roi[0] > 0
    assert (rpn[1], roi[1]) == (0, 0)
    assert np.isfinite(a_logits).all()
    assert np.isfinite(r_logits).all()
    np.testing.assert_array_equal(a_deltas, np.zeros((NUM_ANCHORS, 4)))
    np.testing.assert_array_equal(r_deltas, np.zeros((NUM_ROIS, NUM_CLASSES, 4)))


def test_huge_logits_and_deltas_give_finite_losses_and_gradients(rpn, roi):
    for function, (logits, deltas, targets) in ((rpn_loss, rpn), (roi_loss, roi)):
        huge = (1e30 * logits, 1e30 * deltas, targets)
        assert np.isfinite(function(*huge)).all()
        eager = ops.rpn_loss if function is rpn_loss else ops.roi_loss
        for gradient in gradients(*huge, function=eager, **CAFFE):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_predictions_that_take_no_part_may_be_anything(rpn, roi, bad):
    for function, (logits, deltas, targets) in (
        (ops.rpn_loss, rpn),
        (ops.roi_loss, roi),
    ):
        sampled = targets.labels >= 0 if function is ops.rpn_loss else targets.mask
        broken_logits, broken_deltas = logits.copy(), deltas.copy()
        broken_logits[~sampled], broken_deltas[~sampled] = bad, bad
        compiled = {ops.rpn_loss: rpn_loss, ops.roi_loss: roi_loss}[function]
        broken = (broken_logits, broken_deltas, targets)
        np.testing.assert_array_equal(
            compiled(*broken), compiled(logits, deltas, targets)
        )
        for gradient, expected in zip(
            gradients(*broken, function=function, **CAFFE),
            gradients(logits, deltas, targets, function=function, **CAFFE),
            strict=True,
        ):
            np.testing.assert_array_equal(gradient, expected)


def test_an_infinite_delta_gives_an_infinite_loss_and_a_finite_gradient(rpn, roi):
    for function, (logits, deltas, targets) in (
        (ops.rpn_loss, rpn),
        (ops.roi_loss, roi),
    ):
        infinite = np.full_like(deltas, np.inf)
        _, localization = function(*map(jnp.asarray, (logits, infinite)), targets)
        assert localization == np.inf
        for gradient in gradients(
            logits, infinite, targets, function=function, **CAFFE
        ):
            assert np.isfinite(gradient).all()


def test_bfloat16_predictions_give_float32_losses(rpn, roi):
    for function, (logits, deltas, targets) in ((rpn_loss, rpn), (roi_loss, roi)):
        half = (logits.astype(jnp.bfloat16), deltas.astype(jnp.bfloat16), targets)
        result = function(*half)
        assert [loss.dtype for loss in result] == [jnp.float32, jnp.float32]
        np.testing.assert_allclose(result, function(logits, deltas, targets), rtol=0.02)


def test_an_image_without_anchors_or_proposals_has_no_loss():
    nothing = np.zeros((0, 4), np.float32)
    labels = np.zeros(0, np.int32)
    anchors = ops.AnchorTargets(labels, nothing)
    result = rpn_loss(nothing[:, :2], nothing, anchors)
    np.testing.assert_array_equal(result, [0.0, 0.0])
    proposals = ops.ProposalTargets(nothing, labels, nothing, np.zeros(0, bool))
    result = roi_loss(nothing[:, :3], np.zeros((0, 3, 4), np.float32), proposals)
    np.testing.assert_array_equal(result, [0.0, 0.0])


def test_jit_equals_eager(rpn, roi):
    for compiled, eager, arguments in (
        (rpn_loss, ops.rpn_loss, rpn),
        (roi_loss, ops.roi_loss, roi),
    ):
        expected = eager(*jax.tree.map(jnp.asarray, arguments))
        np.testing.assert_allclose(compiled(*arguments), expected, rtol=1e-6)


def test_vmap_equals_a_loop(rpn, roi):
    for compiled, arguments in ((rpn_loss, rpn), (roi_loss, roi)):
        images = [
            arguments,
            jax.tree.map(lambda x: np.ascontiguousarray(x[::-1]), arguments),
        ]
        batch = jax.tree.map(lambda *parts: np.stack(parts), *images)
        together = np.stack(jax.jit(jax.vmap(compiled))(*batch), axis=1)
        one_by_one = [compiled(*image) for image in images]
        np.testing.assert_allclose(together, one_by_one, rtol=1e-6)


def test_the_option_that_is_wrong_is_named(rpn, roi):
    for beta in (0.0, float("nan")):
        with pytest.raises(ValueError, match=rf"^beta is {beta}"):
            ops.smooth_l1(jnp.zeros(3), beta=beta)
    for function, arguments in ((ops.rpn_loss, rpn), (ops.roi_loss, roi)):
        arguments = jax.tree.map(jnp.asarray, arguments)
        with pytest.raises(ValueError, match=r"^beta is -1"):
            function(*arguments, beta=-1.0)
        with pytest.raises(TypeCheckError):
            function(*arguments, normalizer="anchors")
        # Without the type checks of pytest, the op itself complains.
        with pytest.raises(ValueError, match=r"^normalizer is 'anchors'"):
            inspect.unwrap(function)(*arguments, normalizer="anchors")


@pytest.mark.parametrize("delta_std", [(1, 1, 0, 1), (1, 1, 1, float("nan")), (1, 1)])
def test_a_deviation_of_deltas_that_is_not_positive_is_refused(roi, delta_std):
    with pytest.raises(ValueError, match=r"^delta_std is .*, expected four positive"):
        inspect.unwrap(ops.roi_loss)(*roi, delta_std=delta_std)


def test_arrays_that_do_not_match_are_refused(rpn, roi):
    logits, deltas, targets = rpn
    with pytest.raises(ValueError, match=r": deltas has shape"):
        rpn_loss(logits[:3], deltas, targets)
    with pytest.raises(ValueError, match=r": logits has shape"):
        rpn_loss(logits[:, :1], deltas, targets)
    logits, deltas, targets = roi
    with pytest.raises(ValueError, match=r": deltas has shape"):
        roi_loss(logits[:, :3], deltas, targets)
    with pytest.raises(ValueError, match=r": deltas has shape"):
        roi_loss(logits, deltas[..., :3], targets)
