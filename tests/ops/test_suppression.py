"""Non-maximum suppression, against the greedy loop of `tests.reference`.

Boxes have whole coordinates, so that no IoU comparison hangs on the last bit.
"""

import functools
from unittest import mock

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from frcnn_jax import ops
from frcnn_jax.ops import suppression
from tests import reference

NUM_BOXES = 24  # of the random cases: one shape, one compilation
NUM_CLASSES = 3
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0, -1.0, float("nan"), float("-inf"))

STATIC = ("iou_threshold", "max_outputs")
nms = jax.jit(ops.nms, static_argnames=STATIC)


@functools.cache
def select(tile_size, round_size=None):
    """Compiles `batched_nms` for tiles of this size, and rounds, if not as large."""
    sizes = {
        "CPU_TILE_SIZE": tile_size,
        "ACCELERATOR_TILE_SIZE": tile_size,
        "ROUND_SIZE": round_size or tile_size,
    }

    def batched_nms(*arguments, iou_threshold, max_outputs):
        with mock.patch.multiple(suppression, **sizes):
            return ops.batched_nms(
                *arguments, iou_threshold=iou_threshold, max_outputs=max_outputs
            )

    return jax.jit(batched_nms, static_argnames=STATIC)


def assert_selected(result, expected):
    """Compares with a list of indices; what is not valid must be index 0."""
    indices, valid = (np.asarray(array) for array in result)
    assert indices.dtype == np.int32
    assert valid.tolist() == [k < len(expected) for k in range(len(valid))]
    assert indices.tolist() == expected + [0] * (len(valid) - len(expected))


@st.composite
def cases(draw):
    """Small boxes, many of them equal, empty or masked, with few different scores."""
    edge, side = st.integers(0, 9), st.integers(0, 6)
    row = st.tuples(
        edge,
        edge,
        side,
        side,
        st.sampled_from(SCORES),
        st.integers(0, NUM_CLASSES - 1),
        st.integers(0, 3),
    )
    rows = draw(st.lists(row, max_size=NUM_BOXES))
    padding = [(0, 0, 0, 0, 2.0, 0, 0)] * (NUM_BOXES - len(rows))
    y, x, height, width, scores, classes, present = zip(*rows, *padding, strict=True)
    boxes = np.stack([y, x, np.add(y, height), np.add(x, width)], axis=1)
    return (
        boxes.astype(np.float32),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
        np.array(present) > 0,
    )


@pytest.mark.parametrize(
    ("iou_threshold", "tile_size", "max_outputs"),
    # The shorter the list, the smaller a round.
    [(0.3, 5, 5), (0.5, 5, NUM_BOXES + 1), (0.7, 5, 3), (0.95, 5, 2), (0.5, 512, 30)],
)
def test_batched_nms_equals_the_greedy_loop(iou_threshold, tile_size, max_outputs):
    @hypothesis.settings(derandomize=True, deadline=None, max_examples=100)
    @hypothesis.given(cases())
    def check(case):
        options = {"iou_threshold": iou_threshold, "max_outputs": max_outputs}
        expected = reference.batched_nms(*case, **options)
        assert_selected(select(tile_size)(*case, **options), expected)

    check()


@pytest.fixture(scope="module")
def crowd():
    """More boxes than two tiles, many of which overlap."""
    rng = np.random.default_rng(0)
    boxes = reference.random_boxes(rng, 600, limit=100, min_side=20)
    return boxes, rng.random(600, np.float32), rng.random(600) < 0.9


@pytest.mark.parametrize("iou_threshold", [0.3, 0.7])
def test_nms_equals_the_greedy_loop_over_several_tiles(crowd, iou_threshold):
    options = {"iou_threshold": iou_threshold, "max_outputs": 600}
    assert_selected(nms(*crowd, **options), reference.nms(*crowd, **options))


@pytest.mark.parametrize("iou_threshold", [0.3, 0.7])
def test_batched_nms_equals_the_greedy_loop_over_an_accelerators_tiles(
    crowd, iou_threshold
):
    boxes, scores, mask = crowd
    classes = np.arange(600) % NUM_CLASSES
    options = {"iou_threshold": iou_threshold, "max_outputs": 600}
    of_accelerator = select(suppression.ACCELERATOR_TILE_SIZE, suppression.ROUND_SIZE)
    result = of_accelerator(boxes, scores, classes, mask, **options)
    expected = reference.batched_nms(boxes, scores, classes, mask, **options)
    assert_selected(result, expected)


def test_fewer_outputs_are_the_front_of_more(crowd):
    indices, _ = nms(*crowd, iou_threshold=0.7, max_outputs=600)
    few, valid = nms(*crowd, iou_threshold=0.7, max_outputs=20)
    assert valid.all()
    np.testing.assert_array_equal(few, indices[:20])


def test_of_a_chain_of_overlaps_longer_than_a_tile_every_third_box_stays():
    # Each box overlaps the next one by 4/6, the one after by 3/7, the third by 2/8.
    left = np.arange(600, dtype=np.float32)
    boxes = np.stack([0 * left, left, 0 * left + 1, left + 5], axis=1)
    mask = np.ones(600, bool)
    result = nms(boxes, -left, mask, iou_threshold=0.3, max_outputs=600)
    assert_selected(result, list(range(0, 600, 3)))


@pytest.fixture(scope="module")
def twelve():
    rng = np.random.default_rng(1)
    boxes = reference.random_boxes(rng, 12, limit=30, min_side=8)
    return boxes, rng.random(12, np.float32)


OPTIONS = {"iou_threshold": 0.5, "max_outputs": 12}


def test_a_box_that_a_dropped_box_overlaps_stays():
    boxes = np.float32([[0, x, 10, x + 10] for x in (0, 4, 8, 12)])
    scores = np.float32([0.9, 0.8, 0.7, 0.6])
    result = nms(boxes, scores, iou_threshold=0.3, max_outputs=4)
    assert_selected(result, [0, 2])


def test_a_box_whose_iou_equals_the_threshold_stays():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 3, 10], [0, 0, 4, 10], [0, 0, 10, 3]])
    scores = np.float32([0.9, 0.8, 0.7, 0.6])
    result = nms(boxes, scores, iou_threshold=0.3, max_outputs=4)
    assert_selected(result, [0, 1, 3])


def test_equal_scores_go_to_the_lower_index(twelve):
    boxes, _ = twelve
    options = {"iou_threshold": 0.3, "max_outputs": 12}
    expected = reference.nms(boxes, np.zeros(12), np.ones(12, bool), **options)
    assert expected[0] == 0
    assert len(expected) < 12
    assert_selected(nms(boxes, np.zeros(12, np.float32), **options), expected)


def test_of_equal_boxes_one_stays():
    boxes = np.tile(np.float32([[1, 2, 5, 6]]), (4, 1))
    scores = np.float32([0.1, 0.9, 0.3, 0.9])
    assert_selected(nms(boxes, scores, iou_threshold=0.3, max_outputs=4), [1])


def test_boxes_without_area_or_with_a_nan_coordinate_overlap_nothing():
    boxes = np.float32([[1, 1, 1, 9], [1, 1, 1, 9], [0, 0, 9, 9], [np.nan, 0, 9, 9]])
    scores = np.float32([0.9, 0.8, 0.7, 0.6])
    assert_selected(nms(boxes, scores, iou_threshold=0.3, max_outputs=4), [0, 1, 2, 3])


def test_a_nan_score_is_never_selected_and_minus_infinity_comes_last():
    boxes = np.float32([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5], [6, 6, 7, 7]])
    scores = np.float32([-np.inf, np.nan, -1e30, np.inf])
    assert_selected(nms(boxes, scores, iou_threshold=0.3, max_outputs=4), [3, 2, 0])


def test_minus_zero_ties_with_zero():
    boxes = np.float32([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]])
    scores = np.float32([-0.0, 0.0, -0.0])
    assert_selected(nms(boxes, scores, iou_threshold=0.3, max_outputs=3), [0, 1, 2])


def test_bfloat16_scores_are_ranked_as_they_are(twelve):
    boxes, _ = twelve
    # Only four of these differ in bfloat16.
    scores = jnp.linspace(0.5, 0.51, 12).astype(jnp.bfloat16)
    options = {"iou_threshold": 0.3, "max_outputs": 12}
    as_float = np.asarray(scores.astype(jnp.float32))
    expected = reference.nms(boxes, as_float, np.ones(12, bool), **options)
    assert_selected(nms(boxes, scores, **options), expected)


def test_everything_masked_selects_nothing(twelve):
    assert_selected(nms(*twelve, np.zeros(12, bool), **OPTIONS), [])


def test_no_mask_is_a_mask_of_true(twelve):
    expected = nms(*twelve, np.ones(12, bool), **OPTIONS)
    for array, other in zip(nms(*twelve, **OPTIONS), expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("max_outputs", [0, 3])
def test_sizes_zero_and_one(twelve, count, max_outputs):
    boxes, scores = (array[:count] for array in twelve)
    result = nms(boxes, scores, iou_threshold=0.5, max_outputs=max_outputs)
    assert_selected(result, list(range(min(count, max_outputs))))


def test_more_outputs_than_boxes_are_filled_with_zeros(twelve):
    expected = reference.nms(*twelve, np.ones(12, bool), **OPTIONS)
    assert_selected(nms(*twelve, iou_threshold=0.5, max_outputs=40), expected)


def test_padding_between_the_boxes_changes_nothing(twelve):
    boxes, scores = twelve
    place = np.sort(np.random.default_rng(2).choice(NUM_BOXES, 12, replace=False))
    padded_boxes = np.zeros((NUM_BOXES, 4), np.float32)
    padded_boxes[:] = [0, 0, 30, 30]  # would suppress, if it took part
    padded_scores = np.full(NUM_BOXES, 9, np.float32)
    padded_boxes[place], padded_scores[place] = boxes, scores
    mask = np.isin(np.arange(NUM_BOXES), place)
    expected = reference.nms(boxes, scores, np.ones(12, bool), **OPTIONS)
    result = nms(padded_boxes, padded_scores, mask, **OPTIONS)
    assert_selected(result, place[expected].tolist())


def test_boxes_of_different_classes_do_not_suppress_one_another():
    boxes = np.tile(np.float32([[1, 2, 5, 6]]), (4, 1))
    classes, scores = np.array([7, 3, 7, 3]), np.float32([0.1, 0.2, 0.3, 0.4])
    result = select(256)(boxes, scores, classes, iou_threshold=0.5, max_outputs=4)
    assert_selected(result, [3, 2])


def test_jit_equals_eager(twelve):
    arguments = [jnp.asarray(array) for array in twelve]
    eager = ops.nms(*arguments, **OPTIONS)
    for array, other in zip(nms(*twelve, **OPTIONS), eager, strict=True):
        np.testing.assert_array_equal(array, other)


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(3)
    boxes = reference.random_boxes(rng, 36, limit=30, min_side=8).reshape(3, 12, 4)
    scores = rng.random((3, 12), np.float32)
    mask = np.array([[True] * 12, [True, False] * 6, [False] * 12])
    together = jax.jit(jax.vmap(functools.partial(ops.nms, **OPTIONS)))
    indices, valid = together(boxes, scores, mask)
    for image in range(3):
        alone = nms(boxes[image], scores[image], mask[image], **OPTIONS)
        np.testing.assert_array_equal(indices[image], alone[0])
        np.testing.assert_array_equal(valid[image], alone[1])


def test_a_gradient_passes_the_selection(twelve):
    def total(boxes, scores):
        indices, mask = ops.nms(boxes, scores, **OPTIONS)
        return ((boxes[indices] ** 2).sum(axis=1) * scores[indices] * mask).sum()

    boxes, scores = twelve
    of_boxes, of_scores = jax.jit(jax.grad(total, argnums=(0, 1)))(*twelve)
    kept = np.isin(np.arange(12), nms(*twelve, **OPTIONS).indices)
    assert not kept.all()
    expected = np.where(kept[:, None], 2 * boxes * scores[:, None], 0.0)
    np.testing.assert_allclose(of_boxes, expected, rtol=1e-5)
    np.testing.assert_allclose(of_scores, (boxes**2).sum(axis=1) * kept, rtol=1e-5)


@pytest.mark.parametrize("iou_threshold", [0.0, 1.0, -0.3, 30.0, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(twelve, iou_threshold):
    with pytest.raises(ValueError, match=r"^iou_threshold is "):
        nms(*twelve, iou_threshold=iou_threshold, max_outputs=3)


def test_a_negative_number_of_outputs_is_refused(twelve):
    with pytest.raises(ValueError, match=r"^max_outputs is -1"):
        nms(*twelve, iou_threshold=0.5, max_outputs=-1)


def test_arrays_that_do_not_match_are_refused(twelve):
    boxes, scores = twelve
    with pytest.raises(ValueError, match=r": scores has shape"):
        nms(boxes, scores[:11], **OPTIONS)
    with pytest.raises(ValueError, match=r": boxes has shape"):
        nms(boxes[:, :3], scores, **OPTIONS)
    with pytest.raises(ValueError, match=r": mask has shape"):
        nms(boxes, scores, np.ones(11, bool), **OPTIONS)
