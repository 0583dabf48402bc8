"""Uniform sampling without replacement among the marked entries of an array."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int, Key

from frcnn_jax.ops.checks import check_shapes


@check_shapes
def sample_indices(
    key: Key[Array, ""], mask: Bool[Array, " n"], max_samples: int
) -> tuple[Int[Array, " s"], Int[Array, ""]]:
    """Draws entries of the mask in random order.

    The n-th True entry draws the n-th random number, so the result does not change when
    False entries are put in, taken out or moved: padding cannot influence a sample.

    Args:
      key: PRNG key.
      mask: [N] the candidates.
      max_samples: how many to draw at most.

    Returns:
      `(indices, count)`: [S] int32, S = min(max_samples, N), and how many of them, from
      the front, are drawn; what follows means nothing.

    Raises:
      ValueError: if max_samples is negative.

    Example:
      >>> mask = jnp.array([False, True, False, True])
      >>> indices, count = sample_indices(jax.random.key(0), mask, 3)
      >>> print(sorted(indices[:count].tolist()), count)
      [1, 3] 2
    """
    if max_samples < 0:
        raise ValueError(f"max_samples is {max_samples}, expected it >= 0")
    num_entries = mask.shape[0]
    draws = jax.random.uniform(key, (num_entries,))
    priority = jnp.where(mask, draws[jnp.cumsum(mask) - 1], -1.0)
    _, indices = jax.lax.top_k(priority, min(max_samples, num_entries))
    return indices, jnp.minimum(mask.sum(dtype=jnp.int32), indices.shape[0])
