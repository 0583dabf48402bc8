"""What jax must compute right for the package to be right."""

import jax
import jax.numpy as jnp


def test_a_vmapped_product_followed_by_a_sum_is_right():
    # jaxlib 0.10.2 is wrong here on the CPU: jax-ml/jax issue 39103.
    index = jnp.arange(32_769, dtype=jnp.float32)
    rows = jnp.stack([index, jnp.zeros_like(index), jnp.zeros_like(index)], axis=1)
    matrix = jnp.eye(3)

    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    assert float(squares[-1]) == 32_768.0**2
