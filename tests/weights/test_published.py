"""The published Caffe VGG16 is known by its digests."""

import numpy as np
import pytest

from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.published import channel_order, count_published


@pytest.fixture(scope="module")
def arrays(data_root) -> dict[str, np.ndarray]:
    source = data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz"
    return dict(read_weights(str(source)).arrays)


def test_all_published_arrays_are_known(arrays):
    assert count_published(arrays) == len(arrays) == 14


@pytest.mark.parametrize("name", ["backbone.conv1_1.kernel", "backbone.conv3_3.bias"])
def test_one_bit_makes_it_another_array(arrays, name):
    array = arrays[name].copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(9.0))
    assert count_published(arrays | {name: array}) == 13


def test_array_of_another_layer_does_not_count(arrays):
    arrays = arrays | {"backbone.conv2_1.bias": arrays["backbone.conv2_2.bias"]}
    assert count_published(arrays) == 13


def test_order_of_channels_is_recognized_by_the_kernel(arrays):
    kernel = arrays["backbone.conv1_1.kernel"]
    assert channel_order(kernel) == "BGR"
    assert channel_order(kernel[:, :, ::-1]) == "RGB"
    assert channel_order(kernel[:, :, [0, 2, 1]]) is None
