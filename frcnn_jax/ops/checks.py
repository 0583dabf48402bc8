"""Checks of arguments against their annotations, at trace time."""

import functools
import inspect
import operator
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer, Key, Real

# The types that an annotation accepts, in words, and the one they are converted to.
_TYPES = {
    Real: ((jnp.integer, jnp.floating), "real numbers", jnp.float32),
    Integer: ((jnp.integer,), "integers", jnp.int32),
    Int: ((jnp.signedinteger,), "signed integers", jnp.int32),
    Float: ((jnp.floating,), "floating-point numbers", None),
    Bool: ((jnp.bool_,), "bool", None),
    Key: ((jax.dtypes.prng_key,), "a key of jax.random.key", None),
}

F = typing.TypeVar("F", bound=Callable)


def check_arrays(function: F) -> F:
    """Decorates a function to refuse arrays that contradict its annotations.

    A dimension that has a name must be the same wherever the name stands. `Real` arrays
    become float32 whatever their type, since boxes of float16 overflow and unsigned
    ones wrap around; `Integer` and `Int` arrays become int32. `Float`, `Bool` and `Key`
    arrays keep their type. Where an annotation offers numbers or a tuple beside the
    array, these become an array. Shapes and types are static, so that under `jax.jit`
    the checks cost nothing but tracing time.

    Args:
      function: has parameters annotated like `boxes: Real[Array, "n 4"]`, or with a
        named tuple of such fields.

    Returns:
      the function with the checks before it.

    Raises:
      ValueError: if an argument has a wrong shape or type; names it.
      TypeError: if an argument is not an array or the named tuple; names it.

    Example:
      >>> from jaxtyping import Array
      >>> @check_arrays
      ... def first(boxes: Real[Array, "n 4"]):
      ...     return boxes[0]
      >>> first(jnp.zeros((2, 5)))
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


def check_count(name: str, count: Any, minimum: int = 0) -> None:
    """Checks a number that determines a shape: of slots, cells or samples.

    Args:
      name: of the argument.
      count: its value.
      minimum: the smallest value allowed.

    Raises:
      ValueError: if it is less, or not an integer, or traced.
    """
    if not _is_integer(count, minimum):
        raise ValueError(f"{name} is {count}, expected an integer >= {minimum}")


def check_size(name: str, size: Any, minimum: int = 0) -> None:
    """Checks a (height, width) that determines a shape.

    Args:
      name: of the argument.
      size: its value.
      minimum: the smallest side allowed.

    Raises:
      ValueError: if it is no pair, or a side is less, or not an integer, or traced.
    """
    try:
        height, width = size
        is_valid = _is_integer(height, minimum) and _is_integer(width, minimum)
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{name} is {size}, expected two integers >= {minimum}")


def _is_integer(value, minimum):
    try:
        return operator.index(value) >= minimum
    except TypeError:
        return False


def _check(name, value, annotation, sizes):
    """Returns the value, converted, or raises; adds the named dimensions to sizes."""
    if hasattr(annotation, "_fields"):
        return _check_named_tuple(name, value, annotation, sizes)
    choices = typing.get_args(annotation) or (annotation,)
    array_types = [choice for choice in choices if hasattr(choice, "dim_str")]
    if not array_types or (value is None and type(None) in choices):
        return value
    takes_numbers = bool({*choices} - {*array_types, type(None)})
    value = _to_array(name, value, takes_numbers)
    value = _convert(name, value, array_types[0].dtype)
    _check_shape(name, value.shape, array_types[0].dim_str.split(), sizes)
    return value


def _check_named_tuple(name, value, annotation, sizes):
    if not isinstance(value, annotation):
        raise TypeError(
            f"{name} is a {type(value).__name__}, expected {annotation.__name__}"
        )
    fields = typing.get_type_hints(annotation)
    return annotation(
        *(
            _check(f"{name}.{field}", item, fields[field], sizes)
            for field, item in zip(annotation._fields, value, strict=True)
        )
    )


def _to_array(name, value, takes_numbers):
    """Converts what has a shape, like NumPy's arrays, and numbers where allowed."""
    if isinstance(value, jax.Array):
        return value
    if not takes_numbers and not hasattr(value, "shape"):
        raise TypeError(f"{name} is a {type(value).__name__}, expected an array")
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected numbers") from None


def _convert(name, value, annotation):
    """Converts to the type that the annotation asks for."""
    kinds, expected, converted_type = _TYPES[annotation]
    if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        raise ValueError(f"{name} has type {value.dtype}, expected {expected}")
    return value if converted_type is None else value.astype(converted_type)


def _check_shape(name, shape, dimensions, sizes):
    if dimensions == ["..."]:
        return
    found = dict(sizes)
    fits = len(dimensions) == len(shape)
    for dimension, size in zip(dimensions, shape, strict=False):
        known = found.setdefault(dimension, size)
        fits &= size == (int(dimension) if dimension.isdigit() else known)
    if not fits:
        raise ValueError(
            f"{name} has shape {shape}, expected ({', '.join(dimensions)})"
            + "".join(f", {d} = {sizes[d]}" for d in dimensions if d in sizes)
        )
    sizes.update((d, size) for d, size in found.items() if not d.isdigit())
