"""The selection of detections, against `tests.reference.select_detections`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops
from tests import reference

NUM_ROIS, NUM_CLASSES = 14, 4  # classes with the background
IMAGE_SIZE = np.array([50.0, 60.0], np.float32)
STATIC = ("score_threshold", "iou_threshold", "max_detections")
DEFAULTS = {"score_threshold": 0.05, "iou_threshold": 0.3, "max_detections": 100}

_select = jax.jit(ops.select_detections, static_argnames=STATIC)


def select(*arguments, **options):
    """Runs the op under jit and fetches NumPy arrays."""
    return jax.device_get(_select(*arguments, **options))


@pytest.fixture(scope="module")
def inputs():
    """(probabilities, deltas, rois, roi_mask); the RoIs overlap a lot."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (NUM_ROIS, NUM_CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (
        probabilities.astype(np.float32),
        rng.normal(0, 0.2, (NUM_ROIS, NUM_CLASSES, 4)).astype(np.float32),
        reference.random_boxes(rng, NUM_ROIS, limit=64, min_side=16),
        np.arange(NUM_ROIS) < 12,
    )


def assert_detections(detections, boxes, scores, labels):
    count = len(scores)
    num_slots = len(detections.mask)
    assert detections.labels.dtype == np.int32
    assert detections.mask.tolist() == [d < count for d in range(num_slots)]
    assert detections.labels[:count].tolist() == labels.tolist()
    np.testing.assert_array_equal(detections.scores[:count], scores)
    np.testing.assert_allclose(detections.boxes[:count], boxes, rtol=1e-5, atol=1e-4)
    for array in detections:
        assert not array[count:].any()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score_threshold": 0.3, "iou_threshold": 0.6},
        {"score_threshold": 0.0, "max_detections": 4},
        {"score_threshold": 0.99},
    ],
)
def test_detections_equal_the_reference(inputs, options):
    expected = reference.select_detections(
        *inputs, IMAGE_SIZE, **{**DEFAULTS, **options}
    )
    assert_detections(select(*inputs, IMAGE_SIZE, **options), *expected)


def test_detections_lie_inside_the_image_and_are_sorted(inputs):
    probabilities, deltas, rois, roi_mask = inputs
    result = select(probabilities, 10 * deltas, rois, roi_mask, IMAGE_SIZE)
    boxes, scores = result.boxes[result.mask], result.scores[result.mask]
    assert len(boxes) > 5
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= IMAGE_SIZE).all()
    assert (np.diff(scores) <= 0).all()


def test_a_score_at_the_threshold_is_no_detection(inputs):
    _, deltas, rois, roi_mask = inputs
    probabilities = np.full((NUM_ROIS, NUM_CLASSES), 0.05, np.float32)
    result = select(probabilities, deltas, rois, roi_mask, IMAGE_SIZE)
    assert not result.mask.any()


def test_classes_do_not_suppress_one_another(inputs):
    _, deltas, rois, _ = inputs
    probabilities = np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (NUM_ROIS, 1))
    only_one = np.arange(NUM_ROIS) == 3
    result = select(probabilities, 0 * deltas, rois, only_one, IMAGE_SIZE)
    assert result.labels[:3].tolist() == [2, 1, 0]
    expected = np.minimum(rois[[3, 3, 3]], [*IMAGE_SIZE, *IMAGE_SIZE])
    np.testing.assert_allclose(result.boxes[:3], expected)
    assert result.mask.sum() == 3


def test_padded_rois_change_nothing(inputs):
    expected = reference.select_detections(
        *(array[:12] for array in inputs), IMAGE_SIZE, **DEFAULTS
    )
    probabilities, deltas, rois, roi_mask = inputs
    garbage = np.where(roi_mask[:, None], probabilities, 1.0).astype(np.float32)
    assert_detections(select(garbage, deltas, rois, roi_mask, IMAGE_SIZE), *expected)
    result = select(garbage, deltas, rois, np.zeros(NUM_ROIS, bool), IMAGE_SIZE)
    assert not result.mask.any()


def test_a_prediction_that_is_not_a_number_is_no_detection(inputs):
    probabilities, deltas, rois, roi_mask = inputs
    broken = probabilities.copy()
    broken[0] = np.nan
    expected = reference.select_detections(
        broken, deltas, rois, roi_mask, IMAGE_SIZE, **DEFAULTS
    )
    assert_detections(select(broken, deltas, rois, roi_mask, IMAGE_SIZE), *expected)


@pytest.mark.parametrize("num_rois", [0, 1])
@pytest.mark.parametrize("num_classes", [1, 2])
def test_no_roi_or_one_and_no_class_or_one(inputs, num_rois, num_classes):
    probabilities, deltas, rois, roi_mask = (array[:num_rois] for array in inputs)
    probabilities, deltas = probabilities[:, :num_classes], deltas[:, :num_classes]
    arguments = (probabilities, deltas, rois, roi_mask, IMAGE_SIZE)
    options = {**DEFAULTS, "max_detections": 3, "score_threshold": 0.0}
    expected = reference.select_detections(*arguments, **options)
    assert len(expected[0]) == num_rois * (num_classes - 1)
    assert_detections(select(*arguments, **options), *expected)


def test_jit_equals_eager(inputs):
    eager = ops.select_detections(*map(jnp.asarray, inputs), (50, 60))
    compiled = select(*inputs, IMAGE_SIZE)
    np.testing.assert_array_equal(eager.labels, compiled.labels)
    np.testing.assert_array_equal(eager.mask, compiled.mask)
    np.testing.assert_array_equal(eager.scores, compiled.scores)
    np.testing.assert_allclose(eager.boxes, compiled.boxes, rtol=1e-6, atol=1e-5)


def test_vmap_equals_a_loop(inputs):
    images = [
        (*inputs, IMAGE_SIZE),
        (*(array[::-1] for array in inputs), IMAGE_SIZE / 2),
    ]
    batch = [np.stack(arrays) for arrays in zip(*images, strict=True)]
    together = jax.device_get(jax.jit(jax.vmap(functools.partial(_select)))(*batch))
    for index, image in enumerate(images):
        for array, other in zip(together, select(*image), strict=True):
            np.testing.assert_allclose(array[index], other, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("options", [{"iou_threshold": 1.0}, {"max_detections": -1}])
def test_the_option_that_is_wrong_is_named(inputs, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} is "):
        select(*inputs, IMAGE_SIZE, **options)


def test_arrays_that_do_not_match_are_refused(inputs):
    probabilities, deltas, rois, roi_mask = inputs
    with pytest.raises(ValueError, match=r": deltas has shape"):
        select(probabilities[:, :3], deltas, rois, roi_mask, IMAGE_SIZE)
    with pytest.raises(ValueError, match=r": rois has shape"):
        select(probabilities, deltas, rois[:3], roi_mask, IMAGE_SIZE)
