"""The figures that the notebook prints, from the functions that users call.

"In [n]" is the notebook's cell. It counts classes from 1, its labels 6 and 8 are our 5
and 7. Networks are only traced for their shapes, except where a value is printed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax import models, ops
from tests import reference

IMAGE_SIZE = (800, 800)  # In [2]
FEATURE_SIZE = (50, 50)  # In [3]
GT_BOXES = np.float32([[20, 30, 400, 500], [300, 400, 500, 600]])  # In [2]
GT_LABELS = np.array([5, 7], np.int32)  # In [2], counted from 0
GT_MASK = np.array([True, True])
NOTEBOOK_LOSS = {"normalizer": "positives", "localization_weight": 10.0}  # In [31]

# In [16]: numbers among the anchors inside the image.
BEST_ANCHORS = [
    *(2264, 2271, 4097, 4105, 4113, 4121, 4371, 4379, 4387, 4395),
    *(4645, 4653, 4661, 4669, 4919, 4927, 4935, 4943),
]


@pytest.fixture(scope="module")
def anchors():
    """In [8]."""
    return np.asarray(ops.grid_anchors(FEATURE_SIZE, ops.base_anchors()))


@pytest.fixture(scope="module")
def inside(anchors):
    """Numbers of the anchors inside the image, In [10]."""
    low = (anchors[:, :2] >= 0).all(axis=1)
    return np.flatnonzero(low & (anchors[:, 2:] <= IMAGE_SIZE).all(axis=1))


@pytest.fixture(scope="module")
def targets(anchors):
    """The targets of the region proposal network, In [17] to In [21]."""
    compute = jax.jit(functools.partial(ops.anchor_targets, image_size=IMAGE_SIZE))
    return jax.device_get(compute(jax.random.key(0), anchors, GT_BOXES, GT_MASK))


@pytest.fixture(scope="module")
def proposals(anchors):
    """Proposals from predictions as random as the notebook's, In [32] to In [39]."""
    rng = np.random.default_rng(0)
    compute = functools.partial(
        ops.propose, image_size=IMAGE_SIZE, pre_nms=12000, post_nms=2000, min_size=16
    )
    objectness = rng.normal(0, 0.05, 22500).astype(np.float32)
    deltas = rng.normal(0, 0.05, (22500, 4)).astype(np.float32)
    return jax.device_get(jax.jit(compute)(objectness, deltas, anchors=anchors))


@pytest.fixture(scope="module")
def sample():
    """Draws the proposals for the RoI head, In [40] to In [47]."""
    compute = jax.jit(functools.partial(ops.proposal_targets, append_gt=False))

    def draw(boxes, mask):
        key = jax.random.key(1)
        drawn = compute(key, boxes, mask, GT_BOXES, GT_LABELS, GT_MASK)
        return jax.device_get(drawn)

    return draw


def shapes(function, *arguments):
    """Finds the shapes that come out, without computing anything."""
    return jax.tree.map(lambda x: x.shape, jax.eval_shape(function, *arguments))


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# Anchors


def test_template_of_nine_anchors():
    """In [4]."""
    printed = [
        [-45.254834, -90.50966799, 45.254834, 90.50966799],
        [-64.0, -64.0, 64.0, 64.0],
        [-90.50966799, -45.254834, 90.50966799, 45.254834],
        [-90.50966799, -181.01933598, 90.50966799, 181.01933598],
        [-128.0, -128.0, 128.0, 128.0],
        [-181.01933598, -90.50966799, 181.01933598, 90.50966799],
        [-181.01933598, -362.03867197, 181.01933598, 362.03867197],
        [-256.0, -256.0, 256.0, 256.0],
        [-362.03867197, -181.01933598, 362.03867197, 181.01933598],
    ]
    # All the digits that float32 has.
    np.testing.assert_array_equal(ops.base_anchors(), np.float32(printed))


def test_22500_anchors_of_which_8940_are_inside(anchors, inside):
    """In [9] and In [10]."""
    assert anchors.shape == (22500, 4)
    assert inside.shape == (8940,)
    np.testing.assert_array_equal(anchors[1], [-56, -56, 72, 72])  # center (8, 8)


def test_the_best_anchors_of_the_two_objects(anchors, inside):
    """In [16]."""
    iou = np.asarray(jax.jit(ops.box_iou)(anchors[inside], GT_BOXES))
    assert np.where(iou == iou.max(axis=0))[0].tolist() == BEST_ANCHORS


def test_18_positive_and_238_negative_anchors(anchors, inside, targets):
    """In [17] to In [21]; the positives are those of In [16]."""
    assert targets.labels.shape == (22500,)
    assert targets.deltas.shape == (22500, 4)
    assert (targets.labels == 1).sum() == 18
    assert (targets.labels == 0).sum() == 238
    positive = np.flatnonzero(targets.labels == 1)
    np.testing.assert_array_equal(positive, inside[BEST_ANCHORS])
    np.testing.assert_array_equal(
        targets.labels[~np.isin(np.arange(22500), inside)], -1
    )


def test_deltas_lead_from_the_positive_anchors_to_their_objects(anchors, targets):
    """In [19] and In [20]."""
    positive = targets.labels == 1
    boxes = ops.decode_boxes(
        jnp.asarray(anchors[positive]), jnp.asarray(targets.deltas[positive])
    )
    # In [16] lists the anchors by number: the small object, 32 of scale 8, comes last.
    iou = reference.box_iou(anchors[positive], GT_BOXES)
    np.testing.assert_allclose(boxes, GT_BOXES[iou.argmax(axis=1)], atol=1e-3)


# Networks


def test_vgg16_makes_a_map_of_50_by_50_cells_with_512_channels():
    """In [3]."""

    def network(images):
        vgg16 = models.VGG16(rngs=nnx.Rngs(0))
        return vgg16(images, jnp.array([IMAGE_SIZE]))[0]

    assert shapes(network, zeros(1, *IMAGE_SIZE, 3)) == (1, 50, 50, 512)


def test_the_rpn_has_18_and_36_channels_for_22500_anchors():
    """In [22] to In [25]."""

    def network():
        return models.RPN(512, 512, 9, rngs=nnx.Rngs(0))

    rpn = nnx.eval_shape(network)
    assert rpn.score.kernel.shape == (1, 1, 512, 18)
    assert rpn.delta.kernel.shape == (1, 1, 512, 36)
    logits, deltas = shapes(lambda x: network()(x), zeros(1, 50, 50, 512))
    assert logits == (1, 22500, 2)
    assert deltas == (1, 22500, 4)


def test_the_rpn_orders_its_outputs_as_the_anchors():
    """In [25]: cell by cell, and within a cell by the template."""
    rpn = models.RPN(1, 1, 9, activation=lambda x: x, rngs=nnx.Rngs(0))
    # The first layer hands the map on; output k of a cell is cell + k / 100.
    rpn.conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    for layer, outputs in ((rpn.score, 18), (rpn.delta, 36)):
        layer.kernel[...] = jnp.ones((1, 1, 1, outputs))
        layer.bias[...] = jnp.arange(outputs) / 100
    cells = jnp.arange(6.0).reshape(1, 2, 3, 1)
    logits, deltas = rpn(cells)
    cell = np.repeat(np.arange(6), 9)
    template = np.tile(np.arange(9), 6)
    np.testing.assert_allclose(logits[0, :, 1], cell + (2 * template + 1) / 100)
    np.testing.assert_allclose(deltas[0, :, 3], cell + (4 * template + 3) / 100)


def test_the_head_makes_84_deltas_and_21_scores_from_25088_features():
    """In [51] to In [53]."""

    def network():
        return models.RoIHead(25088, 4096, 20, rngs=nnx.Rngs(0))

    head = nnx.eval_shape(network)
    assert head.fc6.kernel.shape == (25088, 4096)
    assert head.fc7.kernel.shape == (4096, 4096)
    assert head.delta.kernel.shape == (4096, 84)
    logits, deltas = shapes(lambda x: network()(x), zeros(128, 7, 7, 512))
    assert logits == (128, 21)
    assert deltas == (128, 21, 4)


# Losses of the region proposal network


def test_the_rpn_classification_loss_starts_at_ln_2(targets):
    """In [28] prints 0.6935, of nearly zero scores."""
    loss = jax.jit(ops.rpn_loss)
    result, _ = loss(np.zeros((22500, 2), np.float32), targets.deltas, targets)
    np.testing.assert_allclose(result, 0.6931, atol=1e-4)
    noise = np.random.default_rng(2).normal(0, 0.03, (22500, 2)).astype(np.float32)
    result, _ = loss(noise, targets.deltas, targets)
    np.testing.assert_allclose(result, 0.6935, atol=5e-3)


def test_the_rpn_localization_loss_is_smooth_l1_over_the_18_positives(targets):
    """In [30], by hand, with the paper's switch at 1 rather than the notebook's."""
    deltas = targets.deltas.copy()
    positive = np.flatnonzero(targets.labels == 1)
    deltas[positive[0]] += np.float32([0.5, -0.25, 0, 0])  # 0.125 and 0.03125
    deltas[positive[1]] += np.float32([0, 0, 1, -3])  # 0.5 and 2.5
    deltas[targets.labels < 1] += 7  # not counted
    logits = np.zeros((22500, 2), np.float32)
    _, total = ops.rpn_loss(
        *map(jnp.asarray, (logits, deltas)),
        jax.tree.map(jnp.asarray, targets),
        normalizer="positives",
        localization_weight=18.0,
    )
    np.testing.assert_allclose(total, 0.125 + 0.03125 + 0.5 + 2.5, rtol=1e-5)


def test_the_rpn_loss_is_classification_plus_10_over_18_times_localization(targets):
    """In [31]: 0.6935 + 10 / 18 * 1.1740 = 1.3457."""
    deltas = targets.deltas.copy()
    first = np.flatnonzero(targets.labels == 1)[0]
    deltas[first, 0] += np.float32(1.1740 + 0.5)  # whose smooth L1 is 1.1740
    probability = np.exp(-0.6935)  # of the right class, whose cross entropy is 0.6935
    logit = np.log(probability / (1 - probability))
    right = np.stack([targets.labels == 0, targets.labels == 1], axis=1)
    loss = jax.jit(functools.partial(ops.rpn_loss, **NOTEBOOK_LOSS))
    losses = loss((logit * right).astype(np.float32), deltas, targets)
    np.testing.assert_allclose(losses[0], 0.6935, atol=1e-5)
    np.testing.assert_allclose(sum(losses), 1.3457, atol=1e-4)


# Proposals

# In [34] prints these of the first and the last three anchors, In [35] clips them.
PRINTED_ROIS = [
    [-37.56205856, -83.65124834, 55.51502551, 96.9647187],
    [-59.50866938, -56.68875009, 64.91222143, 72.23375052],
    [-81.40298363, -41.99777969, 96.39533509, 49.35743635],
    [610.35422226, 414.3952291, 979.0893042, 1163.98340092],
    [538.20066833, 564.81064224, 1041.29725647, 1063.15491104],
    [432.48094419, 606.7697889, 1166.24708388, 973.39356325],
]
PRINTED_CLIPPED = [
    [0.0, 0.0, 55.51502551, 96.9647187],
    [0.0, 0.0, 64.91222143, 72.23375052],
    [0.0, 0.0, 96.39533509, 49.35743635],
    [610.35422226, 414.3952291, 800.0, 800.0],
    [538.20066833, 564.81064224, 800.0, 800.0],
    [432.48094419, 606.7697889, 800.0, 800.0],
]


def test_the_printed_boxes_decode_from_deltas_of_their_anchors(anchors):
    """In [34]; the deltas are not printed, but those that fit are small."""
    ends = jnp.asarray(anchors[[0, 1, 2, -3, -2, -1]])
    deltas = ops.encode_boxes(ends, jnp.array(PRINTED_ROIS, jnp.float32))
    assert np.abs(deltas).max() < 0.1
    np.testing.assert_allclose(ops.decode_boxes(ends, deltas), PRINTED_ROIS, rtol=1e-5)


def test_the_printed_boxes_are_clipped_to_the_image():
    """In [35]."""
    clipped = ops.clip_boxes(jnp.array(PRINTED_ROIS, jnp.float32), IMAGE_SIZE)
    np.testing.assert_allclose(clipped, PRINTED_CLIPPED, rtol=1e-6)


def test_12000_boxes_enter_nms_and_2000_leave_it(proposals):
    """In [38] and In [39]."""
    assert proposals.boxes.shape == (2000, 4)
    assert proposals.scores.shape == (2000,)
    assert proposals.mask.all()
    assert (proposals.boxes >= 0).all()
    assert (proposals.boxes <= 800).all()
    assert (proposals.boxes[:, 2:] - proposals.boxes[:, :2] >= 16).all()
    assert (np.diff(proposals.scores) <= 0).all()


# The RoI head


def test_128_proposals_are_sampled_of_which_at_most_32_are_objects(proposals, sample):
    """In [44] to In [47]: 10 and 118 there."""
    targets = sample(proposals.boxes, proposals.mask)
    assert targets.rois.shape == (128, 4)
    assert targets.deltas.shape == (128, 4)
    assert targets.mask.all()
    iou = reference.box_iou(proposals.boxes, GT_BOXES).max(axis=1)
    num_objects = min((iou >= 0.5).sum(), 32)
    assert 0 < num_objects <= 32
    assert (targets.labels > 0).sum() == num_objects


def test_of_many_objects_32_are_sampled_with_the_labels_6_and_8(sample):
    """In [44], when there are more than 32; labels of In [2]."""
    boxes = np.repeat(GT_BOXES, 1000, axis=0)
    boxes[::2] = [0, 700, 100, 800]
    targets = sample(boxes, np.ones(2000, bool))
    assert (targets.labels > 0).sum() == 32
    assert set(targets.labels.tolist()) == {0, 6, 8}
    assert targets.mask.sum() == 128


def test_pooled_features_have_25088_entries():
    """In [50] and In [51]: 128 x 512 x 7 x 7 there, channels last here."""
    pool = functools.partial(ops.roi_pool, rounding="floor")
    pooled = shapes(pool, zeros(50, 50, 512), zeros(128, 4))
    assert pooled == (128, 7, 7, 512)
    assert np.prod(pooled[1:]) == 25088


def test_pooling_truncates_and_divides_like_the_adaptive_pool(proposals):
    """In [49] and In [50], with one channel."""
    features = np.random.default_rng(3).normal(size=(50, 50, 1)).astype(np.float32)
    rois = proposals.boxes[:128]
    pooled = jax.jit(functools.partial(ops.roi_pool, rounding="floor"))(features, rois)
    expected = np.zeros((128, 7, 7, 1))
    for r, (y_min, x_min, y_max, x_max) in enumerate((rois / 16).astype(int)):
        part = features[y_min : y_max + 1, x_min : x_max + 1]
        for p in range(7):
            for q in range(7):
                rows = slice(p * len(part) // 7, -(-(p + 1) * len(part) // 7))
                width = part.shape[1]
                columns = slice(q * width // 7, -(-(q + 1) * width // 7))
                expected[r, p, q] = part[rows, columns].max(axis=(0, 1))
    np.testing.assert_array_equal(pooled, expected)


@pytest.fixture(scope="module")
def head_targets():
    """10 objects and 118 times background, as In [44] prints."""
    labels = np.where(np.arange(128) < 10, np.where(np.arange(128) < 6, 6, 8), 0)
    return ops.ProposalTargets(
        np.zeros((128, 4), np.float32),
        labels.astype(np.int32),
        np.zeros((128, 4), np.float32),
        np.ones(128, bool),
    )


def test_the_roi_classification_loss_starts_at_ln_21(head_targets):
    """In [57] prints 3.0664, of nearly zero scores."""
    result, _ = jax.jit(ops.roi_loss)(
        np.zeros((128, 21), np.float32),
        np.zeros((128, 21, 4), np.float32),
        head_targets,
    )
    np.testing.assert_allclose(result, 3.0445, atol=1e-4)


def test_the_roi_loss_is_classification_plus_10_over_10_times_localization(
    head_targets,
):
    """In [58] to In [61]: 3.0664 + 10 / 10 * 0.6413 = 3.7076, but for a rounding."""
    probability = np.exp(-3.0664)  # of the right class, among 21
    logit = np.log(20 * probability / (1 - probability))
    logits = logit * (np.arange(21) == head_targets.labels[:, None])
    deltas = np.full((128, 21, 4), 9, np.float32)  # other classes are not looked at
    deltas[np.arange(128), head_targets.labels] = 0
    deltas[0, 6, 2] = 0.5 + 0.6413 - 0.125
    deltas[9, 8, 1] = 0.5
    deltas[10:, 0] = 9  # nor is the background
    loss = jax.jit(functools.partial(ops.roi_loss, **NOTEBOOK_LOSS))
    losses = loss(logits.astype(np.float32), deltas, head_targets)
    np.testing.assert_allclose(losses[0], 3.0664, atol=1e-5)
    np.testing.assert_allclose(losses[1], 0.6413, atol=1e-4)
    np.testing.assert_allclose(sum(losses), 3.7076, atol=2e-4)
