"""The training step: one pure function, compiled once for each canvas."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax import Array

from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.models import FasterRCNN, Losses

Params = dict[str, Any]  # nested: module, layer, "kernel" or "bias"


TrainStep = Callable[
    ["TrainState", Array, Batch], tuple["TrainState", dict[str, Array]]
]


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    step: Array  # int32, updates made so far
    params: Params
    opt_state: optax.OptState


def abstract_detector(
    config: ModelConfig, num_classes: int
) -> tuple[nnx.GraphDef, Params]:
    """Makes a detector's structure and the shapes and types of its parameters."""
    graphdef, params = nnx.split(
        nnx.eval_shape(lambda: FasterRCNN(config, num_classes, rngs=nnx.Rngs(0)))
    )
    return graphdef, nnx.to_pure_dict(params)


def init_detector(
    config: ModelConfig, num_classes: int, seed: int
) -> tuple[nnx.GraphDef, Params]:
    """Makes a detector's structure and its random parameters."""
    structure = {}

    @jax.jit  # in one go: compiling an initialiser for each layer takes far longer
    def init(key: Array) -> Params:
        model = FasterRCNN(config, num_classes, rngs=nnx.Rngs(params=key))
        structure["graphdef"], params = nnx.split(model)
        return nnx.to_pure_dict(params)

    # "rbg" compiles in a quarter of the time of the default generator.
    params = init(jax.random.key(seed, impl="rbg"))
    return structure["graphdef"], params


def losses_of(detector: FasterRCNN, keys: Array, batch: Batch) -> Losses:
    """Computes the losses of every image of a batch, given a key for each."""
    return detector.losses(
        keys,
        batch.images,
        batch.image_sizes,
        batch.scales,
        batch.boxes,
        batch.labels,
        batch.box_mask,
    )


def make_train_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> TrainStep:
    """Makes the jitted update; it takes over the memory of the state it is given.

    The randomness of an image comes from the run's key, the step and the image's index,
    so it does not depend on the batch the image happens to be in.
    """

    def mean_loss(params: Params, keys: Array, batch: Batch) -> tuple[Array, Losses]:
        losses = losses_of(nnx.merge(graphdef, params), keys, batch)
        return losses.total.mean(), losses

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, key: Array, batch: Batch):
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, batch.indices)
        gradient = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, losses), grads = gradient(state.params, keys, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {name: value.mean() for name, value in losses._asdict().items()}
        metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step
