"""VGG16 up to conv5_3, on padded batches: NHWC, one cell for 16 pixels.

What lies outside the true image is zero after every convolution, so that an image's
features depend neither on the canvas it is padded to nor on its neighbors.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from frcnn_jax.models.layers import (
    convolve,
    downsample,
    promote_products,
    zero_outside,
)

STRIDE = 16

Initializer = nnx.initializers.Initializer

# Names and output channels of the convolutions, block by block (Simonyan and Zisserman,
# table 1, column D). A 2 x 2 max pool follows each block but the last.
BLOCKS = (
    (("conv1_1", 64), ("conv1_2", 64)),
    (("conv2_1", 128), ("conv2_2", 128)),
    (("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256)),
    (("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512)),
    (("conv5_1", 512), ("conv5_2", 512), ("conv5_3", 512)),
)
CONVOLUTIONS = tuple(name for block in BLOCKS for name, _ in block)


class VGG16(nnx.Module):
    """The 13 convolutions of VGG16, each with ReLU, and 4 of its max pools."""

    def __init__(
        self,
        *,
        width: float = 1.0,
        frozen_blocks: int = 0,
        kernel_init: Initializer = nnx.initializers.he_normal(),  # noqa: B008
        compute_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the layers; biases are 0.

        Args:
          width: multiplies the channels.
          frozen_blocks: no gradient reaches this many blocks, from the first.
          kernel_init: initial kernels; `near_identity` if all 13 layers are to learn
            from scratch.
          compute_dtype: of the products and the features.
          rngs: source of the initial values.
        """
        self.frozen_blocks = frozen_blocks
        self.compute_dtype = compute_dtype
        channels = 3
        for block in BLOCKS:
            for name, full_channels in block:
                out_channels = max(1, round(full_channels * width))
                convolution = nnx.Conv(
                    channels,
                    out_channels,
                    (3, 3),
                    kernel_init=kernel_init,
                    dtype=compute_dtype,
                    promote_dtype=promote_products,
                    conv_general_dilated=convolve,
                    rngs=rngs,
                )
                setattr(self, name, convolution)
                channels = out_channels
        self.out_channels = channels

    def __call__(
        self, images: Float[Array, "b height width 3"], image_sizes: Int[Array, "b 2"]
    ) -> tuple[Float[Array, "b h w c"], Int[Array, "b 2"]]:
        """Computes the features.

        Args:
          images: [B, height, width, 3] normalized images, zero outside the true image.
          image_sizes: [B, 2] (height, width) of the true images, in pixels.

        Returns:
          features [B, height // 16, width // 16, C] after the ReLU of conv5_3, and
          [B, 2] the (height, width) of the real part of each map, in cells.
        """
        x, sizes = images, image_sizes
        for index, block in enumerate(BLOCKS):
            if index > 0:
                x, sizes = downsample(x, sizes)
            for name, _ in block:
                # The backward pass stores what follows the cast, in the compute type.
                x = getattr(self, name)(x).astype(self.compute_dtype)
                x = zero_outside(nnx.relu(x), sizes)
            if index + 1 == self.frozen_blocks:
                x = jax.lax.stop_gradient(x)  # also spares the backward pass
        return x, sizes


def near_identity(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Initializes kernels so that a deep plain network learns from scratch.

    After 13 layers of He initialization all features look alike, and without batch
    normalization they take long to diverge. Filters of zero mean ignore what all inputs
    have in common; a layer that keeps its width starts as the identity plus noise.

    Args:
      key: PRNG key.
      shape: (height, width, in, out) of the kernel.
      dtype: of the kernel.

    References:
      Zagoruyko and Komodakis, DiracNets, section 3, for the identity.
    """
    kernel = nnx.initializers.he_normal()(key, shape, dtype)
    in_channels, out_channels = shape[2:]
    if in_channels == 3:
        return kernel
    kernel -= kernel.mean(axis=(0, 1, 2), keepdims=True)
    if in_channels != out_channels:
        return kernel
    return (0.3 * kernel).at[1, 1].add(jnp.eye(in_channels, dtype=dtype))
