"""Mixed precision: layers multiply in a compute type, parameters stay float32."""

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def promote_products(
    arrays: tuple[ArrayLike, ArrayLike, ArrayLike], *, dtype: DTypeLike
) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
    """Casts what a layer multiplies, and leaves its bias as it is.

    For use as `nnx.Conv(..., dtype=dtype, promote_dtype=promote_products)`: products
    of type `dtype` plus a float32 bias are float32. A bias's gradient is a sum over all
    cells of a map, which XLA adds up in the bias's type: in bfloat16 8192 ones came to
    2048 on the CPU.

    Args:
      arrays: input, kernel and bias of the layer.
      dtype: what the input and the kernel become.

    Returns:
      The three arrays.
    """
    inputs, kernel, bias = arrays
    return jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype), bias
