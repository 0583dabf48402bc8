"""The published Caffe VGG16 of Simonyan and Zisserman, known by its SHA-256."""

import hashlib
import struct
from collections.abc import Mapping

import numpy as np

# The first half of the digest of every array as NumPy before 1.14 saved it, conv1_1's
# input channels in the order RGB; from oranshayer/VGGNet:vgg16_weights/.
_SHA256 = {
    "conv1_1.kernel": "0b1cf41d353ae96b186f2cffb6c17b5c",
    "conv1_1.bias": "39b777679d117e1bf0b5d10f7aa39a06",
    "conv1_2.kernel": "e0726ea150fbc302519bc612216965b7",
    "conv1_2.bias": "02b83a47ae29c4f36f5882286297445b",
    "conv2_1.kernel": "a5afaf85c57ef8bc57b1a6f836f02880",
    "conv2_1.bias": "0bae357e418c37c926b64dd9891c123a",
    "conv2_2.kernel": "301ed9e0f016731a0d40c24d85e64722",
    "conv2_2.bias": "a557d3ffcd15035c8eba506716060701",
    "conv3_1.kernel": "475259f3d0b67228b8ca3ee86d8886aa",
    "conv3_1.bias": "9c0511e766da165a93e405cca152c62e",
    "conv3_2.kernel": "849222494fc38d91b48c3ecbf926902b",
    "conv3_2.bias": "fb0bd38723825fda7dc2d0420e006c73",
    "conv3_3.kernel": "c5477b3e8acd8b06a0bb61a911ab8ee8",
    "conv3_3.bias": "1e266025a896e451e18e82c9dbc566f9",
    "conv4_1.kernel": "3b47a57c89a0830ba1d9254b04294d19",
    "conv4_1.bias": "7c4bb9644cdd0b5597f4bfb4613fdc96",
    "conv4_2.kernel": "5bc77036717f670f9a60c3eaaedb99dd",
    "conv4_2.bias": "104bbb00dd5c08ad1cb9fa0f334e68d5",
    "conv4_3.kernel": "30b04aee37776be57ea02a6b3f675f55",
    "conv4_3.bias": "c5b74eb9033f318179fdcdba8050376c",
    "conv5_1.kernel": "0762da95abcd9bb50e3f8f3ceb928962",
    "conv5_1.bias": "358765a638d307302043c63d2b9db878",
    "conv5_2.kernel": "23b9a3044d08e6dc9505eef72e287a37",
    "conv5_2.bias": "df27c8839fc4aff5094536eab4fab560",
    "conv5_3.kernel": "4658b83cf8520e863527595824183c7b",
    "conv5_3.bias": "be2107dcffff80e6098e0fb344dbce3c",
}


def channel_order(kernel: np.ndarray) -> str | None:
    """Returns the color order of conv1_1; None if it is not the published kernel.

    Args:
      kernel: [3, 3, 3, 64] of conv1_1.
    """
    for order, rgb in (("RGB", kernel), ("BGR", kernel[:, :, ::-1])):
        if _npy_sha256(rgb) == _SHA256["conv1_1.kernel"]:
            return order
    return None


def count_published(arrays: Mapping[str, np.ndarray]) -> int:
    """Counts the kernels and biases of the backbone that are the published ones."""
    count = 0
    for name, array in arrays.items():
        name = name.removeprefix("backbone.")
        if name == "conv1_1.kernel":
            count += channel_order(array) is not None
        elif name in _SHA256:
            count += _npy_sha256(array) == _SHA256[name]
    return count


def _npy_sha256(array: np.ndarray) -> str:
    """Half the digest of what NumPy before 1.14 saved, with its padded header."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}"
    header += " " * (16 - (11 + len(header)) % 16) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    content = start + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()[:32]
