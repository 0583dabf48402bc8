"""The region proposal network: two scores and four deltas for every anchor."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from frcnn_jax.models.layers import convolve, promote_products


class RPN(nnx.Module):
    """A 3 x 3 convolution and two parallel 1 x 1 convolutions."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_anchors: int,
        *,
        activation: Callable[[Array], Array] = nnx.relu,
        compute_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the layers: kernels normal with standard deviation 0.01, biases 0.

        Args:
          in_channels: channels of the feature map.
          channels: channels of the 3 x 3 convolution.
          num_anchors: A, anchors per cell.
          activation: after the 3 x 3 convolution.
          compute_dtype: of the 3 x 3 convolution's products. The scores are float32
            always: in bfloat16 many would tie.
          rngs: source of the initial values.
        """
        init = nnx.initializers.normal(0.01)
        self.activation = activation
        self.conv = nnx.Conv(
            in_channels,
            channels,
            (3, 3),
            kernel_init=init,
            dtype=compute_dtype,
            promote_dtype=promote_products,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        output = functools.partial(
            nnx.Conv,
            channels,
            kernel_size=(1, 1),
            kernel_init=init,
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.score = output(num_anchors * 2)
        self.delta = output(num_anchors * 4)

    def __call__(
        self, features: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b n 2"], Float[Array, "b n 4"]]:
        """Computes scores and deltas of the H * W * A anchors, row-major (y, x, a).

        Args:
          features: [B, H, W, C] feature maps.

        Returns:
          logits [B, N, 2] of (background, object) and deltas [B, N, 4].
        """
        x = self.activation(self.conv(features))
        batch_size = x.shape[0]
        logits = self.score(x).reshape(batch_size, -1, 2)
        return logits, self.delta(x).reshape(batch_size, -1, 4)
