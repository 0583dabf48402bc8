"""Compiles the training step for every canvas before the first step."""

import logging
import time
from collections.abc import Iterable

import jax
from jax import ShapeDtypeStruct
from jax.sharding import Mesh, NamedSharding

from frcnn_jax.data.records import Batch, empty_batch
from frcnn_jax.distributed import BATCH_SHARDED, memory_needed
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
        total, arguments = memory_needed(step)
        _logger.info(
            "canvas %d x %d: traced in %.1f s, compiled in %.1f s; a device needs "
            "%.2f GiB of memory, %.2f for its arguments",
            *canvas,
            traced - began,
            time.perf_counter() - traced,
            total / 2**30,
            arguments / 2**30,
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
    sharding = NamedSharding(mesh, BATCH_SHARDED)
    return Batch(
        *(
            ShapeDtypeStruct(field.shape, field.dtype, sharding=sharding)
            for field in empty_batch(batch_size, canvas, max_objects)
        )
    )
