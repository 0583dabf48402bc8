"""From a file's arrays to a detector's parameters: what is taken, what is refused."""

import numpy as np
import pytest

from frcnn_jax.errors import UserError
from frcnn_jax.weights.record import select_matching
from frcnn_jax.weights.report import describe
from tests.helpers import foreign, tiny

SCALES = {"anchor_scales": (1.0, 2.0)}


def first_layers(*names: str) -> foreign.Arrays:
    return {n: array for n, array in foreign.npz().items() if n[:-2] in names}


def test_whole_detector_gives_every_parameter(read):
    weights = read(foreign.chenyuntc(), **SCALES)
    shapes = tiny.shapes_by_name(foreign.NUM_CLASSES)
    taken = select_matching(weights, shapes)
    assert {name: array.shape for name, array in taken.items()} == shapes
    assert not weights.unknown


def test_number_of_scales_that_does_not_divide_the_scores_is_refused(read):
    with pytest.raises(UserError, match=r"rpn\.score\.weight has the shape \(12, 32"):
        read(foreign.chenyuntc(), anchor_scales=(1, 2, 4, 8, 16))


def test_other_classes_leave_the_class_layers_out(read):
    weights = read(foreign.chenyuntc(), **SCALES)
    shapes = tiny.shapes_by_name(foreign.NUM_CLASSES + 3)
    left_out = set(shapes) - set(select_matching(weights, shapes))
    layers = ("head.score", "head.delta")
    assert left_out == {f"{n}.{kind}" for n in layers for kind in ("kernel", "bias")}


def test_vgg16_gives_backbone_and_fully_connected_layers(read):
    weights = read(foreign.torchvision())
    taken = select_matching(weights, tiny.shapes_by_name(2))
    assert len(taken) == 2 * (13 + 2)
    assert "imagenet.fc8.kernel" in set(weights.arrays) - set(taken)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv2_1_W", (3, 3, 8, 17)), ("fc6_W", (3136, 33)), ("fc7_b", (31,))],
)
def test_another_architecture_is_refused_with_both_shapes(read, name, shape):
    weights = read(foreign.npz() | {name: np.zeros(shape, np.float32)})
    with pytest.raises(UserError) as error:
        select_matching(weights, tiny.shapes_by_name(2))
    assert f"has the shape {shape}, expected (" in str(error.value)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda a: a.pop("conv1_1_W"), "conv1_1_W"),
        (lambda a: a.pop("conv1_2_W"), "conv1_2_W"),
        (lambda a: a.pop("conv1_2_b"), "conv1_2_b missing"),
        (lambda a: a.pop("fc7_b"), "fc7_b missing"),
        (lambda a: [a.pop(f"conv1_{i}_W") for i in (1, 2)], "conv1_1_W"),
    ],
    ids=["no-first", "gap", "no-bias", "no-fc-bias", "no-kernels"],
)
def test_gap_in_the_layers_is_refused(read, change, missing):
    arrays = first_layers("conv1_1", "conv1_2", "conv2_1", "fc7")
    change(arrays)
    with pytest.raises(UserError, match=missing):
        read(arrays)


def test_biases_without_kernels_are_skipped(read):
    arrays = first_layers("conv1_1") | {"conv4_1_b": np.zeros(64, np.float32)}
    weights = read(arrays)
    assert set(weights.arrays) == {"backbone.conv1_1.kernel", "backbone.conv1_1.bias"}
    assert weights.unknown == ("conv4_1_b",)


@pytest.mark.parametrize("name", ["extractor.28.bias", "rpn.loc.weight"])
def test_detector_that_lacks_anything_is_refused(read, name):
    arrays = foreign.chenyuntc()
    del arrays[name]
    with pytest.raises(UserError, match=f"{name} missing"):
        read(arrays)


@pytest.mark.parametrize("prefix", ["module.", "net/"])
def test_renamed_arrays_are_refused_with_some_names(read, prefix):
    arrays = {prefix + n: array for n, array in foreign.torchvision().items()}
    with pytest.raises(UserError, match=f"has {prefix}classifier.0.bias, .* more"):
        read(arrays)


def test_file_without_arrays_is_refused(read):
    with pytest.raises(UserError, match="has no arrays"):
        read({})


@pytest.mark.parametrize(
    ("make", "name", "shape"),
    [
        (foreign.npz, "conv1_1_W", (5,)),
        (foreign.npz, "conv1_1_W", ()),
        (foreign.npz, "conv1_1_W", (3, 3, 3, 0)),
        (foreign.npz, "fc6_b", (32, 1)),
        (foreign.torchvision, "features.0.weight", (8, 27)),
        (foreign.torchvision, "classifier.0.weight", ()),
        (foreign.torchvision, "classifier.0.weight", (32, 100)),
        (foreign.chenyuntc, "rpn.score.bias", ()),
    ],
)
def test_shape_that_no_such_layer_has_is_refused(read, make, name, shape):
    arrays = make() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(UserError) as error:
        read(arrays, **SCALES)
    assert f"{name} has the shape {shape}" in str(error.value)


def test_report_says_what_was_loaded_skipped_and_is_missing(read):
    weights = read(first_layers("conv1_1", "conv1_2", "fc7", "fc8"))
    shapes = tiny.shapes_by_name(2)
    first, *rest = describe(weights, select_matching(weights, shapes), shapes)
    assert first.endswith(f"VGG16 layer by layer, SHA-256 {weights.sha256}")
    assert rest == [
        "  loaded: backbone.conv1_1, backbone.conv1_2, head.fc7",
        "  skipped: imagenet.fc8",
        "  missing, random: backbone.conv2_1..backbone.conv5_3, head.delta, head.fc6, "
        "head.score, rpn.conv, rpn.delta, rpn.score",
        "  pixels: not known; the config must say it",
    ]


def test_report_names_the_colors(read):
    weights = read(foreign.npz(), preprocessing="caffe")
    assert describe(weights, weights.arrays, {})[-1] == (
        "  pixels: BGR, 0..255, minus 103.939 116.779 123.68, divided by 1.0 1.0 1.0"
    )
