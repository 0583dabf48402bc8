"""The layers' building blocks: convolution, pooling on padded maps, mixed precision."""

import functools
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

T = TypeVar("T", bound=tuple[Any, ...])

# With fewer output channels XLA's own kernel gradient is as fast, and compiles faster.
MIN_CHANNELS = 64
# Cells of the map in one matrix product: they and their gradients stay in the cache.
BLOCK_CELLS = 1536
# XLA's CPU library copies the kernel of a product of at most this many rows.
MAX_COPIED_ROWS = 128
# Rows in one product without that copy; on a CPU more at once are slower, row by row.
ROWS_AT_ONCE = 64


def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "m n i o"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "b h2 w2 o"]:
    """Convolves with stride 1, with a kernel gradient that is fast on the CPU.

    For use as `nnx.Conv(..., conv_general_dilated=convolve)`. XLA's gradient for the
    kernel takes 3 to 6 times as long as the convolution on the CPU. A few matrix
    products give the same sums: for each tap of the kernel, the features, shifted by
    the tap, times the gradient. Other platforms keep XLA's own.

    With MIN_CHANNELS output channels or more it is differentiable in reverse mode only,
    also twice: `jax.hessian` works as `jax.jacfwd(jax.jacrev(...))` does, but under
    `jax.jvp` JAX raises a TypeError about a "custom_vjp function".

    Args:
      x: [B, H, W, I] features.
      kernel: [M, N, I, O] kernel.
      strides: 1 along each axis.
      padding: (before, after) along each axis, or "SAME" or "VALID".
      **options: further arguments of `jax.lax.conv_general_dilated`.

    Returns:
      [B, H', W', O] features.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(
            x.shape[1:3], kernel.shape[:2], strides, padding
        )

    def plain(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    if kernel.shape[-1] < MIN_CHANNELS:
        return plain(x, kernel)

    @jax.custom_vjp
    def apply(x, kernel):
        return plain(x, kernel)

    def backward(operands, gradient):
        x, kernel = operands
        (x_gradient,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(gradient)
        (kernel_gradient,) = jax.lax.platform_dependent(
            x,
            gradient,
            cpu=lambda x, gradient: (_kernel_gradient(x, kernel, gradient, padding),),
            default=lambda x, gradient: jax.linear_transpose(
                functools.partial(plain, x), kernel
            )(gradient),
        )
        return x_gradient, kernel_gradient

    apply.defvjp(lambda x, kernel: (plain(x, kernel), (x, kernel)), backward)
    return apply(x, kernel)


def multiply(
    x: Float[Array, "r i"],
    kernel: Float[Array, "i o"],
    dimension_numbers: jax.lax.DotDimensionNumbers,
    **options: Any,
) -> Float[Array, "r o"]:
    """Multiplies rows by a kernel, without a copy of the kernel on the CPU.

    For use as `nnx.Linear(..., dot_general=multiply)`. For 128 rows or fewer, the RoIs
    of one image, XLA's CPU library rearranges the kernel in a copy, forward and
    backward: 392 MiB for fc6. It needs none where the rows are transposed in memory,
    which the barrier ensures. Other platforms keep the plain product.

    Args:
      x: [R, I] rows.
      kernel: [I, O] kernel.
      dimension_numbers: of that product.
      **options: further arguments of `jax.lax.dot_general`.

    Returns:
      [R, O] rows.
    """
    num_rows = x.shape[0]

    def plain(x: Array, kernel: Array) -> Array:
        return jax.lax.dot_general(x, kernel, dimension_numbers, **options)

    if num_rows > MAX_COPIED_ROWS:
        return plain(x, kernel)

    def transposed(x: Array, kernel: Array) -> Array:
        columns = jax.lax.optimization_barrier(x.T)
        return jax.lax.dot_general(columns, kernel, (((0,), (0,)), ((), ())), **options)

    def transposed_by_parts(x: Array, kernel: Array) -> Array:
        parts = jnp.array_split(x, -(-num_rows // ROWS_AT_ONCE))
        return jnp.concatenate([transposed(part, kernel) for part in parts])

    def product(x: Array, kernel: Array) -> Array:
        return jax.lax.platform_dependent(x, kernel, cpu=transposed, default=plain)

    @jax.custom_jvp
    def apply(x: Array, kernel: Array) -> Array:
        return jax.lax.platform_dependent(
            x, kernel, cpu=transposed_by_parts, default=plain
        )

    @apply.defjvp
    def differentiate(primals, tangents):
        (x, kernel), (dx, dkernel) = primals, tangents
        return apply(x, kernel), product(dx, kernel) + product(x, dkernel)

    return apply(x, kernel)


def downsample(
    x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"]
) -> tuple[Float[Array, "b h//2 w//2 c"], Int[Array, "b 2"]]:
    """Halves features and sizes; a cell that lies partly outside the image is zero.

    Args:
      x: [B, H, W, C] features.
      sizes: [B, 2] (height, width) of their real parts, in cells.
    """
    return zero_outside(max_pool(x), sizes // 2), sizes // 2


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Takes the maximum of every 2 x 2 cells; an odd last row or column is dropped.

    Halves of a reshaped array, since the gradient of slices with a stride is 3 times
    slower on the CPU, and that of `reduce_window` 9 times slower still. Cells that tie
    share the gradient.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    batch, height, width, channels = x.shape
    rows = x.reshape(batch, height // 2, 2, width, channels)
    x = jnp.maximum(*jnp.split(rows, 2, axis=2))
    columns = x.reshape(batch, height // 2, width // 2, 2, channels)
    return jnp.maximum(*jnp.split(columns, 2, axis=3)).squeeze(3)


def zero_outside(
    x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"]
) -> Float[Array, "b h w c"]:
    """Zeroes what lies beyond each image.

    Args:
      x: [B, H, W, C] features.
      sizes: [B, 2] (height, width) of their real parts, in cells.
    """
    inside = inside_mask((x.shape[1], x.shape[2]), sizes)
    return jnp.where(inside[..., None], x, jnp.zeros((), x.dtype))


def inside_mask(
    canvas: tuple[int, int], sizes: Int[Array, "b 2"]
) -> Bool[Array, "b h w"]:
    """Marks the part of the canvas that lies within each image.

    Args:
      canvas: (H, W), in cells.
      sizes: [B, 2] (height, width) of the images, in cells.

    Returns:
      [B, H, W] mask.
    """
    inside_y = jnp.arange(canvas[0])[None] < sizes[:, :1]
    inside_x = jnp.arange(canvas[1])[None] < sizes[:, 1:]
    return inside_y[:, :, None] & inside_x[:, None, :]


def promote_products(arrays: T, /, *, dtype: Any = None, **_: Any) -> T:
    """Casts a layer's input and kernel to the compute type, but not its bias.

    For use as `nnx.Conv(..., dtype=dtype, promote_dtype=promote_products)`: products
    of type `dtype` plus a float32 bias are float32. A bias's gradient is a sum over all
    cells of a map, which XLA adds up in the bias's type: in bfloat16, 8192 ones came to
    2048 on the CPU.

    Args:
      arrays: input, kernel and bias of the layer.
      dtype: of the input and the kernel.

    Returns:
      The three arrays.
    """
    inputs, kernel, bias = arrays
    products = jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype), bias
    return typing.cast(T, products)


def _kernel_gradient(x, kernel, gradient, padding):
    """Sums the products over blocks of rows.

    They are computed transposed, [O, I], so that the gradient's block is transposed
    once for all taps, not each tap's features.
    """
    height, width = gradient.shape[1:3]
    num_blocks = min(height, -(-gradient[..., 0].size // BLOCK_CELLS))
    num_rows = -(-height // num_blocks)
    missing = num_blocks * num_rows - height
    gradient = jnp.pad(gradient, ((0, 0), (0, missing), (0, 0), (0, 0)))
    (top, bottom), (left, right) = padding
    x = jnp.pad(x, ((0, 0), (top, bottom + missing), (left, right), (0, 0)))

    def add_block(total, block):
        rows = jax.lax.dynamic_slice_in_dim(
            x, block * num_rows, num_rows + kernel.shape[0] - 1, axis=1
        )
        rows_gradient = jax.lax.dynamic_slice_in_dim(
            gradient, block * num_rows, num_rows, axis=1
        )
        products = [
            [
                jnp.einsum(
                    "bhwo,bhwi->oi",
                    rows_gradient,
                    rows[:, m : m + num_rows, n : n + width],
                    preferred_element_type=jnp.float32,
                )
                for n in range(kernel.shape[1])
            ]
            for m in range(kernel.shape[0])
        ]
        return total + jnp.array(products), None

    total = jnp.zeros_like(kernel.swapaxes(2, 3), jnp.float32)
    total, _ = jax.lax.scan(add_block, total, jnp.arange(num_blocks))
    return total.swapaxes(2, 3).astype(kernel.dtype)
