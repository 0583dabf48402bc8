"""Faster R-CNN (VGG16) as pure, jit-compiled JAX functions with static shapes.

`frcnn_jax.ops` has the functions, `frcnn_jax.Detector` a trained detector. Both are
imported when they are first used; `ops` needs jax, numpy and jaxtyping only.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frcnn_jax import ops
    from frcnn_jax.detector import Detector

__version__ = "0.1.0"

__all__ = ["Detector", "__version__", "ops"]


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("frcnn_jax.ops")
    if name == "Detector":
        return importlib.import_module("frcnn_jax.detector").Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
