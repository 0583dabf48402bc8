"""The training step: one pure function, compiled once for each canvas."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from frcnn_jax.data.records import Batch
from frcnn_jax.distributed import (
    BATCH_SHARDED,
    DATA_AXIS,
    REPLICATED,
    gather_images,
)
from frcnn_jax.models import Losses, SamplingStats
from frcnn_jax.models.faster_rcnn import image_keys
from frcnn_jax.models.parameters import Params

# At most this many numbers are squared at once: 1 MiB, which the cache holds.
PART_SIZE = 2**18


class TrainState(NamedTuple):
    """Everything that a training step changes, and the key, which it does not."""

    step: Array  #: int32, batches seen so far
    params: Params
    opt_state: optax.OptState
    ema: Params | None  #: moving average of the parameters, if there is one
    key: Array  #: PRNG key of the run
    num_bad_steps: Array  #: int32, updates skipped so far


class Metrics(NamedTuple):
    """What a training step reports; padding images are excluded by `image_mask`."""

    losses: Losses  #: of every image of the batch, arrays of [B]
    stats: SamplingStats  #: of every image, arrays of [B]
    indices: Array  #: [B] the images' indices in their source
    image_mask: Array  #: [B] which images are real
    gradient_norm: Array
    is_finite: Array  #: whether losses and gradient are; if not, the update is skipped
    num_bad_steps: Array  #: int32, updates skipped so far


def init_state(
    params: Params, optimizer: optax.GradientTransformation, seed: int, has_ema: bool
) -> TrainState:
    """Returns the state of a run before its first batch.

    Args:
      params: to start from.
      optimizer: of the run.
      seed: of the run's key.
      has_ema: whether a moving average of the parameters is kept.
    """
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if has_ema else None,
        key=jax.random.key(seed, impl="threefry2x32"),
        num_bad_steps=jnp.int32(0),
    )


def evaluated_params(state: TrainState) -> Params:
    """Returns the parameters to evaluate: their moving average, if there is one."""
    return state.params if state.ema is None else state.ema


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    micro_batches: int = 1,
    ema_decay: float | None = None,
) -> jax.stages.Wrapped:
    """Returns the jitted update, which donates the state it is given.

    The loss is the mean over the real images of the batch, however many devices and
    micro-batches it is split into. If a loss or the gradient is not finite, parameters
    and optimizer stay as they were. It takes and returns a `TrainState`; it takes a
    `Batch`, too, and returns `Metrics`.

    Args:
      graphdef: structure of the detector.
      optimizer: of its parameters.
      mesh: the devices.
      micro_batches: parts that a device computes its images in, one after the other.
      ema_decay: share that the moving average keeps; None if there is none.
    """
    sums = jax.shard_map(
        functools.partial(_sums, graphdef, micro_batches),
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED, BATCH_SHARDED),
        out_specs=REPLICATED,
        check_vma=False,  # the gradient is that of each device's own images
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        totals, (losses, stats), indices, mask = sums(state.params, key, batch)
        num_images = mask.sum()
        norm = jax.lax.platform_dependent(
            totals, cpu=_norm_by_parts, default=optax.tree.norm
        )
        norm = norm / num_images
        is_finite = jnp.isfinite(norm) & (jnp.isfinite(losses.total) | ~mask).all()

        # A condition updates donated arrays in place; `jnp.where` copies them first.
        params, opt_state, ema = jax.lax.cond(
            is_finite,
            functools.partial(_update, optimizer, ema_decay),
            lambda params, opt_state, ema, *_: (params, opt_state, ema),
            *(state.params, state.opt_state, state.ema, totals, num_images),
        )
        num_bad_steps = state.num_bad_steps + ~is_finite
        return (
            TrainState(
                state.step + 1, params, opt_state, ema, state.key, num_bad_steps
            ),
            Metrics(losses, stats, indices, mask, norm, is_finite, num_bad_steps),
        )

    return train_step


def _sums(
    graphdef: nnx.GraphDef, micro_batches: int, params: Params, key: Array, batch: Batch
) -> tuple[Params, Any, Array, Array]:
    """Sums the gradients over all devices, and gathers the losses of all images."""

    def loss_sum(params: Params, part: Batch) -> tuple[Array, Any]:
        model = nnx.merge(graphdef, params)
        losses, stats = model.losses(
            image_keys(key, part.indices),
            model(part.images, part.image_sizes, part.scales),
            part.boxes,
            part.labels,
            part.box_mask,
        )
        total = jnp.where(part.image_mask, losses.total, 0.0).sum()
        return total, (losses, stats)

    gradient = jax.grad(loss_sum, has_aux=True)
    if micro_batches == 1:
        grads, per_image = gradient(params, batch)
    else:

        def add(total: Params, part: Batch) -> tuple[Params, Any]:
            grads, per_image = gradient(params, part)
            return jax.tree.map(jnp.add, total, grads), per_image

        zeros = jax.tree.map(jnp.zeros_like, params)
        parts = jax.tree.map(
            lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch
        )
        grads, per_image = jax.lax.scan(add, zeros, parts)
        per_image = jax.tree.map(jnp.ravel, per_image)
    per_image = per_image, batch.indices, batch.image_mask
    if jax.lax.axis_size(DATA_AXIS) > 1:  # even on one device a sum copies everything
        grads = jax.lax.psum(grads, DATA_AXIS)
    return grads, *gather_images(per_image)


def _update(
    optimizer: optax.GradientTransformation,
    ema_decay: float | None,
    params: Params,
    opt_state: optax.OptState,
    ema: Params | None,
    totals: Params,
    num_images: Array,
) -> tuple[Params, optax.OptState, Params | None]:
    grads = jax.tree.map(lambda x: x / num_images, totals)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    if ema_decay is not None:
        ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
    return params, opt_state, ema


def _norm_by_parts(tree: Params) -> Array:
    """Returns the norm of all arrays; none of their squares leaves the cache.

    XLA's CPU backend stores the squares of a whole array before it adds them up. A
    convolution's are cut along the first two axes: XLA keeps the others transposed.
    """

    def sum_of_squares(x: Array) -> Array:
        if x.ndim > 2:
            parts = x.reshape(-1, *x.shape[-2:])
        else:
            num_parts = math.gcd(x.size, 1 << (x.size // PART_SIZE).bit_length())
            parts = x.reshape(num_parts, -1)
        return jax.lax.map(lambda part: jnp.square(part).sum(), parts).sum()

    return jnp.sqrt(sum(map(sum_of_squares, jax.tree.leaves(tree))))
