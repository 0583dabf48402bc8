"""Starting from ImageNet's VGG16 kernels, complete or only those of the first layers.

The file is an `.npz` with `conv1_1_W` [3, 3, in, out] and `conv1_1_b` [out], and so on.
"""

import logging
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from frcnn_jax.errors import UserError
from frcnn_jax.models.vgg16 import BLOCKS, VGG16, downsample, inside_mask, zero_outside

Layers = dict[str, tuple[np.ndarray, np.ndarray]]  # name: (kernel, bias)

_logger = logging.getLogger(__name__)


def read_layers(path: str | Path, backbone: VGG16) -> Layers:
    """Reads the convolutions, from conv1_1 on, whose kernel and bias the file has.

    Args:
      path: the `.npz` file.
      backbone: whose shapes they must have.

    Raises:
      UserError: if the file cannot be read, has no conv1_1, skips a layer, or a shape
        or type is another.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"model.pretrained: {path}: {error}") from None
    names = [name for block in BLOCKS for name, _ in block]
    layers = {}
    for name in names:
        if f"{name}_W" not in arrays or f"{name}_b" not in arrays:
            break
        convolution = getattr(backbone, name)
        layers[name] = (arrays[f"{name}_W"], arrays[f"{name}_b"])
        for suffix, got, expected in zip(
            "Wb", layers[name], (convolution.kernel, convolution.bias), strict=True
        ):
            if got.shape != expected.shape or got.dtype != np.float32:
                raise UserError(
                    f"model.pretrained: {path}: {name}_{suffix} is {got.dtype} "
                    f"{got.shape}, expected float32 {expected.shape}"
                )
    late = [name for name in names[len(layers) :] if f"{name}_W" in arrays]
    if late or not layers:
        missing = names[len(layers)]
        raise UserError(
            f"model.pretrained: {path}: {missing}_W or {missing}_b is missing, "
            "expected the layers from conv1_1 on without a gap"
        )
    return layers


def load_into(
    backbone: VGG16,
    layers: Layers,
    images: Float[Array, "b height width 3"],
    image_sizes: Int[Array, "b 2"],
) -> None:
    """Puts the layers into the backbone, in place, and fits the others to them.

    All 13 layers are taken as they are. If only the first ones are known, those above
    stay random, and would be driven far too hard: the features of conv3_3 are about 250
    in standard deviation. VGG16 is positively homogeneous, so dividing conv1_1's kernel
    and all biases by that deviation scales the features to 1 and changes nothing else;
    each random kernel is then divided by the deviation of its own output.

    Args:
      backbone: is changed.
      layers: from `read_layers`.
      images: [B, height, width, 3] normalised training images, zero outside.
      image_sizes: [B, 2] (height, width) of the true images, in pixels.
    """
    for name, (kernel, bias) in layers.items():
        _assign(getattr(backbone, name), kernel, bias)
    names = [name for block in BLOCKS for name, _ in block]
    _logger.info("loaded %s..%s", names[0], list(layers)[-1])
    if len(layers) == len(names):
        return
    _logger.info("partially pretrained: %s..conv5_3 are random", names[len(layers)])

    x, sizes = images, image_sizes
    for index, block in enumerate(BLOCKS):
        if index > 0:
            x, sizes = downsample(x, sizes)
        for name, _ in block:
            convolution = getattr(backbone, name)
            if name not in layers:
                deviation = _deviation(convolution(x), sizes)
                kernel = convolution.kernel[...] / deviation
                _assign(convolution, kernel, jnp.zeros_like(convolution.bias[...]))
            x = zero_outside(nnx.relu(convolution(x)), sizes)
            if name == list(layers)[-1]:
                deviation = _deviation(x, sizes)
                _scale_features(backbone, layers, deviation)
                x = x / deviation


def _scale_features(backbone: VGG16, layers: Layers, deviation: Array) -> None:
    for name, (kernel, bias) in layers.items():
        scaled = kernel / deviation if name == "conv1_1" else kernel
        _assign(getattr(backbone, name), scaled, bias / deviation)


def _assign(
    convolution: nnx.Conv, kernel: Array | np.ndarray, bias: Array | np.ndarray
) -> None:
    convolution.kernel[...] = jnp.asarray(kernel)
    convolution.bias[...] = jnp.asarray(bias)


def _deviation(x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"]) -> Array:
    inside = inside_mask(x.shape[1:3], sizes)[..., None]
    return jnp.std(x, where=jnp.broadcast_to(inside, x.shape))
