"""The training step: one pure function, compiled once for each canvas."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.models import FasterRCNN, Losses
from frcnn_jax.parallel import (
    DATA_AXIS,
    DIVIDED,
    REPLICATED,
    each_image,
    gather_images,
)

Params = dict[str, Any]  # nested: module, layer, "kernel" or "bias"


class TrainState(NamedTuple):
    """Everything that a training step changes, and the key, which it does not."""

    step: Array  # int32, batches seen so far
    params: Params
    opt_state: optax.OptState
    ema: Params | None  # moving mean of the parameters, if there is one
    key: Array  # PRNG key of the run
    num_bad_steps: Array  # int32, updates left out so far


class Metrics(NamedTuple):
    """What a training step tells; an image that only fills the batch up has no part."""

    losses: Losses  # of every image of the batch, arrays of [B]
    indices: Array  # [B] the images' indices in their source
    image_mask: Array  # [B] which of them are real
    gradient_norm: Array
    is_good: Array  # whether losses and gradient are finite, so that it updated
    num_bad_steps: Array  # int32, updates left out so far


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


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


def image_keys(key: Array, batch: Batch) -> Array:
    """Makes a key for each image, of its index: its batch has no part in it."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, batch.indices)


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


def make_state(
    params: Params, optimizer: optax.GradientTransformation, seed: int, has_ema: bool
) -> TrainState:
    """Makes the state of a run that has not seen a batch yet."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if has_ema else None,
        key=jax.random.key(seed),
        num_bad_steps=jnp.int32(0),
    )


def evaluated_params(state: TrainState) -> Params:
    """Picks the parameters to evaluate: their moving mean, if there is one."""
    return state.params if state.ema is None else state.ema


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    micro_batches: int = 1,
    ema_decay: float | None = None,
) -> TrainStep:
    """Makes the jitted update; it takes over the memory of the state it is given.

    The loss is the mean over the real images of the batch, however many devices and
    micro-batches it is divided into. A loss or gradient that is not finite leaves all
    as it was.
    """
    sums = jax.shard_map(
        functools.partial(_sums, graphdef, micro_batches),
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED, DIVIDED),
        out_specs=REPLICATED,
        check_vma=False,  # the gradient is that of each device's own images
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        grads, losses, indices, mask = sums(state.params, key, batch)
        grads = jax.tree.map(lambda x: x / mask.sum(), grads)
        norm = optax.tree.norm(grads)
        is_good = jnp.isfinite(norm) & (jnp.isfinite(losses.total) | ~mask).all()

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
        params, opt_state, ema = jax.tree.map(
            functools.partial(jnp.where, is_good),
            (params, opt_state, ema),
            (state.params, state.opt_state, state.ema),
        )
        num_bad_steps = state.num_bad_steps + ~is_good
        return (
            TrainState(
                state.step + 1, params, opt_state, ema, state.key, num_bad_steps
            ),
            Metrics(losses, indices, mask, norm, is_good, num_bad_steps),
        )

    return train_step


def _sums(graphdef, micro_batches: int, params: Params, key: Array, batch: Batch):
    """Sums the gradients over all devices' images, and gathers these images' losses."""

    def loss_sum(params, part):
        losses = losses_of(nnx.merge(graphdef, params), image_keys(key, part), part)
        return jnp.where(part.image_mask, losses.total, 0.0).sum(), losses

    gradient = jax.grad(loss_sum, has_aux=True)
    if micro_batches == 1:
        grads, losses = gradient(params, batch)
    else:

        def add(total, part):
            grads, losses = gradient(params, part)
            return jax.tree.map(jnp.add, total, grads), losses

        zeros = jax.tree.map(jnp.zeros_like, params)
        parts = jax.tree.map(
            lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch
        )
        grads, losses = jax.lax.scan(add, zeros, parts)
        losses = jax.tree.map(jnp.ravel, losses)
    told = losses, batch.indices, batch.image_mask
    return jax.lax.psum(grads, DATA_AXIS), *gather_images(told)


def make_loss_step(
    graphdef: nnx.GraphDef, mesh: Mesh
) -> Callable[[tuple[Params, Array], Batch], tuple[Losses, Array, Array]]:
    """Makes the jitted losses of every image of a batch.

    It takes (parameters, PRNG key) and a batch; see `parallel.each_image`.
    """

    def losses(shared: tuple[Params, Array], batch: Batch) -> Losses:
        params, key = shared
        return losses_of(nnx.merge(graphdef, params), image_keys(key, batch), batch)

    return each_image(losses, mesh)
