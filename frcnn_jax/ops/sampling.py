"""Sampling that depends on the key alone.

What `jax.random.split` and `jax.random.uniform` give can depend on JAX's flags and on
how much is asked for, and for `rbg` keys under `jax.vmap` on the neighbors. A key for
each number, from `jax.random.fold_in`, depends on none of these, and gives the same
numbers as they do by default.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from frcnn_jax.ops.checks import check_arrays, check_count


@check_arrays
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
      ValueError: if max_samples is not an integer >= 0.

    Example:
      >>> mask = jnp.array([False, True, False, True])
      >>> indices, count = sample_indices(jax.random.key(0), mask, 3)
      >>> print(sorted(indices[:count].tolist()), count)
      [1, 3] 2
    """
    check_count("max_samples", max_samples)
    num_entries = mask.shape[0]
    draws = uniform(key, num_entries)
    priority = jnp.where(mask, draws[jnp.cumsum(mask) - 1], -1.0)
    _, indices = jax.lax.top_k(priority, min(max_samples, num_entries))
    return indices, jnp.minimum(mask.sum(dtype=jnp.int32), indices.shape[0])


def split_key(key: Key[Array, ""], count: int) -> Key[Array, " n"]:
    """Derives keys, those of `jax.random.split` by default.

    Args:
      key: PRNG key.
      count: how many to derive.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def uniform(key: Key[Array, ""], count: int) -> Float[Array, " n"]:
    """Draws from [0, 1), the numbers of `jax.random.uniform` by default.

    Args:
      key: PRNG key. One of another implementation gives the numbers of the `threefry`
        key of the same seed.
      count: how many to draw.
    """
    words = jax.random.key_data(key)[:2]  # the rest of an `rbg` key repeats them
    keys = split_key(jax.random.wrap_key_data(words, impl="threefry2x32"), count)
    first, second = jnp.unstack(jax.random.key_data(keys), axis=1)
    return ((first ^ second) >> 9).astype(jnp.float32) * jnp.float32(2**-23)
