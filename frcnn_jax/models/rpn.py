"""The region proposal network: two scores and four deltas for every anchor."""

from collections.abc import Callable

from flax import nnx
from jax import Array
from jaxtyping import Float

from frcnn_jax.models.conv import convolve


class RPN(nnx.Module):
    """A 3 x 3 convolution and two 1 x 1 convolutions beside one another."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_anchors: int,
        *,
        activation: Callable[[Array], Array] = nnx.relu,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes the layers: kernels normal with standard deviation 0.01, biases 0.

        Args:
          in_channels: channels of the feature map.
          channels: channels of the 3 x 3 convolution.
          num_anchors: A, anchors per cell.
          activation: after the 3 x 3 convolution.
          rngs: source of the initial values.
        """
        init = nnx.initializers.normal(0.01)
        self.activation = activation
        self.conv = nnx.Conv(
            in_channels,
            channels,
            (3, 3),
            kernel_init=init,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        self.score = nnx.Conv(
            channels, num_anchors * 2, (1, 1), kernel_init=init, rngs=rngs
        )
        self.delta = nnx.Conv(
            channels, num_anchors * 4, (1, 1), kernel_init=init, rngs=rngs
        )

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
