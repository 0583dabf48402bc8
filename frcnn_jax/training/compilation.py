"""Compiles the training step for every canvas before the first step."""

import logging
import os
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import Mesh, NamedSharding

from frcnn_jax.data.records import Batch
from frcnn_jax.parallel import DIVIDED
from frcnn_jax.training.step import TrainState, TrainStep

Canvas = tuple[int, int]

_logger = logging.getLogger(__name__)


def keep_compiled(folder: str) -> None:
    """Keeps what XLA compiles in a folder, for the next start; not if it is empty.

    A folder that JAX was given otherwise, as by JAX_COMPILATION_CACHE_DIR, stays.
    """
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compile_steps(
    train_step: TrainStep,
    state: TrainState,
    mesh: Mesh,
    *,
    canvases: Iterable[Canvas],
    batch_size: int,
    max_objects: int,
) -> dict[Canvas, TrainStep]:
    """Compiles the step for batches of each canvas, and tells time and memory.

    Args:
      train_step: what `make_train_step` made.
      state: of the run, or its shapes, types and shardings.
      mesh: the devices.
      canvases: (height, width) of the images.
      batch_size: images per batch, of all devices together.
      max_objects: slots for objects per image.
    """
    compiled = {}
    for canvas in canvases:
        batch = _batch_shapes(batch_size, canvas, max_objects, mesh)
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


def _batch_shapes(
    batch_size: int, canvas: Canvas, max_objects: int, mesh: Mesh
) -> Batch:
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
    sharding = NamedSharding(mesh, DIVIDED)
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
    kept = analysis.argument_size_in_bytes
    made = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    total = kept + made + analysis.temp_size_in_bytes
    return f"{total / 2**30:.2f} GiB of memory, {kept / 2**30:.2f} for what it keeps"
