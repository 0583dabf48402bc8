"""Which preprocessing weights require, from the file alone where possible."""

import numpy as np
import pytest
import safetensors.numpy

from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.errors import UserError
from frcnn_jax.weights.importing import read_weights
from tests.helpers import foreign

# Name of conv1_1's kernel; whether it is [out, in, h, w]; what Caffe's kernel for BGR
# means, what the one for RGB means, and what any other.
PROJECTS = {
    "npz": (foreign.npz(), "conv1_1_W", False, "caffe", "caffe-rgb", None),
    "keras": (
        foreign.keras(),
        "block1_conv1/block1_conv1_W_1:0",
        False,
        "caffe",
        "caffe-rgb",
        "caffe",
    ),
    "torchvision": (
        foreign.torchvision(),
        "features.0.weight",
        True,
        "caffe",
        "caffe-rgb",
        "torchvision",
    ),
    "pytorch-vgg": (
        foreign.pytorch_vgg(),
        "features.0.weight",
        True,
        "caffe",
        "caffe-rgb",
        "caffe",
    ),
    "timm": (
        foreign.timm(),
        "features.0.weight",
        True,
        "caffe",
        "caffe-rgb",
        "torchvision",
    ),
    "chenyuntc": (
        foreign.chenyuntc(),
        "extractor.0.weight",
        True,
        "chenyuntc-caffe",
        "chainercv",
        "torchvision",
    ),
    "chainercv": (
        foreign.chainercv(),
        "extractor/conv1_1/conv/W",
        True,
        "py-faster-rcnn",
        "chainercv",
        "chainercv",
    ),
}
every_project = pytest.mark.parametrize("project", PROJECTS)


def preprocessing_of(weights) -> str | None:
    if weights.preprocessing is None:
        return None
    known = {each: name for name, each in PREPROCESSINGS.items()}
    return known[weights.preprocessing]


@every_project
@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_published_caffe_kernel_is_recognized(project, order, read, caffe_conv1_1):
    arrays, name, output_first, *expected = PROJECTS[project]
    kernel = caffe_conv1_1[order]
    if output_first:
        kernel = np.einsum("hwio->oihw", kernel)
    weights = read(arrays | {name: kernel}, anchor_scales=(1.0, 2.0))
    assert preprocessing_of(weights) == expected[order == "RGB"]
    assert weights.preprocessing.channel_order == order


@every_project
def test_without_it_the_project_decides(project, read):
    arrays, *_, expected = PROJECTS[project]
    assert preprocessing_of(read(arrays, anchor_scales=(1.0, 2.0))) == expected


def test_one_bit_makes_it_another_kernel(read, caffe_conv1_1):
    kernel = caffe_conv1_1["BGR"].copy()
    kernel[1, 1, 1, 1] = np.nextafter(kernel[1, 1, 1, 1], np.float32(1.0))
    assert preprocessing_of(read(foreign.npz() | {"conv1_1_W": kernel})) is None


@every_project
def test_what_is_said_wins_over_the_project(project, read):
    arrays = PROJECTS[project][0]
    weights = read(arrays, anchor_scales=(1.0, 2.0), preprocessing="py-faster-rcnn")
    assert preprocessing_of(weights) == "py-faster-rcnn"


def test_what_is_said_may_change_the_mean_of_a_known_kernel(read, caffe_conv1_1):
    arrays = foreign.npz() | {"conv1_1_W": caffe_conv1_1["BGR"]}
    weights = read(arrays, preprocessing="py-faster-rcnn")
    assert preprocessing_of(weights) == "py-faster-rcnn"


def test_what_is_said_must_not_contradict_a_known_kernel(read, caffe_conv1_1):
    arrays = foreign.npz() | {"conv1_1_W": caffe_conv1_1["BGR"]}
    with pytest.raises(UserError, match=r"is Caffe's for BGR, but preprocessing torch"):
        read(arrays, preprocessing="torchvision")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({"caffe_pretrain": "yes"}, "chenyuntc-caffe"), ({}, "torchvision")],
)
def test_detector_in_safetensors_says_caffe_pretrain(metadata, expected, tmp_path):
    path = tmp_path / "detector.safetensors"
    safetensors.numpy.save_file(foreign.chenyuntc(), path, metadata)
    weights = read_weights(str(path), anchor_scales=(1.0, 2.0))
    assert preprocessing_of(weights) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"caffe_pretrain": True}, "chenyuntc-caffe"),
        ({"caffe_pretrain": False}, "torchvision"),
        ({}, "torchvision"),
        ("nonsense", "torchvision"),
    ],
)
def test_detector_in_pytorch_says_caffe_pretrain(config, expected, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra parity")
    model = {k: torch.from_numpy(array) for k, array in foreign.chenyuntc().items()}
    torch.save({"model": model, "config": config}, tmp_path / "detector.pth")
    weights = read_weights(str(tmp_path / "detector.pth"), anchor_scales=(1.0, 2.0))
    assert preprocessing_of(weights) == expected
