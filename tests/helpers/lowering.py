"""Lowers functions for accelerators that this machine need not have."""

from collections.abc import Callable

import jax
import pytest
from jax import export

ACCELERATORS = ("cuda", "tpu")

each_platform = pytest.mark.parametrize("platform", ["cpu", *ACCELERATORS])


def lower(function: Callable, *arguments, platforms: tuple[str, ...]) -> str:
    """Returns the StableHLO of a function.

    Fails where an operation has no rule for a platform, or needs a custom call that jax
    does not promise to keep.

    Args:
      function: of arrays; jitted already, or not.
      *arguments: arrays, or their shapes and dtypes.
      platforms: as jax.export names them.
    """
    if not isinstance(function, jax.stages.Wrapped):
        function = jax.jit(function)
    return export.export(function, platforms=platforms)(*arguments).mlir_module()
