"""Compiles the training step for every canvas before the first step."""

import logging
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import Mesh, NamedSharding

from frcnn_jax.data.records import Batch
from frcnn_jax.distributed import BATCH_SHARDED
from frcnn_jax.training.step import TrainState

Canvas = tuple[int, int]  # (height, width), in pixels

_logger = logging.getLogger(__name__)


def compile_steps(
    train_step: jax.stages.Wrapped,
    state: TrainState,
    mesh: Mesh,
    *,
    canvases: Iterable[Canvas],
    batch_size: int,
    max_objects: int,
) -> dict[Canvas, jax.stages.Compiled]:
    """Compiles the step for batches of each canvas, and logs time and memory.

    Args:
      train_step: from `make_train_step`.
      state: of the run, or its shapes, dtypes and shardings.
      mesh: the devices.
      canvases: of the images.
      batch_size: images per batch, of all devices together.
      max_objects: slots for objects per image.
    """
    compiled = {}
    for canvas in canvases:
        batch = batch_shapes(batch_size, canvas, max_objects, mesh)
        began = time.perf_counter()
        lowered = train_step.lower(state, batch)
        traced = time.perf_counter()
        step = compiled[canvas] = lowered.compile()
        seconds = traced - began, time.perf_counter() - traced
        _logger.info(
            "canvas %d x %d: traced in %.1f s, compiled in %.1f s; a device needs %s",
            *canvas,
            *seconds,
            _memory(step),
        )
    return compiled


def batch_shapes(
    batch_size: int, canvas: Canvas, max_objects: int, mesh: Mesh
) -> Batch:
    """Returns shapes, dtypes and shardings of a batch.

    Args:
      batch_size: images per batch, of all devices together.
      canvas: of the images.
      max_objects: slots for objects per image.
      mesh: the devices.
    """
    fields = {
        "images": ((*canvas, 3), jnp.uint8),
        "image_sizes": ((2,), jnp.float32),
        "scales": ((2,), jnp.float32),
        "boxes": ((max_objects, 4), jnp.float32),
        "labels": ((max_objects,), jnp.int32),
        "box_mask": ((max_objects,), jnp.bool_),
        "indices": ((), jnp.int32),
        "image_mask": ((), jnp.bool_),
    }
    sharding = NamedSharding(mesh, BATCH_SHARDED)
    return Batch(
        **{
            name: ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)
            for name, (shape, dtype) in fields.items()
        }
    )


def _memory(compiled: jax.stages.Compiled) -> str:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "unknown memory"
    arguments = analysis.argument_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    total = arguments + outputs + analysis.temp_size_in_bytes
    return (
        f"{total / 2**30:.2f} GiB of memory, {arguments / 2**30:.2f} for its arguments"
    )
