"""Loads batches: reads images, resizes, flips and pads them, ahead of their use.

The batch of a step is a pure function of (source, config, batch size, seed, step).
Neither the number of worker processes nor a stop and a resume change a bit of it, and
the shares of several processes add up to the batches of one.
"""

import dataclasses
import sys
from collections.abc import Generator

import grain
import numpy as np

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.prefetching import read_ahead
from frcnn_jax.data.records import Batch, Source, check_max_objects
from frcnn_jax.data.sampler import BatchSampler, PlannedBatch, plan_evaluation
from frcnn_jax.errors import UserError


class TrainLoader:
    """Endless batches of a source, in another order each epoch.

    Every epoch has each image once, and ends with a batch: a canvas's last batch is
    filled up with images whose `image_mask` is False. Objects marked difficult are left
    out.
    """

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Chooses every image's canvas; reads no image.

        Args:
          source: the data set.
          config: how images are resized, padded and flipped, and by how many worker
            processes, each of which needs room for four batches in /dev/shm.
          batch_size: images per batch, of all processes together.
          seed: decides the order and the flips.
          process_index: which share of every batch to load ...
          process_count: ... of this many shares of equal size.

        Raises:
          UserError: if the source is empty, an image has too many objects or fits into
            no canvas, or the batch cannot be shared equally.
        """
        canvas_indices = choose_canvases(source, config)
        self._config = config
        self._sampler = BatchSampler(canvas_indices, batch_size, seed)
        rows = _process_rows(batch_size, process_index, process_count)
        self._reader = _BatchReader(source, config, rows)
        # The (height, width) that the source's images need.
        self.canvases = tuple(config.canvases[i] for i in np.unique(canvas_indices))
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def batches(self, start_step: int = 0) -> Generator[Batch]:
        """Yields batches forever.

        Args:
          start_step: how many batches to skip, without reading them.

        Returns:
          An iterator. Its `close()` ends the workers; so does letting it go.

        Raises:
          UserError: while iterating, if an image cannot be read or a worker died.
        """
        steps = grain.MapDataset.range(start_step, sys.maxsize)
        planned = steps.map(self._sampler.batch)
        return read_ahead(planned.map(self._reader.read), self._config.num_workers)


def evaluation_batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """Yields each image once: canvas by canvas, in the order of the source within each.

    A canvas's last batch is filled up with images whose `image_mask` is False. Every
    process gets the same number of batches.

    Args:
      source: the data set.
      config: as for `TrainLoader`; nothing is flipped.
      batch_size: images per batch, of all processes together.
      process_index: which share of every batch to load ...
      process_count: ... of this many shares of equal size.

    Returns:
      An iterator. Its `close()` ends the workers; so does letting it go.

    Raises:
      UserError: as for `TrainLoader` and its `batches`.
    """
    config = dataclasses.replace(config, flip_probability=0.0)
    canvas_indices = choose_canvases(source, config)
    rows = _process_rows(batch_size, process_index, process_count)
    reader = _BatchReader(source, config, rows)
    planned = grain.MapDataset.source(plan_evaluation(canvas_indices, batch_size))
    return read_ahead(planned.map(reader.read), config.num_workers)


def choose_canvases(source: Source, config: DataConfig) -> np.ndarray:
    """Chooses the canvas of every image, and checks that all images fit into a batch.

    The check comes at the start, as the first image that does not may be hours away.

    Args:
      source: the data set.
      config: how images are resized, the canvases, and room for how many objects.

    Returns:
      [N] int, indices into `config.canvases`.

    Raises:
      UserError: if the source is empty, or an image has too many objects or fits into
        no canvas.
    """
    if not source.annotations:
        raise UserError("the data set has no images")
    check_max_objects(source.annotations, config.max_objects)
    return np.array(
        [
            transforms.choose_canvas_for(each.image_size, config, each.image_id)
            for each in source.annotations
        ]
    )


@dataclasses.dataclass(frozen=True)
class _BatchReader:
    """Reads a process's rows of planned batches. Picklable, for the workers."""

    source: Source
    config: DataConfig
    rows: slice  # of every batch

    def read(self, planned: PlannedBatch) -> Batch:
        """Reads the images of a batch; raises a `UserError` that names a broken one."""
        canvas = self.config.canvases[planned.canvas_index]
        flips = planned.flip_draws < self.config.flip_probability
        examples = [
            self._read_example(int(index), canvas, flip=flip, image_mask=mask)
            for index, flip, mask in zip(
                planned.indices[self.rows],
                flips[self.rows],
                planned.image_mask[self.rows],
                strict=True,
            )
        ]
        return Batch(*map(np.stack, zip(*examples, strict=True)))

    def _read_example(
        self, index: int, canvas: tuple[int, int], *, flip: bool, image_mask: np.bool_
    ) -> Batch:
        """Reads an image as a batch without the leading axis."""
        config, annotation = self.config, self.source.annotations[index]
        is_easy = ~annotation.difficult
        boxes, labels = annotation.boxes[is_easy], annotation.labels[is_easy]
        image, boxes, scale = transforms.resize(
            self.source.read_image(index),
            boxes,
            shorter_side=config.shorter_side,
            longer_side=config.longer_side,
            keep_aspect_ratio=config.keep_aspect_ratio,
        )
        if flip:
            image, boxes = transforms.flip_horizontally(image, boxes)
        boxes, labels, mask = transforms.pad_boxes(boxes, labels, config.max_objects)
        return Batch(
            images=transforms.pad_to(image, canvas),
            image_sizes=np.array(image.shape[:2], np.float32),
            scales=scale,
            boxes=boxes,
            labels=labels,
            box_mask=mask,
            indices=np.int32(index),
            image_mask=image_mask,
        )


def _process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns which images of every batch are a process's."""
    if batch_size % process_count:
        raise UserError(
            f"batch_size is {batch_size}, expected a multiple of the "
            f"{process_count} processes"
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)
