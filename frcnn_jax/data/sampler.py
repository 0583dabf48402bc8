"""Chooses the images of every batch.

A batch has images of one canvas only, and an epoch has each image once. A canvas's last
batch is filled up with images of the same canvas, which a mask excludes. So no batch
straddles two epochs, and every epoch has the same number of steps. The loss is the mean
over a batch's real images, so each of them weighs more where there are few.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np


class PlannedBatch(NamedTuple):
    """The images of a batch, yet to be read."""

    indices: np.ndarray  # [B] int, the image's index in its source.
    image_mask: np.ndarray  # [B] bool. False for the filler of a canvas's last batch.
    draws: np.ndarray  # [B] float in [0, 1), uniform; decide the augmentation.
    canvas_index: int  # Of all its images.


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSampler:
    """The endless order of training: the batch of a step, by (seed, step) alone.

    Example:
      >>> sampler = BatchSampler(np.array([0, 1, 0]), batch_size=2, seed=0)
      >>> sampler.steps_per_epoch
      2
      >>> [sorted(sampler.batch(step).indices.tolist()) for step in range(2)]
      [[1, 1], [0, 2]]
    """

    canvas_indices: np.ndarray  # [N] int, the canvas of every image.
    batch_size: int
    seed: int

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """The sum over the canvases of ceil(images / batch size)."""
        return int(_num_batches(self.canvas_indices, self.batch_size).sum())

    def batch(self, step: int) -> PlannedBatch:
        """Returns the batch of a step, counted from 0.

        An epoch's order is computed when its first batch is asked for, and kept.
        """
        epoch, position = divmod(int(step), self.steps_per_epoch)
        return _plan_epoch(self, epoch)[position]


# The threads that read ahead also need the next epoch. If two compute the same epoch at
# once, they get the same plan.
@functools.lru_cache(maxsize=2)
def _plan_epoch(sampler: BatchSampler, epoch: int) -> list[PlannedBatch]:
    """Plans all batches of an epoch."""
    rng = np.random.default_rng((sampler.seed, epoch))
    num_images = len(sampler.canvas_indices)
    planned = _form_batches(
        rng.permutation(num_images),
        sampler.canvas_indices,
        sampler.batch_size,
        draws=rng.random(num_images),
    )
    return [planned[index] for index in rng.permutation(sampler.steps_per_epoch)]


def plan_evaluation(canvas_indices: np.ndarray, batch_size: int) -> list[PlannedBatch]:
    """Plans batches of each image once: canvas by canvas, in order within each.

    Args:
      canvas_indices: [N] int, the canvas of every image.
      batch_size: images per batch.

    Returns:
      The batches; the last one of a canvas is filled up with its first images.
    """
    num_images = len(canvas_indices)
    return _form_batches(
        np.arange(num_images),
        canvas_indices,
        batch_size,
        draws=np.zeros(num_images),
    )


def _form_batches(
    images: np.ndarray,
    canvas_indices: np.ndarray,
    batch_size: int,
    *,
    draws: np.ndarray,
) -> list[PlannedBatch]:
    """Groups images, in this order, into batches of one canvas each."""
    batches = []
    for canvas_index, count in enumerate(_num_batches(canvas_indices, batch_size)):
        chosen = images[canvas_indices[images] == canvas_index]
        rows = np.resize(chosen, (count, batch_size))  # Repeats cyclically.
        masks = (np.arange(rows.size) < len(chosen)).reshape(rows.shape)
        batches += [
            PlannedBatch(indices, image_mask, draws[indices], canvas_index)
            for indices, image_mask in zip(rows, masks, strict=True)
        ]
    return batches


def _num_batches(canvas_indices: np.ndarray, batch_size: int) -> np.ndarray:
    """Counts the batches of each canvas."""
    return -(-np.bincount(canvas_indices) // batch_size)
