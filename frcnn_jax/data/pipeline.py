"""Turns a source into batches: which images, on which canvas, read by whom.

The batch of a step is a pure function of (source, config, batch size, seed, step).
Neither the number of worker processes nor a stop and a resume in between change a bit
of it, and the shares of several processes, put together, are the batches of one.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator

import grain
import numpy as np

from frcnn_jax.config import DataConfig
from frcnn_jax.data import order, transforms
from frcnn_jax.data.prefetching import read_ahead
from frcnn_jax.data.reading import Reader
from frcnn_jax.data.records import Batch, Source, check_max_objects
from frcnn_jax.errors import UserError


def check_source(source: Source, config: DataConfig) -> None:
    """Checks that there are images and that all of them fit into a batch.

    At the start rather than at the first such image, which may be hours away.

    Raises:
      UserError: The source is empty, or an image has too many objects or does not fit
        into any canvas.
    """
    _choose_canvases(source, config)


def steps_per_epoch(source: Source, config: DataConfig, batch_size: int) -> int:
    """Counts the batches of `train_batches` that have each image once.

    Raises:
      UserError: As for `check_source`.
    """
    chosen = _choose_canvases(source, config)
    return order.Order(chosen, batch_size, seed=0).steps_per_epoch


def used_canvases(source: Source, config: DataConfig) -> tuple[tuple[int, int], ...]:
    """Lists the canvases, (height, width), that any image of the source takes.

    Raises:
      UserError: As for `check_source`.
    """
    chosen = _choose_canvases(source, config)
    return tuple(config.canvases[index] for index in np.unique(chosen))


def fingerprint(source: Source) -> str:
    """Digests class names and annotations, so that a changed data set is noticed.

    Returns:
      16 hexadecimal digits: the beginning of a SHA-256. The pixels have no part in it.
    """
    digest = hashlib.sha256(json.dumps(list(source.class_names)).encode())
    for annotation in source.annotations:
        size = [int(side) for side in annotation.image_size]
        head = [annotation.image_id, *size, len(annotation.boxes)]
        digest.update(json.dumps(head).encode())
        digest.update(annotation.boxes.astype("<f4").tobytes())
        digest.update(annotation.labels.astype("<i4").tobytes())
        digest.update(annotation.difficult.astype(bool).tobytes())
    return digest.hexdigest()[:16]


def train_batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields batches forever, in another order each epoch.

    Every epoch has each image once, and ends with a batch: the last batch of a canvas
    is filled up with images whose `image_mask` is False. Objects marked difficult are
    not in the batches.

    Args:
      source: The data set.
      config: How images are resized, padded and flipped, and by how many worker
        processes, each of which needs room for four batches in /dev/shm.
      batch_size: Images per batch, of all processes together.
      seed: Decides the order and the flips.
      start_step: How many batches to skip, without reading them.
      process_index: Which share of every batch to yield ...
      process_count: ... of so many of equal size.

    Returns:
      An iterator of `Batch`. Its `close()` ends the workers; so does letting it go.

    Raises:
      UserError: The source is empty, an image has too many objects or does not fit
        into any canvas, or the batch cannot be shared equally; while iterating, an
        image cannot be read or a worker died.
    """
    chosen = _choose_canvases(source, config)
    rows = _share(batch_size, process_index, process_count)
    reader = Reader(source, config, rows)
    endless = order.Order(chosen, batch_size, seed)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    return read_ahead(steps.map(endless.batch).map(reader.read), config.num_workers)


def evaluation_batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields each image once: canvas by canvas, in the order of the source within each.

    The last batch of a canvas is filled up with images whose `image_mask` is False.
    Every process sees the same number of batches.

    Args:
      source: The data set.
      config: As for `train_batches`, and so are the others; nothing is flipped.
      batch_size: Images per batch, of all processes together.
      process_index: Which share of every batch to yield ...
      process_count: ... of so many of equal size.

    Returns:
      An iterator of `Batch`. Its `close()` ends the workers; so does letting it go.

    Raises:
      UserError: As for `train_batches`.
    """
    config = dataclasses.replace(config, flip_probability=0.0)
    chosen = _choose_canvases(source, config)
    rows = _share(batch_size, process_index, process_count)
    reader = Reader(source, config, rows)
    planned = grain.MapDataset.source(order.plan_evaluation(chosen, batch_size))
    return read_ahead(planned.map(reader.read), config.num_workers)


def _choose_canvases(source: Source, config: DataConfig) -> np.ndarray:
    """Returns the index of every image's canvas, [N]; checks as `check_source`."""
    if not source.annotations:
        raise UserError("the data set has no images")
    check_max_objects(source.annotations, config.max_objects)
    chosen = []
    for annotation in source.annotations:
        size = transforms.fit(
            annotation.image_size,
            shorter_side=config.shorter_side,
            longer_side=config.longer_side,
        )
        chosen.append(transforms.choose_canvas(size, config.canvases))
        if chosen[-1] is None:
            listed = ", ".join(f"{height}x{width}" for height, width in config.canvases)
            raise UserError(
                f"image {annotation.image_id} is {size[0]}x{size[1]} pixels (height x "
                f"width) after resizing, but canvases is {listed}; "
                "enlarge one of canvases or reduce longer_side"
            )
    return np.array(chosen)


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns which images of a batch are a process's."""
    if batch_size % process_count:
        raise UserError(
            f"batch_size is {batch_size}, expected a multiple of the "
            f"{process_count} processes"
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)
