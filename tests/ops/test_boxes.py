"""Areas, overlaps, deltas and clipping, against `tests.reference`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops
from tests import reference

PADDING = np.zeros((2, 4), np.float32)
IMAGE_SIZE = np.array([40.0, 50.0], np.float32)

area = jax.jit(ops.box_area)
iou = jax.jit(ops.box_iou)
encode = jax.jit(ops.encode_boxes)
decode = jax.jit(ops.decode_boxes)
clip = jax.jit(ops.clip_boxes)


@pytest.fixture(scope="module")
def boxes():
    return reference.random_boxes(np.random.default_rng(0), 12, limit=40)


@pytest.fixture(scope="module")
def anchors():
    return reference.random_boxes(np.random.default_rng(1), 12, limit=40)


@pytest.fixture(scope="module")
def deltas():
    return np.random.default_rng(2).normal(size=(12, 4)).astype(np.float32)


def test_area_is_height_times_width_and_zero_for_padding(boxes):
    padded = np.concatenate([boxes[:10], PADDING])
    expected = [reference.box_area(box) for box in padded]
    np.testing.assert_array_equal(area(padded), expected)


def test_iou_equals_the_reference(boxes, anchors):
    expected = reference.box_iou(boxes, anchors)
    assert (expected > 0).sum() > 10
    np.testing.assert_allclose(iou(boxes, anchors), expected, rtol=1e-6)


def test_iou_is_symmetric_and_one_with_itself(boxes, anchors):
    np.testing.assert_array_equal(iou(boxes, anchors), iou(anchors, boxes).T)
    np.testing.assert_array_equal(np.diag(iou(boxes, boxes)), np.ones(12))


def test_boxes_that_only_touch_do_not_overlap():
    a = jnp.array([[0.0, 0, 4, 4]])
    b = jnp.array([[4.0, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]])
    np.testing.assert_array_equal(iou(a, b), [[0.0, 0.0, 0.0]])


def test_boxes_without_area_overlap_nothing():
    flat = jnp.array([[0.0, 0, 0, 0], [1, 1, 1, 5], [2, 2, 2, 2], [5, 5, 3, 3]])
    full = jnp.array([[0.0, 0, 8, 8]])
    np.testing.assert_array_equal(iou(flat, full), np.zeros((4, 1)))
    np.testing.assert_array_equal(iou(flat, flat), np.zeros((4, 4)))


@pytest.mark.parametrize(("n", "k"), [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_iou_works_for_no_box_and_for_one(boxes, n, k):
    expected = reference.box_iou(boxes[:n], boxes[:k])
    np.testing.assert_allclose(iou(boxes[:n], boxes[:k]), expected, rtol=1e-6)


def test_padding_changes_no_iou_and_no_gradient(boxes, anchors):
    @jax.jit
    def total(boxes, anchors):
        return (ops.box_iou(boxes, anchors) ** 2).sum()

    padded = np.concatenate([boxes[:10], PADDING])
    gradient = jax.grad(total, argnums=(0, 1))
    of_boxes, of_anchors = gradient(padded, anchors)
    alone, of_anchors_alone = gradient(boxes[:10], anchors)
    np.testing.assert_array_equal(of_boxes[10:], PADDING)
    np.testing.assert_allclose(of_boxes[:10], alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(of_anchors, of_anchors_alone, rtol=1e-5, atol=1e-7)


def test_encode_equals_the_reference(boxes, anchors):
    expected = reference.encode_boxes(anchors, boxes)
    np.testing.assert_allclose(encode(anchors, boxes), expected, rtol=1e-5, atol=1e-6)


def test_decode_equals_the_reference(anchors, deltas):
    expected = reference.decode_boxes(anchors, deltas)
    np.testing.assert_allclose(decode(anchors, deltas), expected, rtol=1e-5, atol=1e-4)


def test_decode_undoes_encode(boxes, anchors):
    restored = decode(anchors, encode(anchors, boxes))
    np.testing.assert_allclose(restored, boxes, rtol=1e-5, atol=1e-4)


def test_zero_deltas_leave_an_anchor_where_it_is(anchors):
    np.testing.assert_array_equal(decode(anchors, np.zeros((12, 4))), anchors)
    np.testing.assert_array_equal(encode(anchors, anchors), np.zeros((12, 4)))


def test_decode_clamps_sizes_at_1000_over_16_times_the_anchor():
    anchor, delta = jnp.array([[0.0, 0, 16, 8]]), jnp.array([[0.0, 0, 1e30, 100]])
    np.testing.assert_allclose(
        decode(anchor, delta), [[-492.0, -246.0, 508.0, 254.0]], rtol=1e-5
    )


def test_the_gradient_of_decode_is_finite_for_huge_deltas():
    anchor, delta = jnp.array([[0.0, 0, 16, 8]]), jnp.array([[0.0, 0, 1e30, -1e30]])
    gradient = jax.grad(lambda delta: ops.decode_boxes(anchor, delta).sum())(delta)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 2:], [0.0, 0.0])


def test_encode_and_decode_are_finite_on_padding_with_finite_gradients(boxes):
    @jax.jit
    def total(anchors, boxes):
        deltas = ops.encode_boxes(anchors, boxes)
        return deltas.sum() + ops.decode_boxes(anchors, deltas).sum()

    for arguments in ((boxes[:2], PADDING), (PADDING, boxes[:2]), (PADDING, PADDING)):
        value, gradients = jax.value_and_grad(total, argnums=(0, 1))(*arguments)
        assert np.isfinite(value)
        assert np.isfinite(gradients).all()


def test_clip_equals_the_reference_for_numbers_and_for_a_traced_size(boxes):
    wide = 2.0 * boxes - 30.0
    expected = reference.clip_boxes(wide, IMAGE_SIZE)
    np.testing.assert_array_equal(ops.clip_boxes(jnp.asarray(wide), (40, 50)), expected)
    np.testing.assert_array_equal(clip(wide, IMAGE_SIZE), expected)


def test_a_clipped_box_that_lay_outside_has_no_area():
    outside = jnp.array([[-9.0, 2, -3, 9], [2, 60, 9, 70], [-9, -9, -1, -1]])
    np.testing.assert_array_equal(area(clip(outside, IMAGE_SIZE)), np.zeros(3))


@pytest.mark.parametrize("count", [0, 1])
def test_deltas_and_clipping_work_for_no_box_and_for_one(boxes, anchors, count):
    deltas = encode(anchors[:count], boxes[:count])
    restored = clip(decode(anchors[:count], deltas), IMAGE_SIZE)
    np.testing.assert_allclose(restored, boxes[:count], rtol=1e-5, atol=1e-4)


def test_jit_equals_eager(boxes, anchors, deltas):
    pairs = (
        (iou, ops.box_iou, (boxes, anchors)),
        (encode, ops.encode_boxes, (anchors, boxes)),
        (decode, ops.decode_boxes, (anchors, deltas)),
    )
    for compiled, eager, arguments in pairs:
        arguments = [jnp.asarray(argument) for argument in arguments]
        np.testing.assert_allclose(
            compiled(*arguments), eager(*arguments), rtol=1e-6, atol=1e-6
        )


def test_vmap_equals_a_loop(boxes, anchors):
    batch, other = boxes.reshape(3, 4, 4), anchors.reshape(3, 4, 4)
    for compiled in (iou, encode, decode):
        together = jax.jit(jax.vmap(compiled))(batch, other)
        one_by_one = [compiled(*image) for image in zip(batch, other, strict=True)]
        np.testing.assert_allclose(together, one_by_one, rtol=1e-6, atol=1e-6)


def test_wrong_shapes_are_refused():
    boxes, triples = jnp.zeros((3, 4)), jnp.zeros((3, 3))
    with pytest.raises(ValueError, match=r": other has shape"):
        ops.box_iou(boxes, triples)
    with pytest.raises(ValueError, match=r": boxes has shape"):
        ops.encode_boxes(boxes, jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r": deltas has shape"):
        ops.decode_boxes(boxes, triples)
    with pytest.raises(ValueError, match=r": image_size has shape"):
        ops.clip_boxes(boxes, jnp.zeros(4))
