"""What the public functions refuse, and what they take as if it were a JAX array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Real

from frcnn_jax import ops
from frcnn_jax.ops.checks import check_arrays, check_count, check_size

BOXES = np.array([[0.0, 0, 10, 10], [0, 1, 10, 11]], np.float32)
SCORES = np.array([0.5, 0.25], np.float32)
OPTIONS = {"iou_threshold": 0.5, "max_outputs": 2}


@check_arrays
def pair(
    boxes: Float[Array, "n 4"],
    mask: Bool[Array, " n"] | None = None,
    size: Real[Array, "2"] | tuple[int, float] = (1, 1.0),
    *,
    option: str = "",
):
    """Returns what it was called with."""
    return boxes, mask, size, option


def test_a_shape_is_refused_with_the_names_and_both_shapes():
    with pytest.raises(ValueError, match=r"^pair: boxes has shape \(2, 3\), expected "):
        pair(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^pair: boxes has shape \(4,\), expected "):
        pair(jnp.zeros(4))
    with pytest.raises(
        ValueError, match=r"^pair: mask has shape \(3,\), expected \(n\), n = 2$"
    ):
        pair(BOXES, np.ones(3, bool))
    with pytest.raises(
        ValueError, match=r"^pair: size has shape \(3,\), expected \(2\)"
    ):
        pair(BOXES, size=np.ones(3))


def test_a_wrong_shape_is_refused_while_tracing():
    with pytest.raises(ValueError, match="scores has shape"):
        jax.eval_shape(lambda b, s: ops.nms(b, s, **OPTIONS), BOXES, SCORES[:1])
    with pytest.raises(ValueError, match="boxes has shape"):
        jax.vmap(ops.box_area)(jnp.zeros((2, 5, 3)))


def test_a_field_of_a_named_tuple_is_checked():
    targets = ops.AnchorTargets(jnp.zeros(2, jnp.int32), jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"targets\.labels has shape \(2,\)"):
        ops.rpn_loss(jnp.zeros((3, 2)), jnp.zeros((3, 4)), targets)


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"^pair: boxes is a list, expected an array$"):
        pair([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(TypeError, match=r"^pair: boxes is a NoneType, expected an arr"):
        pair(None)
    with pytest.raises(TypeError, match=r"^pair: mask is a bool, expected an array$"):
        pair(BOXES, True)
    with pytest.raises(TypeError, match=r"^smooth_l1: x is a float, expected an array"):
        ops.smooth_l1(1.0)


def test_another_tuple_in_place_of_a_named_one_is_refused():
    arrays = jnp.zeros((3, 2)), jnp.zeros((3, 4))
    labels = jnp.zeros(3, jnp.int32)
    with pytest.raises(TypeError, match=r"targets is a tuple, expected AnchorTargets"):
        ops.rpn_loss(*arrays, (labels, arrays[1]))
    proposals = ops.ProposalTargets(arrays[1], labels, arrays[1], labels > 0)
    with pytest.raises(TypeError, match=r"targets is a ProposalTargets, expected Anch"):
        ops.rpn_loss(*arrays, proposals)


def test_numpy_arrays_and_numbers_become_arrays_of_jax_and_the_rest_stays():
    boxes, mask, size, option = pair(BOXES, size=(3, 4.5), option="x")
    assert isinstance(boxes, jax.Array)
    np.testing.assert_array_equal(size, np.float32([3, 4.5]))
    assert (mask, option) == (None, "x")
    for arrays in ((BOXES, SCORES), (jnp.asarray(BOXES), jnp.asarray(SCORES))):
        indices, valid = ops.nms(*arrays, **OPTIONS)
        assert (indices.tolist(), valid.tolist()) == ([0, 0], [True, False])
    assert ops.clip_boxes(BOXES, np.array([5.0, 5.0])).max() == 5.0


def test_a_missing_argument_is_still_pythons_error():
    with pytest.raises(TypeError, match="missing a required argument: 'boxes'"):
        pair()


KEY = jax.random.key(0)
MASK = np.ones(2, bool)
LABELS = np.zeros(2, np.int32)
FEATURES = np.arange(400, dtype=np.float32).reshape(20, 20, 1)
SIZE = (400.0, 600)
# Two boxes of any type that has 300, of which the second one is the smaller number in
# each coordinate; and functions of them.
LARGE = np.array([[64, 64, 300, 288], [0, 32, 280, 256]])
OF_BOXES = {
    "box_area": ops.box_area,
    "box_iou": lambda boxes: ops.box_iou(boxes, boxes[::-1]),
    "encode_boxes": lambda boxes: ops.encode_boxes(boxes, boxes[::-1]),
    "decode_boxes": lambda boxes: ops.decode_boxes(boxes, np.zeros((2, 4))),
    "clip_boxes": lambda boxes: ops.clip_boxes(boxes, SIZE),
    "grid_anchors": lambda boxes: ops.grid_anchors((1, 2), boxes),
    "nms": lambda boxes: ops.nms(boxes, SCORES, **OPTIONS),
    "batched_nms": lambda boxes: ops.batched_nms(boxes, SCORES, LABELS, **OPTIONS),
    "roi_pool": lambda boxes: ops.roi_pool(FEATURES, boxes),
    "roi_align": lambda boxes: ops.roi_align(FEATURES, boxes),
    "propose": lambda boxes: ops.propose(
        SCORES, np.zeros((2, 4)), boxes, SIZE, pre_nms=2, post_nms=2, min_size=1
    ),
    "anchor_targets": lambda boxes: ops.anchor_targets(
        KEY, boxes, boxes[::-1], MASK, SIZE
    ),
    "proposal_targets": lambda boxes: ops.proposal_targets(
        KEY, boxes, MASK, boxes[::-1], LABELS, MASK, num_samples=4
    ),
    "select_detections": lambda boxes: ops.select_detections(
        np.ones((2, 2), np.float32), np.zeros((2, 2, 4)), boxes, MASK, SIZE
    ),
}


@pytest.mark.parametrize("name", OF_BOXES)
def test_boxes_of_any_real_type_are_computed_in_float32(name):
    expected = jax.tree.leaves(OF_BOXES[name](LARGE.astype(np.float32)))
    assert any(np.any(array != 0) for array in expected)
    for dtype in (np.float16, jnp.bfloat16, np.float64, np.uint16, np.int32):
        result = jax.tree.leaves(OF_BOXES[name](LARGE.astype(dtype)))
        for array, other in zip(result, expected, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("name", OF_BOXES)
@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_boxes_that_are_no_real_numbers_are_refused(name, dtype):
    message = f"^{name}: [a-z]+ has type {np.dtype(dtype)}, expected real numbers$"
    with pytest.raises(ValueError, match=message):
        OF_BOXES[name](LARGE.astype(dtype))


@pytest.mark.parametrize("pool", [ops.roi_pool, ops.roi_align])
def test_features_of_integers_are_refused(pool):
    message = r": features has type int32, expected floating-point numbers"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(pool, FEATURES.astype(np.int32), BOXES)


@pytest.mark.parametrize("mask", [np.ones(2, np.int32), np.ones(2, np.float32)])
@pytest.mark.parametrize(
    "call",
    [
        lambda mask: ops.nms(BOXES, SCORES, mask, **OPTIONS),
        lambda mask: ops.batched_nms(BOXES, SCORES, LABELS, mask, **OPTIONS),
        lambda mask: ops.sample_indices(KEY, mask, 1),
        lambda mask: ops.anchor_targets(KEY, BOXES, BOXES, mask, SIZE),
        lambda mask: ops.proposal_targets(KEY, BOXES, mask, BOXES, LABELS, MASK),
        lambda mask: ops.proposal_targets(KEY, BOXES, MASK, BOXES, LABELS, mask),
        lambda mask: ops.select_detections(
            np.ones((2, 2), np.float32), np.zeros((2, 2, 4)), BOXES, mask, SIZE
        ),
    ],
)
def test_a_mask_of_numbers_is_refused(call, mask):
    with pytest.raises(ValueError, match=f"mask has type {mask.dtype}, expected bool$"):
        call(mask)


def test_types_of_scores_labels_and_logits_are_checked():
    integers = np.ones(2, np.int32)
    with pytest.raises(ValueError, match=r": scores has type int32, expected floating"):
        ops.nms(BOXES, integers, **OPTIONS)
    with pytest.raises(ValueError, match=r": classes has type float32, expected integ"):
        ops.batched_nms(BOXES, SCORES, SCORES, **OPTIONS)
    with pytest.raises(ValueError, match=r": gt_labels has type float32, expected int"):
        ops.proposal_targets(KEY, BOXES, MASK, BOXES, SCORES, MASK)
    with pytest.raises(ValueError, match=r": x has type int32, expected floating"):
        ops.smooth_l1(integers)
    targets = ops.AnchorTargets(LABELS, BOXES)
    with pytest.raises(ValueError, match=r": logits has type int32, expected floating"):
        ops.rpn_loss(np.ones((2, 2), np.int32), BOXES, targets)


@pytest.mark.parametrize(
    ("field", "dtype"),
    [("rois", bool), ("labels", np.uint8), ("deltas", np.int32), ("mask", np.int32)],
)
def test_the_type_of_a_field_of_a_named_tuple_is_checked(field, dtype):
    targets = ops.ProposalTargets(BOXES, LABELS, BOXES, MASK)
    targets = targets._replace(**{field: getattr(targets, field).astype(dtype)})
    message = rf"^roi_loss: targets\.{field} has type {np.dtype(dtype)}, expected "
    with pytest.raises(ValueError, match=message):
        ops.roi_loss(np.zeros((2, 3), np.float32), np.zeros((2, 3, 4)), targets)


def test_labels_of_any_integer_type_do_not_wrap_around():
    labels = np.full(2, 255, np.uint8)
    targets = ops.proposal_targets(KEY, BOXES, MASK, BOXES, labels, MASK)
    assert targets.labels.dtype == jnp.int32
    assert targets.labels.max() == 256


def test_a_raw_key_is_refused():
    message = r": key has type uint32, expected a key of jax\.random\.key$"
    with pytest.raises(ValueError, match=message):
        ops.sample_indices(jax.random.key_data(KEY), MASK, 1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((400, 600, 3), r"image_size has shape \(3,\), expected \(2\)"),
        (400, r"image_size has shape \(\), expected \(2\)"),
        ((True, True), "image_size has type bool, expected real numbers"),
        (("400", 600), r"image_size is \('400', 600\), expected numbers"),
        (None, "image_size is None, expected numbers"),
    ],
)
def test_an_image_size_that_is_not_two_numbers_is_refused(size, message):
    for call in (
        lambda: ops.clip_boxes(BOXES, size),
        lambda: ops.anchor_targets(KEY, BOXES, BOXES, MASK, size),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


@pytest.mark.parametrize("count", [-1, 2.5, None, "2", jnp.ones(2)])
def test_a_count_that_is_not_an_integer_or_too_small_is_refused(count):
    with pytest.raises(ValueError, match=r"^slots is .*, expected an integer >= 0$"):
        check_count("slots", count)
    with pytest.raises(ValueError, match=r"^slots is 0, expected an integer >= 1$"):
        check_count("slots", 0, 1)


@pytest.mark.parametrize("size", [7, None, (7,), (7, 7, 7), (7, 0), (7.0, 7), "77", {}])
def test_a_size_that_is_not_a_pair_of_integers_is_refused(size):
    with pytest.raises(ValueError, match=r"^grid is .*, expected two integers >= 1$"):
        check_size("grid", size, 1)


def test_counts_of_any_integer_type_are_taken():
    check_count("slots", np.int64(3))
    check_size("grid", [np.uint8(7), 7], 1)
    check_size("grid", np.array([7, 7]), 1)


def test_a_traced_count_is_refused():
    def call(count):
        check_count("slots", count)
        return jnp.zeros(3)

    with pytest.raises(ValueError, match=r"^slots is .*Tracer.*, expected an integer"):
        jax.jit(call)(3)


def test_sizes_of_the_wrong_type_are_refused():
    with pytest.raises(
        ValueError, match=r": feature_size has type float32, expected i"
    ):
        ops.roi_pool(FEATURES, BOXES, feature_size=(1.5, 2))
    arguments = (SCORES, np.zeros((2, 4)), BOXES, SIZE)
    counts = {"pre_nms": 2, "post_nms": 2}
    with pytest.raises(ValueError, match=r": min_size has shape \(2,\), expected \(\)"):
        ops.propose(*arguments, **counts, min_size=SCORES)
    with pytest.raises(TypeError, match=r": min_size is 'x', expected numbers"):
        ops.propose(*arguments, **counts, min_size="x")
