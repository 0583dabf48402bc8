"""Every project's arrangement computes what ours does."""

import numpy as np
import pytest

from frcnn_jax import ops
from frcnn_jax.weights.layouts import LAYOUTS, find_layout
from tests.helpers import foreign

VGG16S = {
    "torchvision": foreign.torchvision(),
    "pytorch-vgg": foreign.pytorch_vgg(),
    "timm": foreign.timm(),
    "npz": foreign.npz(),
    "keras": foreign.keras(),
    "keras-2": foreign.keras("/kernel:0", "/bias:0"),
}
DETECTORS = {
    "chenyuntc": foreign.chenyuntc(),
    "chenyuntc-drop": foreign.chenyuntc("head.classifier.3"),
    "chainercv": foreign.chainercv(),
    "chainercv-old": foreign.chainercv(""),
}
FILES = VGG16S | DETECTORS

every_file = pytest.mark.parametrize("name", FILES)
every_detector = pytest.mark.parametrize("name", DETECTORS)


def converted(name: str) -> foreign.Arrays:
    arrays = FILES[name]
    layout = find_layout(arrays)
    return {
        ours: layout.to_ours(ours, arrays[theirs], foreign.NUM_SCALES)
        for ours, theirs in layout.names().items()
        if theirs in arrays
    }


def layers_of(name: str):
    return foreign.make(detector=name in DETECTORS)


@every_file
def test_every_array_of_a_file_gets_a_name(name):
    assert len(converted(name)) == len(FILES[name])


def test_every_layout_is_tested():
    layouts = [find_layout(arrays) for arrays in FILES.values()]
    assert sorted(map(LAYOUTS.index, layouts)) == list(range(len(LAYOUTS)))


@every_file
def test_convolution_answers_a_patch_as_theirs(name):
    ours = converted(name)
    patch = np.random.default_rng(1).integers(-4, 5, (3, 3, 64)).astype(np.float32)
    for layer in foreign.CONVOLUTIONS:
        kernel, bias = layers_of(name)[layer]
        seen = patch[:, :, : kernel.shape[1]]
        theirs = np.einsum("oihw,hwi->o", kernel, seen) + bias
        answer = np.einsum("hwio,hwi->o", ours[f"backbone.{layer}.kernel"], seen)
        answer += ours[f"backbone.{layer}.bias"]
        np.testing.assert_array_equal(answer, theirs)


@every_file
def test_fc6_answers_a_feature_map_as_theirs(name):
    # Theirs reads it channel by channel, ours cell by cell.
    features = np.random.default_rng(2).integers(-4, 5, (64, 7, 7)).astype(np.float32)
    theirs = layers_of(name)["fc6"][0] @ features.reshape(-1)
    cells = features.transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(cells @ converted(name)["head.fc6.kernel"], theirs)


@every_file
def test_fc7_and_class_layers_answer_as_theirs(name):
    x = np.random.default_rng(3).integers(-4, 5, 32).astype(np.float32)
    names = {"fc7": "head.fc7", "fc8": "imagenet.fc8"}
    names |= {"score": "head.score", "cls_loc": "head.delta"}
    arrays = converted(name)
    for layer, (kernel, bias) in layers_of(name).items():
        if layer in names:
            answer = x @ arrays[f"{names[layer]}.kernel"]
            np.testing.assert_array_equal(answer, kernel @ x)
            np.testing.assert_array_equal(arrays[f"{names[layer]}.bias"], bias)


@every_detector
@pytest.mark.parametrize(
    ("ours", "theirs", "num_values"),
    [("rpn.score", "rpn_score", 2), ("rpn.delta", "rpn_loc", 4)],
)
def test_anchors_are_put_from_ratio_major_into_scale_major(
    name, ours, theirs, num_values
):
    layout = find_layout(FILES[name])
    codes = [
        100 * ratio + 10 * scale + value
        for ratio in range(foreign.NUM_RATIOS)
        for scale in range(foreign.NUM_SCALES)
        for value in range(num_values)
    ]
    expected = [
        100 * ratio + 10 * scale + value
        for scale in range(foreign.NUM_SCALES)
        for ratio in range(foreign.NUM_RATIOS)
        for value in range(num_values)
    ]
    bias = np.array(codes, np.float32)
    weight = bias[:, None, None, None]  # of one input channel
    bias = layout.to_ours(f"{ours}.bias", bias, foreign.NUM_SCALES)
    kernel = layout.to_ours(f"{ours}.kernel", weight, foreign.NUM_SCALES)
    assert bias.tolist() == expected
    assert kernel.shape == (1, 1, 1, len(codes))
    assert kernel.ravel().tolist() == expected


def test_our_anchors_are_scale_major():
    scales, ratios = (1.0, 2.0), (0.5, 1.0, 2.0)
    anchors = np.asarray(ops.base_anchors(scales, ratios))
    height, width = (anchors[:, 2:] - anchors[:, :2]).T
    np.testing.assert_allclose(height / width, [0.5, 1, 2] * 2, rtol=1e-5)
    np.testing.assert_allclose(
        np.sqrt(height * width), 16.0 * np.repeat(scales, 3), rtol=1e-5
    )


@every_file
def test_way_back_gives_the_same_bits(name):
    layout = find_layout(FILES[name])
    for ours, array in converted(name).items():
        back = layout.to_theirs(ours, array, foreign.NUM_SCALES)
        theirs = FILES[name][layout.names()[ours]]
        assert back.tobytes() == theirs.tobytes()
        if name != "timm":  # whose fc6 and fc7 come back as matrices
            assert back.shape == theirs.shape


def test_names_of_no_project_have_no_layout():
    assert find_layout(["module.features.0.weight", "layer1.0.conv1.weight"]) is None
    assert find_layout([]) is None
