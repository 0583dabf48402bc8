"""Our own files: they keep everything, and are trusted no more than others."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from frcnn_jax.config import ModelConfig
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.data.records import VOC_CLASS_NAMES
from frcnn_jax.errors import UserError
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import resolve_preprocessing
from tests.helpers import containers, foreign
from tests.helpers.containers import assert_same

COLORS = dataclasses.asdict(PREPROCESSINGS["caffe"])
CONV1_1 = {
    "backbone.conv1_1.kernel": np.ones((3, 3, 3, 8), np.float32),
    "backbone.conv1_1.bias": np.zeros(8, np.float32),
}


SCALES = {"anchor_scales": (1.0, 2.5)}
NAMES = [f"class {index}" for index in range(foreign.NUM_CLASSES)]


@pytest.fixture
def refusal(tmp_path):
    """Writes a file that claims to be ours; gives the line it is refused with."""

    def refusal(metadata: dict[str, str], arrays=CONV1_1) -> str:
        path = tmp_path / "own.safetensors"
        metadata = {"format": "frcnn_jax"} | metadata
        safetensors.numpy.save_file(arrays, path, metadata)
        return containers.refusal(path, read_weights)

    return refusal


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        (foreign.torchvision(), {}),
        (foreign.npz(), {"preprocessing": "caffe-rgb"}),
        (foreign.npz(), {}),
        (foreign.chenyuntc(), SCALES | {"class_names": NAMES}),
    ],
    ids=["torchvision", "said", "unknown", "detector"],
)
def test_file_of_ours_gives_the_same_weights(arrays, options, read, tmp_path):
    weights = read(arrays, **options)
    path = tmp_path / "own.safetensors"
    save_weights(weights, path)
    again = read_weights(str(path))
    assert_same(again.arrays, weights.arrays)
    assert again.preprocessing == weights.preprocessing
    assert again.spec == weights.spec
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert again.layout == "frcnn_jax"


def test_metadata_tells_where_the_weights_are_from(read, tmp_path):
    weights = read(foreign.torchvision())
    save_weights(weights, tmp_path / "own.safetensors")
    with safetensors.safe_open(tmp_path / "own.safetensors", "numpy") as file:
        source = file.metadata()["source"]
    assert source == f"{weights.source}, torchvision VGG16, {weights.sha256}"


@pytest.mark.parametrize(
    "model",
    [
        COLORS | {"nonsense": 1},
        COLORS | {"losses.nonsense": 1},
        {"channel_order": "BGR"},
        COLORS | {"channel_order": "GBR"},
        COLORS | {"channel_order": ["BGR"]},
        COLORS | {"pixel_mean": [1.0, 2.0]},
        COLORS | {"pixel_mean": 1.0},
        COLORS | {"pixel_mean": ["1", "2", "3"]},
        COLORS | {"pixel_std": [1.0, 1.0, float("nan")]},
        COLORS | {"pixel_std": [1.0, 1.0, 10**400]},
        [COLORS],
        None,
    ],
)
def test_forged_metadata_is_refused(model, refusal):
    assert "damaged (its metadata" in refusal({"model": json.dumps(model)})


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000], ids=["empty", "cut", "deep"])
def test_metadata_that_is_no_json_is_refused(text, refusal):
    assert "damaged (its metadata is not JSON)" in refusal({"model": text})


def test_missing_metadata_is_refused(refusal):
    assert "damaged (its metadata has no model)" in refusal({})


def test_impossible_divisor_is_refused_by_the_config(tmp_path):
    path = tmp_path / "own.safetensors"
    model = json.dumps(COLORS | {"pixel_std": [0.0, 1.0, 1.0]})
    metadata = {"format": "frcnn_jax", "model": model}
    safetensors.numpy.save_file(CONV1_1, path, metadata)
    with pytest.raises(UserError, match=r"model\.pixel_std is \(0\.0, 1\.0, 1\.0\)"):
        resolve_preprocessing(ModelConfig(), read_weights(str(path)))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone.conv1_1.kernel": np.ones(5, np.float32)},
        {"backbone.conv1_1.bias": np.ones((0,), np.float32)},
        {"backbone.conv9_1.kernel": np.ones((8, 8), np.float32)},
    ],
    ids=["one-axis", "empty", "stray"],
)
def test_unfit_arrays_are_refused(change, refusal):
    refusal({"model": json.dumps(COLORS)}, CONV1_1 | change)


@pytest.mark.parametrize(
    ("arrays", "missing"),
    [
        ({}, "backbone.conv1_1.bias, backbone.conv1_1.kernel missing"),
        (foreign.torchvision(), "backbone.conv1_1.bias, "),
        ({"backbone.conv1_1.kernel": np.ones((3, 3, 3, 8), "f")}, "conv1_1.bias"),
        (CONV1_1 | {"rpn.conv.kernel": np.ones((3, 3, 8, 8), "f")}, "34 more missing"),
    ],
    ids=["none", "foreign", "no-bias", "half-a-detector"],
)
def test_missing_layers_are_named(arrays, missing, refusal):
    assert missing in refusal({"model": json.dumps(COLORS)}, arrays)


@pytest.fixture
def rewrite(read, tmp_path):
    """Writes a detector of ours with other metadata; returns its path."""

    def rewrite(change) -> str:
        weights = read(foreign.chenyuntc(), **SCALES, class_names=NAMES)
        path = str(tmp_path / "own.safetensors")
        save_weights(weights, tmp_path / "own.safetensors")
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata()
        change(metadata)
        safetensors.numpy.save_file(dict(weights.arrays), path, metadata)
        return path

    return rewrite


def test_detector_without_anchors_in_its_metadata_is_refused(rewrite):
    def drop_model(metadata):
        spec = json.loads(metadata["detector"])
        del spec["model"]
        metadata["detector"] = json.dumps(spec)

    with pytest.raises(UserError, match=r"damaged \(its metadata: .*model"):
        read_weights(rewrite(drop_model))


def test_detector_of_an_earlier_version_is_refused_with_what_to_do(rewrite):
    path = rewrite(lambda metadata: metadata.pop("detector"))
    with pytest.raises(UserError, match=r"has no class names.* export .* again"):
        read_weights(path)


def test_classes_without_names_are_not_written(read, tmp_path):
    weights = read(foreign.chenyuntc(), **SCALES)
    with pytest.raises(UserError, match="does not name its classes"):
        save_weights(weights, tmp_path / "own.safetensors")
    assert not (tmp_path / "own.safetensors").exists()


def test_names_must_be_as_many_as_the_classes(read):
    with pytest.raises(UserError, match="but 1 class names are given"):
        read(foreign.chenyuntc(), **SCALES, class_names=["cat"])


def test_twenty_classes_have_the_names_of_voc(read):
    arrays = dict(foreign.chenyuntc())
    for name, count in (("head.score", 21), ("head.cls_loc", 84)):
        shape = arrays[f"{name}.weight"].shape
        arrays[f"{name}.weight"] = np.ones((count, *shape[1:]), np.float32)
        arrays[f"{name}.bias"] = np.ones(count, np.float32)
    assert read(arrays, **SCALES).spec.class_names == VOC_CLASS_NAMES
