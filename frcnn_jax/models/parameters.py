"""A detector's structure and its parameters, kept separately.

Parameters are nested dicts by module and layer; flat, they are named
`backbone.conv1_1.kernel`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from frcnn_jax.config import ModelConfig
from frcnn_jax.models.faster_rcnn import FasterRCNN

Params = dict[str, Any]  # nested: module, layer, "kernel" or "bias"


def abstract_detector(
    config: ModelConfig, num_classes: int
) -> tuple[nnx.GraphDef, Params]:
    """Returns a detector's structure and the shapes and dtypes of its parameters.

    Args:
      config: sizes and options.
      num_classes: L, classes of the data set, without the background.
    """
    graphdef, params = nnx.split(
        nnx.eval_shape(lambda: FasterRCNN(config, num_classes, rngs=nnx.Rngs(0)))
    )
    return graphdef, nnx.to_pure_dict(params)


def random_params(config: ModelConfig, num_classes: int, seed: int) -> Params:
    """Draws a detector's initial parameters.

    Args:
      config: sizes and options.
      num_classes: L, classes of the data set, without the background.
      seed: decides all of them.
    """

    @jax.jit  # at once: compiling one initializer per layer takes far longer
    def init(key: jax.Array) -> Params:
        model = FasterRCNN(config, num_classes, rngs=nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model))

    # "rbg" compiles in a quarter of the default generator's time.
    return init(jax.random.key(seed, impl="rbg"))


def flatten(params: Params) -> dict[str, np.ndarray]:
    """Copies nested parameters to the host, by name."""
    flat = flatten_dict(params, sep=".")
    return {name: np.asarray(leaf) for name, leaf in flat.items()}


def unflatten(arrays: Mapping[str, np.ndarray]) -> Params:
    """Copies parameters by name to the device, nested."""
    return unflatten_dict({n: jax.numpy.asarray(a) for n, a in arrays.items()}, sep=".")


def parameter_shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each nested parameter, or of its abstract array, by name."""
    return {name: leaf.shape for name, leaf in flatten_dict(params, sep=".").items()}
