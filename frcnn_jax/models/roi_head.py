"""The RoI head: fc6 and fc7 of VGG16, class scores and deltas per class."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from frcnn_jax.models.layers import multiply, promote_products
from frcnn_jax.ops.sampling import split_key, uniform


class RoIHead(nnx.Module):
    """Two fully connected layers and two parallel output layers."""

    def __init__(
        self,
        in_features: int,
        channels: int,
        num_classes: int,
        *,
        activation: Callable[[Array], Array] = nnx.relu,
        dropout: float = 0.0,
        compute_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the layers: kernels normal, deviation 0.01, or 0.001 for the deltas.

        fc6 and fc7 start from He initialization, which keeps the scale of features.

        Args:
          in_features: pooled height * width * channels.
          channels: of fc6 and fc7.
          num_classes: L, classes of the data set, without the background.
          activation: after fc6 and fc7.
          dropout: rate after fc6 and fc7 in training.
          compute_dtype: of fc6's and fc7's products; scores and deltas are float32.
          rngs: source of the initial values.
        """
        self.activation = activation
        self.dropout = dropout
        self.deterministic = False  # True after `eval()`: no dropout, whatever the keys
        hidden = functools.partial(
            nnx.Linear,
            out_features=channels,
            kernel_init=nnx.initializers.he_normal(),
            dtype=compute_dtype,
            promote_dtype=promote_products,
            dot_general=multiply,
            rngs=rngs,
        )
        self.fc6 = hidden(in_features)
        self.fc7 = hidden(channels)
        output = functools.partial(nnx.Linear, channels, dtype=jnp.float32, rngs=rngs)
        normal = nnx.initializers.normal
        self.score = output(num_classes + 1, kernel_init=normal(0.01))
        self.delta = output((num_classes + 1) * 4, kernel_init=normal(0.001))

    def __call__(
        self, pooled: Float[Array, "r p q c"], keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "r l"], Float[Array, "r l 4"]]:
        """Computes scores and deltas of every class for every RoI.

        Args:
          pooled: [R, P, Q, C] features of the RoIs of B images, one after the other.
          keys: [B] PRNG keys of their dropout; without them there is no dropout.

        Returns:
          logits [R, L + 1], column 0 the background, and deltas [R, L + 1, 4].
        """
        x = pooled.reshape(pooled.shape[0], -1)
        split = jax.vmap(split_key, (0, None), 1)
        first, second = (None, None) if keys is None else split(keys, 2)
        x = self._drop(self.activation(self.fc6(x)), first)
        x = self._drop(self.activation(self.fc7(x)), second)
        return self.score(x), self.delta(x).reshape(x.shape[0], -1, 4)

    def _drop(
        self, x: Float[Array, "r c"], keys: Key[Array, " b"] | None
    ) -> Float[Array, "r c"]:
        if keys is None or self.deterministic or self.dropout == 0.0:
            return x
        values = jax.vmap(uniform, (0, None))(keys, x.size // len(keys))
        keep = values.reshape(x.shape) < 1.0 - self.dropout
        return jnp.where(keep, x / (1.0 - self.dropout), 0.0)
