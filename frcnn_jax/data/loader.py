"""Loads batches: reads images, resizes, augments and pads them, ahead of their use.

The batch of a step is a pure function of (source, config, batch size, seed, step).
Neither the number of worker processes nor a stop and a resume change a bit of it, and
the shares of several processes add up to the batches of one.
"""

import dataclasses
import sys
from collections.abc import Generator

import grain
import numpy as np
from PIL import Image

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.augmentation import (
    draw_augmentation,
    enlargement_note,
    largest_size,
)
from frcnn_jax.data.image_cache import ImageCache, open_cache
from frcnn_jax.data.images import read_encoded
from frcnn_jax.data.prefetching import read_ahead
from frcnn_jax.data.records import (
    Annotation,
    Batch,
    Source,
    check_max_objects,
    empty_batch,
)
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
          config: how images are resized, augmented and padded, and by how many worker
            processes, each of which needs room for four batches in /dev/shm.
          batch_size: images per batch, of all processes together.
          seed: decides the order and the augmentation.
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
        self._reader = _BatchReader(source, config, rows, open_cache(config))
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
      config: as for `TrainLoader`; nothing is augmented.
      batch_size: images per batch, of all processes together.
      process_index: which share of every batch to load ...
      process_count: ... of this many shares of equal size.

    Returns:
      An iterator. Its `close()` ends the workers; so does letting it go.

    Raises:
      UserError: as for `TrainLoader` and its `batches`.
    """
    config = config.without_augmentation()
    canvas_indices = choose_canvases(source, config)
    rows = _process_rows(batch_size, process_index, process_count)
    reader = _BatchReader(source, config, rows, open_cache(config))
    planned = grain.MapDataset.source(plan_evaluation(canvas_indices, batch_size))
    return read_ahead(planned.map(reader.read), config.num_workers)


def choose_canvases(source: Source, config: DataConfig) -> np.ndarray:
    """Chooses the canvas of every image, and checks that all images fit into a batch.

    It does so at the start, as training may reach the first misfit hours later.

    Args:
      source: the data set.
      config: how images are resized and augmented, the canvases, and room for how many
        objects.

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
        [_choose_canvas(annotation, config) for annotation in source.annotations]
    )


def _choose_canvas(annotation: Annotation, config: DataConfig) -> int:
    size = annotation.image_size
    name = f"{annotation.image_id}{enlargement_note(size, config)}"
    return transforms.require_canvas(largest_size(size, config), config.canvases, name)


@dataclasses.dataclass(frozen=True)
class _BatchReader:
    """Reads a process's rows of planned batches. Picklable, for the workers."""

    source: Source
    config: DataConfig
    rows: slice  # of every batch
    cache: ImageCache | None

    def read(self, planned: PlannedBatch) -> Batch:
        """Reads the images of a batch; raises a `UserError` that names a broken one."""
        indices = planned.indices[self.rows]
        canvas = self.config.canvases[planned.canvas_index]
        batch = empty_batch(len(indices), canvas, self.config.max_objects)
        batch.indices[:] = indices
        batch.image_mask[:] = planned.image_mask[self.rows]
        for row, draw in enumerate(planned.draws[self.rows]):
            self._read_example(batch, row, draw)
        return batch

    def _read_example(self, batch: Batch, row: int, draw: float) -> None:
        """Reads the image of a row into the batch, with its objects."""
        index = int(batch.indices[row])
        annotation = self.source.annotations[index]
        is_easy = ~annotation.difficult
        boxes, labels = annotation.boxes[is_easy], annotation.labels[is_easy]
        augmentation = draw_augmentation(
            draw, annotation.image_size, boxes, self.config
        )
        image = self._read_resized(index, augmentation.window, augmentation.size)
        image, boxes, scale = augmentation.apply(image, boxes)
        height, width, _ = image.shape
        # By whole pixels, which copies flipped images twice as fast.
        batch.images.view("V3")[row, :height, :width] = image.view("V3")
        batch.image_sizes[row] = height, width
        batch.scales[row] = scale
        batch.boxes[row, : len(boxes)] = boxes
        batch.labels[row, : len(boxes)] = labels
        batch.box_mask[row, : len(boxes)] = True

    def _read_resized(
        self, index: int, window: transforms.Window, size: transforms.Size
    ) -> np.ndarray:
        encoded = read_encoded(self.source, index)
        if encoded is None:
            image = Image.fromarray(self.source.read_image(index))
        elif self.cache is None:
            image = encoded.decode()
        else:  # Its images are whole: the config has no crops.
            return self.cache.resize(encoded, size)
        return transforms.resize_part(image, window, size)


def _process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns which images of every batch are a process's."""
    if batch_size % process_count:
        raise UserError(
            f"batch_size is {batch_size}, expected a multiple of the "
            f"{process_count} processes"
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)
