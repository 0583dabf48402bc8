"""Starting from ImageNet's VGG16, all of it or only its first layers.

Parameters are named as the detector's modules are: `backbone.conv1_1.kernel`.
"""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jaxtyping import Float, Int, Key

from frcnn_jax.models.faster_rcnn import FasterRCNN
from frcnn_jax.models.vgg16 import (
    BLOCKS,
    CONVOLUTIONS,
    VGG16,
    downsample,
    inside_mask,
    zero_outside,
)

_logger = logging.getLogger(__name__)


def parameter_shapes(params: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Lists the shapes of nested parameters by name."""
    return {name: leaf.shape for name, leaf in flatten_dict(params, sep=".").items()}


def assign(detector: FasterRCNN, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts arrays into the detector, in place."""
    params = {name: jnp.asarray(array) for name, array in arrays.items()}
    nnx.update(detector, unflatten_dict(params, sep="."))


def is_partial(arrays: Mapping[str, np.ndarray]) -> bool:
    """Tells whether the backbone's last layers are not among the arrays."""
    return f"backbone.{CONVOLUTIONS[-1]}.kernel" not in arrays


def fit_to_partial(
    detector: FasterRCNN,
    arrays: Mapping[str, np.ndarray],
    key: Key[Array, ""],
    images: Float[Array, "b height width 3"],
    image_sizes: Int[Array, "b 2"],
) -> None:
    """Fits the random layers of a partially pretrained detector to the others.

    The random layers would be driven far too hard: the features of conv3_3 are about
    250 in standard deviation. VGG16 is positively homogeneous, so dividing conv1_1's
    kernel and all biases by that deviation scales the features to 1 and changes nothing
    else; each random kernel is then divided by the deviation of its own output. fc6 and
    fc7 start from normal kernels of deviation 0.01.

    Args:
      detector: has the arrays, of the first layers of the backbone, already.
      arrays: what it has been given.
      key: PRNG key of fc6 and fc7.
      images: [B, height, width, 3] normalised training images, zero outside.
      image_sizes: [B, 2] (height, width) of the true images, in pixels.
    """
    known = [name for name in CONVOLUTIONS if f"backbone.{name}.kernel" in arrays]
    _logger.info(
        "partially pretrained: %s..%s and what follows them are random",
        CONVOLUTIONS[len(known)],
        CONVOLUTIONS[-1],
    )
    for layer_key, name in zip(jax.random.split(key), ("fc6", "fc7"), strict=True):
        if f"head.{name}.kernel" not in arrays:
            kernel = getattr(detector.head, name).kernel
            kernel[...] = 0.01 * jax.random.normal(layer_key, kernel.shape)
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
    backbone.conv1_1.kernel[...] /= divisor
    for name in names:
        getattr(backbone, name).bias[...] /= divisor


def _deviation(x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"]) -> Array:
    inside = inside_mask(x.shape[1:3], sizes)[..., None]
    return jnp.std(x, where=jnp.broadcast_to(inside, x.shape))
