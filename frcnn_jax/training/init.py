"""Initial parameters of a run: random, or those of `model.pretrained`."""

import dataclasses
import logging
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from frcnn_jax.config import Config, ModelConfig
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.records import Source
from frcnn_jax.models.calibration import fit_to_partial, is_partial
from frcnn_jax.models.faster_rcnn import FasterRCNN
from frcnn_jax.models.parameters import (
    Params,
    abstract_detector,
    parameter_shapes,
    random_params,
    unflatten,
)
from frcnn_jax.models.vgg16 import BLOCKS
from frcnn_jax.weights.checkpoints import read_source
from frcnn_jax.weights.record import resolve_preprocessing, select_matching
from frcnn_jax.weights.report import describe

NUM_CALIBRATION_IMAGES = 4

_logger = logging.getLogger(__name__)


def init_params(config: Config, source: Source) -> tuple[Config, Params]:
    """Initializes a detector's parameters, random or pretrained.

    Args:
      config: of the run.
      source: the training images; random layers above partially pretrained ones are
        calibrated on a few of them.

    Returns:
      The config, with the preprocessing that the weights expect, and the parameters.

    Raises:
      UserError: if the weights cannot be read, or do not fit the config.
    """
    class_names = source.class_names
    num_classes = len(class_names)
    if not config.model.pretrained:
        _warn_of_random_frozen_layers(config.model, {})
        return config, random_params(config.model, num_classes, config.seed)
    weights = read_source(config.model.pretrained)
    model = resolve_preprocessing(config.model, weights)
    config = dataclasses.replace(config, model=model)
    graphdef, shapes = abstract_detector(model, num_classes)
    arrays = select_matching(weights, parameter_shapes(shapes), class_names)
    _warn_of_random_frozen_layers(model, arrays)
    for line in describe(weights, arrays, parameter_shapes(shapes)):
        _logger.info(line)
    if set(arrays) == set(parameter_shapes(shapes)):  # nothing random is needed
        return config, unflatten(arrays)
    detector = nnx.merge(graphdef, random_params(model, num_classes, config.seed))
    nnx.update(detector, unflatten(arrays))
    if is_partial(arrays):
        _calibrate(detector, arrays, config, source)
    return config, nnx.to_pure_dict(nnx.state(detector))


def _warn_of_random_frozen_layers(
    model: ModelConfig, arrays: Mapping[str, np.ndarray]
) -> None:
    """Warns of layers that are neither pretrained nor trained."""
    frozen = [name for block in BLOCKS[: model.frozen_blocks] for name, _ in block]
    names = [name for name in frozen if f"backbone.{name}.kernel" not in arrays]
    if names:
        _logger.warning(
            "WARNING: model.frozen_blocks is %d, but %s have random weights, and will "
            "not learn: give --model.pretrained, or --model.frozen-blocks 0",
            model.frozen_blocks,
            ", ".join(names),
        )


def _calibrate(
    detector: FasterRCNN,
    arrays: Mapping[str, np.ndarray],
    config: Config,
    source: Source,
) -> None:
    """Fits the random layers, in place, on the source's first images."""
    batches = evaluation_batches(source, config.data, batch_size=NUM_CALIBRATION_IMAGES)
    batch = next(batches)
    batches.close()
    sizes = jnp.asarray(batch.image_sizes)
    images = detector.normalize(jnp.asarray(batch.images), sizes)
    key = jax.random.key(config.seed, impl="threefry2x32")
    fit_to_partial(detector, arrays, key, images, sizes.astype(jnp.int32))
