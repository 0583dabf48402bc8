"""A checkpoint of simple-faster-rcnn-pytorch, imported, finds what it finds there."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

from frcnn_jax.config import DetectionConfig, ModelConfig
from frcnn_jax.data import transforms
from frcnn_jax.models.parameters import (
    abstract_detector,
    parameter_shapes,
    unflatten,
)
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import resolve_preprocessing, select_matching
from tests.parity import reference, reference_layers

pytestmark = pytest.mark.slow

NUM_CLASSES = 20
CANVAS = (800, 800)
# A photograph upright, one across, and a picture of blood cells.
PHOTOGRAPHS = (
    "VOC2007/JPEGImages/000002.jpg",
    "VOC2007/JPEGImages/000009.jpg",
    "BCCD/JPEGImages/BloodImage_00007.jpg",
)


def random_state():
    """Parameters by that project's names, such that scores and boxes spread."""
    rng = np.random.default_rng(0)

    def layer(name, *shape, scale=2.0):
        num_inputs = np.prod(shape[1:])
        kernel = rng.standard_normal(shape, np.float32) * np.sqrt(scale / num_inputs)
        bias = 0.1 * rng.standard_normal(shape[0], np.float32)
        state[f"{name}.weight"] = torch.from_numpy(kernel.astype(np.float32))
        state[f"{name}.bias"] = torch.from_numpy(bias)

    state, channels = {}, [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
    for number, index in enumerate(reference_layers.CONVOLUTIONS):
        layer(f"extractor.{index}", channels[number + 1], channels[number], 3, 3)
    layer("rpn.conv1", 512, 512, 3, 3)
    layer("rpn.score", 18, 512, 1, 1)
    layer("rpn.loc", 36, 512, 1, 1, scale=0.1)
    layer("head.classifier.0", 4096, 25088)
    layer("head.classifier.2", 4096, 4096)
    layer("head.cls_loc", 4 * (NUM_CLASSES + 1), 4096)
    layer("head.score", NUM_CLASSES + 1, 4096)
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The state, and the path of a checkpoint as that project's trainer saves it."""
    state = random_state()
    path = tmp_path_factory.mktemp("checkpoint") / "fasterrcnn.pth"
    config = {"caffe_pretrain": False, "env": "faster-rcnn"}
    torch.save({"model": state, "config": config}, path)
    yield state, path
    path.unlink()  # half a gigabyte


@pytest.fixture(scope="module")
def detect(checkpoint):
    """Ours, from the imported checkpoint, compiled once for all photographs."""
    weights = read_weights(str(checkpoint[1]))
    # That project keeps everything above the score.
    keep_all = DetectionConfig(max_detections=300 * NUM_CLASSES)
    config = resolve_preprocessing(ModelConfig(detection=keep_all), weights)
    graphdef, params = abstract_detector(config, NUM_CLASSES)
    shapes = parameter_shapes(params)
    arrays = select_matching(weights, shapes)
    assert arrays.keys() == shapes.keys()
    params = unflatten(arrays)

    @jax.jit
    def detect(*image):
        model = nnx.merge(graphdef, params)
        return model.detect(model(*image))

    return detect


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_detections_of_an_imported_checkpoint_are_the_reference(
    checkpoint, detect, data_root, name
):
    photograph = np.asarray(Image.open(data_root / name).convert("RGB"))
    image, _, scales = transforms.resize(
        photograph, np.zeros((0, 4)), shorter_side=600, longer_side=800
    )
    expected = reference.detect(
        checkpoint[0], reference_layers.normalize(image), float(scales.mean())
    )
    found = detect(
        transforms.pad_to(image, CANVAS)[None],
        np.float32([image.shape[:2]]),
        scales[None],
    )
    found = jax.tree.map(lambda array: np.asarray(array)[0, found.mask[0]], found)

    assert len(expected.scores) > 50
    assert (np.diff(found.scores) <= 0.0).all()
    # Theirs are listed class after class, each best first; ours over all classes.
    order = np.argsort(found.labels, kind="stable")
    np.testing.assert_array_equal(found.labels[order], expected.labels)
    np.testing.assert_allclose(found.scores[order], expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes[order], expected.boxes, atol=0.01)
