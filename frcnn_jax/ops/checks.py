"""Checks of arguments against their annotations, at trace time."""

import functools
import inspect
import typing
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

F = typing.TypeVar("F", bound=Callable)


def check_shapes(function: F) -> F:
    """Decorates a function to refuse arrays whose shapes contradict its annotations.

    A dimension that has a name must be the same wherever the name stands. Shapes are
    static, so that under `jax.jit` the check costs nothing but tracing time. NumPy
    arrays are converted, so that a function may rely on `jax.Array`'s methods.

    Args:
      function: has parameters annotated like `boxes: Float[Array, "n 4"]`, or with a
        named tuple of such fields.

    Returns:
      the function with the checks before it.

    Raises:
      ValueError: if an argument has a wrong shape; names it.
      TypeError: if an argument is no array; names it.

    Example:
      >>> from jaxtyping import Array, Float
      >>> @check_shapes
      ... def first(boxes: Float[Array, "n 4"]):
      ...     return boxes[0]
      >>> first(np.zeros((2, 5)))
      Traceback (most recent call last):
      ValueError: first: boxes has shape (2, 5), expected (n, 4)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        sizes: dict[str, int] = {}
        for name, value in bound.arguments.items():
            annotation = signature.parameters[name].annotation
            bound.arguments[name] = _check(
                f"{function.__name__}: {name}", value, annotation, sizes
            )
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def _check(name, value, annotation, sizes):
    """Returns the value, converted, or raises; adds the named dimensions to sizes."""
    if hasattr(annotation, "_fields") and hasattr(value, "_fields"):
        fields = typing.get_type_hints(annotation)
        return annotation(
            *(
                _check(f"{name}.{field}", item, fields[field], sizes)
                for field, item in zip(value._fields, value, strict=True)
            )
        )
    choices = typing.get_args(annotation) or (annotation,)
    array_types = [choice for choice in choices if hasattr(choice, "dim_str")]
    if not array_types or "..." in array_types[0].dim_str:
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = jnp.asarray(value)
    if not hasattr(value, "shape"):
        if len(choices) == 1:
            raise TypeError(f"{name} is a {type(value).__name__}, expected an array")
        return value
    dimensions = array_types[0].dim_str.split()
    found = dict(sizes)
    fits = len(dimensions) == len(value.shape)
    for dimension, size in zip(dimensions, value.shape, strict=False):
        known = found.setdefault(dimension, size)
        fits &= size == (int(dimension) if dimension.isdigit() else known)
    if not fits:
        raise ValueError(
            f"{name} has shape {value.shape}, expected ({', '.join(dimensions)})"
            + "".join(f", {d} = {sizes[d]}" for d in dimensions if d in sizes)
        )
    sizes.update((d, size) for d, size in found.items() if not d.isdigit())
    return value
