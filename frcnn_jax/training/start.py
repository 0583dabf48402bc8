"""What a run starts from: random parameters, or those of `model.pretrained`."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
from flax import nnx

from frcnn_jax.config import Config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Source
from frcnn_jax.errors import UserError
from frcnn_jax.models import FasterRCNN, pretrained
from frcnn_jax.training.step import Params, init_detector
from frcnn_jax.weights.importing import Weights, fit, read_weights, settle
from frcnn_jax.weights.report import describe

NUM_CALIBRATION_IMAGES = 4

_logger = logging.getLogger(__name__)


def start_detector(
    config: Config, source: Source, *, whole: bool = False
) -> tuple[Config, nnx.GraphDef, Params]:
    """Makes the detector's structure and its first parameters, random or pretrained.

    Args:
      config: of the run.
      source: the images; partially pretrained weights are scaled on a few of them.
      whole: refuse weights that leave a parameter random.

    Returns:
      The config, with the preprocessing that the weights presuppose; the structure; the
      parameters.

    Raises:
      UserError: if the weights cannot be read, or do not fit the config.
    """
    num_classes = len(source.class_names)
    if not config.model.pretrained:
        return config, *init_detector(config.model, num_classes, config.seed)
    weights = read_weights(config.model.pretrained)
    config = dataclasses.replace(config, model=settle(config.model, weights))
    graphdef, params = init_detector(config.model, num_classes, config.seed)
    detector = nnx.merge(graphdef, params)
    _give(detector, weights, config, source, whole)
    return config, graphdef, nnx.to_pure_dict(nnx.state(detector))


def _give(
    detector: FasterRCNN, weights: Weights, config: Config, source: Source, whole: bool
) -> None:
    """Puts the weights into the detector, in place, and reports what that did."""
    shapes = pretrained.parameter_shapes(detector)
    arrays = fit(weights, shapes)
    for line in describe(weights, arrays, shapes):
        _logger.info(line)
    missing = sorted(set(shapes) - set(arrays))
    if whole and missing:
        raise UserError(
            f"{weights.source}: has no {missing[0]} for {len(source.class_names)} "
            "classes, expected a whole detector of this data set's classes"
        )
    pretrained.assign(detector, arrays)
    if pretrained.is_partial(arrays):
        batch = next(
            pipeline.evaluation_batches(
                source,
                batch_size=NUM_CALIBRATION_IMAGES,
                **pipeline.options(config.data),
            )
        )
        sizes = jnp.asarray(batch.image_sizes)
        images = detector.normalize(jnp.asarray(batch.images), sizes)
        key = jax.random.key(config.seed)
        pretrained.fit_to_partial(
            detector, arrays, key, images, sizes.astype(jnp.int32)
        )
