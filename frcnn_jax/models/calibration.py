"""Fits random layers to the scale of the pretrained layers below them.

Parameters are named as the detector's modules are: `backbone.conv1_1.kernel`.
"""

import logging
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from frcnn_jax.models.faster_rcnn import FasterRCNN
from frcnn_jax.models.layers import downsample, inside_mask, zero_outside
from frcnn_jax.models.vgg16 import BLOCKS, CONVOLUTIONS, VGG16
from frcnn_jax.ops.sampling import split_key

_logger = logging.getLogger(__name__)


def is_partial(arrays: Mapping[str, np.ndarray]) -> bool:
    """Returns whether the backbone's last layers are missing from the arrays."""
    return f"backbone.{CONVOLUTIONS[-1]}.kernel" not in arrays


def fit_to_partial(
    detector: FasterRCNN,
    arrays: Mapping[str, np.ndarray],
    key: Key[Array, ""],
    images: Float[Array, "b height width 3"],
    image_sizes: Int[Array, "b 2"],
) -> None:
    """Fits a detector's random layers to its pretrained ones, in place.

    The inputs of the random layers would be far too large: the features of conv3_3 have
    a standard deviation of about 250. VGG16 is positively homogeneous, so dividing
    conv1_1's kernel and all biases by that deviation scales the features to 1 and
    changes nothing else. Each random kernel is then divided by the deviation of its own
    output. fc6 and fc7 start from normal kernels of deviation 0.01.

    Args:
      detector: already holds the arrays, of the backbone's first layers.
      arrays: the pretrained parameters by name.
      key: PRNG key of fc6 and fc7.
      images: [B, height, width, 3] normalized training images, zero outside.
      image_sizes: [B, 2] (height, width) of the true images, in pixels.
    """
    known = [name for name in CONVOLUTIONS if f"backbone.{name}.kernel" in arrays]
    _logger.info(
        "partially pretrained: %s..%s and what follows them are random",
        CONVOLUTIONS[len(known)],
        CONVOLUTIONS[-1],
    )
    for layer_key, name in zip(split_key(key, 2), ("fc6", "fc7"), strict=True):
        if f"head.{name}.kernel" not in arrays:
            kernel = getattr(detector.head, name).kernel
            with jax.threefry_partitionable(True):  # JAX's default, whatever the user's
                normal = jax.random.normal(layer_key, kernel.shape, jnp.float32)
            kernel[...] = 0.01 * normal
    backbone = detector.backbone
    x, sizes = images, image_sizes
    for index, block in enumerate(BLOCKS):
        if index > 0:
            x, sizes = downsample(x, sizes)
        for name, _ in block:
            convolution = getattr(backbone, name)
            if name not in known:
                convolution.kernel[...] /= _deviation(convolution(x), sizes)
                convolution.bias[...] = jnp.zeros_like(convolution.bias[...])
            x = zero_outside(nnx.relu(convolution(x)), sizes)
            if name == known[-1]:
                deviation = _deviation(x, sizes)
                _divide_features(backbone, known, deviation)
                x = x / deviation


def _divide_features(backbone: VGG16, names: list[str], divisor: Array) -> None:
    first = getattr(backbone, names[0])
    first.kernel[...] /= divisor
    for name in names:
        getattr(backbone, name).bias[...] /= divisor


def _deviation(x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"]) -> Array:
    inside = inside_mask((x.shape[1], x.shape[2]), sizes)[..., None]
    return jnp.std(x, where=jnp.broadcast_to(inside, x.shape))
