"""Non-maximum suppression on more than 10,000 random cases, in stacks and alone.

Boxes have whole coordinates, so that no IoU comparison hangs on the last bit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops
from tests import reference

NUM_CLASSES = 3


class Setting(NamedTuple):
    """What is static, for which the op compiles once, and how many cases it is for."""

    function: str
    num_boxes: int
    max_outputs: int
    iou_threshold: float
    num_cases: int
    stack: int = 1  # cases that go through jax.vmap at once
    score_type: str = "float32"

    @property
    def name(self):
        return "-".join(map(str, self[:4]))

    def select(self, boxes, scores, mask, classes):
        options = {
            "iou_threshold": self.iou_threshold,
            "max_outputs": self.max_outputs,
        }
        if self.function == "nms":
            return ops.nms(boxes, scores, mask, **options)
        return ops.batched_nms(boxes, scores, classes, mask, **options)

    def expected(self, boxes, scores, mask, classes):
        """What `select` must return."""
        if self.function == "nms":
            classes = np.zeros(self.num_boxes)
        indices = greedy(
            *(boxes, scores, classes, mask),
            iou_threshold=self.iou_threshold,
            max_outputs=self.max_outputs,
        )
        valid = np.arange(self.max_outputs) < len(indices)
        return np.pad(indices, (0, self.max_outputs - len(indices))), valid

    def cases(self):
        """A list of (boxes, scores, mask, classes)."""
        rng = np.random.default_rng((self.num_boxes, self.max_outputs))
        score_type = jnp.dtype(self.score_type)
        return [
            random_case(rng, self.num_boxes, score_type) for _ in range(self.num_cases)
        ]


# Few settings with many cases: nearly all of the time goes into compiling.
STACKS = [
    Setting("nms", 0, 5, 0.5, num_cases=10, stack=10),
    Setting("batched_nms", 1, 3, 0.5, num_cases=250, stack=250),
    Setting("nms", 2, 1, 0.95, num_cases=500, stack=250),
    Setting("nms", 63, 63, 0.05, num_cases=3500, stack=250),
    Setting("batched_nms", 64, 80, 0.3, num_cases=3500, stack=250),
    Setting("batched_nms", 65, 20, 0.7, num_cases=3500, stack=250),
    Setting("batched_nms", 200, 200, 0.1, num_cases=100, stack=50),
    Setting("nms", 1000, 100, 0.5, num_cases=10, stack=5),
]
ALONE = [
    Setting("nms", 65, 65, 0.9, num_cases=500, score_type="bfloat16"),
    Setting("batched_nms", 3000, 3000, 0.95, num_cases=2),
    Setting("nms", 3000, 300, 0.3, num_cases=10),
]
NUM_CASES = sum(setting.num_cases for setting in STACKS + ALONE)


def random_case(rng, num_boxes, score_type=np.float32):
    """Boxes, anything from sparse to crowded, with scores, mask and classes."""
    limit, min_side = [(100, 1), (64, 20), (20, 1), (16, 5)][rng.integers(4)]
    boxes = reference.random_boxes(rng, num_boxes, limit, min_side)
    if rng.random() < 0.3:  # duplicates
        boxes = boxes[rng.integers(0, num_boxes // 3 + 1, num_boxes)]
    if rng.random() < 0.3:  # no area: lines, and points
        is_line = rng.random(num_boxes) < 0.4
        boxes[is_line, 2] = boxes[is_line, 0]
        is_point = is_line & (rng.random(num_boxes) < 0.5)
        boxes[is_point, 3] = boxes[is_point, 1]
    scores = rng.normal(size=num_boxes)
    if rng.random() < 0.4:  # ties
        scores = np.round(scores * rng.integers(0, 4))
    for special in (-np.inf, np.nan):
        if rng.random() < 0.3:
            scores[rng.random(num_boxes) < 0.2] = special
    masked = rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.5, 0.25, 0.2, 0.05])
    mask = rng.random(num_boxes) >= masked
    classes = rng.integers(0, NUM_CLASSES, num_boxes)
    return boxes, scores.astype(score_type), mask, classes.astype(np.int32)


def greedy(boxes, scores, classes, mask, *, iou_threshold, max_outputs):
    """The list of selected indices, best first.

    As `reference.batched_nms`, but fast: no pair of boxes is looked at in Python. First
    which of the sorted boxes overlap, all at once; then each box that is still there
    strikes out those that it overlaps.
    """
    scores = scores.astype(np.float32)
    order = np.lexsort((np.arange(len(boxes)), -scores))
    order = order[(mask & ~np.isnan(scores))[order]]
    y_min, x_min, y_max, x_max = boxes[order].T
    height = np.minimum(y_max[:, None], y_max) - np.maximum(y_min[:, None], y_min)
    width = np.minimum(x_max[:, None], x_max) - np.maximum(x_min[:, None], x_min)
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    area = (y_max - y_min) * (x_max - x_min)
    union = area[:, None] + area - intersection
    iou = intersection / np.where(union > 0, union, np.float32(1))
    stays = iou <= np.float32(iou_threshold)
    stays |= classes[order][:, None] != classes[order]
    left = np.ones(len(order), bool)
    selected = []
    for i in range(len(order)):
        if left[i] and len(selected) < max_outputs:
            selected.append(int(order[i]))
            left &= stays[i]
    return selected


def test_there_are_more_than_10000_cases():
    assert NUM_CASES > 10_000


@pytest.mark.parametrize("iou_threshold", [0.05, 0.5, 0.95])
def test_the_fast_loop_equals_the_reference(iou_threshold):
    rng = np.random.default_rng(0)
    for max_outputs in [5, 20, 30] * 15:
        boxes, scores, mask, classes = random_case(rng, 20)
        options = {"iou_threshold": iou_threshold, "max_outputs": max_outputs}
        expected = reference.batched_nms(boxes, scores, classes, mask, **options)
        assert greedy(boxes, scores, classes, mask, **options) == expected


@pytest.mark.parametrize("setting", STACKS, ids=lambda setting: setting.name)
def test_nms_of_a_stack_equals_the_greedy_loop(setting):
    select = jax.jit(jax.vmap(setting.select))
    cases = setting.cases()
    for start in range(0, setting.num_cases, setting.stack):
        stack = cases[start : start + setting.stack]
        result = select(*map(np.stack, zip(*stack, strict=True)))
        expected = zip(*(setting.expected(*case) for case in stack), strict=True)
        for array, expected_array in zip(result, expected, strict=True):
            np.testing.assert_array_equal(array, np.stack(expected_array))


@pytest.mark.parametrize("setting", ALONE, ids=lambda setting: setting.name)
def test_nms_of_one_case_equals_the_greedy_loop(setting):
    select = jax.jit(setting.select)
    for case in setting.cases():
        for array, expected in zip(select(*case), setting.expected(*case), strict=True):
            np.testing.assert_array_equal(array, expected)
