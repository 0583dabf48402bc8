"""Mixed precision: layers multiply in a compute type, parameters stay float32."""

from jax import Array
from jax.typing import DTypeLike


def promote_products(
    arrays: tuple[Array, Array, Array], *, dtype: DTypeLike
) -> tuple[Array, Array, Array]:
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
    return inputs.astype(dtype), kernel.astype(dtype), bias
