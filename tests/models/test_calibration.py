"""Random layers fit the pretrained layers below them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.config import ModelConfig
from frcnn_jax.models import FasterRCNN
from frcnn_jax.models.calibration import fit_to_partial, is_partial
from frcnn_jax.models.parameters import (
    abstract_detector,
    flatten,
    parameter_shapes,
    random_params,
    unflatten,
)
from frcnn_jax.models.vgg16 import CONVOLUTIONS
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import select_matching
from tests.helpers import tiny

NAMES = list(CONVOLUTIONS)
SIZES = jnp.array([[40, 44], [48, 36]])


@pytest.fixture(scope="module")
def params():
    return random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)


@pytest.fixture
def detector(params) -> FasterRCNN:
    return nnx.merge(abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)[0], params)


def first_layers(num_layers: int) -> dict[str, np.ndarray]:
    """As strong as ImageNet's: twice He's deviation, features far beyond 1."""
    shapes = tiny.shapes_by_name(tiny.NUM_CLASSES)
    rng = np.random.default_rng(1)
    arrays = {}
    for name in NAMES[:num_layers]:
        shape = shapes[f"backbone.{name}.kernel"]
        deviation = 2.0 * np.sqrt(2.0 / np.prod(shape[:3]))
        kernel = rng.normal(0.0, deviation, shape)
        arrays[f"backbone.{name}.kernel"] = kernel.astype(np.float32)
        arrays[f"backbone.{name}.bias"] = np.full(shape[3:], 0.5, np.float32)
    return arrays


def images():
    x = jax.random.normal(jax.random.key(2), (2, 48, 48, 3))
    inside = jnp.arange(48)[None] < SIZES[:, :1], jnp.arange(48)[None] < SIZES[:, 1:]
    return x * inside[0][:, :, None, None] * inside[1][:, None, :, None]


def start_partially(detector: FasterRCNN, arrays: dict[str, np.ndarray]) -> None:
    nnx.update(detector, unflatten(arrays))
    fit_to_partial(detector, arrays, jax.random.key(3), images(), SIZES)


def parameters(detector: FasterRCNN) -> dict[str, np.ndarray]:
    return flatten(nnx.to_pure_dict(nnx.state(detector)))


def test_complete_backbone_is_taken_as_it_is(detector):
    arrays = first_layers(13)
    assert not is_partial(arrays)
    before = parameters(detector)
    nnx.update(detector, unflatten(arrays))
    after = parameters(detector)
    assert set(after) == set(before)
    for name, array in after.items():
        np.testing.assert_array_equal(array, arrays.get(name, before[name]))


@pytest.mark.slow
def test_partial_backbone_keeps_features_up_to_one_factor(detector):
    arrays = first_layers(7)
    assert is_partial(arrays)
    start_partially(detector, arrays)
    after = parameters(detector)
    name = "backbone.conv1_1.kernel"
    ratio = after[name] / arrays[name]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    for name in NAMES[1:7]:
        kernel, bias = (f"backbone.{name}.{kind}" for kind in ("kernel", "bias"))
        np.testing.assert_array_equal(after[kernel], arrays[kernel])
        np.testing.assert_allclose(after[bias], 0.5 * ratio.mean(), rtol=1e-4)


def test_partial_backbone_leaves_features_of_unit_scale(detector):
    start_partially(detector, first_layers(7))
    features, _ = detector.backbone(images(), SIZES)
    # The convolutions' outputs deviate by 1; ReLU leaves between half and all of it.
    assert 0.2 < float(features[:, :2, :2].std()) < 3.0
    assert not detector.backbone.conv4_1.bias[...].any()


def test_partial_backbone_starts_fc6_and_fc7_with_deviation_0_01(detector):
    start_partially(detector, first_layers(7))
    for name, rtol in (("fc6", 0.02), ("fc7", 0.1)):  # of 100,000 and 1,000 values
        kernel = getattr(detector.head, name).kernel[...]
        np.testing.assert_allclose(kernel.std(), 0.01, rtol=rtol)
        assert abs(float(kernel.mean())) < 0.001


def test_fully_connected_layer_of_the_file_is_kept(detector):
    kernel = np.full(detector.head.fc7.kernel.shape, 0.25, np.float32)
    start_partially(detector, first_layers(7) | {"head.fc7.kernel": kernel})
    np.testing.assert_array_equal(detector.head.fc7.kernel[...], kernel)
    np.testing.assert_allclose(detector.head.fc6.kernel[...].std(), 0.01, rtol=0.02)


def test_region_proposal_network_stays_as_it_was(detector):
    before = parameters(detector)
    start_partially(detector, first_layers(7))
    for name, array in parameters(detector).items():
        if name.startswith(("rpn.", "head.score.", "head.delta.")):
            np.testing.assert_array_equal(array, before[name])


def test_one_layer_is_enough(detector):
    start_partially(detector, first_layers(1))
    features, _ = detector.backbone(images(), SIZES)
    assert 0.2 < float(features[:, :2, :2].std()) < 3.0


def test_real_kernels_have_a_place_in_the_full_width(data_root):
    weights = read_weights(str(data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz"))
    _, params = abstract_detector(ModelConfig(), tiny.NUM_CLASSES)
    arrays = select_matching(weights, parameter_shapes(params))
    layers = [name for name in NAMES if f"backbone.{name}.kernel" in arrays]
    assert layers == NAMES[:7]
    assert is_partial(arrays)
    assert arrays["backbone.conv3_3.kernel"].shape == (3, 3, 256, 256)
