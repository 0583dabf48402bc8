"""Validation during training: losses and average precision on images kept aside."""

import math
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from frcnn_jax import parallel
from frcnn_jax.config import Config
from frcnn_jax.data.records import Source
from frcnn_jax.evaluation import runner, voc
from frcnn_jax.training.step import Params, make_loss_step
from frcnn_jax.training.watch import LOSSES

# The figure by which the best checkpoint is chosen.
BEST = "validation_voc07_map"

Validate = Callable[[Params], dict[str, float]]


def make_validate(
    graphdef: nnx.GraphDef, source: Source, config: Config, mesh: Mesh
) -> Validate:
    """Makes a function of the parameters that validates them.

    It returns the means of the losses over the images, `validation_loss` and
    `validation_<name>` for each of the four, and `validation_voc07_map` if there are
    objects. An image's samples are drawn by the same key each time.
    """
    loss_step = make_loss_step(graphdef, mesh)
    detect_step = runner.make_detect_step(graphdef, mesh)
    key = parallel.replicate(jax.random.key(config.seed), mesh)

    def validate(params: Params) -> dict[str, float]:
        rows = []
        for batch in runner.divided_batches(source, config, mesh):
            losses, _, mask = jax.device_get(loss_step((params, key), batch))
            named = {name: getattr(losses, name)[mask] for name in LOSSES}
            rows.append(named | {"loss": losses.total[mask]})
        means = {
            f"validation_{name}": float(np.mean(np.concatenate(values)))
            for name in rows[0]
            for values in [[row[name] for row in rows]]
        }
        detections = runner.detect_all(detect_step, params, source, config, mesh)
        result = voc.average_precisions(
            detections, source.annotations, len(source.class_names)
        )
        if not math.isnan(result.voc07_map):
            means[BEST] = float(result.voc07_map)
        return means

    return validate
