"""The optimizer: optax's SGD or AdamW, with one rule for each group of parameters."""

from typing import Any

import jax
import optax

from frcnn_jax.config import OptimizerConfig
from frcnn_jax.models.vgg16 import BLOCKS


def make_schedule(config: OptimizerConfig, batch_size: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: linear warm-up, then drops.

    Args:
      config: with boundaries in steps.
      batch_size: images per update.
    """
    rate = config.learning_rate
    if config.rate_batch_size is not None:
        rate *= batch_size / config.rate_batch_size
    boundaries = {step: config.decay_factor for step in config.boundaries}
    drops = optax.piecewise_constant_schedule(rate, boundaries)
    if config.warmup_steps == 0:
        return drops
    # The first step has 1 / warmup_steps of the rate, not 0.
    rise = optax.linear_schedule(1 / config.warmup_steps, 1.0, config.warmup_steps - 1)
    return lambda step: drops(step) * rise(step)


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, frozen_blocks: int
) -> optax.GradientTransformation:
    """Returns the optimizer of a detector's parameters.

    Kernels decay. Biases do not, and learn `bias_rate_factor` times as fast.

    Args:
      config: kind and options.
      schedule: the kernels' learning rate by step.
      frozen_blocks: VGG16 blocks, from the first, that are not updated.
    """

    def bias_schedule(step: jax.Array) -> jax.Array:
        return config.bias_rate_factor * schedule(step)

    groups = {
        "kernel": _rule(config, schedule, config.weight_decay),
        "bias": _rule(config, bias_schedule, 0.0),
        "frozen": optax.set_to_zero(),
    }

    def group_of(params: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map_with_path(
            lambda path, _: _group(path, frozen_blocks), params
        )

    optimizer = optax.partition(groups, group_of)
    if config.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def _rule(
    config: OptimizerConfig, schedule: optax.Schedule, weight_decay: float
) -> optax.GradientTransformation:
    if config.name == "adam":
        return optax.adamw(schedule, weight_decay=weight_decay)
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, config.momentum)
    )


def _group(path: tuple[jax.tree_util.DictKey, ...], frozen_blocks: int) -> str:
    names = [entry.key for entry in path]
    frozen = {name for block in BLOCKS[:frozen_blocks] for name, _ in block}
    return "frozen" if names[-2] in frozen else names[-1]
