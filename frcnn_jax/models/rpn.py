"""The region proposal network: two scores and four deltas for every anchor."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

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
            padding="VALID",  # of features that are padded already
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
        return self._outputs(_pad(features))

    def at(
        self, features: Float[Array, "b h w c"], anchors: Int[Array, "b s"]
    ) -> tuple[Float[Array, "b s 2"], Float[Array, "b s 4"]]:
        """Computes scores and deltas of some anchors, each from its 3 x 3 cells.

        Only sampled anchors have a loss. Its gradient passes through their cells alone
        here, which costs less than from `__call__` if the map has many more cells.

        Args:
          features: [B, H, W, C] feature maps.
          anchors: [B, S] indices of anchors, from 0 to N - 1.

        Returns:
          logits [B, S, 2] and deltas [B, S, 4], what `__call__` computes for them.
        """
        # The patches overlap, so that their gradients are added up: in float32.
        padded = _pad(features.astype(jnp.float32))
        cells, slots = jnp.divmod(anchors, self.score.out_features // 2)
        y, x = jnp.divmod(cells, features.shape[2])
        patches = jax.vmap(jax.vmap(_patch, (None, 0, 0)))(padded, y, x)
        logits, deltas = self._outputs(patches.reshape(-1, *patches.shape[2:]))
        chosen = jnp.arange(slots.size), slots.reshape(-1)
        return (
            logits[chosen].reshape(*anchors.shape, 2),
            deltas[chosen].reshape(*anchors.shape, 4),
        )

    def _outputs(
        self, padded: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b n 2"], Float[Array, "b n 4"]]:
        """Runs the layers on padded maps, or on patches of 3 x 3 cells."""
        x = self.activation(self.conv(padded))
        batch_size = x.shape[0]
        logits = self.score(x).reshape(batch_size, -1, 2)
        return logits, self.delta(x).reshape(batch_size, -1, 4)


def _pad(features: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    return jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _patch(
    padded: Float[Array, "h w c"], y: Int[Array, ""], x: Int[Array, ""]
) -> Float[Array, "3 3 c"]:
    """Cuts out cell (y, x) of the features with its neighbors."""
    start = y, x, jnp.zeros_like(y)  # a plain 0 is int64 under jax_enable_x64
    return jax.lax.dynamic_slice(padded, start, (3, 3, padded.shape[2]))
