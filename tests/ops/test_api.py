"""The rules that every public function of `frcnn_jax.ops` keeps."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import ops

FUNCTIONS = [
    value for name in ops.__all__ if inspect.isfunction(value := getattr(ops, name))
]
NAMES = [function.__name__ for function in FUNCTIONS]
# What a caller gives by position: data. The rest are options.
DATA = {
    "anchors", "base", "boxes", "classes", "deltas", "feature_size", "features",
    "gt_boxes", "gt_labels", "gt_mask", "image_size", "key", "logits", "mask",
    "objectness", "other", "probabilities", "proposal_mask", "proposals", "roi_mask",
    "rois", "scores", "targets", "x",
}  # fmt: skip
# Functions of numbers, whose fixed signatures take them by position.
EXCEPTIONS = {
    "base_anchors": {"scales", "ratios", "stride"},
    "grid_anchors": {"stride"},
    "sample_indices": {"max_samples"},
    "smooth_l1": {"beta"},
}
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)


def test_the_functions_of_the_design_are_there():
    promised = (
        "base_anchors grid_anchors box_area box_iou encode_boxes decode_boxes "
        "clip_boxes nms batched_nms roi_pool roi_align propose anchor_targets "
        "proposal_targets smooth_l1 rpn_loss roi_loss"
    )
    assert set(promised.split()) <= set(NAMES)


@each_function
def test_the_key_comes_first(function):
    parameters = list(inspect.signature(function).parameters)
    assert "key" not in parameters[1:]


@each_function
def test_options_are_keyword_only(function):
    positional = {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY
    }
    assert positional <= DATA | EXCEPTIONS.get(function.__name__, set())


@each_function
def test_every_parameter_and_the_result_are_annotated(function):
    signature = inspect.signature(function)
    annotations = [p.annotation for p in signature.parameters.values()]
    assert inspect.Signature.empty not in [*annotations, signature.return_annotation]


@each_function
def test_the_docstring_has_all_sections_in_order(function):
    sections = re.findall(r"^(\w+):$", inspect.getdoc(function), re.MULTILINE)
    needed = ["Args", "Returns", "Example"]
    assert [name for name in sections if name in needed] == needed
    order = ["Args", "Returns", "Raises", "Example", "References"]
    assert sections == [name for name in order if name in sections]


@each_function
def test_the_docstring_explains_every_parameter(function):
    arguments = inspect.getdoc(function).split("Args:\n")[1].split("\n\n")[0]
    explained = re.findall(r"^  (\w+):", arguments, re.MULTILINE)
    assert explained == list(inspect.signature(function).parameters)


@each_function
def test_the_docstring_gives_the_shapes_of_arrays(function):
    docstring = inspect.getdoc(function)
    arguments = docstring.split("Args:\n")[1].split("\n\n")[0]
    for name, parameter in inspect.signature(function).parameters.items():
        dimensions = getattr(parameter.annotation, "dim_str", "")
        if dimensions and dimensions != "...":
            line = re.search(rf"^  {name}: (.*)", arguments, re.MULTILINE)[1]
            shape = re.match(r"\[(.*?)\]", line)
            assert shape, f"{name}: {line!r} does not begin with a shape"
            assert len(shape[1].split(",")) == len(dimensions.split())


@each_function
def test_what_it_raises_is_documented(function):
    source = inspect.getsource(inspect.unwrap(function))
    raises = re.search(
        r"raise ValueError|^ +check_(count|size)\(", source, re.MULTILINE
    )
    assert not raises or "Raises:" in inspect.getdoc(function)


BAD = np.array(
    [
        [np.nan, 0, 10, 10],
        [0, 0, np.inf, np.inf],
        [-np.inf, -np.inf, np.inf, np.inf],
        [0, np.nan, np.nan, 5],
        [np.inf, np.inf, np.inf, np.inf],
    ],
    np.float32,
)
GOOD = np.array([[0.0, 0, 30, 30], [1, 0, 30, 30], [40, 40, 60, 60]], np.float32)
MIXED = np.concatenate([BAD[:3], GOOD, BAD[3:]])
IS_GOOD = np.isfinite(MIXED).all(axis=1)


def test_a_box_that_is_not_finite_has_iou_zero():
    iou = np.asarray(ops.box_iou(MIXED, MIXED))
    assert np.isfinite(iou).all()
    assert (iou[~IS_GOOD] == 0).all()
    np.testing.assert_array_equal(
        iou[np.ix_(IS_GOOD, IS_GOOD)], ops.box_iou(GOOD, GOOD)
    )


def test_a_box_that_is_not_finite_suppresses_none_and_is_not_suppressed():
    scores = np.linspace(1.0, 0.5, len(MIXED), dtype=np.float32)
    indices, valid = ops.nms(MIXED, scores, iou_threshold=0.5, max_outputs=10)
    # Of all boxes, only the second good one overlaps another.
    assert indices[valid].tolist() == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("pool", [ops.roi_pool, ops.roi_align])
def test_a_roi_that_is_not_finite_pools_to_zero(pool):
    @jax.jit
    def pool_with_gradient(features, rois):
        pooled, pull_back = jax.vjp(lambda x: pool(x, rois), features)
        return pooled, pull_back(jnp.ones_like(pooled))[0]

    features = np.ones((4, 4, 2), np.float32)
    pooled, gradient = pool_with_gradient(features, MIXED)
    expected, expected_gradient = pool_with_gradient(features, GOOD)
    np.testing.assert_array_equal(pooled[IS_GOOD], expected)
    assert (pooled[~IS_GOOD] == 0).all()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


def test_a_ground_truth_that_is_not_finite_makes_no_anchor_positive():
    anchors = jnp.asarray(GOOD)
    targets = ops.anchor_targets(
        jax.random.key(0), anchors, BAD, np.ones(len(BAD), bool), (60.0, 60.0)
    )
    assert targets.labels.tolist() == [0, 0, 0]
    assert np.isfinite(targets.deltas).all()


def test_an_anchor_or_a_proposal_that_is_not_finite_is_not_positive():
    gt_boxes, gt_mask = GOOD[:1], np.ones(1, bool)
    targets = ops.anchor_targets(
        jax.random.key(0), MIXED, gt_boxes, gt_mask, (60.0, 60.0)
    )
    assert (np.asarray(targets.labels)[~IS_GOOD] != 1).all()
    assert np.isfinite(targets.deltas).all()
    targets = ops.proposal_targets(
        jax.random.key(0), MIXED, IS_GOOD, gt_boxes, np.zeros(1, np.int32), gt_mask
    )
    assert np.isfinite(targets.rois).all()
    assert np.isfinite(targets.deltas).all()


def test_a_prediction_that_is_not_finite_gives_finite_proposals():
    deltas = np.zeros((3, 4), np.float32)
    deltas[0], deltas[1] = np.nan, np.inf
    proposals = ops.propose(
        np.ones(3, np.float32), deltas, GOOD, (60.0, 60.0),
        pre_nms=3, post_nms=3, min_size=1.0,
    )  # fmt: skip
    assert np.isfinite(proposals.boxes).all()
    assert np.isfinite(proposals.scores).all()


@pytest.mark.parametrize("first", [np.nan, -np.nan])
def test_a_score_that_is_nan_takes_no_place_among_the_best(first):
    proposals = ops.propose(
        np.array([first, 0.5, 0.25], np.float32), np.zeros((3, 4)), GOOD, (60.0, 60.0),
        pre_nms=1, post_nms=1, min_size=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal(proposals.scores, [0.5])


def test_zeros_of_either_sign_rank_by_index():
    proposals = ops.propose(
        np.array([-0.0, 0.0], np.float32), np.zeros((2, 4)), GOOD[:2], (60.0, 60.0),
        pre_nms=1, post_nms=1, min_size=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal(proposals.boxes, GOOD[:1])


def calls(dtype):
    """Positional and keyword arguments of every function, of floats of a type."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(dtype)

    corners = np.sort(rng.uniform(0, 64, (40, 2, 2)), axis=1)
    boxes = corners.reshape(40, 4).astype(dtype)
    gt_boxes, gt_mask = boxes[:3] + dtype(0.5), np.array([True, True, False])
    key, mask, size = jax.random.key(0), rng.random(40) < 0.9, np.array([60, 64.0])
    classes, labels = rng.integers(0, 3, 40), rng.integers(0, 5, 3)
    selection = {"iou_threshold": 0.5, "max_outputs": 9}
    anchor_targets = ops.AnchorTargets(rng.integers(-1, 2, 40), normal(40, 4))
    proposal_targets = ops.ProposalTargets(boxes, classes, normal(40, 4), mask)
    return {
        "anchor_targets": ((key, boxes, gt_boxes, gt_mask, size), {"num_samples": 9}),
        "base_anchors": ((), {}),
        "batched_nms": ((boxes, normal(40), classes, mask), selection),
        "box_area": ((boxes,), {}),
        "box_iou": ((boxes, gt_boxes), {}),
        "clip_boxes": ((boxes, size / 2), {}),
        "decode_boxes": ((boxes, normal(40, 4)), {}),
        "encode_boxes": ((boxes, boxes[::-1]), {}),
        "grid_anchors": (((3, 4), boxes), {}),
        "nms": ((boxes, normal(40), mask), selection),
        "proposal_targets": (
            (key, boxes, mask, gt_boxes, labels, gt_mask),
            {"num_samples": 9},
        ),
        "propose": (
            (normal(40), normal(40, 4), boxes, (60, 64)),
            {"pre_nms": 30, "post_nms": 9, "min_size": 2.0},
        ),
        "roi_align": ((normal(4, 5, 2), boxes), {"feature_size": (4, 4)}),
        "roi_loss": (
            (normal(40, 3), normal(40, 3, 4), proposal_targets),
            {"delta_std": (0.1, 0.1, 0.2, 0.2)},
        ),
        "roi_pool": ((normal(4, 5, 2), boxes), {"rounding": "floor"}),
        "rpn_loss": ((normal(40, 2), normal(40, 4), anchor_targets), {"beta": 1 / 9}),
        "sample_indices": ((key, mask, 9), {}),
        "select_detections": (
            (jax.nn.softmax(normal(40, 3)), normal(40, 3, 4), boxes, mask, size),
            {"max_detections": 9},
        ),
        "smooth_l1": ((normal(40),), {}),
    }


RESULT_TYPES = {jnp.dtype(name) for name in ("float32", "int32", "bool")}
KEEP_THE_TYPE = {"roi_align", "roi_pool", "smooth_l1"}  # of features and differences


@each_function
def test_results_do_not_depend_on_x64(function):
    name = function.__name__

    def results(dtype):
        arguments, options = calls(dtype)[name]
        return jax.tree.leaves(jax.jit(lambda: function(*arguments, **options))())

    expected = results(np.float32)
    with jax.enable_x64(True):
        in_x64 = [results(np.float32)]
        if name not in KEEP_THE_TYPE:
            in_x64.append(results(np.float64))
    assert {array.dtype for array in expected} <= RESULT_TYPES
    for result in in_x64:
        for array, other in zip(result, expected, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5)
