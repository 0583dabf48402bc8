"""What a run starts from: random parameters, or those of `model.pretrained`."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from frcnn_jax.config import Config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Source
from frcnn_jax.errors import UserError
from frcnn_jax.models import FasterRCNN, pretrained
from frcnn_jax.training.step import Params, abstract_detector, init_detector
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import fit, settle
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
    graphdef, expected = abstract_detector(config.model, num_classes)
    shapes = pretrained.parameter_shapes(expected)
    arrays = fit(weights, shapes)
    for line in describe(weights, arrays, shapes):
        _logger.info(line)
    missing = sorted(set(shapes) - set(arrays))
    if not missing:  # nothing random is needed
        params = {name: jnp.asarray(array) for name, array in arrays.items()}
        return config, graphdef, unflatten_dict(params, sep=".")
    if whole:
        raise UserError(
            f"{weights.source}: no {missing[0]} for {num_classes} classes, expected "
            "a whole detector of this data set's classes"
        )
    detector = nnx.merge(*init_detector(config.model, num_classes, config.seed))
    pretrained.assign(detector, arrays)
    if pretrained.is_partial(arrays):
        _fit_to_images(detector, arrays, config, source)
    return config, graphdef, nnx.to_pure_dict(nnx.state(detector))


def _fit_to_images(
    detector: FasterRCNN,
    arrays: dict[str, np.ndarray],
    config: Config,
    source: Source,
) -> None:
    batches = pipeline.evaluation_batches(
        source, config.data, batch_size=NUM_CALIBRATION_IMAGES
    )
    batch = next(batches)
    batches.close()
    sizes = jnp.asarray(batch.image_sizes)
    images = detector.normalize(jnp.asarray(batch.images), sizes)
    key = jax.random.key(config.seed)
    pretrained.fit_to_partial(detector, arrays, key, images, sizes.astype(jnp.int32))
