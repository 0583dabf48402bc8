"""Turns a source into batches of one shape: read, resize, flip, pad, stack.

The batch of a step is a pure function of (source, options, seed, step). Neither the
number of worker processes nor a stop and a resume in between change a bit of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.records import Batch, Source, check_max_objects
from frcnn_jax.errors import UserError

# Per process, and counted in batches: grain's default would buffer 500 of them.
_NUM_THREADS = 4


def options(config: DataConfig) -> dict[str, Any]:
    """Picks what all functions here need to know of an image's size and objects."""
    names = ("shorter_side", "longer_side", "canvas", "max_objects")
    return {name: getattr(config, name) for name in names}


def check_source(
    source: Source,
    *,
    shorter_side: int,
    longer_side: int,
    canvas: tuple[int, int],
    max_objects: int,
) -> None:
    """Checks that there are images and that all of them fit into a batch.

    At the start rather than at the first such image, which may be hours away.

    Raises:
      UserError: The source is empty, or an image has too many objects or does not fit
        into the canvas.
    """
    if not source.annotations:
        raise UserError("the data set has no images")
    check_max_objects(source.annotations, max_objects)
    for annotation in source.annotations:
        height, width = transforms.fit(
            annotation.image_size, shorter_side=shorter_side, longer_side=longer_side
        )
        if height > canvas[0] or width > canvas[1]:
            raise UserError(
                f"image {annotation.image_id} is {height}x{width} pixels (height x "
                f"width) after resizing, but canvas is {canvas[0]}x{canvas[1]}; "
                "enlarge canvas or reduce longer_side"
            )


def train_batches(
    source: Source,
    *,
    batch_size: int,
    shorter_side: int,
    longer_side: int,
    canvas: tuple[int, int],
    max_objects: int,
    flip_probability: float,
    seed: int,
    start_step: int = 0,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yields batches forever, in another order each epoch.

    Every epoch has each image once; a batch may straddle two epochs, so that none is
    left out. Objects marked difficult are not in the batches.

    Args:
      source: The data set.
      batch_size: Images per batch.
      shorter_side: See `transforms.resize`, in pixels.
      longer_side: See `transforms.resize`, in pixels.
      canvas: (height, width) of the images of a batch, in pixels.
      max_objects: Boxes per image in a batch.
      flip_probability: How often an image is mirrored, 0..1.
      seed: Decides the order and the flips.
      start_step: How many batches to skip, without reading them.
      num_workers: Processes that read ahead; 0 reads ahead in threads. Each needs
        room for four batches in /dev/shm.

    Returns:
      An iterator of `Batch`. Its `close()` ends the processes; so does letting it go.

    Raises:
      UserError: The source is empty, an image has too many objects or does not fit
        into the canvas; while iterating, an image cannot be read.
    """
    sides = {"shorter_side": shorter_side, "longer_side": longer_side}
    reader = _Reader(source, sides, canvas, max_objects, flip_probability)
    indices = grain.MapDataset.range(len(source.annotations)).seed(seed)
    # Batching before `to_iter_dataset`, since each worker batches its own share after
    # it; slicing last, since all before is a function of the absolute index. Without
    # `drop_remainder` grain rounds the endless length up and overflows.
    examples = indices.shuffle().repeat().random_map(reader.read_randomly)
    batches = examples.batch(batch_size, drop_remainder=True)
    return _iterate(batches[start_step:], num_workers)


def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    shorter_side: int,
    longer_side: int,
    canvas: tuple[int, int],
    max_objects: int,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yields each image once, in order.

    The last batch is filled up with images from the beginning, whose `image_mask` is
    False.

    Args:
      source: The data set.
      batch_size: Images per batch.
      shorter_side: See `transforms.resize`, in pixels.
      longer_side: See `transforms.resize`, in pixels.
      canvas: (height, width) of the images of a batch, in pixels.
      max_objects: Boxes per image in a batch.
      num_workers: Processes that read ahead; 0 reads ahead in threads. Each needs
        room for four batches in /dev/shm.

    Returns:
      An iterator of `Batch`. Its `close()` ends the processes; so does letting it go.

    Raises:
      UserError: As for `train_batches`.
    """
    sides = {"shorter_side": shorter_side, "longer_side": longer_side}
    reader = _Reader(source, sides, canvas, max_objects, flip_probability=0.0)
    num_positions = -(-len(source.annotations) // batch_size) * batch_size
    positions = grain.MapDataset.range(num_positions)
    return _iterate(
        positions.map(reader.read_cyclically).batch(batch_size), num_workers
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads images as batches without the leading axis. Picklable, for the workers."""

    source: Source
    sides: dict[str, int]  # The options of `transforms.fit`.
    canvas: tuple[int, int]
    max_objects: int
    flip_probability: float

    def __post_init__(self):
        check_source(
            self.source,
            canvas=self.canvas,
            max_objects=self.max_objects,
            **self.sides,
        )

    def read_randomly(self, index: int, rng: np.random.Generator) -> Batch:
        return self._read(index, flip=rng.random() < self.flip_probability)

    def read_cyclically(self, position: int) -> Batch:
        num_images = len(self.source.annotations)
        example = self._read(position % num_images, flip=False)
        return example._replace(image_mask=np.bool_(position < num_images))

    def _read(self, index: int, *, flip: bool) -> Batch:
        annotation = self.source.annotations[index]
        image = self.source.read_image(index)
        chosen = ~annotation.difficult
        boxes, labels = annotation.boxes[chosen], annotation.labels[chosen]

        image, boxes, scale = transforms.resize(image, boxes, **self.sides)
        if flip:
            image, boxes = transforms.flip_horizontally(image, boxes)
        boxes, labels, mask = transforms.pad_boxes(boxes, labels, self.max_objects)
        return Batch(
            images=transforms.pad_to(image, self.canvas),
            image_sizes=np.array(image.shape[:2], np.float32),
            scales=scale,
            boxes=boxes,
            labels=labels,
            box_mask=mask,
            indices=np.int32(index),
            image_mask=np.True_,
        )


def _iterate(batches: grain.MapDataset, num_workers: int) -> Iterator[Batch]:
    if not flags.FLAGS.is_parsed():
        # Grain's worker processes ask for absl's flags, which only absl.app parses.
        flags.FLAGS.mark_as_parsed()
    read_options = grain.ReadOptions(_NUM_THREADS, _NUM_THREADS)
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
    batches = batches.to_iter_dataset(read_options).mp_prefetch(workers)
    return iter(batches.map(_copy) if num_workers else batches)


def _copy(batch: Batch) -> Batch:
    """Moves what a worker sent out of shared memory, which this frees."""
    return Batch(*map(np.array, batch))
