"""Every function can be compiled for a GPU and a TPU; its gradient, too."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ShapeDtypeStruct

from frcnn_jax import ops
from frcnn_jax.ops.suppression import ACCELERATOR_TILE_SIZE, CPU_TILE_SIZE
from tests.helpers.lowering import each_platform, lower

IMAGE_SIZE = (64.0, 64.0)
BOXES = ShapeDtypeStruct((40, 4), jnp.float32)
OBJECTS = ShapeDtypeStruct((5, 4), jnp.float32)
FEATURES = ShapeDtypeStruct((8, 8, 16), jnp.float32)
KEY = jax.eval_shape(lambda: jax.random.key(0))


def floats(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.int32)


def mask(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, jnp.bool_)


ANCHOR_TARGETS = ops.AnchorTargets(integers(40), floats(40, 4))
PROPOSAL_TARGETS = ops.ProposalTargets(BOXES, integers(40), floats(40, 4), mask(40))
SELECTION = {"iou_threshold": 0.5, "max_outputs": 10}

# Positional arguments and options of each function.
CALLS = {
    "anchor_targets": ([KEY, BOXES, OBJECTS, mask(5)], {"image_size": IMAGE_SIZE}),
    "base_anchors": ([], {}),
    "batched_nms": ([BOXES, floats(40), integers(40), mask(40)], SELECTION),
    "box_area": ([BOXES], {}),
    "box_iou": ([BOXES, OBJECTS], {}),
    "clip_boxes": ([BOXES, floats(2)], {}),
    "decode_boxes": ([BOXES, floats(40, 4)], {}),
    "encode_boxes": ([BOXES, BOXES], {}),
    "grid_anchors": ([], {"feature_size": (8, 8), "base": np.ones((9, 4), np.float32)}),
    "nms": ([BOXES, floats(40), mask(40)], SELECTION),
    "proposal_targets": (
        [KEY, BOXES, mask(40), OBJECTS, integers(5), mask(5)],
        {"num_samples": 16},
    ),
    "propose": (
        [floats(40), floats(40, 4), BOXES],
        {"image_size": IMAGE_SIZE, "pre_nms": 30, "post_nms": 10, "min_size": 1.0},
    ),
    "roi_align": ([FEATURES, BOXES], {}),
    "roi_loss": ([floats(40, 7), floats(40, 7, 4), PROPOSAL_TARGETS], {}),
    "roi_pool": ([FEATURES, BOXES], {}),
    "rpn_loss": ([floats(40, 2), floats(40, 4), ANCHOR_TARGETS], {}),
    "sample_indices": ([KEY, mask(40)], {"max_samples": 8}),
    "select_detections": (
        [floats(40, 7), floats(40, 7, 4), BOXES, mask(40)],
        {"image_size": IMAGE_SIZE},
    ),
    "smooth_l1": ([BOXES], {}),
}
# Their results are integers, or no gradient is taken through them.
WITHOUT_GRADIENT = {
    "anchor_targets",
    "base_anchors",
    "batched_nms",
    "grid_anchors",
    "nms",
    "proposal_targets",
    "sample_indices",
    "select_detections",
}


def test_every_function_is_lowered():
    names = [n for n in ops.__all__ if inspect.isfunction(getattr(ops, n))]
    assert sorted(CALLS) == sorted(names)


@each_platform
@pytest.mark.parametrize("name", CALLS)
def test_function_can_be_compiled_for(platform, name):
    arguments, options = CALLS[name]
    function = functools.partial(getattr(ops, name), **options)
    assert "func.func public @main" in lower(
        function, *arguments, platforms=(platform,)
    )


@each_platform
@pytest.mark.parametrize("name", sorted(CALLS.keys() - WITHOUT_GRADIENT))
def test_gradient_can_be_compiled_for(platform, name):
    arguments, options = CALLS[name]

    def total(first, *others):
        results = getattr(ops, name)(first, *others, **options)
        return sum(x.sum() for x in jax.tree.leaves(results) if x.dtype == jnp.float32)

    assert lower(jax.grad(total), *arguments, platforms=(platform,))


@each_platform
def test_nms_takes_the_tiles_of(platform):
    arguments, options = CALLS["nms"]
    function = functools.partial(ops.nms, **options)
    lowered = lower(function, *arguments, platforms=(platform,))
    is_cpu, cpu, other = platform == "cpu", CPU_TILE_SIZE, ACCELERATOR_TILE_SIZE
    assert (f"tensor<{cpu}x{cpu}xi1>" in lowered) == is_cpu
    assert (f"tensor<{other}x{other}xi1>" in lowered) != is_cpu


def test_nms_selects_no_booleans():
    # ONNX Runtime cannot, and the export to ONNX would fail there only.
    arguments, options = CALLS["batched_nms"]
    function = functools.partial(ops.batched_nms, **options)
    lowered = lower(function, *arguments, platforms=("cpu",))
    assert "stablehlo.select" in lowered
    assert not re.search(r"stablehlo\.select .*: \S*i1>, \S*i1>", lowered)


@pytest.mark.parametrize("name", [n for n, (arrays, _) in CALLS.items() if arrays])
def test_integers_are_divided_by_one_number_at_a_time(name):
    # jaxlib 0.10.1 divides whole vector registers on the CPU, whatever the unused lanes
    # hold: with an array of divisors these may be -2**31 / -1, which ends the process.
    arguments, options = CALLS[name]
    function = jax.vmap(functools.partial(getattr(ops, name), **options))
    stacks = jax.tree.map(lambda x: ShapeDtypeStruct((2, *x.shape), x.dtype), arguments)
    for part in lower(function, *stacks, platforms=("cpu",)).split("func.func"):
        numbers = re.findall(r"(%\S+) = \S+broadcast_in_dim .*\(tensor<u?i\d+>\)", part)
        divisors = re.findall(r"(?:divide|remainder) \S+, (\S+) : \S*xu?i\d+>", part)
        assert set(divisors) <= set(numbers)
